/*
 * The note declares another hook than the descriptor. Expected: refused, "note".
 */
#include "hostile.h"
#define NAME "hostile-note-differs"
#define NOTE_HOOKS RW_HOOK_RESPONSE
#include "descriptor.h"
