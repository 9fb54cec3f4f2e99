/*
 * outcall-descriptor.h - descriptor.h for plugins that send requests. HAS_EVENT names their on_event; without it every event goes on.
 */
#ifndef HAS_EVENT
static rw_verdict go_on(rw_cx *cx, const rw_event *event) {
  (void)cx;
  (void)event;
  return RW_CONTINUE;
}
#define HAS_EVENT go_on
#endif
#define LOAD load
#define ON_EVENT HAS_EVENT
#define HOOKS (RW_HOOK_REQUEST | RW_HOOK_EVENT)
#define WANTS (RW_WANT_SUSPEND | RW_WANT_OUTCALL)
#include "descriptor.h"
