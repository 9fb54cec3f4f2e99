/*
 * hostile.h - what the hostile plugins share. Each of them has one fault, which its first lines name with the expected
 * outcome. They are for tests of the gateway; none is of use otherwise.
 *
 * A plugin includes this file, defines its hooks, and includes descriptor.h, which makes note and descriptor from macros.
 */
#ifndef RINGWAY_HOSTILE_H
#define RINGWAY_HOSTILE_H

#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "ringway.h"

#define UNUSED __attribute__((unused))

/* Goes on; for plugins whose fault lies elsewhere. */
UNUSED static rw_verdict pass(rw_cx *cx, const rw_request *request) {
  (void)cx;
  (void)request;
  return RW_CONTINUE;
}

/* Answers 200 with `number` as the body, so that a test sees what the gateway said. Needs RW_WANT_RESPOND. */
UNUSED static rw_verdict respond_number(rw_cx *cx, long number) {
  char text[24];
  uint32_t len = (uint32_t)snprintf(text, sizeof text, "%ld", number);
  if (cx->host->resp_begin(cx, 200) < 0) return RW_ABORTED;
  uint8_t *room = cx->host->resp_reserve(cx, len);
  if (room == NULL) return RW_ABORTED;
  memcpy(room, text, len);
  return cx->host->resp_commit(cx, len) < 0 ? RW_ABORTED : RW_RESPOND;
}

UNUSED static rw_status set_header(rw_cx *cx, uint32_t side, const char *name, const char *value) {
  return cx->host->header_set(cx, side, (const uint8_t *)name, (uint32_t)strlen(name), (const uint8_t *)value, (uint32_t)strlen(value));
}

#endif /* RINGWAY_HOSTILE_H */
