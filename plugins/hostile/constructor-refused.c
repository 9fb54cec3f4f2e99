/*
 * As hostile-constructor, but its major version is wrong. Expected: refused, and the file does not exist.
 */
#include <stdlib.h>

#include "hostile.h"
__attribute__((constructor)) static void run_when_opened(void) {
  const char *path = getenv("RINGWAY_HOSTILE_FILE");
  FILE *file = path != NULL ? fopen(path, "w") : NULL;
  if (file == NULL) return;
  fputs("opened\n", file);
  fclose(file);
}
#define NAME "hostile-constructor-refused"
#define MAJOR (RW_ABI_MAJOR + 1)
#include "descriptor.h"
