/*
 * Declares three maps at a null pointer. Expected: refused, "maps".
 */
#include "hostile.h"
#define NAME "hostile-maps-null"
#define WANTS RW_WANT_MAPS
#define MAP_COUNT 3
#include "descriptor.h"
