/*
 * Commits more than it reserved, which would send memory that is not its own. Expected: RW_ERR_BAD_ARGUMENT; answers 200 with the body "-7".
 */
#include "hostile.h"
static rw_verdict on_request(rw_cx *cx, const rw_request *request) {
  (void)request;
  if (cx->host->resp_begin(cx, 200) < 0 || cx->host->resp_reserve(cx, 16) == NULL) return RW_ABORTED;
  return respond_number(cx, cx->host->resp_commit(cx, 1 << 16));
}
#define NAME "hostile-commit-too-much"
#define WANTS RW_WANT_RESPOND
#define ON_REQUEST on_request
#include "descriptor.h"
