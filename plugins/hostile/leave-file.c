/*
 * Leaves a file open after unload. Expected: `verify` refuses it: "it left 1 files open after `unload`".
 */
#include "hostile.h"
static rw_status load(const rw_host *host, rw_loader *loader, const uint8_t *config, uint32_t config_len, void **state) {
  (void)host;
  (void)loader;
  (void)config;
  (void)config_len;
  (void)state;
  return fopen("/dev/null", "r") != NULL ? RW_OK : RW_ERR_NOT_FOUND;
}
#define NAME "hostile-leave-file"
#define LOAD load
#include "descriptor.h"
