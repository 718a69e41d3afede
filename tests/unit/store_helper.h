/* SPDX-License-Identifier: Apache-2.0 */
/* What the tests of the store share: operations that wait for their answer, messages made
 * from a seed, directories that vanish. */
#ifndef TESTS_UNIT_STORE_HELPER_H
#define TESTS_UNIT_STORE_HELPER_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/alloc.h"
#include "queue/store.h"
#include "queue/store_internal.h"

#define MIB (UINT64_C(1) << 20)

static inline void box_done(struct store_op *op, void *owner)
{
    (void)op;
    ++*(unsigned *)owner;
}

/* One for the whole program: whoever posts may touch a mailbox a moment after its last
 * mail was taken out. */
static inline struct mailbox *reply_box(unsigned **done_out)
{
    static unsigned done;
    static struct mailbox *box;
    if (!box)
        box = mailbox_new(&done);
    done = 0;
    *done_out = &done;
    return box;
}

/* Submits and waits; many at once keep their order. */
static inline void run_ops(struct store *s, struct store_op **ops, unsigned count)
{
    unsigned *done;
    struct mailbox *box = reply_box(&done);
    for (unsigned i = 0; i < count; i++) {
        ops[i]->reply_to = box;
        ops[i]->done = box_done;
        store_submit(s, ops[i]);
    }
    while (*done < count) {
        mailbox_wait(box, -1);
        mailbox_drain(box);
    }
}

static inline enum err run_op_wait(struct store *s, struct store_op *op)
{
    run_ops(s, &op, 1);
    return op->result;
}

static inline enum err do_accept(
    struct store *s, struct message *m, uint32_t rows_on_disk)
{
    struct store_accept a = {
        .op.kind = STORE_OP_ACCEPT, .message = m, .rows_on_disk = rows_on_disk};
    return run_op_wait(s, &a.op);
}

static inline enum err do_rows(
    struct store *s, struct msg_id id, struct body *b, uint32_t first, uint32_t count)
{
    struct store_body_rows r = {.op.kind = STORE_OP_BODY_ROWS,
        .id = id,
        .body = b,
        .first_row = first,
        .row_count = count};
    return run_op_wait(s, &r.op);
}

static inline enum err do_drop(struct store *s, struct msg_id id)
{
    struct store_body_drop d = {.op.kind = STORE_OP_BODY_DROP, .id = id};
    return run_op_wait(s, &d.op);
}

static inline enum err do_done(struct store *s, struct unit_id unit)
{
    struct store_settle e = {.op.kind = STORE_OP_SETTLE, .unit = unit, .unit_done = true};
    return run_op_wait(s, &e.op);
}

static inline void do_barrier(struct store *s)
{
    struct store_op op = {.kind = STORE_OP_BARRIER};
    assert_int_equal(run_op_wait(s, &op), ERR_OK);
}

/* xorshift: the same tape for the same seed on every machine. */
static inline uint64_t next_random(uint64_t *state)
{
    uint64_t x = *state;
    x ^= x << 13;
    x ^= x >> 7;
    x ^= x << 17;
    return *state = x;
}
static inline unsigned below(uint64_t *state, unsigned n)
{
    return (unsigned)(next_random(state) >> 33) % n;
}

static inline struct body *random_body(uint64_t *seed, uint64_t size)
{
    struct body *b = body_new();
    char piece[1000];
    for (uint64_t at = 0; at < size;) {
        size_t n = 1 + below(seed, sizeof(piece));
        n = n < size - at ? n : (size_t)(size - at);
        for (size_t i = 0; i < n; i++)
            piece[i] = (char)(' ' + next_random(seed) % 90);
        body_append(b, slice_make(piece, n));
        at += n;
    }
    return b;
}

static inline void fill_recipient(
    struct message *m, struct message_unit *u, uint16_t i, uint64_t *seed)
{
    u->rcpts[i].index = i;
    u->rcpts[i].address = arena_printf(
        m->arena, "user%u.%u@%.*s", below(seed, 1000), i, SLICE_ARG(u->domain));
    if (below(seed, 3) == 0)
        u->rcpts[i].orcpt = arena_printf(m->arena, "rfc822;orig%u@example.org", i);
    u->rcpts[i].notify = (uint8_t)below(seed, 16);
}

static inline void fill_unit(struct message *m, struct message_unit *u, uint16_t index,
    unsigned rcpts, uint64_t *seed)
{
    u->unit = index;
    u->domain = arena_printf(m->arena, "d%u-%u.example", below(seed, 50), index);
    u->rcpt_count = (uint16_t)rcpts;
    u->rcpts = arena_alloc(m->arena, rcpts * sizeof(*u->rcpts));
    u->expires.ms = m->created.ms + 432000000 + below(seed, 1000);
    u->delay_warning_ms = below(seed, 2) ? 14400000 : 0;
    for (uint16_t i = 0; i < rcpts; i++)
        fill_recipient(m, u, i, seed);
}

/* The body is taken. */
static inline struct message *make_message(struct msg_id id, struct body *body,
    unsigned units, unsigned rcpts_max, uint64_t *seed)
{
    struct message *m = message_new();
    m->id = id;
    m->created.ms = 1700000000000 + below(seed, 100000);
    m->reverse_path = below(seed, 4)
                          ? arena_printf(m->arena, "from%u@example.net", below(seed, 100))
                          : SLICE("");
    m->envid = below(seed, 4) ? SLICE("") : SLICE("envid with space");
    m->ret = (enum dsn_ret)below(seed, 3);
    m->body_type = below(seed, 2) ? BODY_8BITMIME : BODY_7BIT;
    m->smtputf8 = below(seed, 5) == 0;
    m->origin = (enum origin)below(seed, 4);
    m->user = below(seed, 2) ? SLICE("someone") : SLICE("");
    m->listener = SLICE("mx");
    m->client.family = below(seed, 2) ? 4 : 6;
    memset(m->client.bytes, (int)below(seed, 256), m->client.family == 4 ? 4 : 16);
    m->helo = SLICE("client.example");
    m->why = SLICE("");
    m->unit_count = units;
    m->units = arena_alloc(m->arena, units * sizeof(*m->units));
    for (unsigned i = 0; i < units; i++)
        fill_unit(m, &m->units[i], (uint16_t)i, 1 + below(seed, rcpts_max), seed);
    m->body = body;
    m->size = body_size(body);
    m->body_crc = body_crc(body);
    return m;
}

static inline struct msg_id make_id(uint64_t *counter)
{
    static const struct wall when = {1700000000000};
    struct msg_id_source source;
    msg_id_source_init(&source, 7, 1, 0);
    struct msg_id id =
        msg_id_next(&source, (struct wall){when.ms + (int64_t)(*counter)++});
    return id;
}

static inline char *temp_dir(void)
{
    char path[] = "/var/tmp/baton-store-XXXXXX";
    assert_non_null(mkdtemp(path));
    return mem_strdup(slice_str(path));
}

static inline void remove_dir(char *dir)
{
    static const char *const names[] = {"data.mdb", "lock.mdb", "pid"};
    char path[256];
    for (unsigned i = 0; i < 3; i++) {
        snprintf(path, sizeof(path), "%s/%s", dir, names[i]);
        unlink(path);
    }
    assert_int_equal(rmdir(dir), 0);
    free(dir);
}

static inline struct store *open_dir_store(const char *dir, uint64_t quota, uint64_t map)
{
    char why[512] = "";
    struct store_settings set = {.dir = dir, .quota_bytes = quota, .map_bytes = map};
    struct store *s = store_open(&set, why, sizeof(why));
    if (!s)
        print_error("%s\n", why);
    return s;
}

static inline void ignore_unit(const struct scan_unit *u, void *ctx)
{
    (void)u;
    (void)ctx;
}

static inline struct scan_result scan(struct store *s)
{
    struct scan_result r;
    assert_int_equal(store_scan(s, ignore_unit, NULL, NULL, &r), ERR_OK);
    return r;
}

#endif
