/*
 * Never returns from on_request. Expected: `verify` refuses it: "did not return within"; in a gateway it holds its worker.
 */
#include "hostile.h"
static rw_verdict on_request(rw_cx *cx, const rw_request *request) {
  (void)cx;
  (void)request;
  for (volatile int on = 1; on != 0;) continue;
  return RW_CONTINUE;
}
#define NAME "hostile-hang"
#define ON_REQUEST on_request
#include "descriptor.h"
