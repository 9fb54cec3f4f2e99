/*
 * The descriptor has no name. Expected: refused, "name".
 */
#include "hostile.h"
#define NAME "hostile-name-null"
#define DESCRIPTOR_NAME NULL
#include "descriptor.h"
