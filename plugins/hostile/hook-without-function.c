/*
 * Declares on_request but has no such function. Expected: refused, "on_request".
 */
#include "hostile.h"
#define NAME "hostile-hook-without-function"
#define ON_REQUEST NULL
#include "descriptor.h"
