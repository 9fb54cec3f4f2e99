/*
 * Holds its worker for 50 ms. Expected: answers come, late; the gateway's statistics name the plugin.
 */
#define _POSIX_C_SOURCE 199309L
#include <time.h>

#include "hostile.h"
static uint64_t now_ns(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}
static rw_verdict on_request(rw_cx *cx, const rw_request *request) {
  (void)cx;
  (void)request;
  for (uint64_t end = now_ns() + 50000000u; now_ns() < end;) continue;
  return RW_CONTINUE;
}
#define NAME "hostile-slow"
#define ON_REQUEST on_request
#include "descriptor.h"
