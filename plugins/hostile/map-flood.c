/*
 * Wants 32 GiB of maps. Expected: refused before it runs, naming limits.map_bytes; its constructor never opens the file that
 * RINGWAY_HOSTILE_FILE names.
 */
#include <stdlib.h>

#include "hostile.h"
__attribute__((constructor)) static void run_when_opened(void) {
  const char *path = getenv("RINGWAY_HOSTILE_FILE");
  FILE *file = path != NULL ? fopen(path, "w") : NULL;
  if (file != NULL) fclose(file);
}
static const rw_map_def maps[] = {{"huge", "u8[2048] bytes", RW_MAP_ARRAY, 4, 2048, RW_MAP_ENTRIES_MAX}};
#define NAME "hostile-map-flood"
#define WANTS RW_WANT_MAPS
#define MAPS maps
#define MAP_COUNT 1
#include "descriptor.h"
