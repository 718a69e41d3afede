/* SPDX-License-Identifier: Apache-2.0 */
/* The settings: one YAML file, read into one immutable object. A reload builds a new one
 * and swaps it; whoever began with the old one keeps its reference. Scalars are declared
 * in params.def; lists (listeners, routes, ...) are here. All strings live in the
 * object's arena. Reading checks syntax, units, ranges and unknown keys; what needs the
 * file system, keys or policy (open relay) is checked by node/intake. */
#ifndef BASE_SETTINGS_H
#define BASE_SETTINGS_H

#include "base/arena.h"
#include "base/buf.h"
#include "base/err.h"
#include "base/netaddr.h"
#include "base/params.def"

struct rate {
    uint32_t count;
    int64_t per_ms;
};

#define PARAM_FIELD_BOOL(name) bool name;
#define PARAM_FIELD_COUNT(name) uint32_t name;
#define PARAM_FIELD_SIZE(name) uint64_t name##_bytes;
#define PARAM_FIELD_DURATION(name) int64_t name##_ms;
#define PARAM_FIELD_TEXT(name) const char *name; /* never NULL; "" when not set */
#define PARAM_FIELD_RATE(name) struct rate name;
#define PARAM_FIELD(section, name, type, def, min, max, scope, when, text)               \
    PARAM_FIELD_##type(name)

enum service { SERVICE_MX, SERVICE_SUBMISSION };
enum listener_tls {
    LISTENER_TLS_NONE,
    LISTENER_TLS_OPTIONAL,
    LISTENER_TLS_REQUIRED,
    LISTENER_TLS_IMPLICIT
};
enum line_ends { LINE_ENDS_REJECT, LINE_ENDS_NORMALISE };
enum delivery_tls {
    DELIVERY_TLS_NONE,
    DELIVERY_TLS_MAY,
    DELIVERY_TLS_ENCRYPT,
    DELIVERY_TLS_VERIFY
};
enum recipients_rule { RECIPIENTS_ANY, RECIPIENTS_VERIFY, RECIPIENTS_FILE };
enum verify_down { VERIFY_DOWN_ACCEPT_KNOWN, VERIFY_DOWN_ACCEPT, VERIFY_DOWN_DEFER };

struct cidr_list {
    struct cidr *items;
    unsigned count;
};
struct text_list {
    const char **items;
    unsigned count;
};

/* Where other members may be: an address, or a name that has some. */
#define SETTINGS_SEEDS_MAX 32
struct seed_settings {
    const char *text;       /* as it was written */
    const char *name;       /* lower case; "" when it is an address */
    struct netaddr address; /* of a name the port alone */
};

struct listener_settings {
    const char *name;
    struct netaddr *listen;
    unsigned listen_count;
    enum service service;
    enum listener_tls tls; /* default: OPTIONAL with a certificate, NONE without */
    enum line_ends line_ends;
    uint32_t max_connections;   /* default: the limits' */
    uint64_t max_message_bytes; /* default: the limits' */
    uint32_t max_recipients;    /* default: the limits' */
    struct cidr_list allow;     /* empty: anybody may connect */
    struct cidr_list proxy_from;
    struct cidr_list xclient_from;
    int line; /* in the file */
};

/* Where mail goes: a list of fixed hops, or DNS. */
struct next_hop {
    bool by_mx;
    /* "[192.0.2.1]:25" numeric, or "host.example:25" (its addresses, no MX). */
    struct hop {
        const char *host; /* "" when numeric */
        struct netaddr address;
        uint16_t port;
    } * hops;
    unsigned hop_count;
};

struct relay_domain_settings {
    const char *domain; /* lower case A-label; ".example.org" = all below */
    struct next_hop next_hop;
    enum recipients_rule recipients;
    const char *recipients_file;
    enum verify_down verify_when_down;
    int64_t hold_for_ms;
    int64_t delay_warning_ms; /* 0: off */
    int line;
};

struct route_settings {
    const char *domain;   /* "*", "example.org", ".example.org"; "" = any */
    const char *sender;   /* address, "@domain" or "" = any */
    const char *user;     /* or "" */
    const char *listener; /* or "" */
    struct next_hop next_hop;
    bool has_next_hop;
    enum delivery_tls tls;
    bool has_tls;
    const char *auth_file; /* "user:password" in one line, mode 0600; "" = none */
    int line;
};

struct may_send_as {
    const char *user;
    struct text_list addresses; /* address or @domain */
};

struct stub_settings {
    const char *zone;
    struct netaddr address;
    bool insecure;
};

struct settings {
    struct arena *arena;
    const char *file;
    PARAMS_top(PARAM_FIELD) struct {
        PARAMS_log(PARAM_FIELD)
    } log;
    struct {
        PARAMS_queue(PARAM_FIELD)
    } queue;
    struct {
        PARAMS_history(PARAM_FIELD)
    } history;
    struct {
        PARAMS_tls(PARAM_FIELD)
    } tls;
    struct {
        PARAMS_resolver(PARAM_FIELD) struct netaddr *forward;
        unsigned forward_count;
        struct stub_settings *stubs;
        unsigned stub_count;
        struct text_list insecure;
    } resolver;
    struct {
        PARAMS_users(PARAM_FIELD)
    } users;
    struct {
        PARAMS_retry(PARAM_FIELD)
    } retry;
    struct {
        PARAMS_limits(PARAM_FIELD)
    } limits;
    struct {
        PARAMS_delivery(PARAM_FIELD)
    } delivery;
    struct {
        PARAMS_cluster(PARAM_FIELD) bool is_set; /* there is a section: a cluster */
        struct netaddr listen;                   /* bodies: the next port */
        struct netaddr advertise;                /* where others reach it */
        struct seed_settings *seeds;             /* at most SETTINGS_SEEDS_MAX */
        unsigned seed_count;
    } cluster;
    struct {
        struct text_list names;
        struct ipaddr *addresses;
        unsigned address_count;
    } self;
    struct listener_settings *listeners;
    unsigned listener_count;
    struct cidr_list relay_clients; /* default: 127.0.0.0/8, ::1 */
    int relay_clients_line;
    struct relay_domain_settings *relay_domains;
    unsigned relay_domain_count;
    struct route_settings *routes;
    unsigned route_count;
    struct may_send_as *may_send_as;
    unsigned may_send_as_count;
    struct {
        struct netaddr *listen; /* api.listen */
        unsigned listen_count;
    } api;
    struct settings_line *lines; /* for settings_line */
    unsigned refs;               /* atomic */
};

/* Problems found, one a line: "FILE:LINE: key: what is wrong". */
struct settings_problems {
    struct buf text;
    unsigned count;
};
void settings_problems_init(struct settings_problems *p);
void settings_problems_fini(struct settings_problems *p);
void settings_problem(struct settings_problems *p, const char *file, int line,
    const char *key, const char *format, ...) __attribute__((format(printf, 5, 6)));

/* Reads and checks. NULL when there are problems; the caller owns the one reference. An
 * unknown key names the nearest valid one; a documented key that this version has not
 * built is refused by name. */
struct settings *settings_read(const char *file, struct settings_problems *problems);
/* The same from memory; `file` only names it. */
struct settings *settings_parse(
    struct slice yaml, const char *file, struct settings_problems *problems);
/* The line in which a key was given, for problems found later: "tls.certificate",
 * "users", "may_send_as". 0 when it was not. Not for what is inside lists, which have
 * their own. */
int settings_line(const struct settings *s, const char *key);
struct settings *settings_ref(struct settings *s);
void settings_unref(struct settings *s);
/* The effective settings as YAML that settings_parse reads back to the same. No secrets
 * are in there, only file names. */
void settings_print(const struct settings *s, struct buf *out);
/* 64-bit hash over the settings that must agree in the cluster. */
uint64_t settings_cluster_hash(const struct settings *s);
/* What that hash is made of: a call a setting ("retry.first", "routes") with the hash of
 * its value, in the order of the table. To say which ones differ. */
void settings_cluster_each(const struct settings *s,
    void (*one)(const char *key, uint64_t hash, void *ctx), void *ctx);
/* The name of this node: cluster.node, and hostname where there is no cluster. */
const char *settings_node_name(const struct settings *s);
/* Appends "FILE:LINE: key: what to think about", a line each, about settings that are
 * allowed and seldom meant; returns how many. */
unsigned settings_warnings(const struct settings *s, struct buf *out);

/* Appends, a line each, the settings that differ between the two and take effect only at
 * the next start; returns how many. For the log line of a reload. */
unsigned settings_need_restart(
    const struct settings *old, const struct settings *new, struct buf *out);
/* The settings section of baton.yaml(5), in mdoc, from the table. */
void settings_document(struct buf *out);

/* The machine's fully qualified name: gethostname if it has a dot, else the name for it
 * in /etc/hosts or /etc/mailname. False when none of them knows; `out` of 256 bytes. */
bool settings_find_hostname(char out[256]);

/* "30s" "5m" "1h30m" "4d" "250ms", "0"; "50MB" (1000s), "64KiB" (1024s), "512" (bytes);
 * "1000/1m", "10/s". False leaves *out alone. */
bool duration_parse(struct slice text, int64_t *ms_out);
bool size_parse(struct slice text, uint64_t *bytes_out);
bool rate_parse(struct slice text, struct rate *out);
/* The shortest text that parses back to exactly the same; `out` of 32 bytes. */
void duration_print(int64_t ms, char out[32]);
void size_print(uint64_t bytes, char out[32]);
void rate_print(struct rate rate, char out[64]);

#endif
