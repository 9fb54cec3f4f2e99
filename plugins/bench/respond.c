/*
 * bench-respond - answers every request with 200 and 1 KiB, written straight into the send buffer.
 */
#include <string.h>

#include "ringway.h"

#define HOOKS RW_HOOK_REQUEST
#define WANTS RW_WANT_RESPOND

enum { BODY_BYTES = 1024 };

/* The pattern that the origin of the bench harness answers with, so that its answers can be checked byte by byte. */
static uint8_t body[BODY_BYTES];

static rw_status load(const rw_host *host, rw_loader *loader, const uint8_t *config, uint32_t config_len, void **state) {
  (void)host, (void)loader, (void)config, (void)config_len, (void)state;
  for (uint32_t at = 0; at < BODY_BYTES; at++) body[at] = (uint8_t)('a' + (at ^ (at >> 8)) % 26u);
  return RW_OK;
}

static rw_verdict on_request(rw_cx *cx, const rw_request *request) {
  static const char name[] = "content-type", value[] = "text/plain";
  (void)request;
  if (cx->host->resp_begin(cx, 200) < 0) return RW_ABORTED;
  if (cx->host->header_add(cx, RW_SIDE_RESPONSE, (const uint8_t *)name, sizeof name - 1, (const uint8_t *)value, sizeof value - 1) < 0) return RW_ABORTED;
  uint8_t *room = cx->host->resp_reserve(cx, BODY_BYTES);
  if (room == NULL) return RW_ABORTED;
  memcpy(room, body, BODY_BYTES);
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
    .load = load,
    .on_request = on_request,
};
