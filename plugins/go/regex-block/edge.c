/*
 * edge.c - the C side of the Go plugin: note and descriptor, which must be constants of the file, and hooks that take what Go needs
 * out of the view and call Go once.
 */
#include "ringway.h"

#include "_cgo_export.h"

#define HOOKS RW_HOOK_REQUEST
#define WANTS RW_WANT_RESPOND

enum { ERROR_BYTES = 256 };

static rw_status load(const rw_host *host, rw_loader *loader, const uint8_t *config, uint32_t config_len, void **state) {
  uint8_t error[ERROR_BYTES];
  uint32_t error_len = 0;
  uintptr_t handle = regexBlockLoad((uint8_t *)(uintptr_t)config, config_len, error, sizeof error, &error_len);
  if (handle == 0) {
    host->load_error(loader, error, error_len);
    return RW_ERR_BAD_ARGUMENT;
  }
  *state = (void *)handle;
  return RW_OK;
}

static void unload(void *state) { regexBlockUnload((uintptr_t)state); }

/* Without core_init, cx->core is the state: Go's values are shared by all workers. */
static rw_verdict on_request(rw_cx *cx, const rw_request *request) {
  switch (regexBlockMatches((uintptr_t)cx->core, (uint8_t *)(uintptr_t)rw_bytes(&request->path), request->path.len)) {
    case 0:
      return RW_CONTINUE;
    case 1:
      return cx->host->resp_begin(cx, 403) == RW_OK ? RW_RESPOND : RW_ABORTED;
    default:
      return RW_ABORTED;
  }
}

RW_DEFINE_NOTE("regex-block", "1.0.0", RW_LANG_GO, HOOKS, WANTS, 0);

const rw_plugin ringway_plugin_v1 = {
    .size = sizeof(rw_plugin),
    .abi_major = RW_ABI_MAJOR,
    .abi_minor = RW_ABI_MINOR,
    .language = RW_LANG_GO,
    .layout_fingerprint = RW_LAYOUT_FINGERPRINT,
    .wants = WANTS,
    .hooks = HOOKS,
    .name = "regex-block",
    .version = "1.0.0",
    .load = load,
    .unload = unload,
    .on_request = on_request,
};
