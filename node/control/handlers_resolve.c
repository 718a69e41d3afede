/* SPDX-License-Identifier: Apache-2.0 */
/* `resolve NAME TYPE`: what our own resolver says, with its DNSSEC verdict. */
#include <stdio.h>
#include <stdlib.h>

#include "base/alloc.h"
#include "node/control/handlers_internal.h"

struct resolve {
    struct dns_query query;
    struct control_request *req;
    struct mono asked;
};

static json_t *hex(struct slice bytes)
{
    static const char digits[] = "0123456789abcdef";
    char *text = mem_alloc(bytes.len * 2 + 1);
    for (size_t i = 0; i < bytes.len; i++) {
        text[2 * i] = digits[(unsigned char)bytes.ptr[i] >> 4];
        text[2 * i + 1] = digits[(unsigned char)bytes.ptr[i] & 15];
    }
    json_t *o = json_stringn(text, bytes.len * 2);
    free(text);
    return o;
}

static json_t *record_json(enum dns_type type, const struct dns_record *r)
{
    json_t *o = json_object();
    const char *name = r->name && r->name[0] ? r->name : ".";
    switch (type) {
    case DNS_A:
    case DNS_AAAA:
        json_object_set_new(o, "address", json_ip(r->ip));
        break;
    case DNS_MX:
        json_object_set_new(o, "preference", json_integer(r->preference));
        json_set_text(o, "name", slice_str(name));
        break;
    case DNS_PTR:
    case DNS_CNAME:
    case DNS_NS:
        json_set_text(o, "name", slice_str(name));
        break;
    case DNS_TXT:
        json_set_text(o, "text", r->data);
        break;
    case DNS_SOA:
    case DNS_TLSA:
        json_object_set_new(o, "data", hex(r->data));
        break;
    }
    return o;
}

static json_t *answer_json(const struct resolve *r)
{
    const struct dns_answer *a = &r->query.answer;
    json_t *o = json_object(), *records = json_array();
    for (unsigned i = 0; i < a->count; i++)
        json_array_append_new(records, record_json(r->query.type, &a->records[i]));
    json_set_text(o, "name", slice_str(r->query.name));
    json_object_set_new(o, "type", json_string(dns_type_name(r->query.type)));
    json_object_set_new(o, "result", json_string(err_name(a->result)));
    if (a->result != ERR_OK)
        json_object_set_new(o, "text", json_string(err_text(a->result)));
    json_object_set_new(o, "security", json_string(dns_security_name(a->security)));
    json_set_text(o, "why_bogus", slice_str(a->why_bogus ? a->why_bogus : ""));
    json_set_text(o, "why", slice_str(a->why ? a->why : ""));
    json_set_text(o, "canonical", slice_str(a->canonical ? a->canonical : ""));
    json_object_set_new(o, "ttl", json_integer(a->ttl));
    json_object_set_new(o, "took_ms", json_integer(mono_diff_ms(mono_now(), r->asked)));
    json_object_set_new(o, "records", records);
    return o;
}

static void answered(struct dns_query *q, void *owner)
{
    struct resolve *r = CONTAINER_OF(q, struct resolve, query);
    (void)owner;
    bool ok = q->answer.result == ERR_OK;
    control_reply(r->req, answer_json(r));
    control_finish(r->req, ok ? 0 : 1);
    dns_query_release(q);
    free(r);
}

static void handle_resolve(struct control_request *req, json_t *args, void *ctx)
{
    struct control_handlers *h = ctx;
    const char *name, *type_text;
    enum dns_type type = DNS_MX;
    if (!control_arg_text(req, args, "name", &name) ||
        !control_arg_text(req, args, "type", &type_text))
        return;
    if (!h->sources.resolver) {
        control_fail(req, 1, NULL, "this node has no resolver");
        return;
    }
    if (type_text && !dns_type_parse(slice_str(type_text), &type)) {
        control_fail(req, 1, "there are A, AAAA, MX, TXT, TLSA, PTR, CNAME, NS and SOA",
            "not a type that is asked for: %.20s", type_text);
        return;
    }
    struct resolve *r = mem_zalloc(sizeof(*r));
    if (!name || name[0] == '\0' || strlen(name) >= sizeof(r->query.name)) {
        control_fail(req, 1, NULL, "give a domain name (or an address, with PTR)");
        free(r);
        return;
    }
    snprintf(r->query.name, sizeof(r->query.name), "%s", name);
    r->query.type = type;
    r->query.reply_to = loop_mailbox(h->loop);
    r->query.done = answered;
    r->req = req;
    r->asked = mono_now();
    resolver_ask(h->sources.resolver, &r->query);
}

void resolve_register(struct control *c, struct control_handlers *h)
{
    control_register(c, "resolve", CONTROL_READS, handle_resolve, h);
}
