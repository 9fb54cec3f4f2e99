/*
 * Tries to smuggle a second header line into a value. Expected: RW_ERR_BAD_BYTES; answers 200 with the body "-3".
 */
#include "hostile.h"
static rw_verdict on_request(rw_cx *cx, const rw_request *request) {
  (void)request;
  return respond_number(cx, set_header(cx, RW_SIDE_REQUEST, "x-note", "a\r\nx-smuggled: 1"));
}
#define NAME "hostile-header-crlf"
#define WANTS (RW_WANT_EDIT_REQUEST | RW_WANT_RESPOND)
#define ON_REQUEST on_request
#include "descriptor.h"
