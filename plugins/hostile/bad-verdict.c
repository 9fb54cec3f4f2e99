/*
 * Returns a verdict that does not exist. Expected: counts as RW_ABORTED, so 500 with on_error = "closed".
 */
#include "hostile.h"
static rw_verdict on_request(rw_cx *cx, const rw_request *request) {
  (void)cx;
  (void)request;
  return 999;
}
#define NAME "hostile-bad-verdict"
#define ON_REQUEST on_request
#include "descriptor.h"
