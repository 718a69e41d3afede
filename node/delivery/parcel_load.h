/* SPDX-License-Identifier: Apache-2.0 */
/* Reads a parcel's unit from the store, on a helper, when it did not stay in memory. */
#ifndef NODE_DELIVERY_PARCEL_LOAD_H
#define NODE_DELIVERY_PARCEL_LOAD_H

#include "node/delivery/delivery.h"

/* `loaded` comes once, in the loop's thread, later: with ERR_OK the parcel has its
 * record. `lacks_final_crlf` tells how the body ends. */
typedef void parcel_loaded_fn(
    struct parcel *parcel, enum err err, bool lacks_final_crlf, void *ctx);
void parcel_load(
    struct delivery_loop *dl, struct parcel *parcel, parcel_loaded_fn *loaded, void *ctx);

#endif
