/*
 * woken.c - waits for a thread of its own: each request is handed to it, and goes on when the thread has woken it, with the thread's answer in x-woken.
 * On the path /late the hook goes on by a timer first, so that the wake comes too late.
 */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "ringway-wait.h"

#define HOOKS (RW_HOOK_REQUEST | RW_HOOK_EVENT)
#define WANTS (RW_WANT_SUSPEND | RW_WANT_EDIT_REQUEST)

enum { JOBS_MAX = 4096 };

typedef struct job {
  uint64_t request_id;
  uint32_t link;
  uint32_t late;
} job;

static struct {
  const rw_wait *wait;
  pthread_t thread;
  pthread_mutex_t lock;
  pthread_cond_t more;
  job jobs[JOBS_MAX];
  unsigned first, count;
  int stop;
} all = {.lock = PTHREAD_MUTEX_INITIALIZER, .more = PTHREAD_COND_INITIALIZER};

static void *work(void *unused) {
  (void)unused;
  pthread_mutex_lock(&all.lock);
  while (!all.stop) {
    if (all.count == 0) {
      pthread_cond_wait(&all.more, &all.lock);
      continue;
    }
    job next = all.jobs[all.first];
    all.first = (all.first + 1) % JOBS_MAX;
    all.count--;
    pthread_mutex_unlock(&all.lock);
    if (next.late) usleep(100000);
    while (all.wait->wake(next.request_id, next.link, next.request_id ^ 0x5a) < 0) usleep(1000);
    pthread_mutex_lock(&all.lock);
  }
  pthread_mutex_unlock(&all.lock);
  return NULL;
}

static rw_verdict on_request(rw_cx *cx, const rw_request *request) {
  int late = request->path.len == 5 && memcmp(rw_bytes(&request->path), "/late", 5) == 0;
  pthread_mutex_lock(&all.lock);
  int full = all.count == JOBS_MAX;
  if (!full) all.jobs[(all.first + all.count++) % JOBS_MAX] = (job){request->request_id, cx->link, (uint32_t)late};
  pthread_cond_signal(&all.more);
  pthread_mutex_unlock(&all.lock);
  if (late && all.wait->timer(cx, 1000000, 0) < 0) return RW_ABORTED;
  return full ? RW_ABORTED : RW_SUSPEND;
}

static rw_verdict on_event(rw_cx *cx, const rw_event *event) {
  const char *said = event->kind == RW_EVENT_TIMER ? "timer" : event->token == (cx->request->request_id ^ 0x5a) ? "thread" : "somebody";
  static const uint8_t name[] = "x-woken";
  return cx->host->header_set(cx, RW_SIDE_REQUEST, name, 7, (const uint8_t *)said, (uint32_t)strlen(said)) < 0 ? RW_ABORTED : RW_CONTINUE;
}

static rw_status load(const rw_host *host, rw_loader *loader, const uint8_t *config, uint32_t config_len, void **state) {
  (void)config;
  (void)config_len;
  *state = NULL;
  all.wait = host->get_ext(loader, RW_EXT_WAIT);
  if (all.wait == NULL) return RW_ERR_NOT_FOUND;
  return pthread_create(&all.thread, NULL, work, NULL) == 0 ? RW_OK : RW_ERR_NO_SPACE;
}

static void unload(void *state) {
  (void)state;
  pthread_mutex_lock(&all.lock);
  all.stop = 1;
  pthread_cond_signal(&all.more);
  pthread_mutex_unlock(&all.lock);
  pthread_join(all.thread, NULL);
}

RW_DEFINE_NOTE("woken", "1.0.0", RW_LANG_C, HOOKS, WANTS, 0);

const rw_plugin ringway_plugin_v1 = {
    .size = sizeof(rw_plugin),
    .abi_major = RW_ABI_MAJOR,
    .abi_minor = RW_ABI_MINOR,
    .language = RW_LANG_C,
    .layout_fingerprint = RW_LAYOUT_FINGERPRINT,
    .wants = WANTS,
    .hooks = HOOKS,
    .name = "woken",
    .version = "1.0.0",
    .load = load,
    .unload = unload,
    .on_request = on_request,
    .on_event = on_event,
};
