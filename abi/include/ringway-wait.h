/*
 * ringway-wait.h - the extension "ringway.wait/1": waiting without blocking
 *
 * A hook that must know something first arms what it waits for and returns RW_SUSPEND. Its worker goes on with other exchanges; nothing of this one
 * happens meanwhile, except that a body which is already on its way goes on. When what it waits for is there, on_event is called, and its verdict
 * continues the chain as the verdict of the hook would have done.
 *
 *     static const rw_wait *wait;                                             // in load: wait = host->get_ext(loader, RW_EXT_WAIT)
 *     on_request:  wait->timer(cx, 10000000, 0); return RW_SUSPEND;
 *     on_event:    return RW_CONTINUE;
 *
 * The plugin declares RW_WANT_SUSPEND and RW_HOOK_EVENT. RW_SUSPEND is possible in on_request, on_request_body, on_response and on_event.
 *
 *  - Edits of a hook that suspends take effect when it returns. In on_event the same edits and answers are possible as in that hook.
 *  - Nothing has to be armed: then the hook waits for `wake`.
 *  - What is armed takes effect with RW_SUSPEND and is forgotten with every other verdict. It stays armed through other events until it fires, or until
 *    the link goes on.
 *  - Time is bounded: `timeouts.suspend` counts from the first RW_SUSPEND of a hook, further ones of its on_event included. When it is over,
 *    on_event gets RW_EVENT_TIMEOUT and must decide: RW_SUSPEND is RW_ABORTED there.
 *  - When the client goes away, or the exchange ends for another reason, all is cancelled and only on_done runs.
 *  - A swap or a reload changes nothing: the exchange ends on the chain that it began with.
 *  - The gateway bounds how many exchanges of a worker wait: above limits.suspended RW_SUSPEND is RW_ABORTED.
 *
 * Requests of the plugin's own, to upstreams of the configuration, are another extension: ringway-outcall.h.
 *
 * The tags of lifetimes and threads are those of ringway.h.
 */
#ifndef RINGWAY_WAIT_H
#define RINGWAY_WAIT_H

#include "ringway.h"

#ifdef __cplusplus
extern "C" {
#endif

/* For get_ext of rw_host. A table with another number at the end is another table. */
#define RW_EXT_WAIT "ringway.wait/1"

/* rw_event.kind */
#define RW_EVENT_TIMER 1   /* the timer is over */
#define RW_EVENT_WAKE 2    /* somebody called wake */
#define RW_EVENT_TIMEOUT 3 /* timeouts.suspend is over */

/* The table. [process] */
typedef struct rw_wait {
  uint32_t size; /* bytes of this table; check before using a function newer than its first version */
  uint32_t reserved;

  /* One event after `delay_ns`, rounded up to the next millisecond. One timer at a time: a second call replaces the first. [worker], in the hooks that
   * may suspend. RW_ERR_NOT_DECLARED, RW_ERR_WRONG_HOOK. */
  rw_status (*timer)(rw_cx *cx, uint64_t delay_ns, uint64_t token);

  /* One event for the waiting hook of this exchange and link: `request_id` of the request view, `link` of the cx. Any thread, between the beginning of `load` and
   * the end of `unload`, also before the hook has returned RW_SUSPEND. When that hook does not wait any more, nothing happens, but it is counted.
   * RW_OK, or RW_ERR_NO_SPACE when too many wakes of that worker are not yet taken: try again later. */
  rw_status (*wake)(uint64_t request_id, uint32_t link, uint64_t token);
} rw_wait;

#ifdef __cplusplus
}
#endif

#endif /* RINGWAY_WAIT_H */
