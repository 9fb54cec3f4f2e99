/*
 * request-id.c - gives every request an x-request-id, shows it to the upstream, and echoes it to the client.
 *
 * Config: {"trust": false}. With "trust" a valid id that the client sent is kept: 1 to 128 of A-Z a-z 0-9 - _ . ~ + / = :
 * Otherwise, and always without "trust", a new one replaces whatever came: 32 hexadecimal digits, unique across processes
 * (64 random bits per core instance, then a counter).
 */
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "json.h"
#include "ringway.h"

#define HOOKS (RW_HOOK_REQUEST | RW_HOOK_RESPONSE)
#define WANTS (RW_WANT_EDIT_REQUEST | RW_WANT_EDIT_RESPONSE)

enum { ID_BYTES_MAX = 128, NEW_ID_BYTES = 32 };

static const uint8_t header_name[] = "x-request-id";
enum { HEADER_NAME_BYTES = sizeof header_name - 1 };

/* What the response hook needs to know about the request; zeroed when the exchange begins. */
typedef struct exchange {
  uint32_t id_bytes;
  uint8_t id[ID_BYTES_MAX];
} exchange;

typedef struct core {
  uint64_t seed;
  uint64_t count;
  bool trust;
} core;

static bool is_valid_id(const uint8_t *bytes, uint32_t len) {
  if (len == 0 || len > ID_BYTES_MAX) return false;
  for (uint32_t i = 0; i < len; i++) {
    uint8_t c = bytes[i], lower = c | 0x20;
    bool alphanumeric = (c >= '0' && c <= '9') || (lower >= 'a' && lower <= 'z');
    if (!alphanumeric && (c == 0 || strchr("-_.~+/=:", c) == NULL)) return false;
  }
  return true;
}

static void put_hex(uint8_t *out, uint64_t number) {
  for (int i = 15; i >= 0; i--, number >>= 4) out[i] = (uint8_t)"0123456789abcdef"[number & 15];
}

static rw_verdict on_request(rw_cx *cx, const rw_request *request) {
  core *self = cx->core;
  exchange *mine = cx->scratch;
  const rw_header *came = rw_request_header(request, RW_H_X_REQUEST_ID);
  if (self->trust && came != NULL && is_valid_id(rw_bytes(&came->value), came->value.len)) {
    mine->id_bytes = came->value.len;
    memcpy(mine->id, rw_bytes(&came->value), came->value.len);
    return RW_CONTINUE;
  }
  mine->id_bytes = NEW_ID_BYTES;
  put_hex(mine->id, self->seed);
  put_hex(mine->id + 16, self->count++);
  rw_status status = cx->host->header_set(cx, RW_SIDE_REQUEST, header_name, HEADER_NAME_BYTES, mine->id, mine->id_bytes);
  return status < 0 ? RW_ABORTED : RW_CONTINUE;
}

static rw_verdict on_response(rw_cx *cx, const rw_response *response) {
  (void)response;
  const exchange *mine = cx->scratch;
  if (mine->id_bytes == 0) return RW_CONTINUE; /* our request hook did not run */
  rw_status status = cx->host->header_set(cx, RW_SIDE_RESPONSE, header_name, HEADER_NAME_BYTES, mine->id, mine->id_bytes);
  return status < 0 ? RW_ABORTED : RW_CONTINUE;
}

static rw_status refuse(const rw_host *host, rw_loader *loader, const char *text) {
  host->load_error(loader, (const uint8_t *)text, (uint32_t)strlen(text));
  return RW_ERR_BAD_ARGUMENT;
}

static rw_status load(const rw_host *host, rw_loader *loader, const uint8_t *config, uint32_t config_len, void **state) {
  core *shared = calloc(1, sizeof *shared);
  if (shared == NULL) return refuse(host, loader, "out of memory");
  json j = json_over(config, config_len);
  json_text key;
  json_begin_object(&j);
  while (json_next_key(&j, &key)) {
    if (json_is(&key, "trust")) json_bool(&j, &shared->trust);
    else json_fail(&j, "unknown key; this plugin knows \"trust\"");
  }
  if (!json_end(&j)) {
    char text[160];
    snprintf(text, sizeof text, "config, line %u: %s", json_line(&j), j.fault);
    free(shared);
    return refuse(host, loader, text);
  }
  *state = shared;
  return RW_OK;
}

static void unload(void *state) { free(state); }

static rw_status core_init(const rw_host *host, rw_loader *loader, void *state, uint32_t worker, void **instance) {
  (void)worker;
  core *self = malloc(sizeof *self);
  if (self == NULL) return refuse(host, loader, "out of memory");
  *self = *(const core *)state;
  if (getrandom(&self->seed, sizeof self->seed, 0) != (ssize_t)sizeof self->seed) {
    free(self);
    return refuse(host, loader, "the system gives no random bytes");
  }
  *instance = self;
  return RW_OK;
}

static void core_fini(void *instance) { free(instance); }

RW_DEFINE_NOTE("request-id", "1.0.0", RW_LANG_C, HOOKS, WANTS, sizeof(exchange));

const rw_plugin ringway_plugin_v1 = {
    .size = sizeof(rw_plugin),
    .abi_major = RW_ABI_MAJOR,
    .abi_minor = RW_ABI_MINOR,
    .language = RW_LANG_C,
    .scratch_bytes = sizeof(exchange),
    .layout_fingerprint = RW_LAYOUT_FINGERPRINT,
    .wants = WANTS,
    .hooks = HOOKS,
    .name = "request-id",
    .version = "1.0.0",
    .load = load,
    .unload = unload,
    .core_init = core_init,
    .core_fini = core_fini,
    .on_request = on_request,
    .on_response = on_response,
};
