/* SPDX-License-Identifier: Apache-2.0 */
#include "node/delivery/parcel.h"

#include <stdio.h>
#include <stdlib.h>

#include "base/alloc.h"

#define REPLY_MAX 500

struct parcel *parcel_new(struct sched_unit *unit, struct unit_id id, struct message *hot)
{
    struct parcel *parcel = mem_zalloc(sizeof(*parcel));
    parcel->unit = unit;
    parcel->id = id;
    parcel->hot = hot ? message_ref(hot) : NULL;
    parcel->tls = "";
    parcel->allowed = UINT64_MAX;
    return parcel;
}

void parcel_free(struct parcel *parcel)
{
    if (!parcel)
        return;
    message_unref(parcel->hot);
    unit_record_free(parcel->record);
    arena_free(parcel->arena);
    free(parcel->dsns);
    free(parcel);
}

const struct message *parcel_message(const struct parcel *parcel)
{
    return parcel->record ? parcel->record->message : parcel->hot;
}

const struct message_unit *parcel_unit(const struct parcel *parcel)
{
    return parcel->record ? &parcel->record->message->units[0]
                          : &parcel->hot->units[parcel->id.unit];
}

unsigned parcel_rcpt_count(const struct parcel *parcel)
{
    return parcel->record ? parcel->record->rcpt_count : parcel_unit(parcel)->rcpt_count;
}

struct rcpt_record parcel_rcpt(const struct parcel *parcel, unsigned i)
{
    if (parcel->record)
        return parcel->record->rcpts[i];
    const struct recipient *r = &parcel_unit(parcel)->rcpts[i];
    return (struct rcpt_record){.rcpt = *r, .state = RCPT_QUEUED, .attempt_id = r->doubt};
}

uint64_t parcel_rcpt_bit(const struct parcel *parcel, unsigned i)
{
    return rights_bit(parcel->record ? parcel->record->rcpts[i].rcpt.index
                                     : parcel_unit(parcel)->rcpts[i].index);
}

uint64_t parcel_open_bits(const struct parcel *parcel, struct wall now)
{
    uint64_t bits = 0;
    for (unsigned i = 0; i < parcel_rcpt_count(parcel); i++)
        if (parcel_rcpt_open(parcel, i, now))
            bits |= parcel_rcpt_bit(parcel, i);
    return bits;
}

bool parcel_rcpt_allowed(const struct parcel *parcel, unsigned i)
{
    return parcel->allowed == UINT64_MAX ||
           (parcel->allowed & parcel_rcpt_bit(parcel, i)) != 0;
}

bool parcel_rcpt_open(const struct parcel *parcel, unsigned i, struct wall now)
{
    if (!parcel_rcpt_allowed(parcel, i))
        return false;
    if (!parcel->record)
        return true;
    const struct rcpt_record *r = &parcel->record->rcpts[i];
    if (rcpt_state_is_final(r->state))
        return false;
    return r->state != RCPT_IN_DOUBT || r->next_due.ms <= now.ms;
}

void parcel_begin_fates(struct parcel *parcel)
{
    unsigned count = parcel_rcpt_count(parcel);
    arena_free(parcel->arena);
    parcel->arena = arena_new(count * sizeof(struct fate) + 256);
    parcel->fates = arena_alloc(parcel->arena, count * sizeof(struct fate));
}

void parcel_set_fate(struct parcel *parcel, unsigned i, enum err err, unsigned code,
    struct slice status, struct slice reply)
{
    struct fate *f = &parcel->fates[i];
    f->tried = true;
    f->err = err;
    f->code = (uint16_t)code;
    snprintf(f->status, sizeof(f->status), "%.*s", SLICE_ARG(slice_head(status, 11)));
    f->reply = arena_dup(parcel->arena, slice_head(reply, REPLY_MAX));
}

void parcel_fail_all(struct parcel *parcel, enum err err, unsigned code,
    struct slice status, struct slice reply)
{
    struct wall now = wall_now();
    if (!parcel->fates)
        parcel_begin_fates(parcel);
    if (status.len == 0)
        status = slice_str(err_status(err));
    if (reply.len == 0)
        reply = slice_str(err_text(err));
    for (unsigned i = 0; i < parcel_rcpt_count(parcel); i++)
        if (!parcel->fates[i].tried && parcel_rcpt_open(parcel, i, now))
            parcel_set_fate(parcel, i, err, code, status, reply);
}
