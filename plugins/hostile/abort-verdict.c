/*
 * Returns RW_ABORTED, and says why. Expected: the link fails; `verify` refuses it: "returned ABORTED, and logged: no luck today".
 */
#include "hostile.h"
static rw_verdict on_request(rw_cx *cx, const rw_request *request) {
  (void)request;
  static const char text[] = "no luck today";
  cx->host->log(cx, RW_LOG_WARN, (const uint8_t *)text, sizeof text - 1);
  return RW_ABORTED;
}
#define NAME "hostile-abort-verdict"
#define ON_REQUEST on_request
#include "descriptor.h"
