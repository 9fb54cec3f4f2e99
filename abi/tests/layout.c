/*
 * layout.c - prints the layout of ringway.h as this C compiler sees it, one fact per line.
 *
 * The text must equal layout-1.0.txt byte for byte; so must the texts of layout.zig and of layout.rs. The lists are in the
 * order of the header. A test compares them with the header, so a forgotten line is found.
 */
#include <inttypes.h>
#include <stdio.h>

#include "ringway.h"

/* S(struct) begins a struct, F(struct, field) follows for each of its fields. */
#define STRUCTS(S, F)                                                                                                   \
  S(rw_span) F(rw_span, off) F(rw_span, len)                                                                            \
  S(rw_name_span) F(rw_name_span, off) F(rw_name_span, len) F(rw_name_span, id)                                         \
  S(rw_header) F(rw_header, name) F(rw_header, value)                                                                   \
  S(rw_headers) F(rw_headers, off) F(rw_headers, len)                                                                   \
  S(rw_request)                                                                                                         \
  F(rw_request, magic) F(rw_request, root_size) F(rw_request, entry_size) F(rw_request, method_id)                      \
  F(rw_request, http_version) F(rw_request, flags) F(rw_request, edits) F(rw_request, method) F(rw_request, target)     \
  F(rw_request, path) F(rw_request, query) F(rw_request, authority) F(rw_request, body) F(rw_request, content_length)   \
  F(rw_request, request_id) F(rw_request, received_unix_ns) F(rw_request, peer_addr) F(rw_request, peer_port)           \
  F(rw_request, listener) F(rw_request, route) F(rw_request, known_mask) F(rw_request, known) F(rw_request, headers)    \
  S(rw_response)                                                                                                        \
  F(rw_response, magic) F(rw_response, root_size) F(rw_response, entry_size) F(rw_response, status)                     \
  F(rw_response, http_version) F(rw_response, origin) F(rw_response, flags) F(rw_response, reserved)                    \
  F(rw_response, reason) F(rw_response, body) F(rw_response, content_length) F(rw_response, request_id)                 \
  F(rw_response, upstream_ns) F(rw_response, origin_plugin) F(rw_response, edits) F(rw_response, known_mask)            \
  F(rw_response, known) F(rw_response, headers)                                                                         \
  S(rw_cx)                                                                                                              \
  F(rw_cx, size) F(rw_cx, hook) F(rw_cx, host) F(rw_cx, core) F(rw_cx, scratch) F(rw_cx, request) F(rw_cx, response)    \
  F(rw_cx, now_unix_ns) F(rw_cx, worker) F(rw_cx, link)                                                                 \
  S(rw_accept) F(rw_accept, size) F(rw_accept, listener) F(rw_accept, peer_port) F(rw_accept, peer_addr)                \
  S(rw_chunk) F(rw_chunk, size) F(rw_chunk, flags) F(rw_chunk, offset) F(rw_chunk, bytes) F(rw_chunk, len)              \
  S(rw_event)                                                                                                           \
  F(rw_event, size) F(rw_event, kind) F(rw_event, token) F(rw_event, status) F(rw_event, reserved)                      \
  F(rw_event, response)                                                                                                 \
  S(rw_done)                                                                                                            \
  F(rw_done, size) F(rw_done, status) F(rw_done, origin) F(rw_done, flags) F(rw_done, request_body_bytes)               \
  F(rw_done, response_body_bytes) F(rw_done, duration_ns)                                                               \
  S(rw_tick) F(rw_tick, size) F(rw_tick, worker) F(rw_tick, now_unix_ns)                                                \
  S(rw_host)                                                                                                            \
  F(rw_host, size) F(rw_host, abi_major) F(rw_host, abi_minor) F(rw_host, header_set) F(rw_host, header_add)            \
  F(rw_host, header_del) F(rw_host, target_set) F(rw_host, status_set) F(rw_host, upstream_set)                         \
  F(rw_host, body_replace) F(rw_host, resp_begin) F(rw_host, resp_reserve) F(rw_host, resp_commit)                      \
  F(rw_host, resp_prebuilt) F(rw_host, alloc) F(rw_host, metric_add) F(rw_host, metric_set) F(rw_host, log)             \
  F(rw_host, now_unix_ns) F(rw_host, intern_header) F(rw_host, prebuilt_add) F(rw_host, load_error)                     \
  F(rw_host, load_log) F(rw_host, get_ext)                                                                              \
  S(rw_metric_def)                                                                                                      \
  F(rw_metric_def, name) F(rw_metric_def, help) F(rw_metric_def, kind) F(rw_metric_def, reserved)                       \
  S(rw_map_def)                                                                                                         \
  F(rw_map_def, name) F(rw_map_def, value_fields) F(rw_map_def, kind) F(rw_map_def, key_bytes)                          \
  F(rw_map_def, value_bytes) F(rw_map_def, entries_max)                                                                 \
  S(rw_plugin)                                                                                                          \
  F(rw_plugin, size) F(rw_plugin, abi_major) F(rw_plugin, abi_minor) F(rw_plugin, abi_min_minor)                        \
  F(rw_plugin, language) F(rw_plugin, scratch_bytes) F(rw_plugin, layout_fingerprint) F(rw_plugin, wants)               \
  F(rw_plugin, hooks) F(rw_plugin, reserved) F(rw_plugin, name) F(rw_plugin, version) F(rw_plugin, metrics)             \
  F(rw_plugin, maps) F(rw_plugin, metric_count) F(rw_plugin, map_count) F(rw_plugin, metric_bytes)                      \
  F(rw_plugin, map_bytes) F(rw_plugin, load) F(rw_plugin, unload) F(rw_plugin, core_init) F(rw_plugin, core_fini) F(rw_plugin, on_accept) F(rw_plugin, on_request)                      \
  F(rw_plugin, on_request_chunk) F(rw_plugin, on_request_body) F(rw_plugin, on_response)                                \
  F(rw_plugin, on_response_chunk) F(rw_plugin, on_event) F(rw_plugin, on_done) F(rw_plugin, on_tick)                    \
  F(rw_plugin, get_ext)                                                                                                 \
  S(rw_note)                                                                                                            \
  F(rw_note, owner_bytes) F(rw_note, desc_bytes) F(rw_note, type) F(rw_note, owner) F(rw_note, abi_major)               \
  F(rw_note, abi_minor) F(rw_note, abi_min_minor) F(rw_note, language) F(rw_note, fingerprint_low)                      \
  F(rw_note, fingerprint_high) F(rw_note, wants_low) F(rw_note, wants_high) F(rw_note, hooks)                           \
  F(rw_note, scratch_bytes) F(rw_note, name) F(rw_note, version)

#define CONSTANTS(C)                                                                                                    \
  C(RW_ABI_MAJOR) C(RW_ABI_MINOR) C(RW_REQUEST_MAGIC) C(RW_RESPONSE_MAGIC) C(RW_HEADERS_MAX)                            \
  C(RW_REQ_HAS_BODY) C(RW_REQ_CHUNKED) C(RW_REQ_ABSOLUTE_TARGET) C(RW_REQ_UPGRADE) C(RW_REQ_TLS)                        \
  C(RW_REQ_BODY_COMPLETE)                                                                                               \
  C(RW_ORIGIN_UPSTREAM) C(RW_ORIGIN_PLUGIN) C(RW_ORIGIN_GATEWAY)                                                        \
  C(RW_RES_HAS_BODY) C(RW_RES_CHUNKED) C(RW_RES_CLOSE_DELIMITED) C(RW_RES_BODY_COMPLETE)                                \
  C(RW_M_OTHER) C(RW_M_GET) C(RW_M_HEAD) C(RW_M_POST) C(RW_M_PUT) C(RW_M_DELETE) C(RW_M_CONNECT) C(RW_M_OPTIONS)        \
  C(RW_M_TRACE) C(RW_M_PATCH)                                                                                           \
  C(RW_H_OTHER) C(RW_H_HOST) C(RW_H_CONTENT_LENGTH) C(RW_H_TRANSFER_ENCODING) C(RW_H_CONNECTION)                        \
  C(RW_H_CONTENT_TYPE) C(RW_H_USER_AGENT) C(RW_H_ACCEPT) C(RW_H_ACCEPT_ENCODING) C(RW_H_ACCEPT_LANGUAGE)                \
  C(RW_H_AUTHORIZATION) C(RW_H_COOKIE) C(RW_H_SET_COOKIE) C(RW_H_CACHE_CONTROL) C(RW_H_DATE) C(RW_H_SERVER)             \
  C(RW_H_ETAG) C(RW_H_LAST_MODIFIED) C(RW_H_IF_NONE_MATCH) C(RW_H_IF_MODIFIED_SINCE) C(RW_H_LOCATION)                   \
  C(RW_H_REFERER) C(RW_H_ORIGIN) C(RW_H_VARY) C(RW_H_EXPIRES) C(RW_H_AGE) C(RW_H_PRAGMA) C(RW_H_RANGE)                  \
  C(RW_H_CONTENT_RANGE) C(RW_H_ACCEPT_RANGES) C(RW_H_CONTENT_ENCODING) C(RW_H_EXPECT) C(RW_H_UPGRADE) C(RW_H_TE)        \
  C(RW_H_TRAILER) C(RW_H_KEEP_ALIVE) C(RW_H_PROXY_CONNECTION) C(RW_H_PROXY_AUTHENTICATE)                                \
  C(RW_H_PROXY_AUTHORIZATION) C(RW_H_VIA) C(RW_H_X_FORWARDED_FOR) C(RW_H_X_FORWARDED_PROTO)                             \
  C(RW_H_X_FORWARDED_HOST) C(RW_H_FORWARDED) C(RW_H_X_REQUEST_ID) C(RW_H_TRACEPARENT) C(RW_H_WWW_AUTHENTICATE)          \
  C(RW_H_ALLOW) C(RW_H_MAX_FORWARDS) C(RW_H_X_REAL_IP) C(RW_H_RETRY_AFTER) C(RW_H_HTTP2_SETTINGS)                       \
  C(RW_H_SEC_WEBSOCKET_KEY) C(RW_H_LIMIT) C(RW_H_REMOVED)                                           \
  C(RW_ABORTED) C(RW_CONTINUE) C(RW_DONE) C(RW_RESPOND) C(RW_DROP) C(RW_SUSPEND) C(RW_NEED_BODY) C(RW_TAIL)             \
  C(RW_OK) C(RW_ERR_NOT_DECLARED) C(RW_ERR_WRONG_HOOK) C(RW_ERR_BAD_BYTES) C(RW_ERR_NO_SPACE)                           \
  C(RW_ERR_NOT_FOUND) C(RW_ERR_FORBIDDEN) C(RW_ERR_BAD_ARGUMENT)                                                        \
  C(RW_CHUNK_LAST) C(RW_END_ABORTED) C(RW_SIDE_REQUEST) C(RW_SIDE_RESPONSE)                                                      \
  C(RW_LOG_ERROR) C(RW_LOG_WARN) C(RW_LOG_INFO) C(RW_LOG_DEBUG)                                                         \
  C(RW_HOOK_ACCEPT) C(RW_HOOK_REQUEST) C(RW_HOOK_REQUEST_CHUNK) C(RW_HOOK_REQUEST_BODY) C(RW_HOOK_RESPONSE)             \
  C(RW_HOOK_RESPONSE_CHUNK) C(RW_HOOK_EVENT) C(RW_HOOK_DONE) C(RW_HOOK_TICK)                                            \
  C(RW_WANT_EDIT_REQUEST) C(RW_WANT_EDIT_RESPONSE) C(RW_WANT_EDIT_REQUEST_BODY) C(RW_WANT_EDIT_RESPONSE_BODY)           \
  C(RW_WANT_REQUEST_BODY) C(RW_WANT_RESPOND) C(RW_WANT_UPSTREAM) C(RW_WANT_TIME) C(RW_WANT_SUSPEND) C(RW_WANT_MAPS)     \
  C(RW_LANG_OTHER) C(RW_LANG_C) C(RW_LANG_RUST) C(RW_LANG_ZIG) C(RW_LANG_CPP) C(RW_LANG_GO)                             \
  C(RW_METRIC_COUNTER) C(RW_METRIC_GAUGE) C(RW_METRICS_MAX) C(RW_SCRATCH_BYTES_MAX) C(RW_NOTE_TYPE)

#define PRINT_STRUCT(T) printf("struct " #T " size %zu align %zu\n", sizeof(T), _Alignof(T));
#define PRINT_FIELD(T, f) printf("field " #T "." #f " offset %zu size %zu\n", offsetof(T, f), sizeof(((T *)0)->f));
#define PRINT_CONSTANT(c) printf("const " #c " %" PRId64 "\n", (int64_t)(c));

int main(void) {
  STRUCTS(PRINT_STRUCT, PRINT_FIELD)
  CONSTANTS(PRINT_CONSTANT)
  return 0;
}
