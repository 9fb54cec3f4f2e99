/*
 * outcall.h - for hostile plugins that send requests: the table, and the upstream `app`.
 */
#include "ringway-outcall.h"

static const rw_outcall *outcalls;
static uint32_t service;

static rw_status load(const rw_host *host, rw_loader *loader, const uint8_t *config, uint32_t config_len, void **state) {
  (void)config;
  (void)config_len;
  (void)state;
  outcalls = host->get_ext(loader, RW_EXT_OUTCALL);
  if (outcalls == NULL) return RW_ERR_NOT_FOUND;
  rw_status number = outcalls->upstream(loader, (const uint8_t *)"app", 3);
  if (number < 0) return number;
  service = (uint32_t)number;
  return RW_OK;
}
