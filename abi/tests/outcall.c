/* Prints the layout of ringway-outcall.h. */
#include <inttypes.h>
#include <stddef.h>
#include <stdio.h>

#include "ringway-outcall.h"

#define PRINT_STRUCT(T) printf("struct " #T " size %zu align %zu\n", sizeof(T), _Alignof(T));
#define PRINT_FIELD(T, f) printf("field " #T "." #f " offset %zu size %zu\n", offsetof(T, f), sizeof(((T *)0)->f));
#define PRINT_CONSTANT(c) printf("const " #c " %" PRId64 "\n", (int64_t)(c));

int main(void) {
  PRINT_STRUCT(rw_outcall)
  PRINT_FIELD(rw_outcall, size)
  PRINT_FIELD(rw_outcall, reserved)
  PRINT_FIELD(rw_outcall, upstream)
  PRINT_FIELD(rw_outcall, begin)
  PRINT_FIELD(rw_outcall, header)
  PRINT_FIELD(rw_outcall, body)
  PRINT_FIELD(rw_outcall, send)
  PRINT_CONSTANT(RW_WANT_OUTCALL)
  PRINT_CONSTANT(RW_EVENT_REPLY)
  PRINT_CONSTANT(RW_OUTCALL_UNREACHABLE)
  PRINT_CONSTANT(RW_OUTCALL_TIMEOUT)
  PRINT_CONSTANT(RW_OUTCALL_BROKEN)
  printf("id %s\n", RW_EXT_OUTCALL);
  return 0;
}
