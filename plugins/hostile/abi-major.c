/*
 * Compiled for another major version of the ABI. Expected: refused before it runs, "ABI major".
 */
#include "hostile.h"
#define NAME "hostile-abi-major"
#define MAJOR (RW_ABI_MAJOR + 1)
#include "descriptor.h"
