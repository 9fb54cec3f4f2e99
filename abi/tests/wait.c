/* Prints the layout of ringway-wait.h. */
#include <inttypes.h>
#include <stddef.h>
#include <stdio.h>

#include "ringway-wait.h"

#define PRINT_STRUCT(T) printf("struct " #T " size %zu align %zu\n", sizeof(T), _Alignof(T));
#define PRINT_FIELD(T, f) printf("field " #T "." #f " offset %zu size %zu\n", offsetof(T, f), sizeof(((T *)0)->f));
#define PRINT_CONSTANT(c) printf("const " #c " %" PRId64 "\n", (int64_t)(c));

int main(void) {
  PRINT_STRUCT(rw_wait)
  PRINT_FIELD(rw_wait, size)
  PRINT_FIELD(rw_wait, reserved)
  PRINT_FIELD(rw_wait, timer)
  PRINT_FIELD(rw_wait, wake)
  PRINT_CONSTANT(RW_EVENT_TIMER)
  PRINT_CONSTANT(RW_EVENT_WAKE)
  PRINT_CONSTANT(RW_EVENT_TIMEOUT)
  printf("id %s\n", RW_EXT_WAIT);
  return 0;
}
