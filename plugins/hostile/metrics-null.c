/*
 * Declares three metrics at a null pointer. Expected: refused, "metric".
 */
#include "hostile.h"
#define NAME "hostile-metrics-null"
#define METRIC_COUNT 3
#include "descriptor.h"
