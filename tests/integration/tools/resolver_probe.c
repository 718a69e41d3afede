/* SPDX-License-Identifier: Apache-2.0 */
/* Drives the resolver from a test: settings as arguments, one command a line on standard
 * input, one JSON object an answer on standard output.
 *   ask NAME TYPE | mx DOMAIN | host NAME 4|6|46 | health | reload ARGUMENTS
 *   start NAME TYPE (goes on at once) | wait (for what was started)
 *   flood COUNT ZONE (so many names in it) | wait-health (until the self-test has spoken)
 */
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/log.h"
#include "base/metrics.h"
#include "dnsbl/resolver.h"

#define STUBS_MAX 64
#define ARGS_MAX 128

struct probe {
    struct settings settings;
    struct netaddr forward[8];
    struct stub_settings stubs[STUBS_MAX];
    const char *insecure[STUBS_MAX];
    struct mailbox *box;
    struct resolver *resolver;
    unsigned open;
};

static struct netaddr address_arg(char *text)
{
    struct netaddr a;
    char *at = strchr(text, '@');
    if (at)
        *at = '\0';
    uint64_t port = 53;
    if (!ipaddr_parse(slice_str(text), &a.ip) ||
        (at && !slice_u64(slice_str(at + 1), 65535, &port)))
        die("bad address %s", text);
    a.port = (uint16_t)port;
    return a;
}

/* ZONE=ADDRESS@PORT[,insecure] */
static void stub_arg(struct probe *p, char *text)
{
    struct stub_settings *stub = &p->stubs[p->settings.resolver.stub_count++];
    char *equals = strchr(text, '=');
    char *comma = strchr(text, ',');
    if (!equals || p->settings.resolver.stub_count == STUBS_MAX)
        die("bad stub %s", text);
    *equals = '\0';
    if (comma)
        *comma = '\0';
    *stub = (struct stub_settings){
        .zone = text, .address = address_arg(equals + 1), .insecure = comma != NULL};
}

static void set_defaults(struct probe *p)
{
    memset(&p->settings, 0, sizeof(p->settings));
    p->settings.data_dir = "/nonexistent";
    p->settings.resolver.dnssec = true;
    p->settings.resolver.trust_anchor = "/usr/share/dns/root.key";
    p->settings.resolver.bogus_test = "";
    p->settings.resolver.cache_bytes = 1 << 20;
    p->settings.resolver.forward = p->forward;
    p->settings.resolver.stubs = p->stubs;
    p->settings.resolver.insecure.items = p->insecure;
}

static void take_args(struct probe *p, int argc, char **argv)
{
    set_defaults(p);
    for (int i = 0; i < argc; i++) {
        const char *key = argv[i];
        if (strcmp(key, "--no-dnssec") == 0) {
            p->settings.resolver.dnssec = false;
            continue;
        }
        if (++i == argc)
            die("%s: value missing", key);
        char *value = argv[i];
        if (strcmp(key, "--data-dir") == 0)
            p->settings.data_dir = value;
        else if (strcmp(key, "--anchor") == 0)
            p->settings.resolver.trust_anchor = value;
        else if (strcmp(key, "--bogus-test") == 0)
            p->settings.resolver.bogus_test = value;
        else if (strcmp(key, "--forward") == 0)
            p->forward[p->settings.resolver.forward_count++ & 7] = address_arg(value);
        else if (strcmp(key, "--stub") == 0)
            stub_arg(p, value);
        else if (strcmp(key, "--insecure") == 0)
            p->insecure[p->settings.resolver.insecure.count++ % STUBS_MAX] = value;
        else
            die("unknown argument %s", key);
    }
}

static void print(json_t *object)
{
    json_dumpf(object, stdout, JSON_COMPACT);
    putchar('\n');
    fflush(stdout);
    json_decref(object);
}

static json_t *bytes(struct slice s)
{
    char hex[2 * 512 + 1] = "";
    for (size_t i = 0; i < s.len && i < 512; i++)
        snprintf(hex + 2 * i, 3, "%02x", (unsigned char)s.ptr[i]);
    return json_string(hex);
}

static json_t *address(struct ipaddr ip)
{
    char text[NETADDR_TEXT_MAX];
    ipaddr_format(ip, text);
    return json_string(text);
}

static void print_answer(struct dns_query *q, void *owner)
{
    struct probe *p = owner;
    const struct dns_answer *a = &q->answer;
    json_t *records = json_array();
    for (unsigned i = 0; i < a->count; i++) {
        json_t *r = json_pack("{s:i,s:s,s:o}", "preference", a->records[i].preference,
            "name", a->records[i].name, "data", bytes(a->records[i].data));
        if (a->records[i].ip.family)
            json_object_set_new(r, "ip", address(a->records[i].ip));
        json_array_append_new(records, r);
    }
    print(json_pack("{s:s,s:s,s:s,s:s,s:s,s:s,s:s,s:I,s:b,s:o}", "name", q->name, "type",
        dns_type_name(q->type), "result", err_name(a->result), "security",
        dns_security_name(a->security), "why_bogus", a->why_bogus, "why", a->why,
        "canonical", a->canonical, "ttl", (json_int_t)a->ttl, "canonical_secure",
        a->canonical_secure, "records", records));
    dns_query_release(q);
    free(q);
    p->open--;
}

static void print_mx(struct mx_query *q, void *owner)
{
    struct probe *p = owner;
    json_t *hosts = json_array();
    for (unsigned i = 0; i < q->set.count; i++)
        json_array_append_new(
            hosts, json_pack("{s:s,s:i,s:b}", "name", q->set.hosts[i].name, "preference",
                       q->set.hosts[i].preference, "implicit", q->set.hosts[i].implicit));
    print(json_pack("{s:s,s:s,s:s,s:s,s:I,s:o}", "domain", q->domain, "result",
        err_name(q->set.result), "security", dns_security_name(q->set.security), "why",
        q->set.why, "ttl", (json_int_t)q->set.ttl, "hosts", hosts));
    mx_query_release(q);
    free(q);
    p->open--;
}

static void print_host(struct host_query *q, void *owner)
{
    struct probe *p = owner;
    json_t *ips = json_array();
    for (unsigned i = 0; i < q->found.count; i++)
        json_array_append_new(ips, address(q->found.ips[i]));
    print(json_pack("{s:s,s:s,s:s,s:s,s:I,s:o}", "name", q->name, "result",
        err_name(q->found.result), "security", dns_security_name(q->found.security),
        "why", q->found.why, "ttl", (json_int_t)q->found.ttl, "ips", ips));
    free(q);
    p->open--;
}

static void ask(struct probe *p, const char *name, const char *type)
{
    struct dns_query *q = mem_zalloc(sizeof(*q));
    snprintf(q->name, sizeof(q->name), "%s", name);
    if (!dns_type_parse(slice_str(type), &q->type))
        die("unknown type %s", type);
    q->reply_to = p->box;
    q->done = print_answer;
    p->open++;
    resolver_ask(p->resolver, q);
}

static void ask_mx(struct probe *p, const char *domain)
{
    struct mx_query *q = mem_zalloc(sizeof(*q));
    snprintf(q->domain, sizeof(q->domain), "%s", domain);
    q->reply_to = p->box;
    q->done = print_mx;
    p->open++;
    resolver_ask_mx(p->resolver, q);
}

static void ask_host(struct probe *p, const char *name, const char *families)
{
    struct host_query *q = mem_zalloc(sizeof(*q));
    snprintf(q->name, sizeof(q->name), "%s", name);
    q->want_v4 = strchr(families, '4') != NULL;
    q->want_v6 = strchr(families, '6') != NULL;
    q->reply_to = p->box;
    q->done = print_host;
    p->open++;
    resolver_ask_host(p->resolver, q);
}

static void print_health(struct probe *p)
{
    static const char *const names[] = {"untested", "validates", "failed", "no_dnssec"};
    char text[512];
    enum resolver_health h = resolver_health(p->resolver, text, sizeof(text));
    print(json_pack("{s:s,s:s,s:I}", "health", names[h], "text", text, "under_way",
        (json_int_t)metric_read(METRIC_dns_under_way)));
}

static void wait_health(struct probe *p)
{
    char text[512];
    for (int i = 0; i < 600; i++) {
        if (resolver_health(p->resolver, text, sizeof(text)) != RESOLVER_UNTESTED)
            break;
        mailbox_wait(p->box, 50); /* nobody posts: a pause */
    }
    print_health(p);
}

static int split(char *line, char **words, int max)
{
    int n = 0;
    char *rest = line, *word;
    while (n < max && (word = strsep(&rest, " \n")))
        if (*word)
            words[n++] = word;
    return n;
}

/* Settings point into the words, which the next line overwrites. */
static void reload(struct probe *p, char **words, int n)
{
    static char kept[65536];
    size_t at = 0;
    for (int i = 0; i < n; i++) {
        size_t len = strlen(words[i]) + 1;
        INVARIANT(at + len <= sizeof(kept));
        memcpy(kept + at, words[i], len);
        words[i] = kept + at;
        at += len;
    }
    take_args(p, n, words);
    resolver_reload(p->resolver, &p->settings);
}

static void flood(struct probe *p, const char *count, const char *zone)
{
    char name[256];
    for (int i = 0; i < (int)strtol(count, NULL, 10); i++) {
        snprintf(name, sizeof(name), "n%d.%s", i, zone);
        ask(p, name, "A");
    }
}

static void wait_all(struct probe *p)
{
    while (p->open) {
        mailbox_wait(p->box, -1);
        mailbox_drain(p->box);
    }
}

static bool is(char **w, int n, const char *verb, int count)
{
    return n == count && strcmp(w[0], verb) == 0;
}

static void run(struct probe *p, char **w, int n)
{
    if (is(w, n, "start", 3)) {
        ask(p, w[1], w[2]);
        return;
    }
    if (is(w, n, "ask", 3))
        ask(p, w[1], w[2]);
    else if (is(w, n, "flood", 3))
        flood(p, w[1], w[2]);
    else if (is(w, n, "mx", 2))
        ask_mx(p, w[1]);
    else if (is(w, n, "host", 3))
        ask_host(p, w[1], w[2]);
    else if (is(w, n, "health", 1))
        print_health(p);
    else if (is(w, n, "wait-health", 1))
        wait_health(p);
    else if (strcmp(w[0], "reload") == 0) {
        reload(p, w + 1, n - 1);
        return;
    } else if (!is(w, n, "wait", 1))
        die("what? %s", w[0]);
    wait_all(p);
}

int main(int argc, char **argv)
{
    struct probe *p = mem_zalloc(sizeof(*p));
    char why[512], line[65536], *words[ARGS_MAX];
    log_open(LOG_INFO, false, "probe");
    take_args(p, argc - 1, argv + 1);
    p->box = mailbox_new(p);
    p->resolver = resolver_new(&p->settings, why, sizeof(why));
    if (!p->resolver) {
        print(json_pack("{s:s}", "refused", why));
        mailbox_free(p->box);
        free(p);
        return 1;
    }
    print(json_pack("{s:b}", "started", 1));
    while (fgets(line, sizeof(line), stdin)) {
        int n = split(line, words, ARGS_MAX);
        if (n)
            run(p, words, n);
    }
    resolver_free(p->resolver);
    mailbox_drain(p->box); /* what was still open, answered as refused */
    mailbox_free(p->box);
    free(p);
    return 0;
}
