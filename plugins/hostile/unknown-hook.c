/*
 * Declares a hook that ABI 1.0 does not have. Expected: refused before it runs, naming the bit.
 */
#include "hostile.h"
#define NAME "hostile-unknown-hook"
#define HOOKS (RW_HOOK_REQUEST | 0x80000000u)
#include "descriptor.h"
