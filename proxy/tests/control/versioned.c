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
#define WANTS (RW_WANT_EDIT_REQUEST | RW_WANT_EDIT_RESPONSE)

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
  *core = NULL;
  return RW_OK;
}

static void core_fini(void *core) {
  (void)core;
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
  rw_status status = cx->host->header_set(cx, RW_SIDE_REQUEST, name, sizeof name - 1, (const uint8_t *)VERSION, sizeof VERSION - 1);
  return status < 0 ? RW_ABORTED : RW_CONTINUE;
}

static rw_verdict on_response(rw_cx *cx, const rw_response *response) {
  (void)response;
  static const uint8_t name[] = "x-post";
  rw_status status = cx->host->header_set(cx, RW_SIDE_RESPONSE, name, sizeof name - 1, (const uint8_t *)VERSION, sizeof VERSION - 1);
  return status < 0 ? RW_ABORTED : RW_CONTINUE;
}

static const rw_metric_def METRICS[] = {{.name = "seen", .help = "Requests seen.", .kind = RW_METRIC_COUNTER}};

RW_DEFINE_NOTE("versioned", VERSION, RW_LANG_C, HOOKS, WANTS, 0);

const rw_plugin ringway_plugin_v1 = {
    .size = sizeof(rw_plugin),
    .abi_major = RW_ABI_MAJOR,
    .abi_minor = RW_ABI_MINOR,
    .language = RW_LANG_C,
    .layout_fingerprint = RW_LAYOUT_FINGERPRINT,
    .wants = WANTS,
    .hooks = HOOKS,
    .name = "versioned",
    .version = VERSION,
    .metrics = METRICS,
    .metric_count = 1,
    .metric_bytes = sizeof METRICS[0],
    .load = load,
    .unload = unload,
    .core_init = core_init,
    .core_fini = core_fini,
    .on_request = on_request,
    .on_response = on_response,
};
