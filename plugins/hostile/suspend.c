/*
 * Suspends, which it did not declare. Expected: the hook counts as failed, plugin_verdict_not_declared.
 */
#include "hostile.h"
static rw_verdict on_request(rw_cx *cx, const rw_request *request) {
  (void)cx;
  (void)request;
  return RW_SUSPEND;
}
#define NAME "hostile-suspend"
#define ON_REQUEST on_request
#include "descriptor.h"
