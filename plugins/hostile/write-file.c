/*
 * Writes to the file that RINGWAY_HOSTILE_FILE names, if it is there. Expected: `verify` refuses it: "wrote to a file".
 */
#include <stdlib.h>

#include "hostile.h"
static rw_verdict on_request(rw_cx *cx, const rw_request *request) {
  (void)cx;
  (void)request;
  const char *path = getenv("RINGWAY_HOSTILE_FILE");
  FILE *file = path != NULL ? fopen(path, "r+") : NULL;
  if (file == NULL) return RW_CONTINUE;
  fputs("written\n", file);
  fclose(file);
  return RW_CONTINUE;
}
#define NAME "hostile-write-file"
#define ON_REQUEST on_request
#include "descriptor.h"
