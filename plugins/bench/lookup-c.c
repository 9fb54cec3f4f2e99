/*
 * bench-lookup-c - looks one header up by id and goes on: what a hook costs at least.
 */
#include "ringway.h"

#define HOOKS RW_HOOK_REQUEST
#define WANTS 0

static rw_verdict on_request(rw_cx *cx, const rw_request *request) {
  (void)cx;
  const rw_header *header = rw_request_header(request, RW_H_USER_AGENT);
  return header != NULL && header->value.len > 65000 ? RW_DONE : RW_CONTINUE;
}

RW_DEFINE_NOTE("bench-lookup-c", "1.0.0", RW_LANG_C, HOOKS, WANTS, 0);

const rw_plugin ringway_plugin_v1 = {
    .size = sizeof(rw_plugin),
    .abi_major = RW_ABI_MAJOR,
    .abi_minor = RW_ABI_MINOR,
    .language = RW_LANG_C,
    .layout_fingerprint = RW_LAYOUT_FINGERPRINT,
    .wants = WANTS,
    .hooks = HOOKS,
    .name = "bench-lookup-c",
    .version = "1.0.0",
    .on_request = on_request,
};
