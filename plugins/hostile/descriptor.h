/*
 * descriptor.h - note and descriptor of a hostile plugin. NAME is required; every other macro has a harmless default. A
 * macro that begins with NOTE_ changes the note alone, so that note and descriptor can be made to disagree.
 */
#ifndef HOOKS
#define HOOKS RW_HOOK_REQUEST
#endif
#ifndef WANTS
#define WANTS 0
#endif
#ifndef MAJOR
#define MAJOR RW_ABI_MAJOR
#endif
#ifndef MIN_MINOR
#define MIN_MINOR 0
#endif
#ifndef FINGERPRINT
#define FINGERPRINT RW_LAYOUT_FINGERPRINT
#endif
#ifndef SCRATCH
#define SCRATCH 0
#endif
#ifndef ON_REQUEST
#define ON_REQUEST pass
#endif
#ifndef ON_REQUEST_BODY
#define ON_REQUEST_BODY NULL
#endif
#ifndef ON_REQUEST_CHUNK
#define ON_REQUEST_CHUNK NULL
#endif
#ifndef ON_RESPONSE_CHUNK
#define ON_RESPONSE_CHUNK NULL
#endif
#ifndef ON_RESPONSE
#define ON_RESPONSE NULL
#endif
#ifndef ON_EVENT
#define ON_EVENT NULL
#endif
#ifndef LOAD
#define LOAD NULL
#endif
#ifndef CORE_INIT
#define CORE_INIT NULL
#endif
#ifndef SIZE
#define SIZE sizeof(rw_plugin)
#endif
#ifndef DESCRIPTOR_NAME
#define DESCRIPTOR_NAME NAME
#endif
#ifndef METRIC_COUNT
#define METRIC_COUNT 0
#endif
#ifndef METRIC_BYTES
#define METRIC_BYTES sizeof(rw_metric_def)
#endif
#ifndef MAPS
#define MAPS NULL
#endif
#ifndef MAP_COUNT
#define MAP_COUNT 0
#endif
#ifndef NOTE_HOOKS
#define NOTE_HOOKS HOOKS
#endif

#ifndef WITHOUT_NOTE
__attribute__((section(".note.ringway"), used, aligned(4))) static const rw_note note = {
    8u, sizeof(rw_note) - 20u, RW_NOTE_TYPE, {'R', 'i', 'n', 'g', 'w', 'a', 'y', '\0'},
    MAJOR, RW_ABI_MINOR, MIN_MINOR, RW_LANG_C,
    (uint32_t)(FINGERPRINT & 0xffffffffu), (uint32_t)((FINGERPRINT) >> 32),
    (uint32_t)(WANTS), 0, NOTE_HOOKS, SCRATCH, NAME, "0.0.1"};
#endif

#ifndef WITHOUT_SYMBOL
const rw_plugin ringway_plugin_v1 = {
    .size = SIZE,
    .abi_major = MAJOR,
    .abi_minor = RW_ABI_MINOR,
    .abi_min_minor = MIN_MINOR,
    .language = RW_LANG_C,
    .scratch_bytes = SCRATCH,
    .layout_fingerprint = FINGERPRINT,
    .wants = WANTS,
    .hooks = HOOKS,
    .name = DESCRIPTOR_NAME,
    .version = "0.0.1",
    .metric_count = METRIC_COUNT,
    .metric_bytes = METRIC_BYTES,
    .maps = MAPS,
    .map_count = MAP_COUNT,
    .map_bytes = sizeof(rw_map_def),
    .load = LOAD,
    .core_init = CORE_INIT,
    .on_request = ON_REQUEST,
    .on_request_chunk = ON_REQUEST_CHUNK,
    .on_request_body = ON_REQUEST_BODY,
    .on_response = ON_RESPONSE,
    .on_response_chunk = ON_RESPONSE_CHUNK,
    .on_event = ON_EVENT,
};
#endif
