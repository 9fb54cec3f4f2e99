/*
 * Takes the body of a reply for a C string. Expected: `verify` refuses it: "went beyond the end of the response view".
 */
#include "hostile.h"
#include "outcall.h"
static rw_verdict on_request(rw_cx *cx, const rw_request *request) {
  (void)request;
  if (outcalls->begin(cx, service, (const uint8_t *)"GET", 3, (const uint8_t *)"/", 1) < 0 || outcalls->send(cx, 0) < 0) return RW_ABORTED;
  return RW_SUSPEND;
}
static rw_verdict on_event(rw_cx *cx, const rw_event *event) {
  (void)cx;
  if (event->response == NULL) return RW_CONTINUE;
  const volatile uint8_t *body = rw_bytes(&event->response->body);
  while (*body != '\0') body++;
  return RW_CONTINUE;
}
#define NAME "hostile-outcall-beyond"
#define ON_REQUEST on_request
#define HAS_EVENT on_event
#include "outcall-descriptor.h"
