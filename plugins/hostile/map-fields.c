/*
 * A map whose fields have fewer bytes than its values. Expected: refused, "value_fields".
 */
#include "hostile.h"
static const rw_map_def maps[] = {{"hits", "u64 n", RW_MAP_HASH, 16, 16, 10}};
#define NAME "hostile-map-fields"
#define WANTS RW_WANT_MAPS
#define MAPS maps
#define MAP_COUNT 1
#include "descriptor.h"
