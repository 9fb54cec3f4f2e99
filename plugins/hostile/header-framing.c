/*
 * Tries to change the framing of the message. Expected: RW_ERR_FORBIDDEN; answers 200 with the body "-6".
 */
#include "hostile.h"
static rw_verdict on_request(rw_cx *cx, const rw_request *request) {
  (void)request;
  return respond_number(cx, set_header(cx, RW_SIDE_REQUEST, "Transfer-Encoding", "chunked"));
}
#define NAME "hostile-header-framing"
#define WANTS (RW_WANT_EDIT_REQUEST | RW_WANT_RESPOND)
#define ON_REQUEST on_request
#include "descriptor.h"
