/*
 * Reads the path of the exchange before. Expected: `verify` refuses it: "used memory that it was given for an earlier hook or exchange".
 */
#include "hostile.h"
static const volatile uint8_t *kept;
static rw_verdict on_request(rw_cx *cx, const rw_request *request) {
  (void)cx;
  if (kept != NULL) (void)*kept;
  kept = rw_bytes(&request->path);
  return RW_CONTINUE;
}
#define NAME "hostile-keep-view"
#define ON_REQUEST on_request
#include "descriptor.h"
