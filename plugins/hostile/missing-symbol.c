/*
 * Needs a function that nobody has. Expected: refused before it runs, with the symbol's name.
 *
 * cflags: -Wl,-z,undefs
 */
#include "hostile.h"
extern int ringway_hostile_nobody_has_this(void);
static rw_verdict on_request(rw_cx *cx, const rw_request *request) {
  (void)cx;
  (void)request;
  return (rw_verdict)ringway_hostile_nobody_has_this();
}
#define NAME "hostile-missing-symbol"
#define ON_REQUEST on_request
#include "descriptor.h"
