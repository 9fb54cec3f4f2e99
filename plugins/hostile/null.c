/*
 * Reads where there is nothing. Expected: `verify` refuses it: "died of SIGSEGV, at the address 0x8".
 */
#include "hostile.h"
static rw_verdict on_request(rw_cx *cx, const rw_request *request) {
  (void)cx;
  (void)request;
  volatile uintptr_t nowhere = 8;
  (void)*(volatile uint32_t *)nowhere;
  return RW_CONTINUE;
}
#define NAME "hostile-null"
#define ON_REQUEST on_request
#include "descriptor.h"
