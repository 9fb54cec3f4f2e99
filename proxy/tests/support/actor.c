/*
 * actor.c - a plugin for tests that does what the request tells it to.
 *
 * The request header x-act lists what which instance does in which hook: "B.request=respond:201,C.response=abort". The tag of an instance is
 * its configuration {"tag": "B"}. Without an order it goes on. Before that, on_request adds "x-order: TAG" to the request and
 * on_response "x-order-post: TAG" to the response, and on_event "x-event: TAG" to the message that waits; the metrics count its hooks. The second
 * event of an exchange is "event2", and so on; "request-chunk2" is every piece but the first.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "ringway-wait.h"
#include "ringway.h"

#define HOOKS                                                                                                        \
  (RW_HOOK_REQUEST | RW_HOOK_REQUEST_CHUNK | RW_HOOK_REQUEST_BODY | RW_HOOK_RESPONSE | RW_HOOK_RESPONSE_CHUNK | RW_HOOK_EVENT | \
   RW_HOOK_DONE)
#define WANTS                                                                                                        \
  (RW_WANT_EDIT_REQUEST | RW_WANT_EDIT_RESPONSE | RW_WANT_EDIT_REQUEST_BODY | RW_WANT_EDIT_RESPONSE_BODY | RW_WANT_RESPOND | \
   RW_WANT_REQUEST_BODY | RW_WANT_UPSTREAM | RW_WANT_SUSPEND)

enum { REQUEST, REQUEST_CHUNK, REQUEST_BODY, RESPONSE, RESPONSE_CHUNK, DONE, DONE_STATUS, REQUEST_BYTES, RESPONSE_BYTES, DIRTY, EVENT, EVENT_KIND, EVENT_TOKEN, METRICS };

typedef struct instance {
  char tag;
} instance;

typedef struct exchange {
  uint32_t seen;
  uint32_t events;
} exchange;

static const rw_wait *wait_table;

static const char *find(const char *text, size_t len, const char *needle) {
  size_t n = strlen(needle);
  for (size_t i = 0; i + n <= len; i++) {
    if (memcmp(text + i, needle, n) == 0) return text + i + n;
  }
  return NULL;
}

/* The order for this hook, without the part before '='; *len is its length. */
static const char *order(const rw_cx *cx, const char *hook, size_t *len) {
  const rw_request *request = cx->request;
  const instance *self = cx->core;
  char key[32] = {self->tag, '.'};
  strcat(key, hook);
  strcat(key, "=");
  for (uint32_t i = 0; i < request->headers.len; i++) {
    const rw_header *header = rw_header_at(&request->headers, request->entry_size, i);
    if (header->name.len != 5 || memcmp(rw_name_bytes(&header->name), "x-act", 5) != 0) continue;
    const char *value = (const char *)rw_bytes(&header->value);
    const char *at = find(value, header->value.len, key);
    if (at == NULL) return NULL;
    const char *end = memchr(at, ',', (size_t)(value + header->value.len - at));
    *len = (size_t)((end == NULL ? value + header->value.len : end) - at);
    return at;
  }
  return NULL;
}

static rw_status add(rw_cx *cx, uint32_t side, const char *name) {
  const instance *self = cx->core;
  return cx->host->header_add(cx, side, (const uint8_t *)name, (uint32_t)strlen(name), (const uint8_t *)&self->tag, 1);
}

static rw_verdict respond(rw_cx *cx, uint32_t status, uint32_t bytes) {
  const instance *self = cx->core;
  if (cx->host->resp_begin(cx, status) < 0) return RW_ABORTED;
  if (add(cx, RW_SIDE_RESPONSE, "x-from") < 0) return RW_ABORTED;
  uint8_t *room = cx->host->resp_reserve(cx, bytes);
  if (room == NULL) return RW_ABORTED;
  memset(room, self->tag, bytes);
  return cx->host->resp_commit(cx, bytes) < 0 ? RW_ABORTED : RW_RESPOND;
}

static rw_verdict act(rw_cx *cx, const char *hook) {
  size_t len = 0;
  const char *text = order(cx, hook, &len);
  const char *value;
  if (text == NULL) return RW_CONTINUE;
  if (find(text, len, "abort") == text + 5) return RW_ABORTED;
  if (find(text, len, "drop") == text + 4) return RW_DROP;
  if (find(text, len, "done") == text + 4) return RW_DONE;
  if (find(text, len, "suspend") == text + 7) return RW_SUSPEND;
  if ((value = find(text, len, "timer:")) == text + 6) {
    return wait_table->timer(cx, (uint64_t)atoi(value) * 1000000, (uint64_t)atoi(value)) < 0 ? RW_ABORTED : RW_SUSPEND;
  }
  if ((value = find(text, len, "timers:")) == text + 7) {
    if (wait_table->timer(cx, 1000000, 1) < 0) return RW_ABORTED;
    return wait_table->timer(cx, (uint64_t)atoi(value) * 1000000, (uint64_t)atoi(value)) < 0 ? RW_ABORTED : RW_SUSPEND;
  }
  if ((value = find(text, len, "arm:")) == text + 4) {
    return wait_table->timer(cx, (uint64_t)atoi(value) * 1000000, 0) < 0 ? RW_ABORTED : RW_CONTINUE;
  }
  if ((value = find(text, len, "wake:")) == text + 5) {
    if (wait_table->wake(cx->request->request_id, cx->link, (uint64_t)atoi(value)) < 0) return RW_ABORTED;
    return RW_SUSPEND;
  }
  if ((value = find(text, len, "wake-timer:")) == text + 11) {
    if (wait_table->wake(cx->request->request_id, cx->link, (uint64_t)atoi(value)) < 0) return RW_ABORTED;
    return wait_table->timer(cx, 1000000, 1) < 0 ? RW_ABORTED : RW_SUSPEND;
  }
  if ((value = find(text, len, "wake-twice:")) == text + 11) {
    for (int i = 0; i < 2; i++) {
      if (wait_table->wake(cx->request->request_id, cx->link, (uint64_t)atoi(value) + (uint64_t)i) < 0) return RW_ABORTED;
    }
    return RW_SUSPEND;
  }
  if (find(text, len, "need-body") == text + 9) return RW_NEED_BODY;
  if (find(text, len, "claim") == text + 5) return RW_RESPOND;
  if (find(text, len, "begin") == text + 5) return respond(cx, 299, 4) == RW_RESPOND ? RW_CONTINUE : RW_ABORTED;
  if ((value = find(text, len, "respond:")) == text + 8) return respond(cx, (uint32_t)atoi(value), 1);
  if ((value = find(text, len, "large:")) == text + 6) return respond(cx, 200, (uint32_t)atoi(value));
  if ((value = find(text, len, "status:")) == text + 7) return cx->host->status_set(cx, (uint32_t)atoi(value)) < 0 ? RW_ABORTED : RW_CONTINUE;
  if ((value = find(text, len, "replace:")) == text + 8) {
    return cx->host->body_replace(cx, (const uint8_t *)value, (uint64_t)(text + (ptrdiff_t)len - value)) < 0 ? RW_ABORTED : RW_CONTINUE;
  }
  if ((value = find(text, len, "swap:")) == text + 5) {
    if (cx->host->body_replace(cx, (const uint8_t *)value, (uint64_t)(text + (ptrdiff_t)len - value)) < 0) return RW_ABORTED;
    return respond(cx, 200, 1);
  }
  if ((value = find(text, len, "upstream:")) == text + 9) {
    return cx->host->upstream_set(cx, (const uint8_t *)value, (uint32_t)(text + (ptrdiff_t)len - value)) < 0 ? RW_ABORTED : RW_CONTINUE;
  }
  if ((value = find(text, len, "choose-abort:")) == text + 13) {
    cx->host->upstream_set(cx, (const uint8_t *)value, (uint32_t)(text + (ptrdiff_t)len - value));
    return RW_ABORTED;
  }
  return 999;
}

static void count(rw_cx *cx, uint32_t metric, uint64_t delta) { cx->host->metric_add(cx, metric, delta); }

static rw_verdict on_request(rw_cx *cx, const rw_request *request) {
  exchange *mine = cx->scratch;
  (void)request;
  count(cx, REQUEST, 1);
  if (mine->seen != 0) count(cx, DIRTY, 1);
  mine->seen = 1;
  if (add(cx, RW_SIDE_REQUEST, "x-order") < 0) return RW_ABORTED;
  return act(cx, "request");
}

static rw_verdict on_request_chunk(rw_cx *cx, const rw_chunk *chunk) {
  count(cx, REQUEST_CHUNK, 1);
  count(cx, REQUEST_BYTES, chunk->len);
  size_t len = 0;
  if (chunk->offset > 0 && order(cx, "request-chunk2", &len) != NULL) return act(cx, "request-chunk2");
  return act(cx, "request-chunk");
}

static rw_verdict on_request_body(rw_cx *cx, const rw_chunk *body) {
  count(cx, REQUEST_BODY, 1);
  count(cx, REQUEST_BYTES, body->len);
  return act(cx, "request-body");
}

static rw_verdict on_response(rw_cx *cx, const rw_response *response) {
  (void)response;
  count(cx, RESPONSE, 1);
  if (add(cx, RW_SIDE_RESPONSE, "x-order-post") < 0) return RW_ABORTED;
  return act(cx, "response");
}

static rw_verdict on_response_chunk(rw_cx *cx, const rw_chunk *chunk) {
  count(cx, RESPONSE_CHUNK, 1);
  count(cx, RESPONSE_BYTES, chunk->len);
  return act(cx, "response-chunk");
}

static rw_verdict on_event(rw_cx *cx, const rw_event *event) {
  exchange *mine = cx->scratch;
  char hook[] = "event\0";
  count(cx, EVENT, 1);
  cx->host->metric_set(cx, EVENT_KIND, event->kind);
  cx->host->metric_set(cx, EVENT_TOKEN, event->token);
  if (mine->events++ > 0) hook[5] = (char)('0' + mine->events);
  if (add(cx, cx->response == NULL ? RW_SIDE_REQUEST : RW_SIDE_RESPONSE, "x-event") < 0) return RW_ABORTED;
  return act(cx, hook);
}

static rw_verdict on_done(rw_cx *cx, const rw_done *done) {
  count(cx, DONE, 1);
  cx->host->metric_set(cx, DONE_STATUS, done->status);
  return RW_CONTINUE;
}

static rw_status load(const rw_host *host, rw_loader *loader, const uint8_t *config, uint32_t config_len, void **state) {
  const char *tag = find((const char *)config, config_len, "\"tag\":\"");
  instance *self = malloc(sizeof *self);
  wait_table = host->get_ext(loader, RW_EXT_WAIT);
  if (wait_table == NULL || host->get_ext(loader, "ringway.wait/0") != NULL) return RW_ERR_NOT_FOUND;
  if (self == NULL || tag == NULL) return RW_ERR_BAD_ARGUMENT;
  self->tag = *tag;
  *state = self;
  return RW_OK;
}

static void unload(void *state) { free(state); }

static const rw_metric_def metrics[METRICS] = {
    [REQUEST] = {.name = "request", .help = "", .kind = RW_METRIC_COUNTER},
    [REQUEST_CHUNK] = {.name = "request_chunk", .help = "", .kind = RW_METRIC_COUNTER},
    [REQUEST_BODY] = {.name = "request_body", .help = "", .kind = RW_METRIC_COUNTER},
    [RESPONSE] = {.name = "response", .help = "", .kind = RW_METRIC_COUNTER},
    [RESPONSE_CHUNK] = {.name = "response_chunk", .help = "", .kind = RW_METRIC_COUNTER},
    [DONE] = {.name = "done", .help = "", .kind = RW_METRIC_COUNTER},
    [DONE_STATUS] = {.name = "done_status", .help = "", .kind = RW_METRIC_GAUGE},
    [REQUEST_BYTES] = {.name = "request_bytes", .help = "", .kind = RW_METRIC_COUNTER},
    [RESPONSE_BYTES] = {.name = "response_bytes", .help = "", .kind = RW_METRIC_COUNTER},
    [DIRTY] = {.name = "dirty", .help = "", .kind = RW_METRIC_COUNTER},
    [EVENT] = {.name = "event", .help = "", .kind = RW_METRIC_COUNTER},
    [EVENT_KIND] = {.name = "event_kind", .help = "", .kind = RW_METRIC_GAUGE},
    [EVENT_TOKEN] = {.name = "event_token", .help = "", .kind = RW_METRIC_GAUGE},
};

RW_DEFINE_NOTE("actor", "1.0.0", RW_LANG_C, HOOKS, WANTS, sizeof(exchange));

const rw_plugin ringway_plugin_v1 = {
    .size = sizeof(rw_plugin),
    .abi_major = RW_ABI_MAJOR,
    .abi_minor = RW_ABI_MINOR,
    .language = RW_LANG_C,
    .scratch_bytes = sizeof(exchange),
    .layout_fingerprint = RW_LAYOUT_FINGERPRINT,
    .wants = WANTS,
    .hooks = HOOKS,
    .name = "actor",
    .version = "1.0.0",
    .metrics = metrics,
    .metric_count = METRICS,
    .metric_bytes = sizeof(rw_metric_def),
    .load = load,
    .unload = unload,
    .on_request = on_request,
    .on_request_chunk = on_request_chunk,
    .on_request_body = on_request_body,
    .on_response = on_response,
    .on_response_chunk = on_response_chunk,
    .on_event = on_event,
    .on_done = on_done,
};
