/*
 * Leaves a thread running after unload. Expected: `verify` refuses it: "1 of its threads run after `unload`".
 */
#define _POSIX_C_SOURCE 200809L
#include <pthread.h>
#include <unistd.h>

#include "hostile.h"
static void *stay(void *nothing) {
  for (;;) pause();
  return nothing;
}
static rw_status load(const rw_host *host, rw_loader *loader, const uint8_t *config, uint32_t config_len, void **state) {
  pthread_t thread;
  (void)host;
  (void)loader;
  (void)config;
  (void)config_len;
  (void)state;
  return pthread_create(&thread, NULL, stay, NULL) == 0 ? RW_OK : RW_ERR_NO_SPACE;
}
#define NAME "hostile-leave-thread"
#define LOAD load
#include "descriptor.h"
