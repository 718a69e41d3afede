/* SPDX-License-Identifier: Apache-2.0 */
#include "queue/scrub.h"

#include "base/crc32c.h"
#include "queue/store_internal.h"

#define OWED_A_ROW (INT64_C(3600000) * SCRUB_HOURS)
#define UNITS_MAX 256u /* of one message: more than a cluster makes */

struct finder {
    void (*found)(struct unit_id id, enum scrub_find what, void *ctx);
    void *ctx;
};

static void sum_row(struct slice bytes, void *ctx)
{
    struct scrub *c = ctx;
    c->crc = crc32c(c->crc, bytes.ptr, bytes.len);
    c->size += bytes.len;
    c->row++;
}

static void report_body(
    struct store *s, struct scrub *c, const struct finder *f, bool is_whole)
{
    struct unit_id ids[UNITS_MAX];
    unsigned n = store_units_of(s, c->id, ids, UNITS_MAX);
    for (unsigned i = 0; i < n; i++) {
        struct unit_record *u;
        enum err e = store_read_unit(s, ids[i], &u);
        unit_record_free(u);
        if (e == ERR_STORE_NOT_FOUND || (is_whole && e == ERR_OK))
            continue;
        c->damaged++;
        f->found(ids[i], is_whole ? SCRUB_HEAD : SCRUB_BODY, f->ctx);
    }
}

/* The next rows. */
static enum err read_on(struct store *s, struct scrub *c, const struct finder *f)
{
    uint32_t before = c->row, crc;
    uint64_t size;
    enum err e = s->backend->body_info(s, c->id, &size, &crc);
    if (e == ERR_OK)
        e = s->backend->read_rows(s, c->id, c->row, sum_row, c);
    c->rows += c->row - before;
    bool more = e == ERR_OK && c->size < size && c->row > before;
    if (e == ERR_IO || more)
        return e;
    if (e != ERR_STORE_NOT_FOUND) /* it went meanwhile */
        report_body(s, c, f, e == ERR_OK && c->size == size && c->crc == crc);
    c->row = c->crc = 0;
    c->size = 0;
    return ERR_OK;
}

static int64_t rows_due(const struct store *s, struct scrub *c, struct mono now)
{
    int64_t rows = (int64_t)atomic_load(&s->counters.body_rows);
    int64_t ms = c->last.ns ? mono_diff_ms(now, c->last) : 0;
    int64_t most = OWED_A_ROW * SCRUB_STEP_ROWS;
    c->last = now;
    /* Whoever did not call for long does not have it all read at once. */
    if (ms > 0 && rows > 0)
        c->owed = ms > (most - c->owed) / rows ? most : c->owed + rows * ms;
    return c->owed / OWED_A_ROW;
}

enum err scrub_step(struct store *s, struct scrub *c, struct mono now,
    void (*found)(struct unit_id id, enum scrub_find what, void *ctx), void *ctx)
{
    const struct finder f = {found, ctx};
    int64_t due = rows_due(s, c, now), done = 0;
    enum err e = ERR_OK;
    while (e == ERR_OK && done < due) {
        uint64_t before = c->rows;
        if (c->row == 0)
            e = s->backend->next_body(s, &c->id, &c->id);
        if (e == ERR_OK)
            e = read_on(s, c, &f);
        /* An empty body is work, too. */
        done += c->rows > before ? (int64_t)(c->rows - before) : 1;
    }
    c->owed -= done * OWED_A_ROW; /* rows come by the sixteen */
    if (e != ERR_STORE_NOT_FOUND)
        return e;
    /* Behind the last one; the next step begins with the first. */
    c->id = (struct msg_id){{0}};
    c->rounds++;
    return ERR_OK;
}
