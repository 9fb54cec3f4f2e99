/*
 * Refuses to load when it gets no socket. Expected: `verify` refuses it with its words: "no socket: Permission denied"; a gateway loads it.
 */
#define _POSIX_C_SOURCE 200809L
#include <errno.h>
#include <sys/socket.h>
#include <unistd.h>

#include "hostile.h"
static rw_status load(const rw_host *host, rw_loader *loader, const uint8_t *config, uint32_t config_len, void **state) {
  char text[100];
  int number = socket(AF_INET, SOCK_STREAM, 0);
  (void)config;
  (void)config_len;
  (void)state;
  if (number >= 0) {
    close(number);
    return RW_OK;
  }
  snprintf(text, sizeof text, "no socket: %s", strerror(errno));
  host->load_error(loader, (const uint8_t *)text, (uint32_t)strlen(text));
  return RW_ERR_NOT_FOUND;
}
#define NAME "hostile-network"
#define LOAD load
#include "descriptor.h"
