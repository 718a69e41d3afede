/* SPDX-License-Identifier: Apache-2.0 */
#include "queue/message.h"

#include "base/alloc.h"

/* Envelope, one unit and one recipient of ordinary length fit in the first block. */
#define MESSAGE_ARENA_BYTES 1024

struct message *message_new(void)
{
    struct arena *arena = arena_new(MESSAGE_ARENA_BYTES);
    struct message *m = arena_alloc(arena, sizeof(*m));
    m->arena = arena;
    atomic_init(&m->refs, 1);
    return m;
}

struct message *message_ref(struct message *m)
{
    atomic_fetch_add_explicit(&m->refs, 1, memory_order_relaxed);
    return m;
}

void message_unref(struct message *m)
{
    if (!m || atomic_fetch_sub_explicit(&m->refs, 1, memory_order_acq_rel) != 1)
        return;
    body_unref(m->body);
    arena_free(m->arena);
}

void unit_record_free(struct unit_record *u)
{
    if (u)
        message_unref(u->message);
}
