/*
 * Runs an illegal instruction. Expected: `verify` refuses it: "died of SIGILL".
 */
#include "hostile.h"
static rw_verdict on_request(rw_cx *cx, const rw_request *request) {
  (void)cx;
  if (request != NULL) __builtin_trap();
  return RW_CONTINUE;
}
#define NAME "hostile-trap"
#define ON_REQUEST on_request
#include "descriptor.h"
