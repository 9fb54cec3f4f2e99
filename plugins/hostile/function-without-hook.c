/*
 * Has an on_request that it does not declare. Expected: refused, "on_request".
 */
#include "hostile.h"
#define NAME "hostile-function-without-hook"
#define HOOKS 0
#include "descriptor.h"
