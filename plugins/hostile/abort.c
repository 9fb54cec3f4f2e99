/*
 * Calls abort. Expected: `verify` refuses it: "called abort()".
 */
#include <stdlib.h>

#include "hostile.h"
static rw_verdict on_request(rw_cx *cx, const rw_request *request) {
  (void)cx;
  (void)request;
  fputs("a last word\n", stderr);
  abort();
}
#define NAME "hostile-abort"
#define ON_REQUEST on_request
#include "descriptor.h"
