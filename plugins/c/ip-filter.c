/*
 * ip-filter.c - lets clients in by address.
 *
 * Config: {"allow": ["10.0.0.0/8", "2001:db8::/32"], "deny": ["10.6.6.6"]}
 *
 * "deny" wins; then, when "allow" is not empty, an address must be in it; else everybody is let in. Attached to a route, it
 * answers refused clients with 403; attached to a listener, it closes their connections as soon as they are accepted. A
 * client of a Unix socket has no address and is let in.
 */
#include <arpa/inet.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "json.h"
#include "ringway.h"

#define HOOKS (RW_HOOK_ACCEPT | RW_HOOK_REQUEST)
#define WANTS RW_WANT_RESPOND

enum { METRIC_REFUSED = 0, NETS_MAX = 1024 };

/* An address block. An address is in it when `(address & mask) == base`, on both halves. IPv4 is mapped (::ffff:a.b.c.d). */
typedef struct net {
  uint64_t base[2];
  uint64_t mask[2];
} net;

typedef struct net_list {
  uint32_t count;
  net nets[NETS_MAX];
} net_list;

typedef struct filter {
  net_list allow;
  net_list deny;
  uint32_t forbidden; /* the prebuilt 403 */
} filter;

static bool contains(const net_list *list, const uint64_t address[2]) {
  for (uint32_t i = 0; i < list->count; i++) {
    const net *n = &list->nets[i];
    if ((address[0] & n->mask[0]) == n->base[0] && (address[1] & n->mask[1]) == n->base[1]) return true;
  }
  return false;
}

static bool lets_in(const filter *self, const uint8_t peer_addr[16]) {
  uint64_t address[2];
  memcpy(address, peer_addr, sizeof address);
  if ((address[0] | address[1]) == 0) return true; /* a Unix socket */
  if (contains(&self->deny, address)) return false;
  return self->allow.count == 0 || contains(&self->allow, address);
}

static rw_verdict on_accept(rw_cx *cx, const rw_accept *event) {
  const filter *self = cx->core;
  if (lets_in(self, event->peer_addr)) return RW_CONTINUE;
  cx->host->metric_add(cx, METRIC_REFUSED, 1);
  return RW_DROP;
}

static rw_verdict on_request(rw_cx *cx, const rw_request *request) {
  const filter *self = cx->core;
  if (lets_in(self, request->peer_addr)) return RW_CONTINUE;
  cx->host->metric_add(cx, METRIC_REFUSED, 1);
  return cx->host->resp_prebuilt(cx, self->forbidden) < 0 ? RW_ABORTED : RW_RESPOND;
}

/* "ADDRESS" or "ADDRESS/PREFIX". Bits behind the prefix are ignored. */
static bool parse_net(const char *text, net *out) {
  char address_text[64];
  uint8_t address[16] = {[10] = 0xff, [11] = 0xff};
  const char *slash = strchr(text, '/');
  size_t len = slash != NULL ? (size_t)(slash - text) : strlen(text);
  if (len >= sizeof address_text) return false;
  memcpy(address_text, text, len);
  address_text[len] = '\0';

  unsigned bits = 128, bits_before = 0;
  if (inet_pton(AF_INET, address_text, address + 12) == 1) bits_before = 96;
  else if (inet_pton(AF_INET6, address_text, address) != 1) return false;
  if (slash != NULL) {
    size_t digits = strspn(slash + 1, "0123456789");
    if (digits == 0 || digits > 3 || slash[1 + digits] != '\0') return false;
    bits = bits_before + (unsigned)atoi(slash + 1);
    if (bits > 128) return false;
  }

  uint8_t mask[16] = {0};
  for (unsigned bit = 0; bit < bits; bit++) mask[bit / 8] |= (uint8_t)(0x80 >> bit % 8);
  for (unsigned i = 0; i < sizeof address; i++) address[i] &= mask[i];
  memcpy(out->base, address, sizeof address);
  memcpy(out->mask, mask, sizeof mask);
  return true;
}

static void read_nets(json *j, net_list *list) {
  json_text text;
  json_begin_array(j);
  while (json_next_element(j) && json_string(j, &text)) {
    if (list->count == NETS_MAX) json_fail(j, "more than 1024 addresses in one list");
    else if (!parse_net(text.bytes, &list->nets[list->count])) json_fail(j, "not an address or CIDR block, such as \"10.0.0.0/8\" or \"2001:db8::/32\"");
    else list->count++;
  }
}

static rw_status refuse(const rw_host *host, rw_loader *loader, filter *self, const char *text) {
  free(self);
  host->load_error(loader, (const uint8_t *)text, (uint32_t)strlen(text));
  return RW_ERR_BAD_ARGUMENT;
}

static rw_status load(const rw_host *host, rw_loader *loader, const uint8_t *config, uint32_t config_len, void **state) {
  static const char head[] = "Content-Type: text/plain\r\n", body[] = "403: this address is not allowed here\n";
  filter *self = calloc(1, sizeof *self);
  if (self == NULL) return refuse(host, loader, self, "out of memory");

  json j = json_over(config, config_len);
  json_text key;
  json_begin_object(&j);
  while (json_next_key(&j, &key)) {
    if (json_is(&key, "allow")) read_nets(&j, &self->allow);
    else if (json_is(&key, "deny")) read_nets(&j, &self->deny);
    else json_fail(&j, "unknown key; this plugin knows \"allow\" and \"deny\"");
  }
  if (!json_end(&j)) {
    char text[160];
    snprintf(text, sizeof text, "config, line %u: %s", json_line(&j), j.fault);
    return refuse(host, loader, self, text);
  }

  rw_status id = host->prebuilt_add(loader, 403, (const uint8_t *)head, sizeof head - 1, (const uint8_t *)body, sizeof body - 1);
  if (id < 0) return refuse(host, loader, self, "the gateway has no room for the 403 response");
  self->forbidden = (uint32_t)id;
  *state = self;
  return RW_OK;
}

static void unload(void *state) { free(state); }

static const rw_metric_def metrics[] = {
    [METRIC_REFUSED] = {.name = "refused_total", .help = "Connections and requests refused by address", .kind = RW_METRIC_COUNTER},
};

RW_DEFINE_NOTE("ip-filter", "1.0.0", RW_LANG_C, HOOKS, WANTS, 0);

const rw_plugin ringway_plugin_v1 = {
    .size = sizeof(rw_plugin),
    .abi_major = RW_ABI_MAJOR,
    .abi_minor = RW_ABI_MINOR,
    .language = RW_LANG_C,
    .layout_fingerprint = RW_LAYOUT_FINGERPRINT,
    .wants = WANTS,
    .hooks = HOOKS,
    .name = "ip-filter",
    .version = "1.0.0",
    .metrics = metrics,
    .metric_count = sizeof metrics / sizeof metrics[0],
    .metric_bytes = sizeof(rw_metric_def),
    .load = load,
    .unload = unload,
    .on_accept = on_accept,
    .on_request = on_request,
};
