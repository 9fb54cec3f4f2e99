/*
 * bench-respond - answers every request with 200 and 1 KiB, written straight into the send buffer.
 */
#include <string.h>

#include "ringway.h"

#define HOOKS RW_HOOK_REQUEST
#define WANTS RW_WANT_RESPOND

enum { BODY_BYTES = 1024 };

static rw_verdict on_request(rw_cx *cx, const rw_request *request) {
  (void)request;
  if (cx->host->resp_begin(cx, 200) < 0) return RW_ABORTED;
  uint8_t *room = cx->host->resp_reserve(cx, BODY_BYTES);
  if (room == NULL) return RW_ABORTED;
  memset(room, 'x', BODY_BYTES);
  return cx->host->resp_commit(cx, BODY_BYTES) < 0 ? RW_ABORTED : RW_RESPOND;
}

RW_DEFINE_NOTE("bench-respond", "1.0.0", RW_LANG_C, HOOKS, WANTS, 0);

const rw_plugin ringway_plugin_v1 = {
    .size = sizeof(rw_plugin),
    .abi_major = RW_ABI_MAJOR,
    .abi_minor = RW_ABI_MINOR,
    .language = RW_LANG_C,
    .layout_fingerprint = RW_LAYOUT_FINGERPRINT,
    .wants = WANTS,
    .hooks = HOOKS,
    .name = "bench-respond",
    .version = "1.0.0",
    .on_request = on_request,
};
