/*
 * Has a relocation in its code, which would have to be writable while loading. Expected: refused before it runs, "TEXTREL".
 *
 * cflags: -Wl,-z,notext
 */
#include "hostile.h"
__asm__(".text\n.balign 8\n.quad ringway_plugin_v1\n");
#define NAME "hostile-textrel"
#include "descriptor.h"
