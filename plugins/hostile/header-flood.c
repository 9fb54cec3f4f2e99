/*
 * Adds headers until the gateway says stop. Expected: RW_ERR_NO_SPACE at some point; answers 200 with the body "-4".
 */
#include "hostile.h"
static rw_verdict on_request(rw_cx *cx, const rw_request *request) {
  static const uint8_t name[] = "x-flood", value[] = "0123456789012345678901234567890123456789";
  rw_status status = RW_OK;
  (void)request;
  for (int i = 0; i < 1000000 && status == RW_OK; i++) {
    status = cx->host->header_add(cx, RW_SIDE_REQUEST, name, sizeof name - 1, value, sizeof value - 1);
  }
  return respond_number(cx, status);
}
#define NAME "hostile-header-flood"
#define WANTS (RW_WANT_EDIT_REQUEST | RW_WANT_RESPOND)
#define ON_REQUEST on_request
#include "descriptor.h"
