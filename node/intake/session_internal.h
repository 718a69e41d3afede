/* SPDX-License-Identifier: Apache-2.0 */
/* Shared by session.c (connection and engine), session_mail.c (MAIL, RCPT, DATA),
 * session_auth.c (AUTH) and session_trust.c (limits, PROXY, XCLIENT, who the client is).
 */
#ifndef NODE_INTAKE_SESSION_INTERNAL_H
#define NODE_INTAKE_SESSION_INTERNAL_H

#include "base/log.h"
#include "node/intake/session.h"
#include "node/intake/transaction.h"
#include "node/smtp/server.h"

enum session_state {
    SESSION_PROXY, /* the proxy's header is awaited */
    SESSION_TLS,   /* a handshake is under way */
    SESSION_SMTP,
};

struct session {
    LIST_ENTRY(session) link;
    struct intake_loop *il;
    struct intake_config *config;
    const struct listener_settings *listener;
    struct intake_service *service;
    struct conn *conn;
    struct smtp_server *engine; /* NULL before SESSION_SMTP, unless TLS came later */
    enum session_state state;
    struct timer timer;
    struct netaddr peer;   /* of the connection */
    struct netaddr client; /* whom it speaks for: the same, or from PROXY or XCLIENT */
    struct ipaddr counted; /* what was counted in `clients` */
    bool is_counted;
    bool is_relay_client;
    bool xclient_ok;
    bool shutting_down;
    bool eof;       /* the client sends no more, but an answer is on its way */
    char name[256]; /* XCLIENT NAME */
    char user[AUTH_USER_MAX + 1];
    struct transaction *tx;
    struct pace_wait pace;
    struct smtp_request *paced; /* DATA, while `pace` waits */
    struct auth_exchange *auth;
    struct smtp_request *auth_request;
    bool auth_late; /* a failure whose answer is held back */
    struct timer auth_timer;
    bool has_auth_timer;
    struct mono since;
    uint32_t messages;
};

/* session.c */
/* The engine's callbacks. */
extern const struct smtp_server_handler session_handler;
struct mono session_now(const struct session *s);
/* An engine answer came outside of its calls: go on. */
void session_ready(void *session);
void session_config(const struct session *s, struct smtp_server_config *out);
/* Closes at once and frees. */
void session_close(struct session *s, const char *why);
/* Says this (no engine is there yet, or none is wanted) and closes. */
void session_turn_away(struct session *s, const char *line, const char *why);
/* After the client is known: limits, `allow`, then TLS or the engine. */
void session_admit(struct session *s);

/* session_trust.c */
void session_count_in(struct session *s, struct ipaddr ip, enum clients_verdict *out);
void session_count_out(struct session *s);
/* Sets who the client is; rights come from this address, or from none. */
void session_set_client(struct session *s, struct netaddr client, bool has_rights);
void session_proxy_input(struct session *s, struct slice bytes);
void session_xclient(void *session, struct smtp_request *r, const struct xclient *x);
void session_policy_client(const struct session *s, struct policy_client *out);

/* session_mail.c */
void session_mail(void *session, struct smtp_request *r, const struct smtp_path *path,
    const struct esmtp_mail *params);
void session_rcpt(void *session, struct smtp_request *r, const struct smtp_path *path,
    const struct esmtp_rcpt *params);
void session_data(void *session, struct smtp_request *r);
void session_body(void *session, struct slice bytes);
void session_body_end(
    void *session, struct smtp_request *r, const struct smtp_body_info *info);
void session_transaction_end(void *session, enum smtp_transaction_end how);
void session_vrfy(void *session, struct smtp_request *r, struct slice argument);

/* session_auth.c */
void session_auth_start(void *session, struct smtp_request *r, struct slice mechanism,
    bool has_initial, struct slice initial);
void session_auth_response(void *session, struct smtp_request *r, struct slice response);
void session_auth_cancel(void *session);
void session_auth_fini(struct session *s);

#endif
