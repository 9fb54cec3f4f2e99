/*
 * A plugin whose code says which version it is, built by the tests as often as they need versions:
 *
 *     cc -O2 -fPIC -shared -fvisibility=hidden -I abi/include -DVERSION='"1"' versioned.c -o versioned-1.so
 *
 * The request gets `x-pre: VERSION`, the response `x-post: VERSION`; the metric `seen` counts requests. When the variable
 * VERSIONED_LIFE names a file, each event of its life is a line there: `VERSION event thread`, where thread is `main` or `worker`.
 * With -DFAIL_CORE=n, core_init of worker n fails; with -DFAIL_AGAIN, each one behind the second of the process.
 * A request to /panic ends with RW_PANICKED, one to /abort with RW_ABORTED. With -DABORTS every request does; with -DSLOW
 * each takes 20 ms of the worker.
 *
 * With -DMAPS it counts in maps too, and the response gets `x-count`: the requests that any version counted so far, this one
 * included. -DFIELDS='"u64 other"' makes a map of another definition, -DENTRIES=n the paths that are counted.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "ringway-fault.h"

#define HOOKS (RW_HOOK_REQUEST | RW_HOOK_RESPONSE)
#ifdef MAPS
#define WANTS (RW_WANT_EDIT_REQUEST | RW_WANT_EDIT_RESPONSE | RW_WANT_MAPS)
#else
#define WANTS (RW_WANT_EDIT_REQUEST | RW_WANT_EDIT_RESPONSE)
#endif
#ifndef FIELDS
#define FIELDS "u64 requests"
#endif
#ifndef ENTRIES
#define ENTRIES 1000
#endif

/* What one worker needs of the maps. */
typedef struct instance {
  const rw_maps *maps;
  const rw_map *total;
  const rw_map *paths;
  const rw_map *events;
  uint64_t *mine;
} instance;

#ifdef MAPS
/* One entry counts for all workers, one for each path, one for each worker; and each request is an event. */
static const rw_map_def MAP_DEFS[] = {
    {.name = "total", .value_fields = FIELDS, .kind = RW_MAP_ARRAY, .key_bytes = 4, .value_bytes = 8, .entries_max = 1},
    {.name = "paths", .value_fields = "u64 requests, u64 version", .kind = RW_MAP_HASH, .key_bytes = 16, .value_bytes = 16, .entries_max = ENTRIES},
    {.name = "workers", .value_fields = "u64 requests", .kind = RW_MAP_CORE_ARRAY, .key_bytes = 4, .value_bytes = 8, .entries_max = 1},
    {.name = "events", .value_fields = "u64 number, char[16] path", .kind = RW_MAP_RING, .key_bytes = 0, .value_bytes = 24, .entries_max = 64},
};
#endif

static void note(const char *event) {
  const char *path = getenv("VERSIONED_LIFE");
  if (path == NULL) return;
  int file = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
  if (file < 0) return;
  char line[64];
  int len = snprintf(line, sizeof line, "%s %s %s\n", VERSION, event, syscall(SYS_gettid) == getpid() ? "main" : "worker");
  if (write(file, line, (size_t)len) != len) abort();
  close(file);
}

static rw_status load(const rw_host *host, rw_loader *loader, const uint8_t *config, uint32_t len, void **state) {
  (void)config;
  static const char reason[] = "this version never loads";
  note("load");
  *state = NULL;
  if (strcmp(VERSION, "broken") == 0) {
    host->load_error(loader, (const uint8_t *)reason, sizeof reason - 1);
    return -1;
  }
  (void)len;
  return RW_OK;
}

static void unload(void *state) {
  (void)state;
  note("unload");
}

#ifdef MAPS
static instance *open_maps(const rw_host *host, rw_loader *loader) {
  instance *made = calloc(1, sizeof *made);
  const rw_maps *maps = host->get_ext(loader, RW_MAPS_EXTENSION);
  const rw_map *workers = NULL;
  if (made == NULL || maps == NULL) abort();
  made->maps = maps;
  if (maps->open(loader, 0, &made->total) != RW_OK || maps->open(loader, 1, &made->paths) != RW_OK) abort();
  if (maps->open(loader, 2, &workers) != RW_OK || maps->open(loader, 3, &made->events) != RW_OK) abort();
  made->mine = maps->value(workers, 0);
  if (made->mine == NULL) abort();
  return made;
}

/* Counts a request; the sum of all. */
static uint64_t count(const instance *of, const rw_request *request) {
  char path[16] = {0};
  const uint8_t *bytes = rw_bytes(&request->path);
  uint32_t len = request->path.len < sizeof path ? request->path.len : sizeof path;
  uint32_t slashes = 0;
  /* Up to the second slash, so that there are few paths. */
  for (uint32_t at = 0; at < len && (bytes[at] != '/' || ++slashes < 2); at++) path[at] = (char)bytes[at];
  uint32_t first = 0;
  uint64_t sum = 0;
  while (of->maps->add(of->total, &first, sizeof first, 0, 1, &sum) == RW_MAP_BUSY) continue;
  while (of->maps->add(of->paths, path, sizeof path, 0, 1, NULL) == RW_MAP_BUSY) continue;
  *of->mine += 1;
  struct {
    uint64_t number;
    char path[16];
  } event = {sum, {0}};
  memcpy(event.path, path, sizeof path);
  of->maps->output(of->events, &event, sizeof event);
  return sum;
}
#endif

static rw_status core_init(const rw_host *host, rw_loader *loader, void *state, uint32_t worker, void **core) {
  (void)state;
  (void)worker;
  note("core_init");
#ifdef FAIL_AGAIN
  static _Atomic int inits;
  if (++inits > 2) return -1;
#endif
#ifdef FAIL_CORE
  static const char reason[] = "not on this core";
  if (worker == FAIL_CORE) {
    host->load_error(loader, (const uint8_t *)reason, sizeof reason - 1);
    return -1;
  }
#else
  (void)host;
  (void)loader;
#endif
#ifdef MAPS
  *core = open_maps(host, loader);
#else
  *core = NULL;
#endif
  return RW_OK;
}

static void core_fini(void *core) {
  free(core);
  note("core_fini");
}

static int asks_for(const rw_request *request, const char *path) {
  return request->path.len == strlen(path) && memcmp(rw_bytes(&request->path), path, request->path.len) == 0;
}

static rw_verdict on_request(rw_cx *cx, const rw_request *request) {
#ifdef ABORTS
  return RW_ABORTED;
#endif
#ifdef SLOW
  usleep(20000);
#endif
  if (asks_for(request, "/panic")) return RW_PANICKED;
  if (asks_for(request, "/abort")) return RW_ABORTED;
  static const uint8_t name[] = "x-pre";
  cx->host->metric_add(cx, 0, 1);
#ifdef MAPS
  *(uint64_t *)cx->scratch = count(cx->core, request);
#endif
  rw_status status = cx->host->header_set(cx, RW_SIDE_REQUEST, name, sizeof name - 1, (const uint8_t *)VERSION, sizeof VERSION - 1);
  return status < 0 ? RW_ABORTED : RW_CONTINUE;
}

static rw_verdict on_response(rw_cx *cx, const rw_response *response) {
  (void)response;
  static const uint8_t name[] = "x-post";
  rw_status status = cx->host->header_set(cx, RW_SIDE_RESPONSE, name, sizeof name - 1, (const uint8_t *)VERSION, sizeof VERSION - 1);
#ifdef MAPS
  static const uint8_t count_name[] = "x-count";
  char text[24];
  int len = snprintf(text, sizeof text, "%llu", (unsigned long long)*(uint64_t *)cx->scratch);
  if (status >= 0) status = cx->host->header_set(cx, RW_SIDE_RESPONSE, count_name, sizeof count_name - 1, (const uint8_t *)text, (uint32_t)len);
#endif
  return status < 0 ? RW_ABORTED : RW_CONTINUE;
}

static const rw_metric_def METRICS[] = {{.name = "seen", .help = "Requests seen.", .kind = RW_METRIC_COUNTER}};

#define SCRATCH 8

RW_DEFINE_NOTE("versioned", VERSION, RW_LANG_C, HOOKS, WANTS, SCRATCH);

const rw_plugin ringway_plugin_v1 = {
    .size = sizeof(rw_plugin),
    .abi_major = RW_ABI_MAJOR,
    .abi_minor = RW_ABI_MINOR,
    .language = RW_LANG_C,
    .scratch_bytes = SCRATCH,
    .layout_fingerprint = RW_LAYOUT_FINGERPRINT,
    .wants = WANTS,
    .hooks = HOOKS,
    .name = "versioned",
    .version = VERSION,
    .metrics = METRICS,
    .metric_count = 1,
    .metric_bytes = sizeof METRICS[0],
#ifdef MAPS
    .maps = MAP_DEFS,
    .map_count = sizeof MAP_DEFS / sizeof MAP_DEFS[0],
    .map_bytes = sizeof MAP_DEFS[0],
#endif
    .load = load,
    .unload = unload,
    .core_init = core_init,
    .core_fini = core_fini,
    .on_request = on_request,
    .on_response = on_response,
};
