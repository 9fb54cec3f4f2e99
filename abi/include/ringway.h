/*
 * ringway.h - the Ringway plugin ABI, version 1.0
 *
 * This header is the specification. A plugin is a shared object that exports one data symbol, `ringway_plugin_v1`,
 * and carries one ELF note, `.note.ringway`. It needs nothing but this file: C11, C17 or C++17, no library to link.
 * The numbered rules that tests cite are in SPEC.md; the frozen offsets are in layout-1.0.txt.
 *
 * RULES THAT OUTLIVE EVERY VERSION
 *
 *  - Read by looking, write by calling. A message is a read-only struct (a "view") that points into the bytes that
 *    came from the network. Everything that changes something is a function of `rw_host`.
 *  - Nothing takes effect until the hook returns. A view never changes while the hook that received it runs; the next
 *    hook sees the edits. If the hook returns RW_ABORTED, its edits are dropped.
 *  - Everything optional is declared before it is needed: `hooks` and `wants` in the descriptor. A call that was not
 *    declared fails with RW_ERR_NOT_DECLARED and changes nothing.
 *  - Nothing released ever changes meaning. New meaning, new name. Structs begin with their size or are reached
 *    through a struct that tells it, and grow only at the end: check `size` (in views `root_size`) before reading a
 *    field newer than 1.0.
 *  - Only fixed-width integers and pointers cross the edge, without padding. Whoever allocates frees.
 *  - Host functions never call back into a plugin, and never free or move what a running hook can see.
 *
 * LIFETIMES (a tag on every function and pointer)
 *
 *  [process]   from `load` to `unload`: the host table, extension tables, the descriptor
 *  [core]      from `core_init` to `core_fini` of one worker
 *  [exchange]  until `on_done` of this exchange has returned; inside of `on_done` all of it is still readable: scratch,
 *              memory from `alloc`, both views and the bytes behind them
 *  [hook]      until the hook returns; keeping such a pointer is an error
 *
 * THREADS (a tag on every function)
 *
 *  [main]      the thread that loads plugins; never at the same time as itself
 *  [worker]    the worker thread that owns the core instance. All hooks of one core instance are mutually exclusive;
 *              hooks of different core instances run at the same time.
 *
 * A hook must not block, sleep, or keep a lock that another worker needs for long: every connection of its worker
 * waits. A native plugin is as trusted as the gateway itself: it shares its memory.
 */
#ifndef RINGWAY_H
#define RINGWAY_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define RW_ABI_MAJOR 1
#define RW_ABI_MINOR 0

/* FNV-1a 64 of layout-1.0.txt. A plugin compiled against another layout is refused before it runs. */
#define RW_LAYOUT_FINGERPRINT UINT64_C(0x8e64e4c06acba37a)

#define RW_SYMBOL "ringway_plugin_v1"

#if defined(__GNUC__) || defined(__clang__)
#define RW_EXPORT __attribute__((visibility("default")))
#else
#define RW_EXPORT
#endif

/* ---------------------------------------------------------------------------------------------------------------
 * 1. Views: what a message looks like
 *
 * All integers are little-endian. An offset is in bytes, relative to the address of the field that holds it, so a
 * view can be moved, mapped read-only or stored as a whole. Bytes behind a span are never NUL-terminated and never
 * assumed to be UTF-8. These structs are also rkyv archives: the Rust crate `ringway-abi` names the same bytes.
 *
 * A hook gets the address of the beginning of a view. The two roots, rw_request and rw_response, may grow at their end in
 * a later minor version; `root_size` is the gateway's size, never less than the reader's own when abi_min_minor allows
 * the gateway. An entry of the header table has 16 bytes in every version of major 1. In a stored frame the root stands
 * last: it is found by the size that it has in the version that wrote the frame.
 * ------------------------------------------------------------------------------------------------------------- */

/* Bytes of the message. Empty spans have len 0; their offset means nothing. */
typedef struct rw_span {
  int32_t off; /* from the address of this struct */
  uint32_t len;
} rw_span;

/* A header name with its interned id. */
typedef struct rw_name_span {
  int32_t off; /* from the address of this struct */
  uint16_t len;
  uint16_t id; /* RW_H_*, 0 for any other name, RW_H_REMOVED for a removed header (then every length is 0) */
} rw_name_span;

/* One header line as received: name before the colon, value without the blanks around it. */
typedef struct rw_header {
  rw_name_span name;
  rw_span value;
} rw_header;

/* An array of headers. */
typedef struct rw_headers {
  int32_t off; /* from the address of this struct */
  uint32_t len; /* entries, removed ones included */
} rw_headers;

#define RW_REQUEST_MAGIC UINT32_C(0x71657277)  /* "wreq" in memory order */
#define RW_RESPONSE_MAGIC UINT32_C(0x73657277) /* "wres" in memory order */

/* A request. Lifetime [hook] for the pointer to it; its bytes live [exchange]. */
typedef struct rw_request {
  uint32_t magic;      /* RW_REQUEST_MAGIC */
  uint16_t root_size;  /* sizeof(rw_request) of the gateway, at least 192 */
  uint16_t entry_size; /* 16, in all of major 1 */
  uint8_t method_id;   /* RW_M_*, 0 for any other method */
  uint8_t http_version; /* 10, 11 or 20 */
  uint16_t flags;      /* RW_REQ_* */
  uint32_t edits;      /* header and target edits applied so far; 0 = as received */
  rw_span method;
  rw_span target;    /* as received, or as edited */
  rw_span path;      /* the part of target before '?' ; "*" for OPTIONS * */
  rw_span query;     /* the part after '?', without it */
  rw_span authority; /* from an absolute target, else from Host; may be empty for HTTP/1.0 */
  rw_span body;      /* body bytes that arrived together with the head; empty when the body is chunked. body_replace does not change it */
  uint64_t content_length; /* bytes, as received; UINT64_MAX when not known (chunked) */
  uint64_t request_id;     /* not 0, unique in this process, the same in the response of the exchange */
  uint64_t received_unix_ns; /* coarse clock: a few milliseconds of resolution */
  uint8_t peer_addr[16];   /* IPv6, or IPv4 mapped (::ffff:a.b.c.d); all 0 for a Unix socket */
  uint16_t peer_port;
  uint16_t listener;       /* index of [[listener]] in the configuration */
  uint32_t route;          /* stands for one [[route]] while the process runs, also across reloads; UINT32_MAX when no route matched */
  uint64_t known_mask;     /* bit id is set when a header with that id is present */
  uint8_t known[64];       /* id -> index of its first entry, plus 1; 0 = absent. Exact: see RW_HEADERS_MAX */
  rw_headers headers;
} rw_request;

/* A gateway never shows a message with more entries than this, removed ones included: a longer one is refused, and an edit
 * that would pass it is RW_ERR_NO_SPACE. So `known` always leads to the first header of an id. */
#define RW_HEADERS_MAX 254

#define RW_REQ_HAS_BODY 0x0001       /* content_length > 0 or chunked */
#define RW_REQ_CHUNKED 0x0002
#define RW_REQ_ABSOLUTE_TARGET 0x0004 /* target was received in absolute-form */
#define RW_REQ_UPGRADE 0x0008        /* asks for a protocol that the gateway would forward */
#define RW_REQ_TLS 0x0010
#define RW_REQ_BODY_COMPLETE 0x0020  /* `body` holds the whole body */

/* A response, from whoever made it. */
typedef struct rw_response {
  uint32_t magic; /* RW_RESPONSE_MAGIC */
  uint16_t root_size;  /* sizeof(rw_response) of the gateway, at least 144 */
  uint16_t entry_size; /* 16, in all of major 1 */
  uint16_t status;      /* 200..599 */
  uint8_t http_version; /* 10, 11 or 20: what the upstream spoke; 11 when a plugin or the gateway answered */
  uint8_t origin;       /* RW_ORIGIN_* */
  uint16_t flags;       /* RW_RES_* */
  uint16_t reserved;
  rw_span reason;
  rw_span body; /* body bytes at hand when the hook runs; empty when the body is chunked */
  uint64_t content_length; /* bytes; UINT64_MAX when not known */
  uint64_t request_id;     /* that of the request */
  uint64_t upstream_ns;    /* from the request sent to the head received; 0 when nobody asked (RW_WANT_TIME) */
  uint32_t origin_plugin;  /* link index in the chain when origin is RW_ORIGIN_PLUGIN, else UINT32_MAX */
  uint32_t edits;          /* header and status edits applied so far */
  uint64_t known_mask;
  uint8_t known[64];
  rw_headers headers;
} rw_response;

#define RW_ORIGIN_UPSTREAM 0
#define RW_ORIGIN_PLUGIN 1
#define RW_ORIGIN_GATEWAY 2

#define RW_RES_HAS_BODY 0x0001
#define RW_RES_CHUNKED 0x0002
#define RW_RES_CLOSE_DELIMITED 0x0004
#define RW_RES_BODY_COMPLETE 0x0008

/* Methods with an id. */
#define RW_M_OTHER 0
#define RW_M_GET 1
#define RW_M_HEAD 2
#define RW_M_POST 3
#define RW_M_PUT 4
#define RW_M_DELETE 5
#define RW_M_CONNECT 6
#define RW_M_OPTIONS 7
#define RW_M_TRACE 8
#define RW_M_PATCH 9

/* Header names with a fixed id. Other ids below RW_H_LIMIT mean what intern_header returned them for, in this process
 * only; a later minor version may fix more of them. */
#define RW_H_OTHER 0
#define RW_H_HOST 1
#define RW_H_CONTENT_LENGTH 2
#define RW_H_TRANSFER_ENCODING 3
#define RW_H_CONNECTION 4
#define RW_H_CONTENT_TYPE 5
#define RW_H_USER_AGENT 6
#define RW_H_ACCEPT 7
#define RW_H_ACCEPT_ENCODING 8
#define RW_H_ACCEPT_LANGUAGE 9
#define RW_H_AUTHORIZATION 10
#define RW_H_COOKIE 11
#define RW_H_SET_COOKIE 12
#define RW_H_CACHE_CONTROL 13
#define RW_H_DATE 14
#define RW_H_SERVER 15
#define RW_H_ETAG 16
#define RW_H_LAST_MODIFIED 17
#define RW_H_IF_NONE_MATCH 18
#define RW_H_IF_MODIFIED_SINCE 19
#define RW_H_LOCATION 20
#define RW_H_REFERER 21
#define RW_H_ORIGIN 22
#define RW_H_VARY 23
#define RW_H_EXPIRES 24
#define RW_H_AGE 25
#define RW_H_PRAGMA 26
#define RW_H_RANGE 27
#define RW_H_CONTENT_RANGE 28
#define RW_H_ACCEPT_RANGES 29
#define RW_H_CONTENT_ENCODING 30
#define RW_H_EXPECT 31
#define RW_H_UPGRADE 32
#define RW_H_TE 33
#define RW_H_TRAILER 34
#define RW_H_KEEP_ALIVE 35
#define RW_H_PROXY_CONNECTION 36
#define RW_H_PROXY_AUTHENTICATE 37
#define RW_H_PROXY_AUTHORIZATION 38
#define RW_H_VIA 39
#define RW_H_X_FORWARDED_FOR 40
#define RW_H_X_FORWARDED_PROTO 41
#define RW_H_X_FORWARDED_HOST 42
#define RW_H_FORWARDED 43
#define RW_H_X_REQUEST_ID 44
#define RW_H_TRACEPARENT 45
#define RW_H_WWW_AUTHENTICATE 46
#define RW_H_ALLOW 47
#define RW_H_MAX_FORWARDS 48
#define RW_H_X_REAL_IP 49
#define RW_H_RETRY_AFTER 50
#define RW_H_HTTP2_SETTINGS 51
#define RW_H_SEC_WEBSOCKET_KEY 52
#define RW_H_LIMIT 64 /* ids are below this */
#define RW_H_REMOVED 0xffff

/* The bytes behind a span; s->len of them. */
static inline const uint8_t *rw_bytes(const rw_span *s) { return (const uint8_t *)s + s->off; }

/* The bytes of a header name; n->len of them. */
static inline const uint8_t *rw_name_bytes(const rw_name_span *n) { return (const uint8_t *)n + n->off; }

/* Entry `index` of a view's headers; index < headers->len. */
static inline const rw_header *rw_header_at(const rw_headers *headers, uint16_t entry_size, uint32_t index) {
  return (const rw_header *)(const void *)((const uint8_t *)headers + headers->off + (size_t)entry_size * index);
}

/* The first header with this id, or NULL; NULL also for RW_H_OTHER, RW_H_REMOVED and anything else that is no id.
 * Constant time: use it for every name that has an id. */
static inline const rw_header *rw_request_header(const rw_request *r, uint32_t id) {
  uint8_t at = id < RW_H_LIMIT ? r->known[id] : 0;
  return at == 0 ? NULL : rw_header_at(&r->headers, r->entry_size, (uint32_t)at - 1u);
}

static inline const rw_header *rw_response_header(const rw_response *r, uint32_t id) {
  uint8_t at = id < RW_H_LIMIT ? r->known[id] : 0;
  return at == 0 ? NULL : rw_header_at(&r->headers, r->entry_size, (uint32_t)at - 1u);
}

/* ---------------------------------------------------------------------------------------------------------------
 * 2. Verdicts: what a hook decides
 *
 * Zero is failure on purpose. A value that this list does not hold, and one that the running hook may not return, counts
 * as RW_ABORTED. After RW_ABORTED the link's `on_error` decides: "closed" (default) answers 500, or, when the head of a
 * response has left, cuts the connection off; "open" goes on as if the hook had not run.
 *
 *                       CONTINUE  DONE  RESPOND  DROP  NEED_BODY  SUSPEND
 *    on_accept             x       =1              x                         1: as RW_CONTINUE; an accept belongs to no exchange
 *    on_request            x       x       x       x       x         x
 *    on_request_chunk      x       x       x2      x                         2: cuts the connection off when a response has begun to leave
 *    on_request_body       x       x       x       x                 x
 *    on_response           x       x       x       x                 x
 *    on_response_chunk     x       x               x                         the head has left: a response can only be cut off
 *    on_event              x       x       x       x       x3        x4      the verdict of the hook that waited; 3: if that was on_request
 *    on_done                                                                 the verdict is ignored; 4: not after RW_EVENT_TIMEOUT
 *    on_tick                                                                 ignored, but RW_ABORTED is counted
 *
 * on_accept: RW_DROP closes the connection; RW_ABORTED does so when `on_error` is "closed". RW_TAIL is RW_ABORTED everywhere.
 *
 * A response that a hook has begun is forgotten unless that hook returns RW_RESPOND. A link whose pre hook returned
 * RW_RESPOND, RW_DROP or RW_ABORTED gets no further hook of this exchange except `on_done`, whatever `on_error` says.
 * ------------------------------------------------------------------------------------------------------------- */

typedef uint32_t rw_verdict;

#define RW_ABORTED 0   /* the plugin failed */
#define RW_CONTINUE 1  /* go on with the next link */
#define RW_DONE 2      /* go on, and call no hook of this link again in this exchange, except `on_done` */
#define RW_RESPOND 3   /* answer with the response that this hook has written through resp_begin or resp_prebuilt (needs RW_WANT_RESPOND) */
#define RW_DROP 4      /* close the connection without an answer */
#define RW_SUSPEND 5   /* wait for on_event, see ringway-wait.h (needs RW_WANT_SUSPEND) */
#define RW_NEED_BODY 6 /* on_request only: buffer the body, then call on_request_body (needs RW_WANT_REQUEST_BODY) */
#define RW_TAIL 7      /* reserved */

/* What host functions return: 0 or greater is success. */
typedef int32_t rw_status;

#define RW_OK 0
#define RW_ERR_NOT_DECLARED (-1) /* the descriptor's `wants` does not hold the bit for this call */
#define RW_ERR_WRONG_HOOK (-2)   /* not possible in the hook that is running */
#define RW_ERR_BAD_BYTES (-3)    /* a control other than HTAB in a value, blanks around it, not a token as a name, a target that HTTP forbids */
#define RW_ERR_NO_SPACE (-4)     /* a bound of the configuration was reached; nothing was changed */
#define RW_ERR_NOT_FOUND (-5)    /* no such header, upstream, id */
#define RW_ERR_FORBIDDEN (-6)    /* framing and connection headers belong to the gateway */
#define RW_ERR_BAD_ARGUMENT (-7)

/* ---------------------------------------------------------------------------------------------------------------
 * 3. Events of the hooks
 * ------------------------------------------------------------------------------------------------------------- */

typedef struct rw_host rw_host;

/* Passed to every hook. Readable fields first; lifetime [hook]. */
typedef struct rw_cx {
  uint32_t size; /* bytes of this struct that the gateway filled */
  uint32_t hook; /* the RW_HOOK_* bit that is running */
  const rw_host *host; /* the same in every hook; [process] */
  void *core;    /* what core_init stored; [core] */
  void *scratch; /* scratch_bytes bytes for this link and exchange, zeroed when the exchange began, 16-byte aligned; NULL when scratch_bytes is 0, in on_accept and in on_tick; [exchange] */
  const rw_request *request;   /* NULL in on_accept and on_tick */
  const rw_response *response; /* NULL until there is a response; the one that is sent, or was, in on_done */
  uint64_t now_unix_ns;        /* coarse clock */
  uint32_t worker;             /* index of the worker */
  uint32_t link;               /* index of the link in its chain */
} rw_cx;

/* on_accept: a client connected. It runs for the plugins that are attached to the listener (`[[listener]] plugins`); all
 * other hooks but on_tick run for those that are attached to the route of a request (`[[route]] plugins`). */
typedef struct rw_accept {
  uint32_t size;
  uint16_t listener;
  uint16_t peer_port;
  uint8_t peer_addr[16];
} rw_accept;

/* on_request_chunk, on_response_chunk: the next piece of a body, transfer coding removed, as the link before left it.
 * on_request_body: the whole body, maybe empty.
 *
 * Chunk hooks see the whole body from offset 0, with the bytes that `view.body` shows already; after on_request_body, the
 * body that it left. on_request_chunk begins when every on_request and on_request_body of the chain has run. Request and
 * response are streamed at once: a request chunk may come after the response has begun. A message without a body gets no
 * chunk hook; neither does the tunnel after an upgrade. The last piece has RW_CHUNK_LAST and may be empty; it does not come
 * when the body is cut off. on_response_chunk runs when the head can no longer be changed. */
typedef struct rw_chunk {
  uint32_t size;
  uint32_t flags;  /* RW_CHUNK_* */
  uint64_t offset; /* of this piece in the body, in bytes before any chunk hook replaced some */
  const uint8_t *bytes; /* [hook] */
  uint64_t len;
} rw_chunk;

#define RW_CHUNK_LAST 0x1

/* on_event: what a hook that returned RW_SUSPEND has waited for. See ringway-wait.h and ringway-outcall.h. */
typedef struct rw_event {
  uint32_t size;
  uint32_t kind;  /* RW_EVENT_* */
  uint64_t token; /* what the plugin gave to timer, wake or send; 0 for RW_EVENT_TIMEOUT */
  int32_t status; /* 0; of an outcall, why there is no reply */
  uint32_t reserved;
  const rw_response *response; /* the reply to an outcall, [hook]; otherwise NULL */
} rw_event;

/* on_done: the exchange is over, whatever its end. Called once for every link that the exchange reached: its pre hook ran,
 * whatever it returned, or would have run if it had one, or a `post_always` link was shown the response. Not called when
 * no route matched. Nothing can be edited any more; the verdict is ignored. */
typedef struct rw_done {
  uint32_t size;
  uint16_t status; /* sent to the client; 0 when none was sent */
  uint8_t origin;  /* RW_ORIGIN_* */
  uint8_t flags;   /* RW_END_* */
  uint64_t request_body_bytes;
  uint64_t response_body_bytes; /* sent to the client, framing removed */
  uint64_t duration_ns; /* coarse clock */
} rw_done;

#define RW_END_ABORTED 0x01 /* the client or the upstream went away before the end */

/* on_tick: about once a second on every worker, once for each core instance. */
typedef struct rw_tick {
  uint32_t size;
  uint32_t worker;
  uint64_t now_unix_ns;
} rw_tick;

/* ---------------------------------------------------------------------------------------------------------------
 * 4. The host table: what a plugin can do
 *
 * [worker] and only while a hook of this cx runs, unless tagged otherwise. Byte arguments are copied before the call
 * returns. `side` is RW_SIDE_REQUEST or RW_SIDE_RESPONSE. Names compare without case. The table and every extension table
 * live [process].
 *
 * What can be edited, and where (RW_ERR_WRONG_HOOK elsewhere):
 *
 *    head of the request, upstream     on_request, on_request_body
 *    head of the response              on_response
 *    a response of the plugin's own    the hook that begins it: on_request, on_request_chunk, on_request_body, on_response
 *    bytes of the request body         on_request_chunk, on_request_body
 *    bytes of the response body        on_response_chunk
 *
 * In on_event what the hook could edit that returned RW_SUSPEND.
 * ------------------------------------------------------------------------------------------------------------- */

#define RW_SIDE_REQUEST 0u
#define RW_SIDE_RESPONSE 1u

#define RW_LOG_ERROR 1u
#define RW_LOG_WARN 2u
#define RW_LOG_INFO 3u
#define RW_LOG_DEBUG 4u

typedef struct rw_loader rw_loader; /* the gateway's side of a running load or core_init; lifetime: until it returns */

struct rw_host {
  uint32_t size; /* bytes of this table; check before using a function newer than 1.0 */
  uint16_t abi_major;
  uint16_t abi_minor;

  /* -- edits: RW_WANT_EDIT_REQUEST or RW_WANT_EDIT_RESPONSE, by side -- */

  /* Replaces every header of this name by one. The place of the first is kept; new ones go to the end.
   * Host and Date may be set. The fields of framing and connection are the gateway's (RW_ERR_FORBIDDEN): Connection,
   * Content-Length, HTTP2-Settings, Keep-Alive, Proxy-Connection, TE, Trailer, Transfer-Encoding, Upgrade.
   * A request keeps exactly one Host: header_set takes a valid host[:port] only (RW_ERR_BAD_BYTES), header_add and
   * header_del refuse the name (RW_ERR_FORBIDDEN).
   *
   * After resp_begin or resp_prebuilt in the same hook, the three functions edit that new response when side is
   * RW_SIDE_RESPONSE, and need no `wants` bit for it but RW_WANT_RESPOND. */
  rw_status (*header_set)(rw_cx *cx, uint32_t side, const uint8_t *name, uint32_t name_len, const uint8_t *value, uint32_t value_len);

  /* Adds one more header of this name. */
  rw_status (*header_add)(rw_cx *cx, uint32_t side, const uint8_t *name, uint32_t name_len, const uint8_t *value, uint32_t value_len);

  /* Removes every header of this name. Returns how many there were, edits of this hook included (0 is no error). */
  rw_status (*header_del)(rw_cx *cx, uint32_t side, const uint8_t *name, uint32_t name_len);

  /* Replaces the request target (path and query, origin-form). Routing has been done; it is not repeated. */
  rw_status (*target_set)(rw_cx *cx, const uint8_t *target, uint32_t target_len);

  /* Replaces the status of the response (200..599), not of one that this hook has begun. */
  rw_status (*status_set)(rw_cx *cx, uint32_t status);

  /* Sends this exchange to another configured upstream (RW_WANT_UPSTREAM; on_request, on_request_body). */
  rw_status (*upstream_set)(rw_cx *cx, const uint8_t *name, uint32_t name_len);

  /* Replaces the bytes that the running body hook was shown; len 0 removes them. Needs RW_WANT_EDIT_REQUEST_BODY or
   * RW_WANT_EDIT_RESPONSE_BODY, by hook; the message is then forwarded with chunked framing or, after
   * on_request_body (not of CONNECT), with a new Content-Length. */
  rw_status (*body_replace)(rw_cx *cx, const uint8_t *bytes, uint64_t len);

  /* -- the response writer: RW_WANT_RESPOND; on_request, on_request_chunk, on_request_body, on_response -- */

  /* Begins a response; anything begun before in this hook is forgotten. Headers follow through header_add(RW_SIDE_RESPONSE)
   * and its siblings. Framing is the gateway's; so is Date, unless the plugin sets it. The response is sent when the hook
   * returns RW_RESPOND. */
  rw_status (*resp_begin)(rw_cx *cx, uint32_t status);

  /* Room for `len` more body bytes, directly in the send buffer. NULL when the bound (limits.plugin_response_bytes)
   * would be passed, or when no response was begun. The pointer is valid until the next call of resp_reserve, resp_begin
   * or resp_prebuilt, or until the hook returns. The bytes are initialized, but to nothing in particular: write what you
   * commit. */
  uint8_t *(*resp_reserve)(rw_cx *cx, uint32_t len);

  /* The first `len` reserved bytes are now body. */
  rw_status (*resp_commit)(rw_cx *cx, uint32_t len);

  /* Begins a response that prebuilt_add has laid out, with its body; headers may follow as after resp_begin. Then return
   * RW_RESPOND. */
  rw_status (*resp_prebuilt)(rw_cx *cx, uint32_t id);

  /* -- memory, measuring, logging -- */

  /* `size` bytes, 16-byte aligned, not zeroed, [exchange]; they never move. NULL when the bound of the exchange
   * (limits.plugin_alloc_bytes, shared by its links) would be passed, in on_accept and in on_tick. */
  void *(*alloc)(rw_cx *cx, uint32_t size);

  /* Adds to a metric of the descriptor (counter) or sets it (gauge), for this worker. `metric` is its index there. Any hook. */
  rw_status (*metric_add)(rw_cx *cx, uint32_t metric, uint64_t delta);
  rw_status (*metric_set)(rw_cx *cx, uint32_t metric, uint64_t value);

  /* One log line, with the plugin's name and the request id. At most 1024 bytes are kept. Any hook. */
  void (*log)(rw_cx *cx, uint32_t level, const uint8_t *text, uint32_t len);

  /* The precise clock, nanoseconds since the epoch. Costs ten times a hook call: ask only when needed. Any hook. */
  uint64_t (*now_unix_ns)(rw_cx *cx);

  /* -- while loading: inside `load`, [main]; the last three also inside `core_init`, [worker] -- */

  /* The id for a header name: a fixed one, or a free one below RW_H_LIMIT, shared by all who ask for that name.
   * RW_ERR_NO_SPACE when all are taken. RW_ERR_WRONG_HOOK in core_init: views are shown with the ids of load. */
  rw_status (*intern_header)(rw_loader *loader, const uint8_t *name, uint32_t name_len);

  /* Lays a complete response out once. `headers` is "Name: value\r\n" lines, under the rules of header_add. Returns its id.
   * RW_ERR_WRONG_HOOK in core_init. */
  rw_status (*prebuilt_add)(rw_loader *loader, uint32_t status, const uint8_t *headers, uint32_t headers_len, const uint8_t *body, uint32_t body_len);

  /* The reason why load or core_init fails; at most 1023 bytes are kept, of the last call. Shown to the operator. */
  void (*load_error)(rw_loader *loader, const uint8_t *text, uint32_t len);

  /* One log line while loading. */
  void (*load_log)(rw_loader *loader, uint32_t level, const uint8_t *text, uint32_t len);

  /* An extension table by id ("ringway.NAME/N"), NUL-terminated; NULL when the gateway has none. The table lives
   * [process]: resolve it once. */
  const void *(*get_ext)(rw_loader *loader, const char *id);
};

/* ---------------------------------------------------------------------------------------------------------------
 * 5. The descriptor: what a plugin is
 * ------------------------------------------------------------------------------------------------------------- */

/* Hook bits of `hooks`: a bit without its function, or a function without its bit, is refused. */
#define RW_HOOK_ACCEPT 0x001
#define RW_HOOK_REQUEST 0x002
#define RW_HOOK_REQUEST_CHUNK 0x004
#define RW_HOOK_REQUEST_BODY 0x008
#define RW_HOOK_RESPONSE 0x010
#define RW_HOOK_RESPONSE_CHUNK 0x020
#define RW_HOOK_EVENT 0x040
#define RW_HOOK_DONE 0x080
#define RW_HOOK_TICK 0x100

/* What else the plugin may do. The gateway plans each route by what its chain wants, and nobody pays for the rest. */
#define RW_WANT_EDIT_REQUEST 0x0001       /* headers and target of the request */
#define RW_WANT_EDIT_RESPONSE 0x0002      /* headers and status of the response */
#define RW_WANT_EDIT_REQUEST_BODY 0x0004
#define RW_WANT_EDIT_RESPONSE_BODY 0x0008
#define RW_WANT_REQUEST_BODY 0x0010       /* may return RW_NEED_BODY */
#define RW_WANT_RESPOND 0x0020            /* may return RW_RESPOND */
#define RW_WANT_UPSTREAM 0x0040           /* may choose the upstream */
#define RW_WANT_TIME 0x0080               /* upstream_ns of responses */
#define RW_WANT_SUSPEND 0x0100            /* may return RW_SUSPEND; needs on_event */
#define RW_WANT_MAPS 0x0200               /* has maps: see section 7 */

#define RW_LANG_OTHER 0
#define RW_LANG_C 1
#define RW_LANG_RUST 2
#define RW_LANG_ZIG 3
#define RW_LANG_CPP 4
#define RW_LANG_GO 5

/* A metric. Shown as ringway_plugin_NAME{plugin="..."}; name is [a-z0-9_]+, at most 63 bytes, once in a plugin. May grow. */
typedef struct rw_metric_def {
  const char *name; /* NUL-terminated, [process] */
  const char *help; /* NUL-terminated, [process] */
  uint32_t kind;    /* RW_METRIC_* */
  uint32_t reserved;
} rw_metric_def;

#define RW_METRIC_COUNTER 1
#define RW_METRIC_GAUGE 2

/* The most that `metric_count` may be. */
#define RW_METRICS_MAX 256

/* The most that `scratch_bytes` may ask for. */
#define RW_SCRATCH_BYTES_MAX 4096

/* A map: see section 7 for what each kind needs. May grow. A plugin with maps has RW_WANT_MAPS, one without has not. */
typedef struct rw_map_def {
  const char *name;         /* NUL-terminated, [process]; [a-z0-9_-]+, at most RW_MAP_NAME_BYTES_MAX bytes, once in a plugin */
  const char *value_fields; /* NUL-terminated, [process]; what a value holds, as "u64 hits, u64 bytes" */
  uint32_t kind;            /* RW_MAP_* */
  uint32_t key_bytes;
  uint32_t value_bytes;     /* the sum of value_fields */
  uint32_t entries_max;     /* all of them are there from the beginning */
} rw_map_def;

/* The exported constant `ringway_plugin_v1`. Everything it points to lives [process]. */
typedef struct rw_plugin {
  uint32_t size; /* sizeof(rw_plugin) */
  uint16_t abi_major;
  uint16_t abi_minor;     /* of the header it was compiled with */
  uint16_t abi_min_minor; /* the oldest minor of the gateway that it can run with */
  uint16_t language;      /* RW_LANG_* */
  uint32_t scratch_bytes; /* per exchange, at most RW_SCRATCH_BYTES_MAX */
  uint64_t layout_fingerprint; /* RW_LAYOUT_FINGERPRINT */
  uint64_t wants;              /* RW_WANT_* */
  uint32_t hooks;              /* RW_HOOK_* */
  uint32_t reserved;
  const char *name;    /* NUL-terminated, [a-z0-9-]+, at most 63 bytes; the same as in the note */
  const char *version; /* NUL-terminated, at most 31 bytes; the same as in the note */
  const rw_metric_def *metrics;
  const rw_map_def *maps;
  uint32_t metric_count;
  uint32_t map_count;
  uint32_t metric_bytes; /* sizeof(rw_metric_def); the gateway steps by it. Not looked at when metric_count is 0 */
  uint32_t map_bytes;    /* sizeof(rw_map_def); not looked at when map_count is 0 */

  /* Once per process, [main]. `config` is the plugin's [plugin.config] as JSON ("{}" when absent), [hook]. Store what
   * the cores share in *state [process]. Returns RW_OK, or anything else after load_error. NULL allowed. */
  rw_status (*load)(const rw_host *host, rw_loader *loader, const uint8_t *config, uint32_t config_len, void **state);
  /* Once per process, [main], after every core_fini. Not called when load failed. NULL allowed. */
  void (*unload)(void *state);
  /* Once per worker, on its thread, [worker]. Store the core instance in *core. Returns RW_OK, or anything else after
   * load_error: then the plugin is not used at all. NULL allowed: then cx->core is state. */
  rw_status (*core_init)(const rw_host *host, rw_loader *loader, void *state, uint32_t worker, void **core);
  /* Once per worker, on its thread, after its last hook. NULL allowed. */
  void (*core_fini)(void *core);

  /* Hooks, [worker]. Pre hooks (on_request, on_request_chunk, on_request_body) run in link order; post hooks
   * (on_response, on_response_chunk) in reverse, exactly for the links whose pre hooks let the exchange go on, for every
   * response, whoever made it. A link without a pre hook lets it go on; `post_always` links behind a short circuit are added. */
  rw_verdict (*on_accept)(rw_cx *cx, const rw_accept *event);
  rw_verdict (*on_request)(rw_cx *cx, const rw_request *request);
  rw_verdict (*on_request_chunk)(rw_cx *cx, const rw_chunk *chunk);
  rw_verdict (*on_request_body)(rw_cx *cx, const rw_chunk *body);
  rw_verdict (*on_response)(rw_cx *cx, const rw_response *response);
  rw_verdict (*on_response_chunk)(rw_cx *cx, const rw_chunk *chunk);
  rw_verdict (*on_event)(rw_cx *cx, const rw_event *event);
  rw_verdict (*on_done)(rw_cx *cx, const rw_done *done);
  rw_verdict (*on_tick)(rw_cx *cx, const rw_tick *tick);

  /* Plugin-side extensions by id ("ringway.llm/1"), NUL-terminated; NULL allowed, and NULL for "none". [main] */
  const void *(*get_ext)(const char *id);
} rw_plugin;

/* What a plugin defines: `const rw_plugin ringway_plugin_v1 = {...}`. This declaration gives the definition its
 * visibility, and its linkage in C++, whatever the flags of the compiler. */
extern RW_EXPORT const rw_plugin ringway_plugin_v1;

/* ---------------------------------------------------------------------------------------------------------------
 * 6. The ELF note: the same facts, readable without running anything
 *
 * Section ".note.ringway", owner "Ringway", type 1, 4-byte aligned. `ringway plugin inspect` and every refusal read
 * only this, the ELF headers and the bytes of the descriptor.
 * ------------------------------------------------------------------------------------------------------------- */

#define RW_NOTE_TYPE 1u

typedef struct rw_note {
  uint32_t owner_bytes; /* 8 */
  uint32_t desc_bytes;  /* sizeof(rw_note) - 20 */
  uint32_t type;        /* RW_NOTE_TYPE */
  char owner[8];        /* "Ringway\0" */
  uint16_t abi_major;
  uint16_t abi_minor;
  uint16_t abi_min_minor;
  uint16_t language;
  uint32_t fingerprint_low;
  uint32_t fingerprint_high;
  uint32_t wants_low;
  uint32_t wants_high;
  uint32_t hooks;
  uint32_t scratch_bytes;
  char name[64];    /* NUL-padded */
  char version[32]; /* NUL-padded */
} rw_note;

/* Defines the note of a C or C++ plugin; use the same values as in the descriptor. MIN_MINOR is abi_min_minor. */
#define RW_DEFINE_NOTE_MIN(NAME, VERSION, LANGUAGE, HOOKS, WANTS, SCRATCH, MIN_MINOR)                                   \
  __attribute__((section(".note.ringway"), used, aligned(4))) static const rw_note rw_plugin_note = {                   \
      8u, (uint32_t)(sizeof(rw_note) - 20u), RW_NOTE_TYPE, {'R', 'i', 'n', 'g', 'w', 'a', 'y', '\0'},                   \
      RW_ABI_MAJOR, RW_ABI_MINOR, MIN_MINOR, LANGUAGE,                                                                  \
      (uint32_t)(RW_LAYOUT_FINGERPRINT & 0xffffffffu), (uint32_t)(RW_LAYOUT_FINGERPRINT >> 32),                         \
      (uint32_t)((uint64_t)(WANTS) & 0xffffffffu), (uint32_t)((uint64_t)(WANTS) >> 32),                                 \
      HOOKS, SCRATCH, NAME, VERSION}

/* The same for a plugin that runs with every minor version of the gateway: abi_min_minor is 0. */
#define RW_DEFINE_NOTE(NAME, VERSION, LANGUAGE, HOOKS, WANTS, SCRATCH)                                                  \
  RW_DEFINE_NOTE_MIN(NAME, VERSION, LANGUAGE, HOOKS, WANTS, SCRATCH, 0)

/* ---------------------------------------------------------------------------------------------------------------
 * 7. Maps: the extension "ringway.maps/1"
 *
 * A map is memory of the gateway that outlives a version of a plugin: when the plugin is swapped, the new version finds
 * what the old one counted, and both work on it while exchanges of the old one end. With `server.state` in the
 * configuration it is a file and outlives the process too. It is found again when name, kind, sizes, number of entries and
 * value_fields are the same; otherwise the plugin is refused, unless the operator says `maps = "fresh"`. Operators read and
 * write it while traffic flows (`ringway map dump`), by the names in value_fields.
 *
 * Maps are declared in the descriptor (`maps`, RW_WANT_MAPS), checked before any code of the plugin runs, and allocated as a
 * whole before `load`; the operator bounds their bytes (limits.map_bytes). Then:
 *
 *    in load or core_init:  const rw_maps *maps = host->get_ext(loader, RW_MAPS_EXTENSION);
 *                           maps->open(loader, 0, &hits);
 *    anywhere later:        maps->add(hits, key, sizeof key, 0, 1, NULL);
 *
 * Kinds:
 *
 *    RW_MAP_ARRAY       key: a uint32_t below entries_max. Every entry exists, zeroed at first; none can be removed.
 *    RW_MAP_CORE_ARRAY  the same, once for each worker: no other worker ever waits for it. Its handle comes from core_init
 *                       and is used on that worker alone. The cheapest; operators see the values of all workers.
 *    RW_MAP_HASH        key: 1 to RW_MAP_KEY_BYTES_MAX bytes. RW_ERR_NO_SPACE when entries_max keys are in it.
 *    RW_MAP_LRU         the same, but a new key takes the place of one that was not used for long.
 *    RW_MAP_LPM         key: an rw_prefix. `lookup` finds the longest prefix that holds an address.
 *    RW_MAP_RING        no key: records for `ringway tail` and for sinks, the oldest first; see `output`.
 *
 * value_fields: "TYPE NAME" or "TYPE[COUNT] NAME" with commas between. TYPE is u8, u16, u32, u64, i8, i16, i32, i64, or char
 * (text up to its first NUL, or bytes when it is not printable); NAME is [a-z0-9_]+. Little-endian, one after the other and without padding: each
 * number stands at a multiple of its size. The sum of all is value_bytes.
 *
 * Torn values do not exist: `lookup` gives a value as one `update` left it (with later `add`s), never a mixture of two.
 * ------------------------------------------------------------------------------------------------------------- */

#define RW_MAPS_EXTENSION "ringway.maps/1"

#define RW_MAP_ARRAY 1
#define RW_MAP_CORE_ARRAY 2
#define RW_MAP_HASH 3
#define RW_MAP_LRU 4
#define RW_MAP_LPM 5
#define RW_MAP_RING 6

/* The most that a plugin may declare. */
#define RW_MAPS_MAX 64
#define RW_MAP_NAME_BYTES_MAX 31
#define RW_MAP_KEY_BYTES_MAX 256
#define RW_MAP_VALUE_BYTES_MAX 4096
#define RW_MAP_ENTRIES_MAX 16777216

/* The status when other threads have written to the same place for longer than a worker may wait (some microseconds; it
 * takes a thread that was stopped in the middle of a write). Nothing was read or changed. `add` to a key that exists
 * gives it only when the key is being replaced or removed. */
#define RW_MAP_BUSY (-16)

/* A map as this plugin sees it: [process] when it was opened in load, [core] when in core_init. */
typedef struct rw_map rw_map;

/* The key of RW_MAP_LPM. `update` and `remove` take a prefix and ignore the bits behind it; `lookup` takes an address with
 * bits = 128. IPv4 is mapped as in rw_request.peer_addr: 10.0.0.0/8 is ::ffff:10.0.0.0 with bits = 96 + 8. */
typedef struct rw_prefix {
  uint32_t bits; /* 0..128 */
  uint8_t addr[16];
} rw_prefix;

/* Every function looks at each argument: a NULL map, a length that is not that of the definition, a NULL pointer with a
 * length, and a function that the kind does not have give RW_ERR_BAD_ARGUMENT. No pointer needs an alignment. `map` is one
 * that `open` gave. None of them waits, and none allocates. [any thread], except where a map is RW_MAP_CORE_ARRAY. */
typedef struct rw_maps {
  uint32_t size; /* bytes of this table; check before using a function newer than 1.0 */
  uint32_t reserved;

  /* Map number `index` of the descriptor. Inside load [main] or core_init [worker]. RW_ERR_NOT_FOUND when there is no such
   * number, RW_ERR_WRONG_HOOK for RW_MAP_CORE_ARRAY in load. */
  rw_status (*open)(rw_loader *loader, uint32_t index, const rw_map **map);

  /* Copies the value of a key. RW_ERR_NOT_FOUND when it has none. Not for RW_MAP_RING. */
  rw_status (*lookup)(const rw_map *map, const void *key, uint32_t key_len, void *value, uint32_t value_len);

  /* Sets the value of a key, which may be new. RW_ERR_NOT_FOUND for an index that is not below entries_max, RW_ERR_NO_SPACE
   * when the map is full. `flags` is 0. Not for RW_MAP_RING. */
  rw_status (*update)(const rw_map *map, const void *key, uint32_t key_len, const void *value, uint32_t value_len, uint32_t flags);

  /* Removes a key. RW_ERR_NOT_FOUND when it was not there. RW_MAP_HASH, RW_MAP_LRU, RW_MAP_LPM. */
  rw_status (*remove)(const rw_map *map, const void *key, uint32_t key_len);

  /* Adds to the u64 or i64 at `offset` of a value, atomically and wrapping; a key that is new begins with zeroes. The sum goes to *sum
   * unless it is NULL. RW_ERR_BAD_ARGUMENT when value_fields has no such number there. Otherwise as `update`. */
  rw_status (*add)(const rw_map *map, const void *key, uint32_t key_len, uint32_t offset, uint64_t delta, uint64_t *sum);

  /* RW_MAP_CORE_ARRAY: the value of this worker itself, 8-byte aligned, [core], to be read and written by the hooks of this
   * worker alone. Operators read it meanwhile, number by number: write each number with one store. NULL when `index` is not
   * below entries_max, and for other kinds. */
  void *(*value)(const rw_map *map, uint32_t index);

  /* RW_MAP_RING: appends a record of 1 to value_bytes bytes; one that is shorter leaves out the last fields. When nobody reads fast
   * enough the record is dropped, which the gateway counts and shows: RW_ERR_NO_SPACE. */
  rw_status (*output)(const rw_map *map, const void *record, uint32_t record_len);
} rw_maps;

#ifdef __cplusplus
}
#endif

#endif /* RINGWAY_H */
