/*
 * counter.c - counts requests in maps, for operators: by path, by worker, and the slow ones one by one
 *
 *     ringway map dump counter paths      how often each path was asked for, and the bytes it was answered with
 *     ringway map dump counter totals     the sum over all workers; -j shows each worker
 *     ringway tail counter                every exchange that took longer than slow_ms, as it ends
 *
 * The counts outlive a swap of this plugin and, with `[server] state`, a restart of the gateway.
 *
 * Configuration: {"slow_ms": 1000}. A path is counted by its first 64 bytes; the 4096 paths that were asked for last are kept.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "json.h"
#include "ringway.h"

#define HOOKS (RW_HOOK_REQUEST | RW_HOOK_DONE)
#define WANTS RW_WANT_MAPS

enum { PATH_BYTES = 64, MAP_PATHS = 0, MAP_TOTALS, MAP_SLOW };

/* The values: value_fields below say the same. */
typedef struct path_value {
  uint64_t requests;
  uint64_t bytes;
} path_value;

typedef struct totals_value {
  uint64_t requests;
  uint64_t failures;
} totals_value;

typedef struct slow_record {
  uint64_t unix_ns;
  uint32_t ms;
  uint16_t status;
  uint16_t reserved;
  char path[PATH_BYTES];
} slow_record;

static const rw_map_def maps[] = {
    [MAP_PATHS] = {.name = "paths", .value_fields = "u64 requests, u64 bytes", .kind = RW_MAP_LRU, .key_bytes = PATH_BYTES,
                   .value_bytes = sizeof(path_value), .entries_max = 4096},
    [MAP_TOTALS] = {.name = "totals", .value_fields = "u64 requests, u64 failures", .kind = RW_MAP_CORE_ARRAY, .key_bytes = sizeof(uint32_t),
                    .value_bytes = sizeof(totals_value), .entries_max = 1},
    [MAP_SLOW] = {.name = "slow", .value_fields = "u64 unix_ns, u32 ms, u16 status, u16 reserved, char[64] path", .kind = RW_MAP_RING,
                  .value_bytes = sizeof(slow_record), .entries_max = 1024},
};

/* What all workers share; maps that all of them use are opened once. */
typedef struct counter {
  const rw_maps *maps;
  const rw_map *paths;
  const rw_map *slow;
  uint64_t slow_ns;
} counter;

/* What one worker has: its own totals are counted without a call. */
typedef struct instance {
  const counter *shared;
  totals_value *totals;
} instance;

static void key_of(const rw_request *request, char key[PATH_BYTES]) {
  uint32_t len = request->path.len < PATH_BYTES ? request->path.len : PATH_BYTES;
  memset(key, 0, PATH_BYTES);
  memcpy(key, rw_bytes(&request->path), len);
}

static rw_verdict on_request(rw_cx *cx, const rw_request *request) {
  (void)request;
  instance *self = cx->core;
  self->totals->requests++;
  return RW_CONTINUE;
}

static rw_verdict on_done(rw_cx *cx, const rw_done *done) {
  instance *self = cx->core;
  const counter *shared = self->shared;
  char key[PATH_BYTES];
  key_of(cx->request, key);
  if (done->status == 0 || done->status >= 500) self->totals->failures++;
  /* A refusal means that another thread was stopped while it changed this very entry: one count is not worth waiting. */
  if (shared->maps->add(shared->paths, key, sizeof key, offsetof(path_value, requests), 1, NULL) == RW_OK)
    shared->maps->add(shared->paths, key, sizeof key, offsetof(path_value, bytes), done->response_body_bytes, NULL);
  if (done->duration_ns >= shared->slow_ns) {
    slow_record record = {.unix_ns = cx->now_unix_ns, .ms = (uint32_t)(done->duration_ns / 1000000u), .status = done->status};
    memcpy(record.path, key, sizeof key);
    /* When nobody reads fast enough it is dropped, and the gateway counts that. */
    shared->maps->output(shared->slow, &record, sizeof record);
  }
  return RW_CONTINUE;
}

static rw_status refuse(const rw_host *host, rw_loader *loader, const char *text) {
  host->load_error(loader, (const uint8_t *)text, (uint32_t)strlen(text));
  return RW_ERR_BAD_ARGUMENT;
}

static rw_status load(const rw_host *host, rw_loader *loader, const uint8_t *config, uint32_t config_len, void **state) {
  json j = json_over(config, config_len);
  json_text key;
  uint64_t slow_ms = 1000;
  json_begin_object(&j);
  while (json_next_key(&j, &key)) {
    if (!json_is(&key, "slow_ms")) json_fail(&j, "unknown key; this plugin knows \"slow_ms\"");
    else if (json_u64(&j, &slow_ms) && slow_ms > 86400000) json_fail(&j, "\"slow_ms\" is at most 86400000");
  }
  if (!json_end(&j)) {
    char text[160];
    snprintf(text, sizeof text, "config, line %u: %s", json_line(&j), j.fault);
    return refuse(host, loader, text);
  }

  const rw_maps *table = host->get_ext(loader, RW_MAPS_EXTENSION);
  if (table == NULL) return refuse(host, loader, "this gateway has no maps");
  counter *self = calloc(1, sizeof *self);
  if (self == NULL) return refuse(host, loader, "out of memory");
  self->maps = table;
  self->slow_ns = slow_ms * 1000000u;
  if (table->open(loader, MAP_PATHS, &self->paths) != RW_OK || table->open(loader, MAP_SLOW, &self->slow) != RW_OK) {
    free(self);
    return refuse(host, loader, "the gateway does not give the maps");
  }
  *state = self;
  return RW_OK;
}

static void unload(void *state) { free(state); }

static rw_status core_init(const rw_host *host, rw_loader *loader, void *state, uint32_t worker, void **core) {
  (void)worker;
  const counter *shared = state;
  const rw_map *totals = NULL;
  instance *self = calloc(1, sizeof *self);
  if (self == NULL) return refuse(host, loader, "out of memory");
  if (shared->maps->open(loader, MAP_TOTALS, &totals) != RW_OK) {
    free(self);
    return refuse(host, loader, "the gateway does not give the maps");
  }
  self->shared = shared;
  self->totals = shared->maps->value(totals, 0);
  *core = self;
  return RW_OK;
}

static void core_fini(void *core) { free(core); }

RW_DEFINE_NOTE("counter", "1.0.0", RW_LANG_C, HOOKS, WANTS, 0);

const rw_plugin ringway_plugin_v1 = {
    .size = sizeof(rw_plugin),
    .abi_major = RW_ABI_MAJOR,
    .abi_minor = RW_ABI_MINOR,
    .language = RW_LANG_C,
    .layout_fingerprint = RW_LAYOUT_FINGERPRINT,
    .wants = WANTS,
    .hooks = HOOKS,
    .name = "counter",
    .version = "1.0.0",
    .maps = maps,
    .map_count = sizeof maps / sizeof maps[0],
    .map_bytes = sizeof(rw_map_def),
    .load = load,
    .unload = unload,
    .core_init = core_init,
    .core_fini = core_fini,
    .on_request = on_request,
    .on_done = on_done,
};
