/*
 * Asks for a gigabyte of send buffer. Expected: NULL; answers 200 with the body "0".
 */
#include "hostile.h"
static rw_verdict on_request(rw_cx *cx, const rw_request *request) {
  (void)request;
  if (cx->host->resp_begin(cx, 200) < 0) return RW_ABORTED;
  uint8_t *room = cx->host->resp_reserve(cx, UINT32_C(1) << 30);
  return respond_number(cx, room != NULL);
}
#define NAME "hostile-reserve-too-much"
#define WANTS RW_WANT_RESPOND
#define ON_REQUEST on_request
#include "descriptor.h"
