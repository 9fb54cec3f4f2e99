/*
 * Loses 100 bytes with every request. Expected: `verify` refuses it: "it lost memory on every round of the frames".
 */
#include <stdlib.h>

#include "hostile.h"
static rw_verdict on_request(rw_cx *cx, const rw_request *request) {
  (void)cx;
  (void)request;
  volatile uint8_t *lost = malloc(100);
  if (lost != NULL) lost[0] = 1;
  return RW_CONTINUE;
}
#define NAME "hostile-leak"
#define ON_REQUEST on_request
#include "descriptor.h"
