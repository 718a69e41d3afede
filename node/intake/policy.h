/* SPDX-License-Identifier: Apache-2.0 */
/* Who may send what to whom. Pure decisions from one generation of the settings;
 * immutable, so any thread may ask. What a decision needs from outside (DNS, a callout to
 * the primary) it only names: POLICY_LOOKUP, POLICY_VERIFY.
 *
 * mx: only recipients in relay_domains. submission: only from users who proved who they
 * are, or from relay_clients. postmaster and abuse at our names and at relay domains
 * always get through (RFC 5321 4.5.1, RFC 2142). */
#ifndef NODE_INTAKE_POLICY_H
#define NODE_INTAKE_POLICY_H

#include "base/settings.h"
#include "proto/smtp_path.h"

struct policy;

/* Reads the recipients files too; what is wrong with them is added to `problems`. Keeps a
 * reference to the settings. Never NULL. */
struct policy *policy_new(struct settings *s, struct settings_problems *problems);
struct policy *policy_ref(struct policy *p);
void policy_unref(struct policy *p);

bool cidr_list_contains(const struct cidr_list *list, struct ipaddr ip);
/* May relay without AUTH, and is exempt from the per-client limits. */
bool policy_is_relay_client(const struct policy *p, struct ipaddr ip);
/* hostname, self.names, or an address literal of self.addresses. */
bool policy_is_own_name(const struct policy *p, struct slice routing);

struct policy_client {
    enum service service;
    bool is_relay_client;
    bool has_tls;
    bool auth_offered; /* users exist, and AUTH is to be had on this listener */
    struct slice user; /* empty: not authenticated */
};

enum policy_action {
    POLICY_ACCEPT,
    POLICY_REFUSE, /* with code, status and text */
    POLICY_VERIFY, /* ask the primary of `relay` whether it knows the recipient */
    POLICY_LOOKUP, /* refuse when DNS says for certain that the domain takes no mail */
};

struct policy_verdict {
    enum policy_action action;
    int code;
    const char *status;
    const char *text;
};

/* May this client send with this reverse-path (empty address: <>)? ACCEPT or REFUSE. */
struct policy_verdict policy_sender(const struct policy *p,
    const struct policy_client *client, const struct smtp_path *path);

struct policy_rcpt {
    struct policy_verdict verdict;
    struct slice address; /* where the mail goes: the path's, or the postmaster's */
    struct slice routing;
    const struct relay_domain_settings *relay; /* of `routing`, or NULL */
};
/* The slices live as long as the path and the policy. */
void policy_recipient(const struct policy *p, const struct policy_client *client,
    const struct smtp_path *path, struct policy_rcpt *out);

/* The most specific entry: the domain itself, then the longest ".suffix". */
const struct relay_domain_settings *policy_relay_domain(
    const struct policy *p, struct slice routing);

#endif
