/*
 * Has a note but does not export ringway_plugin_v1. Expected: refused before it runs, "ringway_plugin_v1".
 */
#include "hostile.h"
#define NAME "hostile-no-symbol"
#define WITHOUT_SYMBOL
#include "descriptor.h"
