/*
 * Ends the process. Expected: `verify` refuses it: "ended the process with exit code 0".
 */
#include <stdlib.h>

#include "hostile.h"
static rw_verdict on_request(rw_cx *cx, const rw_request *request) {
  (void)cx;
  (void)request;
  exit(0);
}
#define NAME "hostile-exit"
#define ON_REQUEST on_request
#include "descriptor.h"
