/*
 * delay - lets requests or responses wait, without keeping anybody else waiting: for tests of slow services, and against guessing.
 *
 * Config: {"milliseconds": 250, "response": false}. `milliseconds` (1 to 60000) is required. With "response" every response waits, whoever made it;
 * otherwise every request does. `timeouts.suspend` must be longer: it ends the wait, and the exchange goes on.
 */
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "json.h"
#include "ringway-wait.h"

#define HOOKS (RW_HOOK_REQUEST | RW_HOOK_RESPONSE | RW_HOOK_EVENT)
#define WANTS RW_WANT_SUSPEND

enum { MILLISECONDS_MAX = 60000 };

typedef struct shared {
  const rw_wait *wait;
  uint64_t delay_ns;
  bool response;
} shared;

static rw_verdict wait_for(rw_cx *cx, const shared *self) {
  return self->wait->timer(cx, self->delay_ns, 0) < 0 ? RW_ABORTED : RW_SUSPEND;
}

static rw_verdict on_request(rw_cx *cx, const rw_request *request) {
  const shared *self = cx->core;
  (void)request;
  return self->response ? RW_CONTINUE : wait_for(cx, self);
}

static rw_verdict on_response(rw_cx *cx, const rw_response *response) {
  const shared *self = cx->core;
  (void)response;
  return self->response ? wait_for(cx, self) : RW_CONTINUE;
}

/* The timer, or the end of the time that the route allows: either way it goes on. */
static rw_verdict on_event(rw_cx *cx, const rw_event *event) {
  (void)cx;
  (void)event;
  return RW_CONTINUE;
}

static rw_status refuse(const rw_host *host, rw_loader *loader, const char *text) {
  host->load_error(loader, (const uint8_t *)text, (uint32_t)strlen(text));
  return RW_ERR_BAD_ARGUMENT;
}

static rw_status load(const rw_host *host, rw_loader *loader, const uint8_t *config, uint32_t config_len, void **state) {
  shared *self = calloc(1, sizeof *self);
  if (self == NULL) return refuse(host, loader, "out of memory");
  json j = json_over(config, config_len);
  json_text key;
  uint64_t milliseconds = 0;
  json_begin_object(&j);
  while (json_next_key(&j, &key)) {
    if (json_is(&key, "milliseconds")) json_u64(&j, &milliseconds);
    else if (json_is(&key, "response")) json_bool(&j, &self->response);
    else json_fail(&j, "unknown key; this plugin knows \"milliseconds\" and \"response\"");
  }
  char text[160] = "";
  self->wait = host->get_ext(loader, RW_EXT_WAIT);
  if (!json_end(&j)) snprintf(text, sizeof text, "config, line %u: %s", json_line(&j), j.fault);
  else if (milliseconds == 0 || milliseconds > MILLISECONDS_MAX) snprintf(text, sizeof text, "\"milliseconds\" is required, 1 to %d", MILLISECONDS_MAX);
  else if (self->wait == NULL) snprintf(text, sizeof text, "this gateway has no %s", RW_EXT_WAIT);
  if (text[0] != '\0') {
    free(self);
    return refuse(host, loader, text);
  }
  self->delay_ns = milliseconds * 1000000;
  *state = self;
  return RW_OK;
}

static void unload(void *state) { free(state); }

RW_DEFINE_NOTE("delay", "1.0.0", RW_LANG_C, HOOKS, WANTS, 0);

const rw_plugin ringway_plugin_v1 = {
    .size = sizeof(rw_plugin),
    .abi_major = RW_ABI_MAJOR,
    .abi_minor = RW_ABI_MINOR,
    .language = RW_LANG_C,
    .layout_fingerprint = RW_LAYOUT_FINGERPRINT,
    .wants = WANTS,
    .hooks = HOOKS,
    .name = "delay",
    .version = "1.0.0",
    .load = load,
    .unload = unload,
    .on_request = on_request,
    .on_response = on_response,
    .on_event = on_event,
};
