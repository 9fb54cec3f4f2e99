/*
 * Edits the request without having declared it. Expected: RW_ERR_NOT_DECLARED; answers 200 with the body "-1".
 */
#include "hostile.h"
static rw_verdict on_request(rw_cx *cx, const rw_request *request) {
  (void)request;
  return respond_number(cx, set_header(cx, RW_SIDE_REQUEST, "x-note", "a"));
}
#define NAME "hostile-undeclared-edit"
#define WANTS RW_WANT_RESPOND
#define ON_REQUEST on_request
#include "descriptor.h"
