/*
 * Sets the status of a response that does not exist yet. Expected: RW_ERR_WRONG_HOOK; answers 200 with the body "-2".
 */
#include "hostile.h"
static rw_verdict on_request(rw_cx *cx, const rw_request *request) {
  (void)request;
  return respond_number(cx, cx->host->status_set(cx, 418));
}
#define NAME "hostile-wrong-hook"
#define WANTS (RW_WANT_EDIT_RESPONSE | RW_WANT_RESPOND)
#define ON_REQUEST on_request
#include "descriptor.h"
