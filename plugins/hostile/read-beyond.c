/*
 * Takes the path for a C string. Expected: `verify` refuses it: "went beyond the end of the request view".
 */
#include "hostile.h"
static rw_verdict on_request(rw_cx *cx, const rw_request *request) {
  (void)cx;
  const volatile uint8_t *path = rw_bytes(&request->path);
  while (*path != '\0') path++;
  return RW_CONTINUE;
}
#define NAME "hostile-read-beyond"
#define ON_REQUEST on_request
#include "descriptor.h"
