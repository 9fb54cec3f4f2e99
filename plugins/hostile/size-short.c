/*
 * The descriptor claims to be shorter than the one of ABI 1.0. Expected: refused, "size".
 */
#include "hostile.h"
#define NAME "hostile-size-short"
#define SIZE 48
#include "descriptor.h"
