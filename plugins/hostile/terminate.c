/*
 * Sends itself a signal that nobody handles. Expected: `verify` refuses it: "was killed by signal 15".
 */
#define _POSIX_C_SOURCE 200809L
#include <signal.h>

#include "hostile.h"
static rw_verdict on_request(rw_cx *cx, const rw_request *request) {
  (void)cx;
  (void)request;
  raise(SIGTERM);
  return RW_CONTINUE;
}
#define NAME "hostile-terminate"
#define ON_REQUEST on_request
#include "descriptor.h"
