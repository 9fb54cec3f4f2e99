/*
 * Needs a gateway that is newer than any of this major version. Expected: refused before it runs, "newer minor".
 */
#include "hostile.h"
#define NAME "hostile-abi-minor"
#define MIN_MINOR 60000
#include "descriptor.h"
