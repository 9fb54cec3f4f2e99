/*
 * Compiled against structs that are laid out otherwise. Expected: refused before it runs, "fingerprint".
 */
#include "hostile.h"
#define NAME "hostile-fingerprint"
#define FINGERPRINT (RW_LAYOUT_FINGERPRINT ^ 1u)
#include "descriptor.h"
