/*
 * Puts a line break into the target of an outcall, to send a second request behind the first. Expected: RW_ERR_BAD_BYTES, nothing leaves; `verify` refuses
 * it: "passed bytes to `outcall.begin`".
 */
#include "hostile.h"
#include "outcall.h"
static rw_verdict on_request(rw_cx *cx, const rw_request *request) {
  static const char target[] = "/ HTTP/1.1\r\nhost: x\r\n\r\nGET /second";
  (void)request;
  if (outcalls->begin(cx, service, (const uint8_t *)"GET", 3, (const uint8_t *)target, sizeof target - 1) != RW_ERR_BAD_BYTES) return RW_ABORTED;
  if (outcalls->send(cx, 0) != RW_ERR_WRONG_HOOK) return RW_ABORTED;
  return RW_CONTINUE;
}
#define NAME "hostile-outcall-crlf"
#define ON_REQUEST on_request
#include "outcall-descriptor.h"
