/*
 * Asks for every request body, then fails at each piece of a body. Expected: messages without a body pass; a request with a
 * body is answered 500, which this link is not shown; a response with a body is cut off, because its head has left.
 */
#include "hostile.h"
static rw_verdict on_request(rw_cx *cx, const rw_request *request) {
  (void)cx;
  (void)request;
  return RW_NEED_BODY;
}
static rw_verdict on_request_body(rw_cx *cx, const rw_chunk *body) {
  (void)cx;
  return body->offset == 0 && (body->flags & RW_CHUNK_LAST) != 0 ? RW_CONTINUE : RW_ABORTED;
}
static rw_verdict on_chunk(rw_cx *cx, const rw_chunk *chunk) {
  (void)cx;
  (void)chunk;
  return RW_ABORTED;
}
#define NAME "hostile-chunk-abort"
#define HOOKS (RW_HOOK_REQUEST | RW_HOOK_REQUEST_BODY | RW_HOOK_REQUEST_CHUNK | RW_HOOK_RESPONSE_CHUNK)
#define WANTS RW_WANT_REQUEST_BODY
#define ON_REQUEST on_request
#define ON_REQUEST_BODY on_request_body
#define ON_REQUEST_CHUNK on_chunk
#define ON_RESPONSE_CHUNK on_chunk
#include "descriptor.h"
