/* SPDX-License-Identifier: Apache-2.0 */
/* The recipients of a relay domain from a file: an address or a local part a line, `#`
 * begins a comment. Compared without case, as every mailbox provider does. Immutable. */
#ifndef NODE_INTAKE_RECIPIENTS_H
#define NODE_INTAKE_RECIPIENTS_H

#include "base/settings.h"

struct recipients;

/* NULL, with a problem "FILE:LINE: ..." (of the list, or of the settings when the list
 * cannot be read). */
struct recipients *recipients_load(const char *file, const char *settings_file,
    int settings_line, struct settings_problems *problems);
void recipients_free(struct recipients *r);
/* An entry for the whole address, or for its local part alone. */
bool recipients_contain(
    const struct recipients *r, struct slice address, struct slice local);
unsigned recipients_count(const struct recipients *r);

#endif
