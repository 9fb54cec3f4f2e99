/*
 * Writes more than it reserved. Expected: `verify` refuses it: "went beyond the end of memory from `resp_reserve`".
 */
#include "hostile.h"
static rw_verdict on_request(rw_cx *cx, const rw_request *request) {
  (void)request;
  volatile uint8_t *room;
  if (cx->host->resp_begin(cx, 200) < 0) return RW_ABORTED;
  room = cx->host->resp_reserve(cx, 4);
  if (room == NULL) return RW_ABORTED;
  for (int at = 0; at < 5; at++) room[at] = 'x';
  if (cx->host->resp_commit(cx, 4) == RW_OK) return RW_RESPOND;
  return RW_CONTINUE;
}
#define NAME "hostile-reserve-overflow"
#define ON_REQUEST on_request
#define WANTS RW_WANT_RESPOND
#include "descriptor.h"
