/*
 * A plugin that holds its worker when the path of a request says so; built by the tests:
 *
 *     cc -O2 -fPIC -shared -fvisibility=hidden -Wl,--build-id -I abi/include slow.c -o slow.so
 *
 * /spin/MS spins for so many milliseconds, /sleep/MS sleeps, /never does not come back. All other requests get `x-seen: 1`.
 */
#define _GNU_SOURCE
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "ringway.h"

#define HOOKS RW_HOOK_REQUEST
#define WANTS RW_WANT_EDIT_REQUEST

static long long now_ms(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return now.tv_sec * 1000LL + now.tv_nsec / 1000000;
}

static volatile int turns;

__attribute__((noinline)) static void spin_until(long long end) {
  while (now_ms() < end)
    for (int i = 0; i < 100000; i++) turns++;
}

/* A signal ends a sleep early: the rest is slept again. */
__attribute__((noinline)) static void sleep_until(long long end) {
  for (long long left; (left = end - now_ms()) > 0;) {
    struct timespec time = {.tv_sec = left / 1000, .tv_nsec = left % 1000 * 1000000};
    nanosleep(&time, NULL);
  }
}

__attribute__((noinline)) static void never_return(void) {
  for (;;) turns++;
}

/* The number behind `path`, or -1. */
static long long behind(const rw_request *request, const char *path) {
  size_t len = strlen(path);
  char digits[16] = {0};
  if (request->path.len < len || request->path.len - len >= sizeof digits || memcmp(rw_bytes(&request->path), path, len) != 0) return -1;
  memcpy(digits, rw_bytes(&request->path) + len, request->path.len - len);
  return atoll(digits);
}

static rw_verdict on_request(rw_cx *cx, const rw_request *request) {
  static const uint8_t name[] = "x-seen", value[] = "1";
  long long ms;
  if ((ms = behind(request, "/spin/")) >= 0) spin_until(now_ms() + ms);
  if ((ms = behind(request, "/sleep/")) >= 0) sleep_until(now_ms() + ms);
  if (behind(request, "/never") >= 0) never_return();
  rw_status status = cx->host->header_set(cx, RW_SIDE_REQUEST, name, sizeof name - 1, value, sizeof value - 1);
  return status < 0 ? RW_ABORTED : RW_CONTINUE;
}

static rw_status load(const rw_host *host, rw_loader *loader, const uint8_t *config, uint32_t len, void **state) {
  (void)host;
  (void)loader;
  (void)config;
  (void)len;
  *state = NULL;
  return RW_OK;
}

RW_DEFINE_NOTE("slow", "2.1", RW_LANG_C, HOOKS, WANTS, 0);

const rw_plugin ringway_plugin_v1 = {
    .size = sizeof(rw_plugin),
    .abi_major = RW_ABI_MAJOR,
    .abi_minor = RW_ABI_MINOR,
    .language = RW_LANG_C,
    .layout_fingerprint = RW_LAYOUT_FINGERPRINT,
    .wants = WANTS,
    .hooks = HOOKS,
    .name = "slow",
    .version = "2.1",
    .load = load,
    .on_request = on_request,
};
