/*
 * Calls itself without end. Expected: `verify` refuses it: "used up the stack".
 */
#include "hostile.h"
static int deeper(volatile int *above) {
  volatile int here[256];
  here[0] = *above + 1;
  return here[0] == 0 ? 0 : deeper(here) + here[0];
}
static rw_verdict on_request(rw_cx *cx, const rw_request *request) {
  (void)cx;
  (void)request;
  volatile int top = 1;
  if (deeper(&top) == 0) return RW_DROP;
  return RW_CONTINUE;
}
#define NAME "hostile-stack-overflow"
#define ON_REQUEST on_request
#include "descriptor.h"
