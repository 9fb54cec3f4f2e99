/*
 * ringway-outcall.h - the extension "ringway.outcall/1": a plugin asks a configured upstream while its exchange waits
 *
 * A hook that may wait (ringway-wait.h) puts a request together, sends it and returns RW_SUSPEND. Its worker goes on with other exchanges. When the reply is
 * there, or when it is clear that none will come, on_event is called with RW_EVENT_REPLY, and its verdict continues the chain.
 *
 *     static const rw_outcall *calls;                                         // in load: calls = host->get_ext(loader, RW_EXT_OUTCALL)
 *     static uint32_t auth;                                                   // in load: auth = calls->upstream(loader, "auth", 4)
 *     on_request:  calls->begin(cx, auth, "GET", 3, "/check", 6);
 *                  calls->header(cx, "cookie", 6, cookie, cookie_len);
 *                  calls->send(cx, 0); return RW_SUSPEND;
 *     on_event:    return event->status == RW_OK && event->response->status == 200 ? RW_CONTINUE : RW_DROP;
 *
 * The plugin declares RW_WANT_OUTCALL and RW_WANT_SUSPEND, and RW_HOOK_EVENT.
 *
 *  - All rules of waiting hold: what was sent takes effect with RW_SUSPEND and is forgotten with every other verdict; timeouts.suspend bounds the whole; when the
 *    link goes on, or the client goes away, what is still under way is given up and its connection closed. There is no event for it then.
 *  - The request goes to a server of the upstream like any other: pooled connections, balancing, health, retries, and the timeouts for connecting, for writing, for
 *    the first byte and between two pieces of the reply. It is a request of the plugin's own: the gateway adds Host (the server's name, unless the plugin sets one) and
 *    Content-Length, and nothing of the client's.
 *  - The reply is read to its end before the event, by the parser that reads every response. `event->response` shows it, [hook]: read it with the functions for responses.
 *    Its `body` is without transfer coding and holds at most limits.outcall_reply_bytes; what is longer is cut off there, and RW_RES_BODY_COMPLETE is missing.
 *    Interim responses are skipped.
 *
 * The tags of lifetimes and threads are those of ringway.h.
 */
#ifndef RINGWAY_OUTCALL_H
#define RINGWAY_OUTCALL_H

#include "ringway-wait.h"

#ifdef __cplusplus
extern "C" {
#endif

/* For get_ext of rw_host. A table with another number at the end is another table. */
#define RW_EXT_OUTCALL "ringway.outcall/1"

/* A bit of `wants`: may send requests of its own. A gateway without this extension refuses the plugin. */
#define RW_WANT_OUTCALL 0x0400

/* rw_event.kind: an outcall is over. `token` is that of `send`, `status` RW_OK or one of those below; `response` is NULL unless it is RW_OK. */
#define RW_EVENT_REPLY 4

/* rw_event.status of RW_EVENT_REPLY; RW_ERR_NO_SPACE too, when the request does not fit with what the gateway adds. */
#define RW_OUTCALL_UNREACHABLE (-32) /* no server could be connected to, or took the request */
#define RW_OUTCALL_TIMEOUT (-33)     /* timeouts.connect, write_stall, first_byte or response_idle passed */
#define RW_OUTCALL_BROKEN (-34)      /* the connection ended too early, or what came is not HTTP or passes a limit of heads */

/* The table. [process] */
typedef struct rw_outcall {
  uint32_t size; /* bytes of this table; check before using a function newer than its first version */
  uint32_t reserved;

  /* The number of an upstream, for `begin`. Inside of load [main]. The configuration must have an upstream of this name, now and after every reload: otherwise
   * it is refused, with the plugin's name. RW_ERR_NOT_DECLARED, RW_ERR_WRONG_HOOK in core_init, RW_ERR_BAD_ARGUMENT for a name that is empty or not UTF-8,
   * RW_ERR_NO_SPACE above 64 names. */
  rw_status (*upstream)(rw_loader *loader, const uint8_t *name, uint32_t name_len);

  /* Begins a request; one that this hook has begun and not sent is forgotten. `target` is in origin-form. [worker], in the hooks that may suspend.
   * RW_ERR_NOT_DECLARED, RW_ERR_WRONG_HOOK, RW_ERR_NOT_FOUND for a number that `upstream` did not give, RW_ERR_BAD_BYTES, RW_ERR_FORBIDDEN for CONNECT and TRACE,
   * RW_ERR_NO_SPACE above limits.outcalls_per_hook, limits.outcalls or limits.outcall_request_bytes. */
  rw_status (*begin)(rw_cx *cx, uint32_t upstream, const uint8_t *method, uint32_t method_len, const uint8_t *target, uint32_t target_len);

  /* Adds a header to the request that was begun, under the rules of header_add. Host may be given once. Expect is forbidden too.
   * RW_ERR_WRONG_HOOK when none was begun, RW_ERR_BAD_BYTES, RW_ERR_FORBIDDEN, RW_ERR_NO_SPACE. [worker] */
  rw_status (*header)(rw_cx *cx, const uint8_t *name, uint32_t name_len, const uint8_t *value, uint32_t value_len);

  /* Gives it a body, which may be empty; a second call replaces the first. RW_ERR_WRONG_HOOK, RW_ERR_NO_SPACE. [worker] */
  rw_status (*body)(rw_cx *cx, const uint8_t *bytes, uint32_t len);

  /* It is complete: sent when the hook returns RW_SUSPEND. `token` comes back with its event. RW_ERR_WRONG_HOOK when none was begun. [worker] */
  rw_status (*send)(rw_cx *cx, uint64_t token);
} rw_outcall;

#ifdef __cplusplus
}
#endif

#endif /* RINGWAY_OUTCALL_H */
