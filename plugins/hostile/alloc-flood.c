/*
 * Allocates until the gateway says stop. Expected: NULL at some point; answers 200 with the body "0".
 */
#include "hostile.h"
static rw_verdict on_request(rw_cx *cx, const rw_request *request) {
  void *memory = cx;
  (void)request;
  for (int i = 0; i < 1000000 && memory != NULL; i++) memory = cx->host->alloc(cx, 4096);
  return respond_number(cx, memory != NULL);
}
#define NAME "hostile-alloc-flood"
#define WANTS RW_WANT_RESPOND
#define ON_REQUEST on_request
#include "descriptor.h"
