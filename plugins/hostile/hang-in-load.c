/*
 * Never returns from load. Expected: `verify` refuses it: "`load` did not return within".
 */
#include "hostile.h"
static rw_status load(const rw_host *host, rw_loader *loader, const uint8_t *config, uint32_t config_len, void **state) {
  (void)host;
  (void)loader;
  (void)config;
  (void)config_len;
  (void)state;
  for (volatile int on = 1; on != 0;) continue;
  return RW_OK;
}
#define NAME "hostile-hang-in-load"
#define LOAD load
#include "descriptor.h"
