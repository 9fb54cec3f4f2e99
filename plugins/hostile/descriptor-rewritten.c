/*
 * A constructor changes the descriptor that was inspected. Expected: loading it is refused: "it defines more than 256 metrics".
 */
#define _DEFAULT_SOURCE
#include <sys/mman.h>
#include <unistd.h>

#include "hostile.h"
extern const rw_plugin ringway_plugin_v1;
__attribute__((constructor)) static void rewrite(void) {
  uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE), at = (uintptr_t)&ringway_plugin_v1;
  mprotect((void *)(at & ~(page - 1)), 2 * page, PROT_READ | PROT_WRITE);
  ((volatile rw_plugin *)at)->metric_count = 300;
}
#define NAME "hostile-descriptor-rewritten"
#include "descriptor.h"
