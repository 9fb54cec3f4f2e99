/*
 * Asks for an executable stack, for the whole process. Expected: refused before it runs, "stack".
 *
 * cflags: -Wl,-z,execstack
 */
#include "hostile.h"
#define NAME "hostile-exec-stack"
#include "descriptor.h"
