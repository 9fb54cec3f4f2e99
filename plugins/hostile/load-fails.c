/*
 * load refuses and says why. Expected: the plugin is not loaded; the operator sees "the moon is in the wrong phase".
 */
#include "hostile.h"
static rw_status load(const rw_host *host, rw_loader *loader, const uint8_t *config, uint32_t config_len, void **state) {
  static const char text[] = "the moon is in the wrong phase";
  (void)config;
  (void)config_len;
  (void)state;
  host->load_error(loader, (const uint8_t *)text, sizeof text - 1);
  return RW_ERR_BAD_ARGUMENT;
}
#define NAME "hostile-load-fails"
#define LOAD load
#include "descriptor.h"
