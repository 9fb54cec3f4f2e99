/*
 * Ringway: how a plugin says that its own code broke, not the exchange.
 *
 * A hook that catches a panic or an exception of its own code returns RW_PANICKED. It is RW_ABORTED in every way, and it tells
 * the gateway that the plugin's state on this core can no longer be trusted: a new instance is made with `core_init` and serves
 * the exchanges that begin after that; the old one gets `core_fini` when the last exchange that began with it has ended. When
 * that happens too often, the gateway puts the plugin out until an operator enables it or loads other code.
 *
 * A gateway that does not know the value takes it for RW_ABORTED, as it does with every value that it does not know.
 */
#ifndef RINGWAY_FAULT_H
#define RINGWAY_FAULT_H

#include "ringway.h"

#define RW_PANICKED 8 /* the plugin failed, and its state on this core with it */

#endif /* RINGWAY_FAULT_H */
