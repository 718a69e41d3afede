/* SPDX-License-Identifier: Apache-2.0 */
#include "node/mail/received.h"

/* A name from outside, cut to what a name can be. */
static void add_name(struct buf *out, struct slice name, const char *fallback)
{
    if (name.len == 0) {
        buf_append_str(out, fallback);
        return;
    }
    name = slice_head(name, 255);
    char *room = buf_reserve(out, name.len);
    if (!room)
        return;
    for (size_t i = 0; i < name.len; i++) {
        unsigned char u = (unsigned char)name.ptr[i];
        bool bad = u <= ' ' || u == 0x7f || strchr("()<>;,\\\"", (char)u);
        room[i] = bad ? '?' : (char)u;
    }
    buf_commit(out, name.len);
}

static void add_from(struct buf *out, const struct received *r)
{
    char literal[NETADDR_TEXT_MAX];
    buf_append_str(out, "Received: from ");
    add_name(out, r->helo, "unknown");
    if (r->client.family == 0)
        return;
    ipaddr_format_literal(r->client, literal);
    buf_append_str(out, " (");
    add_name(out, r->rdns, "unknown");
    buf_append_char(out, ' ');
    buf_append_str(out, literal);
    buf_append_char(out, ')');
}

static void add_by(struct buf *out, const struct received *r)
{
    buf_append_str(out, r->client.family || r->helo.len ? "\r\n\tby " : "Received: by ");
    add_name(out, r->hostname, "localhost");
    if (r->with) {
        buf_append_str(out, " with ");
        buf_append_str(out, r->with);
    }
    if (r->tls_version && r->tls_cipher) {
        buf_append_str(out, "\r\n\t(using ");
        buf_append_str(out, r->tls_version);
        buf_append_str(out, " with cipher ");
        buf_append_str(out, r->tls_cipher);
        buf_append_char(out, ')');
    }
}

/* An address was parsed before; what could still break the field is left out whole, since
 * half an address is none. */
static bool address_is_plain(struct slice address)
{
    for (size_t i = 0; i < address.len; i++) {
        unsigned char u = (unsigned char)address.ptr[i];
        if (u < ' ' || u == 0x7f)
            return false;
    }
    return address.len > 0 && address.len <= 512;
}

bool received_append(struct buf *out, const struct received *r)
{
    char id[MSG_ID_TEXT + 1];
    char date[48];
    msg_id_format(r->id, id);
    wall_format_rfc5322(r->time, date);
    bool failed_before = out->failed;
    out->failed = false;
    if (r->client.family || r->helo.len)
        add_from(out, r);
    add_by(out, r);
    buf_append_str(out, "\r\n\tid ");
    buf_append_str(out, id);
    if (address_is_plain(r->for_address)) {
        buf_append_str(out, "\r\n\tfor <");
        buf_append(out, r->for_address);
        buf_append_char(out, '>');
    }
    buf_append_str(out, ";\r\n\t");
    buf_append_str(out, date);
    buf_append_str(out, "\r\n");
    bool fits = !out->failed;
    out->failed |= failed_before;
    return fits;
}
