/*
 * Wants a capability that no gateway has. Expected: refused before it runs, naming the bit.
 */
#include "hostile.h"
#define NAME "hostile-unknown-want"
#define WANTS 0x40000000u
#include "descriptor.h"
