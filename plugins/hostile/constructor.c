/*
 * Runs code as soon as it is opened: writes the file that RINGWAY_HOSTILE_FILE names. Harmless otherwise. Expected: the file
 * exists after loading and does not exist after `inspect`.
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
#define NAME "hostile-constructor"
#include "descriptor.h"
