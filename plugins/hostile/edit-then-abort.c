/*
 * Edits the request, then fails. Expected: with on_error = "open" the upstream sees no x-half-done header.
 */
#include "hostile.h"
static rw_verdict on_request(rw_cx *cx, const rw_request *request) {
  (void)request;
  set_header(cx, RW_SIDE_REQUEST, "x-half-done", "1");
  return RW_ABORTED;
}
#define NAME "hostile-edit-then-abort"
#define WANTS RW_WANT_EDIT_REQUEST
#define ON_REQUEST on_request
#include "descriptor.h"
