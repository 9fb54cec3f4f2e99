/*
 * Writes to an address that is not there when the path is /crash. Expected: the process dies and its crash record names this plugin.
 */
#include "hostile.h"
static rw_verdict on_request(rw_cx *cx, const rw_request *request) {
  static const char path[] = "/crash";
  (void)cx;
  if (request->path.len == sizeof path - 1 && memcmp(rw_bytes(&request->path), path, sizeof path - 1) == 0) {
    volatile uintptr_t nowhere = 8;
    *(volatile uint32_t *)nowhere = 1;
  }
  return RW_CONTINUE;
}
#define NAME "hostile-segfault"
#define ON_REQUEST on_request
#include "descriptor.h"
