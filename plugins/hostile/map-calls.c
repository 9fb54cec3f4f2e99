/*
 * Calls every function of the maps with what it must not take. Expected: each call is refused, and the answer is 200 with the number of
 * calls that were not refused as they should have been: 0.
 */
#include "hostile.h"

static const rw_map_def maps[] = {
    {"array", "u64 n, u32 small, u32 other", RW_MAP_ARRAY, 4, 16, 4}, {"core", "u64 n", RW_MAP_CORE_ARRAY, 4, 8, 4},
    {"hash", "u64 n", RW_MAP_HASH, 8, 8, 2},                          {"lpm", "u64 n", RW_MAP_LPM, 20, 8, 2},
    {"ring", "u64 n, u64 m", RW_MAP_RING, 0, 16, 2},
};

static const rw_maps *table;
static const rw_map *array, *core, *hash, *lpm, *ring;
static int wrong;

/* Counts what is not as it should be. */
#define EXPECT(status, call) wrong += (call) != (status)

static rw_status load(const rw_host *host, rw_loader *loader, const uint8_t *config, uint32_t len, void **state) {
  (void)config;
  (void)len;
  *state = NULL;
  wrong += host->get_ext(loader, NULL) != NULL;
  wrong += host->get_ext(loader, "ringway.maps/2") != NULL;
  table = host->get_ext(loader, RW_MAPS_EXTENSION);
  if (table == NULL || table->size < sizeof(rw_maps)) return -1;
  EXPECT(RW_ERR_BAD_ARGUMENT, table->open(loader, 0, NULL));
  EXPECT(RW_ERR_BAD_ARGUMENT, table->open(NULL, 0, &array));
  EXPECT(RW_ERR_NOT_FOUND, table->open(loader, 5, &array));
  EXPECT(RW_ERR_NOT_FOUND, table->open(loader, UINT32_MAX, &array));
  EXPECT(RW_ERR_WRONG_HOOK, table->open(loader, 1, &core));
  wrong += core != NULL;
  EXPECT(RW_OK, table->open(loader, 0, &array));
  EXPECT(RW_OK, table->open(loader, 2, &hash));
  EXPECT(RW_OK, table->open(loader, 3, &lpm));
  EXPECT(RW_OK, table->open(loader, 4, &ring));
  return RW_OK;
}

static rw_status core_init(const rw_host *host, rw_loader *loader, void *state, uint32_t worker, void **instance) {
  (void)host;
  (void)worker;
  *instance = state;
  EXPECT(RW_OK, table->open(loader, 1, &core));
  return RW_OK;
}

static void lengths(const rw_map *map, uint32_t key_len, uint32_t value_len) {
  uint8_t key[300] = {0}, value[300] = {0};
  EXPECT(RW_ERR_BAD_ARGUMENT, table->lookup(map, key, key_len, value, value_len));
  EXPECT(RW_ERR_BAD_ARGUMENT, table->update(map, key, key_len, value, value_len, 0));
}

static rw_verdict on_request(rw_cx *cx, const rw_request *request) {
  (void)request;
  uint8_t key[20] = {0}, value[16] = {0};
  uint32_t far = 4, near = 3;
  lengths(NULL, 4, 16);
  lengths(array, 4, 15);
  lengths(array, 4, 17);
  lengths(array, 4, 0);
  lengths(array, 3, 16);
  lengths(array, 0, 16);
  lengths(hash, 7, 8);
  lengths(hash, 9, 8);
  lengths(hash, 0, 8);
  lengths(hash, 8, 300);
  lengths(lpm, 19, 8);
  lengths(ring, 0, 16);
  lengths(ring, 4, 16);
  EXPECT(RW_ERR_BAD_ARGUMENT, table->lookup(array, NULL, 4, value, 16));
  EXPECT(RW_ERR_BAD_ARGUMENT, table->lookup(array, key, 4, NULL, 16));
  EXPECT(RW_ERR_BAD_ARGUMENT, table->update(array, key, 4, NULL, 16, 0));
  EXPECT(RW_ERR_BAD_ARGUMENT, table->update(array, key, 4, value, 16, 1));
  EXPECT(RW_ERR_NOT_FOUND, table->lookup(array, &far, 4, value, 16));
  EXPECT(RW_ERR_NOT_FOUND, table->update(array, &far, 4, value, 16, 0));
  EXPECT(RW_ERR_NOT_FOUND, table->add(array, &far, 4, 0, 1, NULL));
  EXPECT(RW_ERR_BAD_ARGUMENT, table->add(array, &near, 4, 4, 1, NULL));
  EXPECT(RW_ERR_BAD_ARGUMENT, table->add(array, &near, 4, 8, 1, NULL));
  EXPECT(RW_ERR_BAD_ARGUMENT, table->add(array, &near, 4, 16, 1, NULL));
  EXPECT(RW_ERR_BAD_ARGUMENT, table->add(array, &near, 4, UINT32_MAX - 7, 1, NULL));
  EXPECT(RW_ERR_BAD_ARGUMENT, table->add(NULL, &near, 4, 0, 1, NULL));
  EXPECT(RW_ERR_BAD_ARGUMENT, table->add(ring, NULL, 0, 0, 1, NULL));
  EXPECT(RW_ERR_BAD_ARGUMENT, table->remove(array, &near, 4));
  EXPECT(RW_ERR_BAD_ARGUMENT, table->remove(core, &near, 4));
  EXPECT(RW_ERR_BAD_ARGUMENT, table->remove(ring, NULL, 0));
  EXPECT(RW_ERR_BAD_ARGUMENT, table->remove(NULL, NULL, 0));
  EXPECT(RW_ERR_NOT_FOUND, table->remove(hash, key, 8));
  wrong += table->value(NULL, 0) != NULL;
  wrong += table->value(array, 0) != NULL;
  wrong += table->value(core, 4) != NULL;
  wrong += table->value(core, UINT32_MAX) != NULL;
  wrong += table->value(core, 3) == NULL;
  key[0] = 129;
  EXPECT(RW_ERR_BAD_ARGUMENT, table->update(lpm, key, 20, value, 8, 0));
  EXPECT(RW_ERR_BAD_ARGUMENT, table->lookup(lpm, key, 20, value, 8));
  EXPECT(RW_ERR_BAD_ARGUMENT, table->output(NULL, value, 16));
  EXPECT(RW_ERR_BAD_ARGUMENT, table->output(hash, value, 8));
  EXPECT(RW_ERR_BAD_ARGUMENT, table->output(ring, value, 0));
  EXPECT(RW_ERR_BAD_ARGUMENT, table->output(ring, NULL, 16));
  EXPECT(RW_ERR_BAD_ARGUMENT, table->output(ring, value, 17));
  EXPECT(RW_ERR_BAD_ARGUMENT, table->output(ring, value, UINT32_MAX));
  return respond_number(cx, wrong);
}

#define NAME "hostile-map-calls"
#define WANTS (RW_WANT_MAPS | RW_WANT_RESPOND)
#define MAPS maps
#define MAP_COUNT 5
#define LOAD load
#define CORE_INIT core_init
#define ON_REQUEST on_request
#include "descriptor.h"
