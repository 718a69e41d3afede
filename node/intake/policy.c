/* SPDX-License-Identifier: Apache-2.0 */
#include "node/intake/policy.h"

#include <stdatomic.h>
#include <stdlib.h>

#include "base/alloc.h"
#include "node/intake/recipients.h"

struct relay_domain {
    struct slice domain; /* with the leading dot of a suffix */
    const struct relay_domain_settings *settings;
    struct recipients *recipients; /* with RECIPIENTS_FILE */
};

struct policy {
    atomic_uint refs;
    struct settings *settings;
    struct relay_domain *domains; /* sorted by name */
    unsigned domain_count;
    struct smtp_path postmaster; /* address empty: none set */
};

static int by_domain(const void *a, const void *b)
{
    const struct relay_domain *x = a, *y = b;
    return slice_cmp(x->domain, y->domain);
}

static void add_domains(struct policy *p, struct settings_problems *problems)
{
    struct settings *s = p->settings;
    p->domain_count = s->relay_domain_count;
    p->domains = mem_zalloc((p->domain_count + 1) * sizeof(*p->domains));
    for (unsigned i = 0; i < p->domain_count; i++) {
        const struct relay_domain_settings *d = &s->relay_domains[i];
        p->domains[i] =
            (struct relay_domain){.domain = slice_str(d->domain), .settings = d};
        if (d->recipients == RECIPIENTS_FILE)
            p->domains[i].recipients =
                recipients_load(d->recipients_file, s->file, d->line, problems);
    }
    qsort(p->domains, p->domain_count, sizeof(*p->domains), by_domain);
}

struct policy *policy_new(struct settings *s, struct settings_problems *problems)
{
    struct policy *p = mem_zalloc(sizeof(*p));
    atomic_init(&p->refs, 1);
    p->settings = settings_ref(s);
    add_domains(p, problems);
    if (*s->postmaster &&
        smtp_address_parse(slice_str(s->postmaster), &p->postmaster) != PARSE_DONE) {
        settings_problem(problems, s->file, settings_line(s, "postmaster"), "postmaster",
            "not a mail address: %s", s->postmaster);
        p->postmaster.address = (struct slice){0};
    }
    return p;
}

struct policy *policy_ref(struct policy *p)
{
    atomic_fetch_add_explicit(&p->refs, 1, memory_order_relaxed);
    return p;
}

void policy_unref(struct policy *p)
{
    if (!p || atomic_fetch_sub_explicit(&p->refs, 1, memory_order_acq_rel) != 1)
        return;
    for (unsigned i = 0; i < p->domain_count; i++)
        recipients_free(p->domains[i].recipients);
    free(p->domains);
    settings_unref(p->settings);
    free(p);
}

bool cidr_list_contains(const struct cidr_list *list, struct ipaddr ip)
{
    for (unsigned i = 0; i < list->count; i++)
        if (cidr_contains(list->items[i], ip))
            return true;
    return false;
}

bool policy_is_relay_client(const struct policy *p, struct ipaddr ip)
{
    return cidr_list_contains(&p->settings->relay_clients, ip);
}

static bool is_own_literal(const struct settings *s, struct slice routing)
{
    struct ipaddr ip;
    if (!ipaddr_parse_literal(routing, &ip))
        return false;
    for (unsigned i = 0; i < s->self.address_count; i++)
        if (ipaddr_eq(s->self.addresses[i], ip))
            return true;
    return false;
}

bool policy_is_own_name(const struct policy *p, struct slice routing)
{
    const struct settings *s = p->settings;
    if (slice_eq_nocase(routing, slice_str(s->hostname)))
        return true;
    for (unsigned i = 0; i < s->self.names.count; i++)
        if (slice_eq_nocase(routing, slice_str(s->self.names.items[i])))
            return true;
    return is_own_literal(s, routing);
}

static const struct relay_domain *find(const struct policy *p, struct slice name)
{
    struct relay_domain key = {.domain = name};
    return bsearch(&key, p->domains, p->domain_count, sizeof(key), by_domain);
}

static const struct relay_domain *find_relay(const struct policy *p, struct slice routing)
{
    const struct relay_domain *found = find(p, routing);
    for (size_t i = 0; !found && i < routing.len; i++)
        if (routing.ptr[i] == '.')
            found = find(p, slice_from(routing, i));
    return found;
}

const struct relay_domain_settings *policy_relay_domain(
    const struct policy *p, struct slice routing)
{
    const struct relay_domain *found = find_relay(p, routing);
    return found ? found->settings : NULL;
}

static struct policy_verdict verdict_of(enum err e)
{
    if (e == ERR_OK)
        return (struct policy_verdict){.action = POLICY_ACCEPT};
    return (struct policy_verdict){.action = POLICY_REFUSE,
        .code = err_code(e),
        .status = err_status(e),
        .text = err_text(e)};
}

/* RFC 4954 6, RFC 3207 4: 530 says what is missing. */
static struct policy_verdict authenticate_first(const struct policy_client *client)
{
    struct policy_verdict v = {.action = POLICY_REFUSE,
        .code = 530,
        .status = "5.7.0",
        .text = "Authentication required"};
    if (!client->auth_offered)
        v = (struct policy_verdict){.action = POLICY_REFUSE,
            .code = 550,
            .status = "5.7.1",
            .text = "Mail submission is not open to your address"};
    else if (!client->has_tls)
        v.text = "Authentication required; issue STARTTLS first";
    return v;
}

/* `pattern` is an address, or "@domain". */
static bool address_matches(struct slice pattern, const struct smtp_path *path)
{
    if (pattern.len && pattern.ptr[0] == '@')
        return slice_eq_nocase(slice_from(pattern, 1), path->domain) ||
               slice_eq_nocase(slice_from(pattern, 1), path->routing);
    return slice_eq_nocase(pattern, path->address);
}

static bool may_send_as(
    const struct settings *s, struct slice user, const struct smtp_path *path)
{
    if (path->address.len == 0)
        return true; /* notifications are everybody's to send (RFC 5321 4.5.5) */
    for (unsigned i = 0; i < s->may_send_as_count; i++) {
        const struct may_send_as *m = &s->may_send_as[i];
        if (!slice_eq(slice_str(m->user), user))
            continue;
        for (unsigned j = 0; j < m->addresses.count; j++)
            if (address_matches(slice_str(m->addresses.items[j]), path))
                return true;
        return false;
    }
    return true;
}

struct policy_verdict policy_sender(const struct policy *p,
    const struct policy_client *client, const struct smtp_path *path)
{
    if (client->service != SERVICE_SUBMISSION)
        return verdict_of(ERR_OK);
    if (client->user.len)
        return verdict_of(
            may_send_as(p->settings, client->user, path) ? ERR_OK : ERR_SENDER_NOT_OWNED);
    return client->is_relay_client ? verdict_of(ERR_OK) : authenticate_first(client);
}

static bool is_role(struct slice local)
{
    return slice_eq_nocase(local, SLICE("postmaster")) ||
           slice_eq_nocase(local, SLICE("abuse"));
}

/* postmaster and abuse of our own names, and <postmaster> without a domain. */
static bool is_our_role(const struct policy *p, const struct smtp_path *path)
{
    return is_role(path->local) &&
           (path->domain.len == 0 || policy_is_own_name(p, path->routing));
}

static void to_postmaster(const struct policy *p, struct policy_rcpt *out)
{
    if (p->postmaster.address.len == 0) {
        out->verdict = verdict_of(ERR_USER_UNKNOWN);
        return;
    }
    out->address = p->postmaster.address;
    out->routing = p->postmaster.routing;
    out->relay = policy_relay_domain(p, out->routing);
}

static struct policy_verdict judge_relayed(
    const struct relay_domain *d, const struct smtp_path *path)
{
    if (is_role(path->local))
        return verdict_of(ERR_OK);
    switch (d->settings->recipients) {
    case RECIPIENTS_ANY:
        return verdict_of(ERR_OK);
    case RECIPIENTS_VERIFY:
        return (struct policy_verdict){.action = POLICY_VERIFY};
    case RECIPIENTS_FILE:
        break;
    }
    bool known =
        d->recipients && recipients_contain(d->recipients, path->address, path->local);
    return verdict_of(known ? ERR_OK : ERR_USER_UNKNOWN);
}

/* Does a route with a next hop of its own take all mail for the domain? Then DNS has
 * nothing to say about it. */
static bool is_routed(const struct settings *s, struct slice routing)
{
    for (unsigned i = 0; i < s->route_count; i++) {
        const struct route_settings *r = &s->routes[i];
        struct slice pattern = slice_str(r->domain);
        if (!r->has_next_hop || r->next_hop.by_mx)
            continue;
        if (pattern.len == 0 || slice_eq(pattern, SLICE("*")) ||
            slice_eq_nocase(pattern, routing))
            return true;
        if (pattern.ptr[0] == '.' && slice_ends_nocase(routing, pattern))
            return true;
    }
    return false;
}

static struct policy_verdict judge_outgoing(const struct policy *p,
    const struct policy_client *client, const struct smtp_path *path)
{
    if (client->service != SERVICE_SUBMISSION)
        return policy_is_own_name(p, path->routing) ? verdict_of(ERR_USER_UNKNOWN)
                                                    : verdict_of(ERR_RELAY_DENIED);
    if (client->user.len == 0 && !client->is_relay_client)
        return authenticate_first(client);
    if (path->is_literal || is_routed(p->settings, path->routing))
        return verdict_of(ERR_OK);
    return (struct policy_verdict){.action = POLICY_LOOKUP};
}

void policy_recipient(const struct policy *p, const struct policy_client *client,
    const struct smtp_path *path, struct policy_rcpt *out)
{
    *out = (struct policy_rcpt){.verdict = verdict_of(ERR_OK),
        .address = path->address,
        .routing = path->routing};
    if (is_our_role(p, path)) {
        to_postmaster(p, out);
        return;
    }
    const struct relay_domain *d = find_relay(p, path->routing);
    out->relay = d ? d->settings : NULL;
    if (client->service == SERVICE_SUBMISSION && !client->user.len &&
        !client->is_relay_client)
        out->verdict = authenticate_first(client);
    else if (d)
        out->verdict = judge_relayed(d, path);
    else
        out->verdict = judge_outgoing(p, client, path);
}
