/*
 * Returns RW_RESPOND without having declared RW_WANT_RESPOND. Expected: counts as RW_ABORTED.
 */
#include "hostile.h"
static rw_verdict on_request(rw_cx *cx, const rw_request *request) {
  (void)request;
  cx->host->resp_begin(cx, 200);
  return RW_RESPOND;
}
#define NAME "hostile-respond-undeclared"
#define ON_REQUEST on_request
#include "descriptor.h"
