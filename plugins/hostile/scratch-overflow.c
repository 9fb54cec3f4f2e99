/*
 * Writes one byte behind its scratch memory. Expected: `verify` refuses it: "went beyond the end of its scratch memory".
 */
#include "hostile.h"
static rw_verdict on_request(rw_cx *cx, const rw_request *request) {
  (void)request;
  ((volatile uint8_t *)cx->scratch)[64] = 1;
  return RW_CONTINUE;
}
#define NAME "hostile-scratch-overflow"
#define ON_REQUEST on_request
#define SCRATCH 64
#include "descriptor.h"
