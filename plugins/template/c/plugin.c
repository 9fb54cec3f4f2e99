/*
 * A Ringway plugin in C. Copy this file and ringway.h, change the name, and build it with one command:
 *
 *     cc -O2 -fPIC -shared -fvisibility=hidden -I abi/include plugins/template/c/plugin.c -o my-plugin.so
 *
 * Look at what the gateway will see, then try it:
 *
 *     ringway plugin inspect my-plugin.so
 *     ringway proxy --from 127.0.0.1:8080 --to 127.0.0.1:9000 --plugin ./my-plugin.so
 *
 * Everything that a plugin may look at or call is described in ringway.h.
 */
#include "ringway.h"

/* Declare what the plugin does: calls that need a bit which is missing here fail. */
#define HOOKS RW_HOOK_RESPONSE
#define WANTS RW_WANT_EDIT_RESPONSE

/* Called for every response. Read by looking at `response`, write by calling `cx->host`. */
static rw_verdict on_response(rw_cx *cx, const rw_response *response) {
  static const uint8_t name[] = "x-hello", value[] = "from C";
  if (response->status >= 500) return RW_CONTINUE;
  /* The edit takes effect after this hook returned. Names and values are copied: no lifetime to think of. */
  rw_status status = cx->host->header_set(cx, RW_SIDE_RESPONSE, name, sizeof name - 1, value, sizeof value - 1);
  return status < 0 ? RW_ABORTED : RW_CONTINUE;
}

/* The same facts twice: in an ELF note, which is read before any code of this file runs ... */
RW_DEFINE_NOTE("template-c", "0.1.0", RW_LANG_C, HOOKS, WANTS, 0);

/* ... and in the descriptor. Everything that is not set stays 0, which means "not there". */
const rw_plugin ringway_plugin_v1 = {
    .size = sizeof(rw_plugin),
    .abi_major = RW_ABI_MAJOR,
    .abi_minor = RW_ABI_MINOR,
    .language = RW_LANG_C,
    .layout_fingerprint = RW_LAYOUT_FINGERPRINT,
    .wants = WANTS,
    .hooks = HOOKS,
    .name = "template-c",
    .version = "0.1.0",
    .on_response = on_response,
};
