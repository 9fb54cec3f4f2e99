/*
 * Asks for the body without having declared it. Expected: the link fails; `verify` refuses it: "returned NEED_BODY, but `request-body` is not in its `wants`".
 */
#include "hostile.h"
static rw_verdict on_request(rw_cx *cx, const rw_request *request) {
  (void)cx;
  (void)request;
  return RW_NEED_BODY;
}
#define NAME "hostile-need-body-undeclared"
#define ON_REQUEST on_request
#include "descriptor.h"
