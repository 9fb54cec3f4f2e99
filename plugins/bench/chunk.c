/*
 * bench-chunk - is shown every piece of a response body and counts its bytes: what a body hook costs at least.
 */
#include "ringway.h"

#define HOOKS RW_HOOK_RESPONSE_CHUNK
#define WANTS 0

typedef struct exchange {
  uint64_t bytes;
} exchange;

enum { METRIC_BYTES = 0 };

static rw_verdict on_response_chunk(rw_cx *cx, const rw_chunk *chunk) {
  exchange *mine = cx->scratch;
  mine->bytes += chunk->len;
  if (chunk->flags & RW_CHUNK_LAST) cx->host->metric_add(cx, METRIC_BYTES, mine->bytes);
  return RW_CONTINUE;
}

static const rw_metric_def metrics[] = {
    [METRIC_BYTES] = {.name = "response_body_bytes_total", .help = "Bytes of response bodies", .kind = RW_METRIC_COUNTER},
};

RW_DEFINE_NOTE("bench-chunk", "1.0.0", RW_LANG_C, HOOKS, WANTS, sizeof(exchange));

const rw_plugin ringway_plugin_v1 = {
    .size = sizeof(rw_plugin),
    .abi_major = RW_ABI_MAJOR,
    .abi_minor = RW_ABI_MINOR,
    .language = RW_LANG_C,
    .scratch_bytes = sizeof(exchange),
    .layout_fingerprint = RW_LAYOUT_FINGERPRINT,
    .wants = WANTS,
    .hooks = HOOKS,
    .name = "bench-chunk",
    .version = "1.0.0",
    .metrics = metrics,
    .metric_count = 1,
    .metric_bytes = sizeof(rw_metric_def),
    .on_response_chunk = on_response_chunk,
};
