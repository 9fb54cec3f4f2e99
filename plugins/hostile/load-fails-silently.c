/*
 * load refuses without a word. Expected: the plugin is not loaded; the operator sees the status, -7.
 */
#include "hostile.h"
static rw_status load(const rw_host *host, rw_loader *loader, const uint8_t *config, uint32_t config_len, void **state) {
  (void)host;
  (void)loader;
  (void)config;
  (void)config_len;
  (void)state;
  return RW_ERR_BAD_ARGUMENT;
}
#define NAME "hostile-load-fails-silently"
#define LOAD load
#include "descriptor.h"
