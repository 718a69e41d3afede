/* SPDX-License-Identifier: Apache-2.0 */
/* Settings as YAML, as a hash, and as the difference of two. */
#include <stdio.h>

#include "base/settings_internal.h"
#include "base/utf8.h"

static bool is_plain(struct slice text)
{
    if (text.len == 0 || slice_eq(text, SLICE("null")))
        return false;
    for (size_t i = 0; i < text.len; i++) {
        char c = text.ptr[i];
        bool inside = c == '_' || c == '.' || c == '@' || c == '+' || c == '-';
        if (!ascii_is_alnum(c) && c != '/' && !(i && inside))
            return false;
    }
    return true;
}

void print_text(struct slice text, struct buf *out)
{
    uint32_t code;
    if (is_plain(text)) {
        buf_append(out, text);
        return;
    }
    buf_append_char(out, '"');
    while (text.len) {
        unsigned len = utf8_decode(text, &code);
        if (len == 0)
            buf_printf(out, "\\x%02x", (unsigned char)text.ptr[0]);
        else if (code == '"' || code == '\\')
            buf_printf(out, "\\%c", (char)code);
        else if (utf8_is_visible(code))
            buf_append(out, slice_head(text, len));
        else
            buf_printf(out, code > 0xffff ? "\\U%08x" : "\\u%04x", code);
        text = slice_from(text, len ? len : 1);
    }
    buf_append_char(out, '"');
}

static void print_str(const char *text, struct buf *out)
{
    print_text(slice_str(text), out);
}

/* "[a, b]" from whatever `one` prints. */
static void print_array(const void *items, unsigned count, size_t size,
    void (*one)(const void *item, struct buf *out), struct buf *out)
{
    buf_append_char(out, '[');
    for (unsigned i = 0; i < count; i++) {
        if (i)
            buf_append_str(out, ", ");
        one((const char *)items + i * size, out);
    }
    buf_append_char(out, ']');
}

static void one_text(const void *item, struct buf *out)
{
    print_str(*(const char *const *)item, out);
}

static void one_cidr(const void *item, struct buf *out)
{
    char text[NETADDR_TEXT_MAX];
    cidr_format(*(const struct cidr *)item, text);
    print_str(text, out);
}

static void one_netaddr(const void *item, struct buf *out)
{
    char text[NETADDR_TEXT_MAX];
    netaddr_format(*(const struct netaddr *)item, text);
    print_str(text, out);
}

static void one_ip(const void *item, struct buf *out)
{
    char text[NETADDR_TEXT_MAX];
    ipaddr_format(*(const struct ipaddr *)item, text);
    print_str(text, out);
}

static void one_dns_server(const void *item, struct buf *out)
{
    const struct netaddr *a = item;
    char ip[NETADDR_TEXT_MAX], text[NETADDR_TEXT_MAX + 8];
    ipaddr_format(a->ip, ip);
    snprintf(text, sizeof(text), "%s@%u", ip, a->port);
    print_str(text, out);
}

static void one_hop(const void *item, struct buf *out)
{
    const struct hop *hop = item;
    char text[300];
    if (!hop->host[0]) {
        one_netaddr(&hop->address, out);
        return;
    }
    snprintf(text, sizeof(text), "%s:%u", hop->host, hop->port);
    print_str(text, out);
}

static void print_texts(const struct text_list *list, struct buf *out)
{
    print_array(list->items, list->count, sizeof(char *), one_text, out);
}

static void print_cidrs(const struct cidr_list *list, struct buf *out)
{
    print_array(list->items, list->count, sizeof(struct cidr), one_cidr, out);
}

static void print_next_hop(const struct next_hop *hop, struct buf *out)
{
    if (hop->by_mx)
        buf_append_str(out, "mx");
    else
        print_array(hop->hops, hop->hop_count, sizeof(struct hop), one_hop, out);
}

static void print_choice(const char *choices, unsigned which, struct buf *out)
{
    buf_append(out, choice_name(choices, which));
}

static void print_listener(const struct listener_settings *l, struct buf *out)
{
    char size[32];
    size_print(l->max_message_bytes, size);
    buf_append_str(out, "  - name: ");
    print_str(l->name, out);
    buf_append_str(out, "\n    listen: ");
    print_array(l->listen, l->listen_count, sizeof(struct netaddr), one_netaddr, out);
    buf_append_str(out, "\n    service: ");
    print_choice(CHOICES_SERVICE, l->service, out);
    buf_append_str(out, "\n    tls: ");
    print_choice(CHOICES_LISTENER_TLS, l->tls, out);
    buf_append_str(out, "\n    line_ends: ");
    print_choice(CHOICES_LINE_ENDS, l->line_ends, out);
    buf_printf(out,
        "\n    max_connections: %u\n    max_message_size: %s\n    max_recipients: %u\n",
        l->max_connections, size, l->max_recipients);
    if (l->allow.count) {
        buf_append_str(out, "    allow: ");
        print_cidrs(&l->allow, out);
        buf_append_char(out, '\n');
    }
    if (l->proxy_from.count) {
        buf_append_str(out, "    proxy_protocol: {from: ");
        print_cidrs(&l->proxy_from, out);
        buf_append_str(out, "}\n");
    }
    if (l->xclient_from.count) {
        buf_append_str(out, "    xclient_from: ");
        print_cidrs(&l->xclient_from, out);
        buf_append_char(out, '\n');
    }
}

static void print_relay_domain(const struct relay_domain_settings *d, struct buf *out)
{
    char hold[32], warning[32];
    duration_print(d->hold_for_ms, hold);
    duration_print(d->delay_warning_ms, warning);
    buf_append_str(out, "  - domain: ");
    print_str(d->domain, out);
    buf_append_str(out, "\n    next_hop: ");
    print_next_hop(&d->next_hop, out);
    buf_append_str(out, "\n    recipients: ");
    print_str(d->recipients == RECIPIENTS_ANY      ? "any"
              : d->recipients == RECIPIENTS_VERIFY ? "verify"
                                                   : d->recipients_file,
        out);
    buf_append_str(out, "\n    verify_when_down: ");
    print_choice(CHOICES_VERIFY_DOWN, d->verify_when_down, out);
    buf_printf(out, "\n    hold_for: %s\n    delay_warning: %s\n", hold,
        d->delay_warning_ms ? warning : "off");
}

static void print_match(const char *key, const char *value, bool *first, struct buf *out)
{
    if (!value[0])
        return;
    buf_printf(out, "%s%s: ", *first ? "  - " : "    ", key);
    print_str(value, out);
    buf_append_char(out, '\n');
    *first = false;
}

static void print_route(const struct route_settings *route, struct buf *out)
{
    bool first = true;
    print_match("domain", route->domain, &first, out);
    print_match("sender", route->sender, &first, out);
    print_match("user", route->user, &first, out);
    print_match("listener", route->listener, &first, out);
    if (route->has_next_hop) {
        buf_append_str(out, "    next_hop: ");
        print_next_hop(&route->next_hop, out);
        buf_append_char(out, '\n');
    }
    if (route->has_tls) {
        buf_append_str(out, "    tls: ");
        print_choice(CHOICES_DELIVERY_TLS, route->tls, out);
        buf_append_char(out, '\n');
    }
    print_match("auth", route->auth_file, &first, out);
}

static void print_relay_clients(const struct settings *s, struct buf *out)
{
    buf_append_str(out, "relay_clients: ");
    print_cidrs(&s->relay_clients, out);
    buf_append_char(out, '\n');
}

static void print_relay_domains(const struct settings *s, struct buf *out)
{
    if (s->relay_domain_count)
        buf_append_str(out, "relay_domains:\n");
    for (unsigned i = 0; i < s->relay_domain_count; i++)
        print_relay_domain(&s->relay_domains[i], out);
}

static void print_routes(const struct settings *s, struct buf *out)
{
    if (s->route_count)
        buf_append_str(out, "routes:\n");
    for (unsigned i = 0; i < s->route_count; i++)
        print_route(&s->routes[i], out);
}

static void print_may_send_as(const struct settings *s, struct buf *out)
{
    if (s->may_send_as_count)
        buf_append_str(out, "may_send_as:\n");
    for (unsigned i = 0; i < s->may_send_as_count; i++) {
        buf_append_str(out, "  ");
        print_text(slice_str(s->may_send_as[i].user), out);
        buf_append_str(out, ": ");
        print_texts(&s->may_send_as[i].addresses, out);
        buf_append_char(out, '\n');
    }
}

/* Lists that all nodes of a cluster must agree on. */
static const struct {
    const char *key;
    void (*print)(const struct settings *s, struct buf *out);
} shared_lists[] = {{"relay_clients", print_relay_clients},
    {"relay_domains", print_relay_domains}, {"routes", print_routes},
    {"may_send_as", print_may_send_as}};
#define SHARED_LISTS (sizeof(shared_lists) / sizeof(shared_lists[0]))

static void print_shared_lists(const struct settings *s, struct buf *out)
{
    for (size_t i = 0; i < SHARED_LISTS; i++)
        shared_lists[i].print(s, out);
}

static void print_stub(const void *item, struct buf *out)
{
    const struct stub_settings *stub = item;
    buf_append_str(out, "{zone: ");
    print_str(stub->zone, out);
    buf_append_str(out, ", address: ");
    one_dns_server(&stub->address, out);
    buf_printf(out, ", insecure: %s}", stub->insecure ? "true" : "false");
}

static void print_resolver_lists(const struct settings *s, struct buf *out)
{
    buf_append_str(out, "  forward: ");
    print_array(s->resolver.forward, s->resolver.forward_count, sizeof(struct netaddr),
        one_dns_server, out);
    buf_append_str(out, "\n  stubs: ");
    print_array(s->resolver.stubs, s->resolver.stub_count, sizeof(struct stub_settings),
        print_stub, out);
    buf_append_str(out, "\n  insecure: ");
    print_texts(&s->resolver.insecure, out);
    buf_append_char(out, '\n');
}

static void print_own_lists(const struct settings *s, struct buf *out)
{
    buf_append_str(out, "self:\n  names: ");
    print_texts(&s->self.names, out);
    buf_append_str(out, "\n  addresses: ");
    print_array(
        s->self.addresses, s->self.address_count, sizeof(struct ipaddr), one_ip, out);
    buf_append_str(out, "\napi:\n  listen: ");
    print_array(
        s->api.listen, s->api.listen_count, sizeof(struct netaddr), one_netaddr, out);
    buf_append_str(out, s->listener_count ? "\nlisteners:\n" : "\n");
    for (unsigned i = 0; i < s->listener_count; i++)
        print_listener(&s->listeners[i], out);
}

static void print_section_end(
    const struct settings *s, const char *section, bool all, struct buf *out)
{
    if (all && strcmp(section, "resolver") == 0)
        print_resolver_lists(s, out);
    if (all && strcmp(section, "cluster") == 0)
        print_cluster_lists(s, out);
}

static void print_params(const struct settings *s, bool all, struct buf *out)
{
    const char *section = "top";
    for (unsigned i = 0; i < param_count; i++) {
        const struct param *p = &params[i];
        if (!all && p->scope != PARAM_CLUSTER)
            continue;
        /* The section makes the cluster: one that is not there is not printed. */
        if (!s->cluster.is_set && strcmp(p->section, "cluster") == 0)
            continue;
        if (strcmp(p->section, section) != 0) {
            print_section_end(s, section, all, out);
            section = p->section;
            buf_printf(out, "%s:\n", section);
        }
        /* A text that is not set is best left out: "" is not a value for all of them. */
        if (p->type == PARAM_TEXT &&
            !(*(const char *const *)((const char *)s + p->offset))[0]) {
            buf_printf(out, "  # %s: not set\n", p->name);
            continue;
        }
        buf_printf(out, "%s%s: ", strcmp(section, "top") == 0 ? "" : "  ", p->name);
        param_print(p, s, out);
        buf_append_char(out, '\n');
    }
    print_section_end(s, section, all, out);
}

void settings_print(const struct settings *s, struct buf *out)
{
    print_params(s, true, out);
    print_own_lists(s, out);
    print_shared_lists(s, out);
}

/* A fixed key: other machines must come to the same. */
#define HASH_KEY UINT64_C(0x6261746f6e2d3031)

void settings_cluster_each(const struct settings *s,
    void (*one)(const char *key, uint64_t hash, void *ctx), void *ctx)
{
    struct buf text;
    char key[64];
    buf_init(&text, 16 << 20);
    for (unsigned i = 0; i < param_count; i++) {
        const struct param *p = &params[i];
        bool top = strcmp(p->section, "top") == 0;
        if (p->scope != PARAM_CLUSTER)
            continue;
        buf_clear(&text);
        param_print(p, s, &text);
        snprintf(
            key, sizeof(key), "%s%s%s", top ? "" : p->section, top ? "" : ".", p->name);
        one(key, slice_hash(buf_slice(&text), HASH_KEY), ctx);
    }
    for (size_t i = 0; i < SHARED_LISTS; i++) {
        buf_clear(&text);
        shared_lists[i].print(s, &text);
        one(shared_lists[i].key, slice_hash(buf_slice(&text), HASH_KEY), ctx);
    }
    buf_fini(&text);
}

uint64_t settings_cluster_hash(const struct settings *s)
{
    struct buf text;
    buf_init(&text, 16 << 20);
    print_params(s, false, &text);
    print_shared_lists(s, &text);
    uint64_t hash = slice_hash(buf_slice(&text), HASH_KEY);
    buf_fini(&text);
    return hash;
}

unsigned settings_need_restart(
    const struct settings *old, const struct settings *new, struct buf *out)
{
    unsigned count = 0;
    for (unsigned i = 0; i < param_count; i++) {
        const struct param *p = &params[i];
        struct buf before, after;
        if (p->when != PARAM_START)
            continue;
        buf_init(&before, 65536);
        buf_init(&after, 65536);
        param_print(p, old, &before);
        param_print(p, new, &after);
        if (!slice_eq(buf_slice(&before), buf_slice(&after))) {
            bool top = strcmp(p->section, "top") == 0;
            buf_printf(out, "%s%s%s\n", top ? "" : p->section, top ? "" : ".", p->name);
            count++;
        }
        buf_fini(&before);
        buf_fini(&after);
    }
    return count;
}
