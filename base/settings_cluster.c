/* SPDX-License-Identifier: Apache-2.0 */
/* The section `cluster`: whether there is one, who this node is in it, and where it is
 * reached. */
#include <stdarg.h>
#include <stdio.h>

#include "base/settings_internal.h"

#define COUNT(array) (unsigned)(sizeof(array) / sizeof((array)[0]))
/* I7: bytes of a final dot can leave a dead node's kernel so late (TCP_USER_TIMEOUT, and
 * a minute for the way). */
#define DOUBT_SAFE_MS 180000

static void read_address_of(
    struct reader *r, const struct spot *at, const struct tree *t, struct netaddr *out)
{
    const char *text;
    if (!read_text(r, at, t, NETADDR_TEXT_MAX, &text) ||
        netaddr_parse(slice_str(text), CLUSTER_PORT, out))
        return;
    reader_problem(r, at,
        "must be a numeric address and a port like 10.0.0.1:7420; names are not looked "
        "up "
        "here");
}

static void cluster_listen(
    struct reader *r, const struct spot *at, const struct tree *t, void *target)
{
    (void)target;
    read_address_of(r, at, t, &r->s->cluster.listen);
}

static void cluster_advertise(
    struct reader *r, const struct spot *at, const struct tree *t, void *target)
{
    (void)target;
    read_address_of(r, at, t, &r->s->cluster.advertise);
}

static bool is_digits(struct slice s)
{
    for (size_t i = 0; i < s.len; i++)
        if (!ascii_is_digit(s.ptr[i]))
            return false;
    return s.len > 0;
}

/* "mx2.example.net:7420", the port may be left out. A name whose last label is a number
 * is an address that went wrong. */
static bool read_seed_name(struct reader *r, struct slice text, struct seed_settings *out)
{
    size_t colon = slice_rfind(text, ':');
    struct slice host = slice_head(text, colon), port = slice_from(text, colon + 1);
    out->address = (struct netaddr){.port = CLUSTER_PORT};
    if (colon < text.len) {
        if (!is_digits(port) || port.len > 5)
            return false;
        unsigned value = 0;
        for (size_t i = 0; i < port.len; i++)
            value = value * 10 + (unsigned)(port.ptr[i] - '0');
        out->address.port = value <= UINT16_MAX ? (uint16_t)value : 0;
    }
    if (host.len > 1 && host.ptr[host.len - 1] == '.')
        host.len--;
    size_t dot = slice_rfind(host, '.');
    struct slice last = dot < host.len ? slice_from(host, dot + 1) : host;
    char *name = arena_strdup(r->s->arena, host);
    for (size_t i = 0; i < host.len; i++)
        name[i] = ascii_lower(name[i]);
    out->name = name;
    return domain_is_sound(host) && !is_digits(last);
}

static bool seed_item(
    struct reader *r, const struct spot *at, const struct tree *t, void *element)
{
    struct seed_settings *seed = element;
    *seed = (struct seed_settings){.name = ""};
    if (!read_text(r, at, t, 300, &seed->text))
        return false;
    struct slice text = slice_str(seed->text);
    if (!netaddr_parse(text, CLUSTER_PORT, &seed->address) &&
        !read_seed_name(r, text, seed)) {
        reader_problem(r, at,
            "must be an address or a name and a port, like 10.0.0.2:7420 or "
            "mx2.example.net:7420");
        return false;
    }
    if (seed->address.port == 0 || seed->address.port == UINT16_MAX)
        reader_problem(r, at, "needs a port from 1 to 65534");
    else if (seed->address.ip.family && ipaddr_is_unspecified(seed->address.ip))
        reader_problem(r, at, "nobody is at that address");
    return true;
}

static void cluster_seeds(
    struct reader *r, const struct spot *at, const struct tree *t, void *target)
{
    (void)target;
    r->s->cluster.seeds = read_list(
        r, at, t, sizeof(struct seed_settings), seed_item, &r->s->cluster.seed_count);
    if (r->s->cluster.seed_count > SETTINGS_SEEDS_MAX)
        reader_problem(r, at,
            "at most %u, and a few are enough: who finds one finds all; a name may have "
            "several addresses",
            SETTINGS_SEEDS_MAX);
}

void read_cluster(
    struct reader *r, const struct spot *at, const struct tree *t, void *target)
{
    static const struct key_reader keys[] = {{"listen", cluster_listen},
        {"advertise", cluster_advertise}, {"seeds", cluster_seeds}};
    r->s->cluster.is_set = !tree_is_null(t);
    read_map(r, at, t, "cluster", keys, COUNT(keys), target);
}

/* --- what goes together --- */

__attribute__((format(printf, 3, 4))) static void problem(
    struct reader *r, const char *key, const char *format, ...)
{
    char what[400];
    va_list args;
    int line = settings_line(r->s, key);
    va_start(args, format);
    vsnprintf(what, sizeof(what), format, args);
    va_end(args);
    settings_problem_at(r, key, line ? line : settings_line(r->s, "cluster"), "%s", what);
}

/* Safe in a shell, a file name and a log line. */
static bool is_name(const char *text)
{
    if (!ascii_is_alnum(text[0]))
        return false;
    for (; *text; text++)
        if (!ascii_is_alnum(*text) && *text != '-' && *text != '_' && *text != '.')
            return false;
    return true;
}

static void check_name(
    struct reader *r, const char *key, const char *value, const char *hint)
{
    if (!value[0])
        problem(r, key, "is missing: %s", hint);
    else if (!is_name(value))
        problem(r, key,
            "must be letters, digits, \"-\", \"_\" and \".\", the first a letter or "
            "digit");
}

static bool same_socket(struct netaddr a, struct netaddr b, uint16_t port)
{
    return a.port == port && b.port != 0 &&
           (ipaddr_eq(a.ip, b.ip) || ipaddr_is_unspecified(a.ip) ||
               ipaddr_is_unspecified(b.ip));
}

static void check_free(
    struct reader *r, const struct netaddr *taken, unsigned count, const char *by)
{
    struct netaddr ours = r->s->cluster.listen;
    for (unsigned i = 0; i < count; i++)
        for (unsigned next = 0; next < 2; next++)
            if (same_socket(taken[i], ours, (uint16_t)(ours.port + next)))
                problem(r, "cluster.listen",
                    "port %u%s is taken by %s: choose a port that is free with its next",
                    ours.port + next, next ? " (for bodies)" : "", by);
}

static void check_listen(struct reader *r)
{
    struct settings *s = r->s;
    if (s->cluster.listen.ip.family == 0) {
        if (!settings_line(s, "cluster.listen"))
            problem(r, "cluster.listen",
                "is missing: the address for the other nodes, like "
                "listen: 10.0.0.1:7420");
        return;
    }
    if (s->cluster.listen.port == UINT16_MAX)
        problem(r, "cluster.listen", "bodies need the next port, and 65535 has none");
    for (unsigned i = 0; i < s->listener_count; i++)
        check_free(r, s->listeners[i].listen, s->listeners[i].listen_count,
            s->listeners[i].name);
    check_free(r, s->api.listen, s->api.listen_count, "api.listen");
}

static void finish_advertise(struct reader *r)
{
    struct settings *s = r->s;
    bool given = s->cluster.advertise.ip.family != 0;
    if (!given)
        s->cluster.advertise = s->cluster.listen;
    if (ipaddr_is_unspecified(s->cluster.advertise.ip))
        problem(r, "cluster.advertise",
            given ? "nobody can reach that address; give the one the other nodes see"
                  : "is needed when listen is any address: the one the other nodes see");
    if (given &&
        (s->cluster.advertise.port == 0 || s->cluster.advertise.port == UINT16_MAX))
        problem(r, "cluster.advertise", "needs a port from 1 to 65534");
}

void settings_finish_cluster(struct reader *r)
{
    struct settings *s = r->s;
    if (!s->cluster.is_set)
        return;
    check_name(
        r, "cluster.name", s->cluster.name, "the same on all nodes, like name: prod");
    check_name(r, "cluster.node", s->cluster.node,
        "a name for this node that no other has, like node: mx1");
    if (s->cluster.zone[0])
        check_name(r, "cluster.zone", s->cluster.zone, "");
    check_listen(r);
    if (s->cluster.listen.ip.family)
        finish_advertise(r);
    if (s->cluster.min_copies > s->cluster.copies)
        problem(r, "cluster.min_copies", "is more than copies, %u", s->cluster.copies);
    if (strcmp(s->cluster.role, "witness") == 0 && s->listener_count)
        settings_problem_at(r, "listeners", s->listeners[0].line,
            "a witness takes no mail: leave the listeners out, or make it role: node");
}

unsigned settings_warnings(const struct settings *s, struct buf *out)
{
    unsigned count = 0;
    if (!s->cluster.is_set)
        return 0;
    if (s->cluster.in_doubt_hold_ms < DOUBT_SAFE_MS && ++count)
        buf_printf(out,
            "%s:%d: cluster.in_doubt_hold: under 180s a dead node's last bytes may still "
            "arrive after an heir has sent the mail again: some mail may come twice\n",
            s->file, settings_line(s, "cluster.in_doubt_hold"));
    if (s->cluster.copies < 2 && ++count)
        buf_printf(out,
            "%s:%d: cluster.copies: with one copy a disk that dies takes mail with it\n",
            s->file, settings_line(s, "cluster.copies"));
    return count;
}

const char *settings_node_name(const struct settings *s)
{
    return s->cluster.is_set ? s->cluster.node : s->hostname;
}

/* --- as YAML --- */

static void print_address(const char *key, struct netaddr a, struct buf *out)
{
    char text[NETADDR_TEXT_MAX];
    netaddr_format(a, text);
    buf_printf(out, "  %s: ", key);
    print_text(slice_str(text), out);
    buf_append_char(out, '\n');
}

void print_cluster_lists(const struct settings *s, struct buf *out)
{
    print_address("listen", s->cluster.listen, out);
    /* What is the default only with a port that was found later is no value to write. */
    if (s->cluster.advertise.port)
        print_address("advertise", s->cluster.advertise, out);
    buf_append_str(out, "  seeds: [");
    for (unsigned i = 0; i < s->cluster.seed_count; i++) {
        buf_append_str(out, i ? ", " : "");
        print_text(slice_str(s->cluster.seeds[i].text), out);
    }
    buf_append_str(out, "]\n");
}
