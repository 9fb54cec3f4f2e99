/*
 * Needs more thread-local memory than can be given after the start of a process. Expected: `verify` refuses it: "the dynamic loader refused it".
 */
#include "hostile.h"
__attribute__((tls_model("initial-exec"))) static _Thread_local volatile uint8_t table[1 << 20];
static rw_verdict on_request(rw_cx *cx, const rw_request *request) {
  (void)cx;
  (void)request;
  table[1] = 1;
  return RW_CONTINUE;
}
#define NAME "hostile-static-tls"
#define ON_REQUEST on_request
#include "descriptor.h"
