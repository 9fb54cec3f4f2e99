/*
 * Writes to the path of the request. Expected: `verify` refuses it: "wrote to the request view, which is read only".
 */
#include "hostile.h"
static rw_verdict on_request(rw_cx *cx, const rw_request *request) {
  (void)cx;
  *(volatile uint8_t *)(uintptr_t)rw_bytes(&request->path) = '/';
  return RW_CONTINUE;
}
#define NAME "hostile-write-view"
#define ON_REQUEST on_request
#include "descriptor.h"
