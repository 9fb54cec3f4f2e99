/*
 * Writes one byte before its scratch memory. Expected: `verify` refuses it: "wrote over the edge of its scratch memory".
 */
#include "hostile.h"
static rw_verdict on_request(rw_cx *cx, const rw_request *request) {
  (void)request;
  ((volatile uint8_t *)cx->scratch)[-1] = 1;
  return RW_CONTINUE;
}
#define NAME "hostile-scratch-underflow"
#define ON_REQUEST on_request
#define SCRATCH 64
#include "descriptor.h"
