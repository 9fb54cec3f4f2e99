/*
 * A plugin that holds its worker when the path of a request says so; built by the tests:
 *
 *     cc -O2 -fPIC -shared -fvisibility=hidden -Wl,--build-id -DSALT='"x"' -I abi/include slow.c -o slow.so
 *
 * /busy/MS spins for so many milliseconds; /spin/NAME and /sleep/NAME spin and sleep until there is a file NAME in the folder that
 * RINGWAY_SLOW_FOLDER names; /never does not come back. All other requests get `x-seen: 1`. With -DLOAD_WAITS, `load` takes until there is
 * a file `load` in that folder; with -DCORE_WAITS, `core_init` of worker 1 until there is a file `core`, and `x-seen` is the pid.
 */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "ringway.h"

#define HOOKS RW_HOOK_REQUEST
#define WANTS RW_WANT_EDIT_REQUEST

static long long now_ms(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return now.tv_sec * 1000LL + now.tv_nsec / 1000000;
}

static volatile int turns;
/* Tells the files of different tests apart. */
static const char salt[] __attribute__((used)) = SALT;

/* Whether there is a file of this name in the folder. */
static int is_there(const char *name, int len) {
  const char *folder = getenv("RINGWAY_SLOW_FOLDER");
  char path[512];
  snprintf(path, sizeof path, "%s/%.*s", folder ? folder : "/", len, name);
  return access(path, F_OK) == 0;
}

/* Whether the file behind the path of the request is there. */
static int is_let_go(const rw_request *request, const char *path) {
  size_t len = strlen(path);
  return is_there((const char *)rw_bytes(&request->path) + len, (int)(request->path.len - len));
}

__attribute__((noinline)) static void spin_until_let_go(const rw_request *request, const char *path) {
  while (!is_let_go(request, path))
    for (int i = 0; i < 1000000; i++) turns++;
}

__attribute__((noinline)) static void sleep_until_let_go(const rw_request *request, const char *path) {
  /* A signal ends a sleep early. */
  while (!is_let_go(request, path)) usleep(20000);
}

__attribute__((noinline)) static void spin_until(long long end) {
  while (now_ms() < end)
    for (int i = 0; i < 10000; i++) turns++;
}

__attribute__((noinline)) static void never_return(void) {
  for (;;) turns++;
}

static int begins(const rw_request *request, const char *path) {
  size_t len = strlen(path);
  return request->path.len >= len && memcmp(rw_bytes(&request->path), path, len) == 0;
}

/* The number behind `path`. */
static long long behind(const rw_request *request, const char *path) {
  size_t len = strlen(path);
  char digits[16] = {0};
  if (request->path.len - len < sizeof digits) memcpy(digits, rw_bytes(&request->path) + len, request->path.len - len);
  return atoll(digits);
}

static rw_verdict on_request(rw_cx *cx, const rw_request *request) {
  static const uint8_t name[] = "x-seen";
#ifdef CORE_WAITS
  char value[16];
  snprintf(value, sizeof value, "%d", (int)getpid());
#else
  static const char value[] = "1";
#endif
  if (begins(request, "/busy/")) spin_until(now_ms() + behind(request, "/busy/"));
  if (begins(request, "/spin/")) spin_until_let_go(request, "/spin/");
  if (begins(request, "/sleep/")) sleep_until_let_go(request, "/sleep/");
  if (begins(request, "/never")) never_return();
  rw_status status = cx->host->header_set(cx, RW_SIDE_REQUEST, name, sizeof name - 1, (const uint8_t *)value, (uint32_t)strlen(value));
  return status < 0 ? RW_ABORTED : RW_CONTINUE;
}

/* A test that fails leaves no process behind, but with -DSTAYS. A file NAME-waits says that it has begun. */
static __attribute__((unused)) void wait_for_file(const char *name) {
  pid_t parent = getppid();
  char path[512];
  snprintf(path, sizeof path, "%s/%s-waits", getenv("RINGWAY_SLOW_FOLDER"), name);
  FILE *begun = fopen(path, "w");
  if (begun != NULL) fclose(begun);
#ifdef STAYS
  parent = 0;
#endif
  while (!is_there(name, (int)strlen(name)) && (parent == 0 || getppid() == parent)) usleep(20000);
}

static rw_status core_init(const rw_host *host, rw_loader *loader, void *state, uint32_t worker, void **core) {
  (void)host;
  (void)loader;
  (void)state;
  (void)worker;
  *core = NULL;
#ifdef CORE_WAITS
  if (worker == 1) wait_for_file("core");
#endif
  return RW_OK;
}

static rw_status load(const rw_host *host, rw_loader *loader, const uint8_t *config, uint32_t len, void **state) {
  (void)host;
  (void)loader;
  (void)config;
  (void)len;
  *state = NULL;
#ifdef LOAD_WAITS
  wait_for_file("load");
#endif
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
    .core_init = core_init,
    .on_request = on_request,
};
