/*
 * Writes to the root of the response. Expected: `verify` refuses it: "wrote to the response view, which is read only".
 */
#include "hostile.h"
static rw_verdict on_response(rw_cx *cx, const rw_response *response) {
  (void)cx;
  ((volatile rw_response *)(uintptr_t)response)->status = 200;
  return RW_CONTINUE;
}
#define NAME "hostile-write-response"
#define ON_RESPONSE on_response
#define HOOKS (RW_HOOK_REQUEST | RW_HOOK_RESPONSE)
#include "descriptor.h"
