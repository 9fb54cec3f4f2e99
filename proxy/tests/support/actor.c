/*
 * actor.c - a plugin for tests that does what the request tells it to.
 *
 * The request header x-act lists what which instance does in which hook: "B.request=respond:201,C.response=abort". The tag of an instance is
 * its configuration {"tag": "B"}. Without an order it goes on. Before that, on_request adds "x-order: TAG" to the request and
 * on_response "x-order-post: TAG" to the response, and on_event "x-event: TAG" to the message that waits; the metrics count its hooks. The second
 * event of an exchange is "event2", and so on; "request-chunk2" is every piece but the first. Outcalls go to the upstream `other`, and what they bring is told
 * in x-reply.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "ringway-outcall.h"
#include "ringway-wait.h"
#include "ringway.h"

#define HOOKS                                                                                                        \
  (RW_HOOK_REQUEST | RW_HOOK_REQUEST_CHUNK | RW_HOOK_REQUEST_BODY | RW_HOOK_RESPONSE | RW_HOOK_RESPONSE_CHUNK | RW_HOOK_EVENT | \
   RW_HOOK_DONE)
#define WANTS                                                                                                        \
  (RW_WANT_EDIT_REQUEST | RW_WANT_EDIT_RESPONSE | RW_WANT_EDIT_REQUEST_BODY | RW_WANT_EDIT_RESPONSE_BODY | RW_WANT_RESPOND | \
   RW_WANT_REQUEST_BODY | RW_WANT_UPSTREAM | RW_WANT_SUSPEND | RW_WANT_OUTCALL)

enum { REQUEST, REQUEST_CHUNK, REQUEST_BODY, RESPONSE, RESPONSE_CHUNK, DONE, DONE_STATUS, REQUEST_BYTES, RESPONSE_BYTES, DIRTY, EVENT, EVENT_KIND, EVENT_TOKEN, EVENT_FAILURE, DONE_BYTES, METRICS };

typedef struct instance {
  char tag;
} instance;

typedef struct exchange {
  uint32_t seen;
  uint32_t events;
} exchange;

static const rw_wait *wait_table;
static const rw_outcall *calls;
static uint32_t other;

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

#define TEXT(text) (const uint8_t *)(text), (uint32_t)(sizeof(text) - 1)

/* One outcall: its target, and a body for POST. */
static rw_status call(rw_cx *cx, const char *target, size_t len, const char *body, size_t body_len, uint64_t token) {
  const instance *self = cx->core;
  rw_status status = body == NULL ? calls->begin(cx, other, TEXT("GET"), (const uint8_t *)target, (uint32_t)len)
                                  : calls->begin(cx, other, TEXT("POST"), TEXT("/"));
  if (status < 0) return status;
  status = calls->header(cx, TEXT("x-call"), (const uint8_t *)&self->tag, 1);
  if (status < 0) return status;
  if (body != NULL && (status = calls->body(cx, (const uint8_t *)body, (uint32_t)body_len)) < 0) return status;
  return calls->send(cx, token);
}

/* Everything that must be refused; 0 when all of it was, else the line that was not. */
static int bad_calls(rw_cx *cx) {
  static uint8_t large[1 << 20];
#define WANT(expected, got) \
  if ((got) != (expected)) return __LINE__
  WANT(RW_ERR_WRONG_HOOK, calls->header(cx, TEXT("x"), TEXT("y")));
  WANT(RW_ERR_WRONG_HOOK, calls->body(cx, TEXT("x")));
  WANT(RW_ERR_WRONG_HOOK, calls->send(cx, 0));
  WANT(RW_ERR_NOT_FOUND, calls->begin(cx, other + 1, TEXT("GET"), TEXT("/")));
  WANT(RW_ERR_NOT_FOUND, calls->begin(cx, UINT32_MAX, TEXT("GET"), TEXT("/")));
  WANT(RW_ERR_BAD_ARGUMENT, calls->begin(cx, other, NULL, 3, TEXT("/")));
  WANT(RW_ERR_BAD_ARGUMENT, calls->begin(cx, other, TEXT("GET"), NULL, 1));
  WANT(RW_ERR_BAD_BYTES, calls->begin(cx, other, TEXT("G T"), TEXT("/")));
  WANT(RW_ERR_BAD_BYTES, calls->begin(cx, other, TEXT(""), TEXT("/")));
  WANT(RW_ERR_BAD_BYTES, calls->begin(cx, other, TEXT("GET\r\n"), TEXT("/")));
  WANT(RW_ERR_BAD_BYTES, calls->begin(cx, other, TEXT("GET"), TEXT("")));
  WANT(RW_ERR_BAD_BYTES, calls->begin(cx, other, TEXT("GET"), TEXT("a")));
  WANT(RW_ERR_BAD_BYTES, calls->begin(cx, other, TEXT("GET"), TEXT("/ HTTP/1.1\r\nx: y\r\n\r\nGET /")));
  WANT(RW_ERR_BAD_BYTES, calls->begin(cx, other, TEXT("GET"), TEXT("/a b")));
  WANT(RW_ERR_BAD_BYTES, calls->begin(cx, other, TEXT("GET"), TEXT("http://h/")));
  WANT(RW_ERR_BAD_BYTES, calls->begin(cx, other, TEXT("GET"), TEXT("/a#b")));
  WANT(RW_ERR_FORBIDDEN, calls->begin(cx, other, TEXT("CONNECT"), TEXT("/")));
  WANT(RW_ERR_FORBIDDEN, calls->begin(cx, other, TEXT("TRACE"), TEXT("/")));
  for (size_t i = 0; i < sizeof large; i++) large[i] = '/';
  WANT(RW_ERR_NO_SPACE, calls->begin(cx, other, TEXT("GET"), large, sizeof large));
  /* None of them has begun anything. */
  WANT(RW_ERR_WRONG_HOOK, calls->send(cx, 0));
  WANT(RW_OK, calls->begin(cx, other, TEXT("GET"), TEXT("/fine")));
  WANT(RW_ERR_BAD_BYTES, calls->header(cx, TEXT("x y"), TEXT("z")));
  WANT(RW_ERR_BAD_BYTES, calls->header(cx, TEXT(""), TEXT("z")));
  WANT(RW_ERR_BAD_BYTES, calls->header(cx, TEXT("x"), TEXT("a\r\nb: c")));
  WANT(RW_ERR_BAD_BYTES, calls->header(cx, TEXT("x"), TEXT("a\nb")));
  WANT(RW_ERR_BAD_BYTES, calls->header(cx, TEXT("x"), TEXT("a\0b")));
  WANT(RW_ERR_BAD_BYTES, calls->header(cx, TEXT("host"), TEXT("a b")));
  WANT(RW_ERR_FORBIDDEN, calls->header(cx, TEXT("Content-Length"), TEXT("3")));
  WANT(RW_ERR_FORBIDDEN, calls->header(cx, TEXT("transfer-encoding"), TEXT("chunked")));
  WANT(RW_ERR_FORBIDDEN, calls->header(cx, TEXT("connection"), TEXT("close")));
  WANT(RW_ERR_FORBIDDEN, calls->header(cx, TEXT("upgrade"), TEXT("h2c")));
  WANT(RW_ERR_FORBIDDEN, calls->header(cx, TEXT("expect"), TEXT("100-continue")));
  WANT(RW_ERR_BAD_ARGUMENT, calls->header(cx, NULL, 1, TEXT("a")));
  WANT(RW_ERR_BAD_ARGUMENT, calls->header(cx, TEXT("x"), NULL, 1));
  WANT(RW_ERR_NO_SPACE, calls->header(cx, TEXT("x"), large, sizeof large));
  WANT(RW_ERR_BAD_ARGUMENT, calls->body(cx, NULL, 1));
  WANT(RW_ERR_NO_SPACE, calls->body(cx, large, sizeof large));
  WANT(RW_OK, calls->header(cx, TEXT("host"), TEXT("named:80")));
  WANT(RW_ERR_FORBIDDEN, calls->header(cx, TEXT("host"), TEXT("twice")));
  WANT(RW_OK, calls->body(cx, TEXT("first")));
  WANT(RW_OK, calls->body(cx, TEXT("2nd")));
  WANT(RW_OK, calls->header(cx, TEXT("x-last"), TEXT("yes")));
  WANT(RW_ERR_BAD_ARGUMENT, calls->send(NULL, 0));
  WANT(RW_OK, calls->send(cx, 5));
  WANT(RW_ERR_WRONG_HOOK, calls->send(cx, 5));
  return 0;
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
  if ((value = find(text, len, "call:")) == text + 5) {
    return call(cx, value, (size_t)(text + len - value), NULL, 0, 1) < 0 ? RW_ABORTED : RW_SUSPEND;
  }
  if ((value = find(text, len, "call-post:")) == text + 10) {
    return call(cx, NULL, 0, value, (size_t)(text + len - value), 1) < 0 ? RW_ABORTED : RW_SUSPEND;
  }
  if ((value = find(text, len, "call-and-go:")) == text + 12) {
    return call(cx, value, (size_t)(text + len - value), NULL, 0, 1) < 0 ? RW_ABORTED : RW_CONTINUE;
  }
  if ((value = find(text, len, "call-timer:")) == text + 11) {
    if (call(cx, "/", 1, NULL, 0, 1) < 0) return RW_ABORTED;
    return wait_table->timer(cx, (uint64_t)atoi(value) * 1000000, 9) < 0 ? RW_ABORTED : RW_SUSPEND;
  }
  if ((value = find(text, len, "calls:")) == text + 6) {
    for (int i = 0; i < atoi(value); i++) {
      char target[2] = {'/', (char)('a' + i)};
      rw_status status = call(cx, target, 2, NULL, 0, (uint64_t)i + 1);
      if (status < 0) {
        cx->host->metric_set(cx, EVENT_FAILURE, (uint64_t)-status);
        return RW_ABORTED;
      }
    }
    return RW_SUSPEND;
  }
  if (find(text, len, "call-bad") == text + 8) {
    int line = bad_calls(cx);
    cx->host->metric_set(cx, EVENT_FAILURE, (uint64_t)line);
    return line != 0 ? RW_ABORTED : RW_SUSPEND;
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

/* "x-reply: STATUS BODY COMPLETE X-USER" on the message that waits. */
static rw_status tell_reply(rw_cx *cx, const rw_response *reply) {
  char text[256];
  int len = snprintf(text, sizeof text, "%d %.*s %d", reply->status, (int)(reply->body.len < 100 ? reply->body.len : 100), (const char *)rw_bytes(&reply->body),
                     (reply->flags & RW_RES_BODY_COMPLETE) != 0);
  for (uint32_t i = 0; i < reply->headers.len; i++) {
    const rw_header *header = rw_header_at(&reply->headers, reply->entry_size, i);
    if (header->name.len != 6 || strncasecmp((const char *)rw_name_bytes(&header->name), "x-user", 6) != 0) continue;
    len += snprintf(text + len, sizeof text - (size_t)len, " %.*s", (int)header->value.len, (const char *)rw_bytes(&header->value));
  }
  uint32_t side = cx->response == NULL ? RW_SIDE_REQUEST : RW_SIDE_RESPONSE;
  if (reply->request_id != cx->request->request_id || reply->origin != RW_ORIGIN_UPSTREAM) return RW_ERR_BAD_ARGUMENT;
  return cx->host->header_add(cx, side, TEXT("x-reply"), (const uint8_t *)text, (uint32_t)len);
}

static rw_verdict on_event(rw_cx *cx, const rw_event *event) {
  exchange *mine = cx->scratch;
  char hook[] = "event\0";
  count(cx, EVENT, 1);
  cx->host->metric_set(cx, EVENT_KIND, event->kind);
  cx->host->metric_set(cx, EVENT_TOKEN, event->token);
  cx->host->metric_set(cx, EVENT_FAILURE, (uint64_t)-event->status);
  if ((event->response != NULL) != (event->kind == RW_EVENT_REPLY && event->status == RW_OK)) return RW_ABORTED;
  if (event->response != NULL && tell_reply(cx, event->response) < 0) return RW_ABORTED;
  if (mine->events++ > 0) hook[5] = (char)('0' + mine->events);
  if (add(cx, cx->response == NULL ? RW_SIDE_REQUEST : RW_SIDE_RESPONSE, "x-event") < 0) return RW_ABORTED;
  return act(cx, hook);
}

static rw_verdict on_done(rw_cx *cx, const rw_done *done) {
  count(cx, DONE, 1);
  cx->host->metric_set(cx, DONE_STATUS, done->status);
  cx->host->metric_set(cx, DONE_BYTES, done->response_body_bytes);
  return RW_CONTINUE;
}

static rw_status load(const rw_host *host, rw_loader *loader, const uint8_t *config, uint32_t config_len, void **state) {
  const char *tag = find((const char *)config, config_len, "\"tag\":\"");
  instance *self = malloc(sizeof *self);
  wait_table = host->get_ext(loader, RW_EXT_WAIT);
  if (wait_table == NULL || host->get_ext(loader, "ringway.wait/0") != NULL) return RW_ERR_NOT_FOUND;
  if (self == NULL || tag == NULL) return RW_ERR_BAD_ARGUMENT;
  calls = host->get_ext(loader, RW_EXT_OUTCALL);
  if (calls == NULL || calls->size < sizeof *calls) return RW_ERR_NOT_FOUND;
  rw_status number = calls->upstream(loader, TEXT("other"));
  if (number < 0 || calls->upstream(loader, TEXT("other")) != number) return RW_ERR_NOT_FOUND;
  if (calls->upstream(loader, TEXT("")) != RW_ERR_BAD_ARGUMENT || calls->upstream(loader, TEXT("\xff")) != RW_ERR_BAD_ARGUMENT) return RW_ERR_BAD_ARGUMENT;
  if (calls->upstream(loader, NULL, 3) != RW_ERR_BAD_ARGUMENT) return RW_ERR_BAD_ARGUMENT;
  other = (uint32_t)number;
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
    [DONE_BYTES] = {.name = "done_bytes", .help = "", .kind = RW_METRIC_GAUGE},
    [EVENT_FAILURE] = {.name = "event_failure", .help = "", .kind = RW_METRIC_GAUGE},
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
