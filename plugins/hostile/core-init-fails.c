/*
 * core_init tries what only load may do, then fails with what the gateway said to it. Expected: RW_ERR_WRONG_HOOK twice; the
 * plugin is not used, and the operator reads "worker N: intern_header -2, prebuilt_add -2".
 */
#include "hostile.h"
static rw_status core_init(const rw_host *host, rw_loader *loader, void *state, uint32_t worker, void **core) {
  static const uint8_t name[] = "x-late";
  char text[80];
  (void)state;
  (void)core;
  int interned = host->intern_header(loader, name, sizeof name - 1);
  int prebuilt = host->prebuilt_add(loader, 200, NULL, 0, NULL, 0);
  int len = snprintf(text, sizeof text, "worker %u: intern_header %d, prebuilt_add %d", (unsigned)worker, interned, prebuilt);
  host->load_error(loader, (const uint8_t *)text, (uint32_t)len);
  return RW_ERR_BAD_ARGUMENT;
}
#define NAME "hostile-core-init-fails"
#define CORE_INIT core_init
#include "descriptor.h"
