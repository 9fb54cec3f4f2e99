/*
 * Writes one byte too many to memory from alloc. Expected: `verify` refuses it: "wrote over the edge of memory from `alloc`".
 */
#include "hostile.h"
static rw_verdict on_request(rw_cx *cx, const rw_request *request) {
  (void)request;
  volatile uint8_t *memory = cx->host->alloc(cx, 30);
  if (memory != NULL) memory[30] = 1;
  return RW_CONTINUE;
}
#define NAME "hostile-alloc-overflow"
#define ON_REQUEST on_request
#include "descriptor.h"
