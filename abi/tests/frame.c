/*
 * frame.c - reads one archived message from standard input and prints what a C plugin sees in it.
 *
 * frame.zig and frames.rs print the same text from the same bytes.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ringway.h"

static uint64_t fnv1a_64(const uint8_t *bytes, size_t len) {
  uint64_t hash = UINT64_C(0xcbf29ce484222325);
  for (size_t i = 0; i < len; i++) hash = (hash ^ bytes[i]) * UINT64_C(0x100000001b3);
  return hash;
}

static void print_bytes(const char *name, const uint8_t *bytes, size_t len) {
  printf("%s %zu %016" PRIx64 "\n", name, len, fnv1a_64(bytes, len));
}

static void print_span(const char *name, const rw_span *span) { print_bytes(name, rw_bytes(span), span->len); }

static void print_headers(const rw_headers *headers, uint16_t entry_size) {
  for (uint32_t i = 0; i < headers->len; i++) {
    const rw_header *header = rw_header_at(headers, entry_size, i);
    if (header->name.id == RW_H_REMOVED) continue;
    printf("header %u\n", header->name.id);
    print_bytes("name", rw_name_bytes(&header->name), header->name.len);
    print_span("value", &header->value);
  }
}

static void print_first(uint32_t id, const rw_header *header) {
  if (header == NULL) return;
  char name[16];
  snprintf(name, sizeof name, "first %" PRIu32, id);
  print_span(name, &header->value);
}

#define NUMBER(view, field) printf(#field " %" PRIu64 "\n", (uint64_t)(view)->field)

static void print_request(const rw_request *r) {
  puts("request");
  NUMBER(r, method_id);
  NUMBER(r, http_version);
  NUMBER(r, flags);
  NUMBER(r, edits);
  NUMBER(r, content_length);
  NUMBER(r, request_id);
  NUMBER(r, received_unix_ns);
  NUMBER(r, peer_port);
  NUMBER(r, listener);
  NUMBER(r, route);
  NUMBER(r, known_mask);
  print_bytes("peer_addr", r->peer_addr, sizeof r->peer_addr);
  print_span("method", &r->method);
  print_span("target", &r->target);
  print_span("path", &r->path);
  print_span("query", &r->query);
  print_span("authority", &r->authority);
  print_span("body", &r->body);
  print_headers(&r->headers, r->entry_size);
  for (uint32_t id = 0; id <= RW_H_REMOVED; id++) print_first(id, rw_request_header(r, id));
}

static void print_response(const rw_response *r) {
  puts("response");
  NUMBER(r, status);
  NUMBER(r, http_version);
  NUMBER(r, origin);
  NUMBER(r, flags);
  NUMBER(r, content_length);
  NUMBER(r, request_id);
  NUMBER(r, upstream_ns);
  NUMBER(r, origin_plugin);
  NUMBER(r, edits);
  NUMBER(r, known_mask);
  print_span("reason", &r->reason);
  print_span("body", &r->body);
  print_headers(&r->headers, r->entry_size);
  for (uint32_t id = 0; id <= RW_H_REMOVED; id++) print_first(id, rw_response_header(r, id));
}

int main(void) {
  enum { FRAME_BYTES_MAX = 1 << 20 };
  uint8_t *frame = aligned_alloc(16, FRAME_BYTES_MAX);
  if (frame == NULL) return 2;
  size_t len = fread(frame, 1, FRAME_BYTES_MAX, stdin);
  const void *request = frame + len - sizeof(rw_request);
  const void *response = frame + len - sizeof(rw_response);
  int known = 1;
  if (len >= sizeof(rw_request) && ((const rw_request *)request)->magic == RW_REQUEST_MAGIC)
    print_request(request);
  else if (len >= sizeof(rw_response) && ((const rw_response *)response)->magic == RW_RESPONSE_MAGIC)
    print_response(response);
  else
    known = 0;
  free(frame);
  return known ? 0 : 1;
}
