/*
 * Changes a field of rw_cx. Expected: `verify` refuses it: "changed `rw_cx`, which belongs to the gateway".
 */
#include "hostile.h"
static rw_verdict on_request(rw_cx *cx, const rw_request *request) {
  (void)request;
  cx->now_unix_ns = 0;
  return RW_CONTINUE;
}
#define NAME "hostile-change-cx"
#define ON_REQUEST on_request
#include "descriptor.h"
