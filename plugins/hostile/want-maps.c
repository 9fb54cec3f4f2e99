/*
 * Wants maps, which ABI 1.0 names but does not offer. Expected: refused before it runs, naming "maps".
 */
#include "hostile.h"
#define NAME "hostile-want-maps"
#define WANTS RW_WANT_MAPS
#include "descriptor.h"
