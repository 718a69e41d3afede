/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <stdlib.h>

#include "base/alloc.h"
#include "node/intake/intake_internal.h"
#include "node/intake/open_relay.h"
#include "node/intake/text_file.h"

#define CREDENTIALS_MAX 4096
#define ANCHOR_MAX 65536

/* A problem with the file that a scalar setting names, at that setting's line. */
static void problem(const struct settings *s, const char *key, const char *what,
    struct settings_problems *problems)
{
    settings_problem(problems, s->file, settings_line(s, key), key, "%s", what);
}

static void load_tls(struct intake_config *c, struct settings_problems *problems)
{
    char why[600];
    struct settings *s = c->settings;
    if (!*s->tls.certificate)
        return;
    c->tls = tls_server_new(s->tls.certificate, s->tls.key, why, sizeof(why));
    if (!c->tls)
        problem(s, "tls.certificate", why, problems);
}

static void load_authorities(struct settings *s, struct settings_problems *problems)
{
    char why[600];
    if (!*s->tls.ca_file)
        return;
    struct tls_client *client = tls_client_new(s->tls.ca_file, why, sizeof(why));
    if (!client)
        problem(s, "tls.ca_file", why, problems);
    tls_client_unref(client);
}

static void load_users(struct intake_config *c, struct settings_problems *problems)
{
    struct settings *s = c->settings;
    if (!*s->users.file)
        return;
    c->users = auth_users_load(s->users.file, s->file, settings_line(s, "users.file"),
        problems, c->warning, sizeof(c->warning));
}

/* Mail to our own names goes to the postmaster: who must not be at one of them. */
static void check_postmaster(
    const struct intake_config *c, struct settings_problems *problems)
{
    const struct settings *s = c->settings;
    struct smtp_path path;
    char why[700];
    if (!*s->postmaster ||
        smtp_address_parse(slice_str(s->postmaster), &path) != PARSE_DONE)
        return;
    if (!policy_is_own_name(c->policy, path.routing) ||
        policy_relay_domain(c->policy, path.routing) || s->route_count > 0)
        return;
    snprintf(why, sizeof(why),
        "%s is at our own name, where no mailbox is; name one elsewhere", s->postmaster);
    problem(s, "postmaster", why, problems);
}

static void check_may_send_as(
    const struct settings *s, struct settings_problems *problems)
{
    for (unsigned i = 0; i < s->may_send_as_count; i++) {
        const struct may_send_as *m = &s->may_send_as[i];
        for (unsigned j = 0; j < m->addresses.count; j++) {
            struct slice text = slice_str(m->addresses.items[j]);
            char domain[SMTP_DOMAIN_MAX + 1];
            struct smtp_path path;
            bool good = text.len && text.ptr[0] == '@'
                            ? smtp_domain_to_ascii(slice_from(text, 1), domain)
                            : smtp_address_parse(text, &path) == PARSE_DONE;
            if (!good)
                settings_problem(problems, s->file, settings_line(s, "may_send_as"),
                    "may_send_as", "%s: not an address or @domain: %s", m->user,
                    m->addresses.items[j]);
        }
    }
}

/* "user:password" in one line, for nobody else's eyes. */
static const char *credentials_problem(const char *file, char *room, size_t room_size)
{
    struct text_file text;
    struct text_lines lines;
    struct slice line, second;
    const char *wrong = NULL;
    if (!text_file_read(&text, file, CREDENTIALS_MAX, room, room_size))
        return room;
    lines = text_lines_of(&text);
    if (text.mode & 077)
        wrong = "is open to others: chmod 0600";
    else if (!text_lines_next(&lines, &line) || slice_find(line, ':') == line.len ||
             text_lines_next(&lines, &second))
        wrong = "want one line: user:password";
    explicit_bzero(text.bytes, text.len);
    text_file_fini(&text);
    return wrong;
}

static void check_routes(const struct settings *s, struct settings_problems *problems)
{
    char why[600], key[64];
    for (unsigned i = 0; i < s->route_count; i++) {
        const struct route_settings *r = &s->routes[i];
        const char *wrong =
            *r->auth_file ? credentials_problem(r->auth_file, why, sizeof(why)) : NULL;
        snprintf(key, sizeof(key), "routes[%u].auth", i);
        if (wrong)
            settings_problem(
                problems, s->file, r->line, key, "%s: %s", r->auth_file, wrong);
    }
}

static void check_anchor(const struct settings *s, struct settings_problems *problems)
{
    struct text_file text;
    char why[600];
    if (!s->resolver.dnssec || !*s->resolver.trust_anchor)
        return;
    if (text_file_read(&text, s->resolver.trust_anchor, ANCHOR_MAX, why, sizeof(why)))
        text_file_fini(&text);
    else
        problem(s, "resolver.trust_anchor", why, problems);
}

struct intake_config *intake_config_new(
    struct settings *s, struct settings_problems *problems)
{
    unsigned before = problems->count;
    struct intake_config *c = mem_zalloc(sizeof(*c));
    atomic_init(&c->refs, 1);
    c->settings = settings_ref(s);
    open_relay_check(s, problems);
    load_tls(c, problems);
    load_authorities(s, problems);
    load_users(c, problems);
    c->policy = policy_new(s, problems);
    check_postmaster(c, problems);
    check_may_send_as(s, problems);
    check_routes(s, problems);
    check_anchor(s, problems);
    if (problems->count == before)
        return c;
    intake_config_unref(c);
    return NULL;
}

struct intake_config *intake_config_ref(struct intake_config *c)
{
    atomic_fetch_add_explicit(&c->refs, 1, memory_order_relaxed);
    return c;
}

void intake_config_unref(struct intake_config *c)
{
    if (!c || atomic_fetch_sub_explicit(&c->refs, 1, memory_order_acq_rel) != 1)
        return;
    policy_unref(c->policy);
    tls_server_unref(c->tls);
    auth_users_unref(c->users);
    settings_unref(c->settings);
    free(c);
}

void intake_check(struct settings *s, struct settings_problems *problems)
{
    intake_config_unref(intake_config_new(s, problems));
}
