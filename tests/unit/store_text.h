/* SPDX-License-Identifier: Apache-2.0 */
/* What a unit looks like, as text: for tests that compare stores. */
#ifndef TESTS_UNIT_STORE_TEXT_H
#define TESTS_UNIT_STORE_TEXT_H

#include "base/buf.h"
#include "tests/unit/store_helper.h"

static inline void print_unit(struct buf *b, const struct message *m,
    const struct message_unit *u, bool held, struct slice reason, int64_t due)
{
    char id[UNIT_ID_TEXT_MAX], ip[NETADDR_TEXT_MAX];
    unit_id_format((struct unit_id){m->id, u->unit}, id);
    ipaddr_format(m->client, ip);
    buf_printf(b, "%s <%.*s> %.*s ret=%d type=%d utf8=%d origin=%d %.*s %.*s %s %.*s", id,
        SLICE_ARG(m->reverse_path), SLICE_ARG(m->envid), m->ret, m->body_type,
        m->smtputf8, m->origin, SLICE_ARG(m->user), SLICE_ARG(m->listener), ip,
        SLICE_ARG(m->helo));
    buf_printf(b, " why=%.*s %.*s size=%lld crc=%x created=%lld expires=%lld warn=%lld",
        SLICE_ARG(m->why), SLICE_ARG(u->domain), (long long)m->size, m->body_crc,
        (long long)m->created.ms, (long long)u->expires.ms,
        (long long)u->delay_warning_ms);
    buf_printf(b, " held=%d (%.*s) due=%lld\n", held, SLICE_ARG(reason), (long long)due);
}

static inline void print_rcpt(struct buf *b, const struct recipient *r,
    enum rcpt_state state, unsigned attempts, int64_t due, struct slice reply)
{
    buf_printf(b, "  %u <%.*s> %.*s notify=%u state=%d attempts=%u due=%lld %.*s\n",
        r->index, SLICE_ARG(r->address), SLICE_ARG(r->orcpt), r->notify, state, attempts,
        (long long)due, SLICE_ARG(reply));
}

static inline bool print_record(const struct unit_record *u, void *ctx)
{
    struct buf *b = ctx;
    print_unit(
        b, u->message, &u->message->units[0], u->held, u->hold_reason, u->next_due.ms);
    for (uint16_t i = 0; i < u->rcpt_count; i++)
        print_rcpt(b, &u->rcpts[i].rcpt, u->rcpts[i].state, u->rcpts[i].attempts,
            u->rcpts[i].next_due.ms, u->rcpts[i].last_reply);
    return true;
}

#endif
