/*
 * Asks for more scratch memory than RW_SCRATCH_BYTES_MAX. Expected: refused before it runs, "scratch".
 */
#include "hostile.h"
#define NAME "hostile-scratch-too-large"
#define SCRATCH (RW_SCRATCH_BYTES_MAX + 1)
#include "descriptor.h"
