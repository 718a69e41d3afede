/* SPDX-License-Identifier: Apache-2.0 */
/* `queue shape`: open recipients by destination and age, like qshape(1). */
#include <stdio.h>
#include <stdlib.h>

#include "base/alloc.h"
#include "base/random.h"
#include "node/control/filter.h"
#include "node/control/handlers_internal.h"

/* Minutes; the last bucket is all that is older. */
static const int64_t bucket_minutes[] = {5, 10, 20, 40, 80, 160, 320, 640, 1280};
#define BUCKETS (sizeof(bucket_minutes) / sizeof(bucket_minutes[0]) + 1)
/* More destinations than that share the row of the others. */
#define ROWS_MAX 65536u
#define SLOTS (2 * (uint64_t)ROWS_MAX)
#define PAGE_UNITS 20000
#define LINES_MAX (32u << 20)

struct row {
    char *domain;
    uint64_t total, units;
    uint64_t ages[BUCKETS];
};

struct shape {
    struct work work;
    struct filter filter;
    int64_t limit;
    struct wall now;
    bool has_after, more;
    struct unit_id after;
    unsigned seen;
    uint64_t key;
    struct row all, others;
    struct row *rows[SLOTS]; /* open addressing */
    unsigned row_count;
};

static struct row *find_row(struct shape *s, struct slice domain)
{
    uint64_t at = slice_hash_nocase(domain, s->key) % SLOTS;
    while (s->rows[at] && !slice_eq_nocase(slice_str(s->rows[at]->domain), domain))
        at = (at + 1) % SLOTS;
    if (s->rows[at])
        return s->rows[at];
    if (s->row_count == ROWS_MAX)
        return &s->others;
    s->row_count++;
    s->rows[at] = mem_zalloc(sizeof(struct row));
    s->rows[at]->domain = mem_strdup(domain);
    return s->rows[at];
}

static void count_in(struct row *row, unsigned bucket, uint64_t recipients)
{
    row->units++;
    row->total += recipients;
    row->ages[bucket] += recipients;
}

static uint64_t open_recipients(const struct unit_record *u)
{
    uint64_t n = 0;
    for (unsigned i = 0; i < u->rcpt_count; i++)
        n += !rcpt_state_is_final(u->rcpts[i].state);
    return n;
}

static bool shape_unit(const struct unit_record *u, void *ctx)
{
    struct shape *s = ctx;
    const struct message *m = u->message;
    s->after = u->id;
    s->has_after = true;
    s->more = ++s->seen >= PAGE_UNITS;
    struct control_unit at;
    unit_stands(s->work.handlers, u->id, &at);
    const char *node = unit_told(s->work.handlers, &at);
    if (node && filter_matches(&s->filter, u, node, s->now)) {
        int64_t minutes = (s->now.ms - m->created.ms) / 60000;
        uint64_t n = open_recipients(u);
        unsigned bucket = 0;
        while (bucket < BUCKETS - 1 && minutes >= bucket_minutes[bucket])
            bucket++;
        count_in(&s->all, bucket, n);
        count_in(find_row(s, m->unit_count ? m->units[0].domain : SLICE("")), bucket, n);
    }
    return !s->more && !atomic_load_explicit(&s->work.cancelled, memory_order_relaxed);
}

static int by_total(const void *a, const void *b)
{
    const struct row *x = *(struct row *const *)a, *y = *(struct row *const *)b;
    if (x->total != y->total)
        return x->total < y->total ? 1 : -1;
    return strcmp(x->domain, y->domain);
}

static void add_line(struct shape *s, const struct row *row, const char *name)
{
    json_t *o = json_object(), *ages = json_object();
    char bucket[32];
    json_set_text(o, "domain", slice_str(name));
    json_object_set_new(o, "recipients", json_integer((json_int_t)row->total));
    json_object_set_new(o, "units", json_integer((json_int_t)row->units));
    for (unsigned i = 0; i < BUCKETS; i++) {
        snprintf(bucket, sizeof(bucket), "%lldm",
            (long long)bucket_minutes[i < BUCKETS - 1 ? i : i - 1]);
        json_object_set_new(ages, i < BUCKETS - 1 ? bucket : "older",
            json_integer((json_int_t)row->ages[i]));
    }
    json_object_set_new(o, "ages", ages);
    json_line(o, &s->work.lines);
}

/* The fullest first; what is behind the limit goes into one row. */
static void add_lines(struct shape *s)
{
    struct row **sorted = mem_zalloc((s->row_count + 1) * sizeof(struct row *));
    unsigned n = 0;
    for (unsigned i = 0; i < SLOTS; i++)
        if (s->rows[i])
            sorted[n++] = s->rows[i];
    qsort(sorted, n, sizeof(struct row *), by_total);
    add_line(s, &s->all, "TOTAL");
    for (unsigned i = 0; i < n; i++) {
        if (i < s->limit) {
            add_line(s, sorted[i], sorted[i]->domain);
            continue;
        }
        s->others.total += sorted[i]->total;
        s->others.units += sorted[i]->units;
        for (unsigned j = 0; j < BUCKETS; j++)
            s->others.ages[j] += sorted[i]->ages[j];
    }
    if (s->others.units)
        add_line(s, &s->others, "OTHERS");
    free(sorted);
}

static void shape_run(struct work *w)
{
    struct shape *s = CONTAINER_OF(w, struct shape, work);
    struct unit_id after = s->after;
    s->seen = 0;
    s->more = false;
    w->err = store_list(
        w->handlers->sources.store, s->has_after ? &after : NULL, shape_unit, s);
    if (w->err == ERR_OK && !s->more)
        add_lines(s);
}

static void shape_done(struct work *w)
{
    work_continue(w, CONTAINER_OF(w, struct shape, work)->more);
}

static void shape_free(struct work *w)
{
    struct shape *s = CONTAINER_OF(w, struct shape, work);
    for (unsigned i = 0; i < SLOTS; i++)
        if (s->rows[i]) {
            free(s->rows[i]->domain);
            free(s->rows[i]);
        }
    filter_fini(&s->filter);
    free(s);
}

static void handle_shape(struct control_request *req, json_t *args, void *ctx)
{
    struct filter filter;
    int64_t limit = ROWS_MAX;
    bool ok = filter_init(&filter, req, args, false) &&
              control_arg_int(req, args, "limit", 1, ROWS_MAX, &limit);
    if (!ok) {
        filter_fini(&filter);
        return;
    }
    struct shape *s = mem_zalloc(sizeof(*s));
    work_init(&s->work, ctx, req, LINES_MAX);
    s->work.run = shape_run;
    s->work.done = shape_done;
    s->work.free = shape_free;
    s->filter = filter;
    s->limit = limit;
    s->now = wall_now();
    s->key = random_u64();
    work_start(&s->work);
}

void shape_register(struct control *c, struct control_handlers *h)
{
    control_register(c, "queue shape", CONTROL_READS, handle_shape, h);
}
