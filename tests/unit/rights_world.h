/* SPDX-License-Identifier: Apache-2.0 */
/* A backend of the rights that does as the test says, or nothing. */
#ifndef TESTS_UNIT_RIGHTS_WORLD_H
#define TESTS_UNIT_RIGHTS_WORLD_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka wants those first */
#include <cmocka.h>
#include <stdlib.h>

#include "base/alloc.h"
#include "node/delivery/rights.h"

/* All of it in the test's thread, which is also that of every asker. */
static struct fake {
    struct store *store;
    struct rights *rights;
    struct attempt_ticket *ticket; /* of the last `begin`; one reference */
    uint64_t next_id;
    uint32_t epoch;
    unsigned begun, gone, outcomes, accepts;
    enum err accept_result;
    enum err outcome_error; /* while outcomes_to_fail lasts */
    unsigned outcomes_to_fail;
    struct rights_settle last;         /* a copy, without what it points to */
    unsigned last_dsns, last_attempts; /* attempts: of the first recipient */
    struct unit_id last_gone;
    /* What `begin` does at once: */
    bool answers, opens, refuses;
    uint64_t grants; /* 0: all that was asked for */
    uint64_t doubt;
    char cause;
} fake;

static inline void fake_grant(uint64_t rcpts)
{
    struct attempt_ticket *t = fake.ticket;
    if (fake.doubt)
        ticket_doubt(t, fake.doubt, fake.cause);
    ticket_answer(t, (uint64_t)1 << 32 | ++fake.next_id, rcpts, fake.epoch);
}

static inline void fake_accepted(struct mail *mail, void *owner)
{
    struct rights_accept *a = CONTAINER_OF(mail, struct rights_accept, mail);
    a->done(a, a->result, owner);
}

static inline void fake_accept(void *ctx, struct rights_accept *a)
{
    assert_ptr_equal(ctx, &fake);
    fake.accepts++;
    a->result = fake.accept_result;
    mailbox_post(a->reply_to, &a->mail, fake_accepted);
}

static inline void fake_begin(void *ctx, struct attempt_ticket *t)
{
    assert_ptr_equal(ctx, &fake);
    ticket_unref(fake.ticket);
    fake.ticket = t;
    fake.begun++;
    if (fake.refuses)
        ticket_answer(t, 0, 0, 1);
    if (fake.answers)
        fake_grant(fake.grants ? fake.grants : t->rcpts);
    if (fake.opens)
        ticket_open(t);
}

static inline void fake_gone(void *ctx, struct attempt_ticket *t)
{
    assert_ptr_equal(ctx, &fake);
    fake.gone++;
    fake.last_gone = t->unit;
    ticket_unref(t);
}

static inline void fake_outcome_failed(struct mail *mail, void *owner)
{
    struct rights_settle *s = CONTAINER_OF(mail, struct rights_settle, mail);
    s->store.op.done(&s->store.op, owner);
}

static inline void fake_outcome(void *ctx, struct rights_settle *s)
{
    assert_ptr_equal(ctx, &fake);
    fake.outcomes++;
    fake.last = *s;
    fake.last_dsns = s->store.dsn_count;
    fake.last_attempts = s->store.rcpt_count ? s->store.rcpts[0].attempts : 0;
    if (fake.outcomes_to_fail == 0) {
        s->store.op.kind = STORE_OP_SETTLE;
        store_submit(fake.store, &s->store.op);
        return;
    }
    fake.outcomes_to_fail--;
    s->store.op.result = fake.outcome_error;
    mailbox_post(s->store.op.reply_to, &s->mail, fake_outcome_failed);
}

static const struct rights_backend fake_backend = {.accept = fake_accept,
    .begin = fake_begin,
    .gone = fake_gone,
    .outcome = fake_outcome};

static inline void fake_open(struct store *store)
{
    fake = (struct fake){.store = store, .accept_result = ERR_OK, .epoch = 1};
    fake.rights = rights_new(store, &fake_backend, NULL);
    rights_bind(fake.rights, &fake);
    assert_false(rights_may_deliver(fake.rights)); /* before anything is published */
    assert_int_equal(rights_may_accept(fake.rights), ERR_COPIES_UNAVAILABLE);
}

static inline void fake_lease(int64_t ms)
{
    rights_publish_gate(fake.rights, &(struct rights_gate_value){.epoch = 1,
                                         .lease_end = mono_add_ms(mono_now(), ms),
                                         .dot_margin_ns = INT64_C(1000) * NS_PER_MS,
                                         .start_margin_ns = INT64_C(5000) * NS_PER_MS});
}

static inline void fake_close(void)
{
    ticket_unref(fake.ticket);
    fake.ticket = NULL;
    rights_free(fake.rights);
}

#endif
