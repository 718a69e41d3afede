/* SPDX-License-Identifier: Apache-2.0 */
/* Who the client is, and what follows from that: counting, rights, PROXY, XCLIENT. */
#include <stdio.h>

#include "base/metrics.h"
#include "node/intake/session_internal.h"
#include "proto/proxy_header.h"

#define PROXY_BYTES_MAX (PROXY_V2_MAX + 16)

void session_count_in(struct session *s, struct ipaddr ip, enum clients_verdict *out)
{
    const struct settings *settings = s->config->settings;
    struct clients_limits limits = {.connections = settings->limits.connections,
        .per_client = settings->limits.client_connections,
        .rate = settings->limits.client_rate};
    bool exempt = intake_is_relay_client(s->il->intake, s->config, ip);
    *out = clients_connect(s->il->intake->clients, ip, &limits, exempt, session_now(s));
    s->is_counted = *out == CLIENTS_OK;
    s->counted = ip;
}

void session_count_out(struct session *s)
{
    if (s->is_counted)
        clients_disconnect(s->il->intake->clients, s->counted, session_now(s));
    s->is_counted = false;
}

void session_set_client(struct session *s, struct netaddr client, bool has_rights)
{
    s->client = client;
    s->is_relay_client =
        has_rights && intake_is_relay_client(s->il->intake, s->config, client.ip);
    s->xclient_ok =
        has_rights && cidr_list_contains(&s->listener->xclient_from, client.ip);
}

/* The header is taken only from an address in proxy_from; whoever it names gets the
 * rights of that address, and a proxy that speaks for itself gets none. */
void session_proxy_input(struct session *s, struct slice bytes)
{
    struct proxy_header header;
    size_t used = 0;
    enum parse parsed = proxy_header_parse(bytes, &header, &used);
    if (parsed == PARSE_MORE && bytes.len <= PROXY_BYTES_MAX)
        return;
    if (parsed != PARSE_DONE) {
        session_turn_away(s, NULL, "no valid PROXY header");
        return;
    }
    conn_end_peek(s->conn, used);
    s->state = SESSION_SMTP;
    if (header.is_local)
        session_set_client(s, s->peer, false);
    else
        session_set_client(s, header.source, true);
    session_admit(s);
}

void session_xclient(void *session, struct smtp_request *r, const struct xclient *x)
{
    struct session *s = session;
    struct smtp_server_config config;
    struct netaddr client = s->client;
    enum clients_verdict verdict;
    if (x->addr.family)
        client.ip = x->addr;
    if (x->port)
        client.port = x->port;
    session_count_out(s);
    session_count_in(s, client.ip, &verdict);
    if (verdict != CLIENTS_OK) {
        smtp_answer(r, 421, "4.7.0", SLICE("Too many connections from that address"));
        return;
    }
    /* A client that nobody can name gets no rights. And XCLIENT is heard once more only
     * when the new address may say it too: some proxies pass on whatever their clients
     * say next. */
    session_set_client(s, client, !x->given[XCLIENT_ADDR] || x->addr.family != 0);
    snprintf(s->name, sizeof(s->name), "%.*s", SLICE_ARG(x->text[XCLIENT_NAME]));
    snprintf(s->user, sizeof(s->user), "%.*s", SLICE_ARG(x->text[XCLIENT_LOGIN]));
    session_config(s, &config);
    smtp_server_set_config(s->engine, &config);
    smtp_answer(r, 220, NULL, slice_str(s->config->settings->hostname));
}

void session_policy_client(const struct session *s, struct policy_client *out)
{
    *out = (struct policy_client){
        .service = s->listener->service,
        .is_relay_client = s->is_relay_client,
        .has_tls = conn_tls_info(s->conn)->on,
        .auth_offered =
            s->config->users && s->config->tls && s->listener->tls != LISTENER_TLS_NONE,
        .user = slice_str(s->user),
    };
}
