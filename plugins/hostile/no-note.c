/*
 * Has no ELF note. Expected: refused before it runs, "note".
 */
#include "hostile.h"
#define NAME "hostile-no-note"
#define WITHOUT_NOTE
#include "descriptor.h"
