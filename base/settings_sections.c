/* SPDX-License-Identifier: Apache-2.0 */
/* Sections that hold more than scalars: self, resolver, api, may_send_as. */
#include "base/settings_internal.h"

#define COUNT(array) (unsigned)(sizeof(array) / sizeof((array)[0]))

/* --- self --- */
static bool ip_item(
    struct reader *r, const struct spot *at, const struct tree *t, void *element)
{
    const char *text;
    if (!read_text(r, at, t, 64, &text))
        return false;
    if (ipaddr_parse(slice_str(text), element))
        return true;
    reader_problem(r, at, "must be an IP address");
    return false;
}

static void self_names(
    struct reader *r, const struct spot *at, const struct tree *t, void *target)
{
    (void)target;
    read_domain_list(r, at, t, &r->s->self.names);
}

static void self_addresses(
    struct reader *r, const struct spot *at, const struct tree *t, void *target)
{
    (void)target;
    r->s->self.addresses =
        read_list(r, at, t, sizeof(struct ipaddr), ip_item, &r->s->self.address_count);
}

void read_self(
    struct reader *r, const struct spot *at, const struct tree *t, void *target)
{
    static const struct key_reader keys[] = {
        {"names", self_names}, {"addresses", self_addresses}};
    read_map(r, at, t, NULL, keys, COUNT(keys), target);
}

/* --- resolver --- */

/* "192.0.2.53", "192.0.2.53@5353", "2001:db8::53@5353": as in unbound.conf. */
static bool dns_server(struct slice text, struct netaddr *out)
{
    size_t sign = slice_find(text, '@');
    uint64_t port = 53;
    if (sign < text.len && !slice_u64(slice_from(text, sign + 1), UINT16_MAX, &port))
        return false;
    out->port = (uint16_t)port;
    return port > 0 && ipaddr_parse(slice_head(text, sign), &out->ip);
}

static bool dns_server_item(
    struct reader *r, const struct spot *at, const struct tree *t, void *element)
{
    const char *text;
    if (!read_text(r, at, t, 64, &text))
        return false;
    if (dns_server(slice_str(text), element))
        return true;
    reader_problem(r, at, "must be an address like 192.0.2.53 or 192.0.2.53@5353");
    return false;
}

static void resolver_forward(
    struct reader *r, const struct spot *at, const struct tree *t, void *target)
{
    (void)target;
    r->s->resolver.forward = read_list(
        r, at, t, sizeof(struct netaddr), dns_server_item, &r->s->resolver.forward_count);
}

/* A zone may be the root, ".". */
static bool read_zone(
    struct reader *r, const struct spot *at, const struct tree *t, const char **out)
{
    if (t->kind == TREE_SCALAR && slice_eq(t->text, SLICE("."))) {
        *out = ".";
        return true;
    }
    return read_domain(r, at, t, false, out);
}

static void stub_zone(
    struct reader *r, const struct spot *at, const struct tree *t, void *target)
{
    struct stub_settings *stub = target;
    read_zone(r, at, t, &stub->zone);
}

static void stub_address(
    struct reader *r, const struct spot *at, const struct tree *t, void *target)
{
    struct stub_settings *stub = target;
    dns_server_item(r, at, t, &stub->address);
}

static void stub_insecure(
    struct reader *r, const struct spot *at, const struct tree *t, void *target)
{
    struct stub_settings *stub = target;
    read_bool(r, at, t, &stub->insecure);
}

static bool stub_item(
    struct reader *r, const struct spot *at, const struct tree *t, void *element)
{
    static const struct key_reader keys[] = {
        {"zone", stub_zone}, {"address", stub_address}, {"insecure", stub_insecure}};
    struct stub_settings *stub = element;
    *stub = (struct stub_settings){.zone = ""};
    unsigned before = r->problems->count;
    read_map(r, at, t, NULL, keys, COUNT(keys), stub);
    if (r->problems->count > before)
        return true;
    if (stub->zone[0] == '\0')
        reader_problem(r, at, "needs zone");
    if (stub->address.port == 0)
        reader_problem(r, at, "needs address, like \"127.0.0.1@5353\"");
    return true;
}

static void resolver_stubs(
    struct reader *r, const struct spot *at, const struct tree *t, void *target)
{
    (void)target;
    r->s->resolver.stubs = read_list(
        r, at, t, sizeof(struct stub_settings), stub_item, &r->s->resolver.stub_count);
}

static bool zone_item(
    struct reader *r, const struct spot *at, const struct tree *t, void *element)
{
    return read_zone(r, at, t, element);
}

static void resolver_insecure(
    struct reader *r, const struct spot *at, const struct tree *t, void *target)
{
    (void)target;
    struct text_list *list = &r->s->resolver.insecure;
    list->items = read_list(r, at, t, sizeof(char *), zone_item, &list->count);
}

void read_resolver(
    struct reader *r, const struct spot *at, const struct tree *t, void *target)
{
    static const struct key_reader keys[] = {{"forward", resolver_forward},
        {"stubs", resolver_stubs}, {"insecure", resolver_insecure}};
    read_map(r, at, t, "resolver", keys, COUNT(keys), target);
}

/* --- api --- */
static void api_listen(
    struct reader *r, const struct spot *at, const struct tree *t, void *target)
{
    (void)target;
    read_netaddr_list(r, at, t, &r->s->api.listen, &r->s->api.listen_count);
}

void read_api(struct reader *r, const struct spot *at, const struct tree *t, void *target)
{
    static const struct key_reader keys[] = {{"listen", api_listen}};
    read_map(r, at, t, NULL, keys, COUNT(keys), target);
}

/* --- may_send_as --- */
static bool sender_item(
    struct reader *r, const struct spot *at, const struct tree *t, void *element)
{
    return read_address(r, at, t, true, element);
}

void read_may_send_as(
    struct reader *r, const struct spot *at, const struct tree *t, void *target)
{
    (void)target;
    unsigned n = 0;
    if (tree_is_null(t))
        return;
    if (t->kind != TREE_MAP) {
        reader_problem(r, at, "must be a mapping, user: [address or @domain, ...]");
        return;
    }
    struct may_send_as *rows = arena_alloc(r->s->arena, t->count * sizeof(*rows));
    for (const struct tree *one = t->first; one; one = one->next) {
        struct spot here = {.up = at, .key = one->key, .line = one->key_line};
        if (one->key.len == 0)
            reader_problem(r, &here, "must name a user");
        rows[n].user = arena_strdup(r->s->arena, one->key);
        rows[n].addresses.items = read_list(
            r, &here, one, sizeof(char *), sender_item, &rows[n].addresses.count);
        n++;
    }
    r->s->may_send_as = n ? rows : NULL;
    r->s->may_send_as_count = n;
}
