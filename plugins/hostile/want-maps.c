/*
 * Wants maps and defines none. Expected: refused before it runs, naming "maps".
 */
#include "hostile.h"
#define NAME "hostile-want-maps"
#define WANTS RW_WANT_MAPS
#include "descriptor.h"
