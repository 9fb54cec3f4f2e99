/*
 * Returns RW_RESPOND without having written a response. Expected: counts as RW_ABORTED.
 */
#include "hostile.h"
static rw_verdict on_request(rw_cx *cx, const rw_request *request) {
  (void)cx;
  (void)request;
  return RW_RESPOND;
}
#define NAME "hostile-respond-unwritten"
#define WANTS RW_WANT_RESPOND
#define ON_REQUEST on_request
#include "descriptor.h"
