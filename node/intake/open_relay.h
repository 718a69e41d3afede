/* SPDX-License-Identifier: Apache-2.0 */
/* What makes an open relay is refused, with the line that makes it one: relay clients or
 * `allow` wider than /8 (IPv6 /32), a default route in disguise (networks that together
 * hold too much of the Internet), relay domains that are "*" or a public suffix
 * (publicsuffix.org), AUTH offered without TLS, PROXY or XCLIENT trusted from anywhere.
 */
#ifndef NODE_INTAKE_OPEN_RELAY_H
#define NODE_INTAKE_OPEN_RELAY_H

#include "base/settings.h"

void open_relay_check(const struct settings *s, struct settings_problems *problems);

/* For what is added at run time: is one network too wide, or do all together hold too
 * much? Writes one sentence to `why` then. */
bool open_relay_too_wide(struct cidr net, char *why, size_t why_size);
bool open_relay_too_much(const struct cidr_list *nets, char *why, size_t why_size);
/* "*", ".", or a suffix under which strangers register names. `domain` may begin with a
 * dot. */
bool open_relay_is_everybody(const char *domain, char *why, size_t why_size);

#endif
