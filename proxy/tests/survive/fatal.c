/*
 * A plugin that ends the process it runs in, when the path of a request says so; built by the tests:
 *
 *     cc -O2 -fPIC -shared -fvisibility=hidden -Wl,--build-id -I abi/include fatal.c -o fatal.so
 *
 * All other requests get `x-seen: 1`, so that a test sees whether it runs. With -DAT_LOAD, `load` does it.
 */
#define _GNU_SOURCE
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "ringway.h"

#define HOOKS RW_HOOK_REQUEST
#define WANTS RW_WANT_EDIT_REQUEST

static void write_nowhere(void) {
  volatile uintptr_t nowhere = 8;
  *(volatile uint32_t *)nowhere = 1;
}

static int overflow(volatile char *above) {
  volatile char here[512];
  here[0] = above[0];
  return overflow(here) + here[0];
}

static int is(const rw_request *request, const char *path) {
  return request->path.len == strlen(path) && memcmp(rw_bytes(&request->path), path, request->path.len) == 0;
}

static rw_verdict on_request(rw_cx *cx, const rw_request *request) {
  static const uint8_t name[] = "x-seen", value[] = "1";
  if (is(request, "/segv")) write_nowhere();
  if (is(request, "/abort")) abort();
  if (is(request, "/fpe")) raise(SIGFPE);
  if (is(request, "/ill")) __builtin_trap();
  if (is(request, "/overflow")) {
    volatile char first = 0;
    return (rw_verdict)overflow(&first);
  }
  rw_status status = cx->host->header_set(cx, RW_SIDE_REQUEST, name, sizeof name - 1, value, sizeof value - 1);
  return status < 0 ? RW_ABORTED : RW_CONTINUE;
}

static rw_status load(const rw_host *host, rw_loader *loader, const uint8_t *config, uint32_t len, void **state) {
  (void)host;
  (void)loader;
  (void)config;
  (void)len;
  *state = NULL;
#ifdef AT_LOAD
  write_nowhere();
#endif
  return RW_OK;
}

RW_DEFINE_NOTE("fatal", "1.5", RW_LANG_C, HOOKS, WANTS, 0);

const rw_plugin ringway_plugin_v1 = {
    .size = sizeof(rw_plugin),
    .abi_major = RW_ABI_MAJOR,
    .abi_minor = RW_ABI_MINOR,
    .language = RW_LANG_C,
    .layout_fingerprint = RW_LAYOUT_FINGERPRINT,
    .wants = WANTS,
    .hooks = HOOKS,
    .name = "fatal",
    .version = "1.5",
    .load = load,
    .on_request = on_request,
};
