/* SPDX-License-Identifier: Apache-2.0 */
#include "node/control/shared.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/utf8.h"
#include "node/control/control.h"
#include "node/intake/open_relay.h"

static const char *const kinds[SHARED_KINDS] = {"allow", "lock"};

bool shared_net(struct slice text, char key[SHARED_KEY_MAX], char *why, size_t why_size)
{
    struct cidr net;
    char canonical[NETADDR_TEXT_MAX];
    if (!cidr_parse(text, &net)) {
        snprintf(why, why_size, "not a network like 192.0.2.0/24 or 2001:db8::/32: %.*s",
            SLICE_ARG(slice_head(text, 60)));
        return false;
    }
    if (open_relay_too_wide(net, why, why_size))
        return false;
    cidr_format(net, canonical);
    snprintf(key, SHARED_KEY_MAX, "%s", canonical);
    return true;
}

/* --- the table --- */

static int compare(enum shared_kind kind, const char *key, const struct shared_row *r)
{
    if (kind != r->kind)
        return kind < r->kind ? -1 : 1;
    return strcmp(key, r->key);
}

/* Where it is, or belongs. */
static unsigned place(
    const struct shared *s, enum shared_kind kind, const char *key, bool *there_out)
{
    unsigned low = 0, high = s->count;
    while (low < high) {
        unsigned middle = (low + high) / 2;
        if (compare(kind, key, &s->rows[middle]) > 0)
            low = middle + 1;
        else
            high = middle;
    }
    *there_out = low < s->count && compare(kind, key, &s->rows[low]) == 0;
    return low;
}

static bool beats(const struct shared_row *a, const struct shared_row *b)
{
    if (a->stamp != b->stamp)
        return a->stamp > b->stamp;
    int order = strcmp(a->by, b->by);
    if (order)
        return order > 0;
    if (a->gone != b->gone)
        return a->gone;
    return a->until.ms > b->until.ms;
}

/* True when it was new. */
static bool put(struct shared *s, const struct shared_row *r)
{
    bool there;
    unsigned at = place(s, r->kind, r->key, &there);
    if (there && !beats(r, &s->rows[at]))
        return false;
    if (!there) {
        if (s->count == SHARED_ROWS_MAX)
            return false;
        memmove(&s->rows[at + 1], &s->rows[at], (s->count - at) * sizeof(*r));
        s->count++;
    }
    s->rows[at] = *r;
    return true;
}

bool shared_row_holds(const struct shared_row *r, struct wall now)
{
    return !r->gone && (r->until.ms == 0 || r->until.ms > now.ms);
}

const struct shared_row *shared_find(
    const struct shared *s, enum shared_kind kind, const char *key, struct wall now)
{
    bool there;
    unsigned at = place(s, kind, key, &there);
    return there && shared_row_holds(&s->rows[at], now) ? &s->rows[at] : NULL;
}

/* Newer than all that is known, also when our clock is behind theirs. */
static int64_t next_stamp(const struct shared *s, struct wall now)
{
    int64_t stamp = now.ms;
    for (unsigned i = 0; i < s->count; i++)
        if (s->rows[i].stamp >= stamp)
            stamp = s->rows[i].stamp + 1;
    return stamp;
}

const struct shared_row *shared_write(struct shared *s, enum shared_kind kind,
    const char *key, struct wall until, bool gone, const char *by, struct wall now)
{
    struct shared_row r = {.kind = kind, .until = until, .gone = gone};
    bool there;
    shared_sweep(s, now);
    r.stamp = next_stamp(s, now);
    snprintf(r.key, sizeof(r.key), "%s", key);
    snprintf(r.by, sizeof(r.by), "%s", by);
    return put(s, &r) ? &s->rows[place(s, kind, key, &there)] : NULL;
}

static bool is_worth_keeping(const struct shared_row *r, struct wall now)
{
    int64_t over = r->gone ? r->stamp : r->until.ms;
    return shared_row_holds(r, now) || over + SHARED_GONE_MS > now.ms;
}

void shared_sweep(struct shared *s, struct wall now)
{
    unsigned kept = 0;
    for (unsigned i = 0; i < s->count; i++)
        if (is_worth_keeping(&s->rows[i], now))
            s->rows[kept++] = s->rows[i];
    s->count = kept;
}

/* --- JSON --- */

json_t *shared_row_json(const struct shared_row *r)
{
    return json_pack("{s:s,s:s,s:I,s:I,s:s,s:b}", "kind", kinds[r->kind], "key", r->key,
        "until", (json_int_t)r->until.ms, "stamp", (json_int_t)r->stamp, "by", r->by,
        "gone", r->gone);
}

json_t *shared_json(const struct shared *s)
{
    json_t *rows = json_array();
    for (unsigned i = 0; i < s->count; i++)
        json_array_append_new(rows, shared_row_json(&s->rows[i]));
    return rows;
}

static bool take_text(const json_t *o, const char *key, char *out, size_t size)
{
    const json_t *value = json_object_get(o, key);
    struct slice text = slice_make(json_string_value(value), json_string_length(value));
    if (!json_is_string(value) || text.len == 0 || text.len >= size)
        return false;
    for (size_t i = 0; i < text.len; i++)
        if ((unsigned char)text.ptr[i] < ' ' || text.ptr[i] == 0x7f)
            return false;
    memcpy(out, text.ptr, text.len);
    out[text.len] = '\0';
    return true;
}

static bool take_int(const json_t *o, const char *key, int64_t *out)
{
    const json_t *value = json_object_get(o, key);
    *out = json_integer_value(value);
    /* Far beyond any date, and far from what a sum could overflow. */
    return json_is_integer(value) && *out >= 0 && *out < INT64_MAX / 4;
}

static bool row_parse(const json_t *o, struct shared_row *r)
{
    char kind[8], canonical[SHARED_KEY_MAX], why[128];
    *r = (struct shared_row){.kind = SHARED_KINDS};
    if (!take_text(o, "kind", kind, sizeof(kind)) ||
        !take_text(o, "key", r->key, sizeof(r->key)) ||
        !take_text(o, "by", r->by, sizeof(r->by)) || !take_int(o, "stamp", &r->stamp) ||
        !take_int(o, "until", &r->until.ms) ||
        !json_is_boolean(json_object_get(o, "gone")))
        return false;
    r->gone = json_is_true(json_object_get(o, "gone"));
    for (unsigned i = 0; i < SHARED_KINDS; i++)
        if (strcmp(kinds[i], kind) == 0)
            r->kind = (enum shared_kind)i;
    if (r->kind == SHARED_ALLOW)
        return shared_net(slice_str(r->key), canonical, why, sizeof(why)) &&
               strcmp(canonical, r->key) == 0;
    return r->kind == SHARED_LOCK;
}

unsigned shared_merge(struct shared *s, const json_t *rows, struct wall now)
{
    unsigned taken = 0;
    size_t i;
    json_t *one;
    struct shared_row r;
    json_array_foreach(rows, i, one)
    {
        if (i < SHARED_ROWS_MAX && row_parse(one, &r) && is_worth_keeping(&r, now))
            taken += put(s, &r);
    }
    shared_sweep(s, now);
    return taken;
}

uint64_t shared_hash(const struct shared *s)
{
    uint64_t hash = 0;
    char text[SHARED_KEY_MAX + 128];
    for (unsigned i = 0; i < s->count; i++) {
        const struct shared_row *r = &s->rows[i];
        snprintf(text, sizeof(text), "%s %s %s %lld %lld %d", kinds[r->kind], r->key,
            r->by, (long long)r->stamp, (long long)r->until.ms, r->gone);
        hash = slice_hash(slice_str(text), hash ^ UINT64_C(0x7368617265642d31));
    }
    return hash;
}

unsigned shared_nets(
    const struct shared *s, struct wall now, struct cidr *out, unsigned max)
{
    struct cidr_list list = {.items = out};
    char why[256];
    for (unsigned i = 0; i < s->count && list.count < max; i++) {
        const struct shared_row *r = &s->rows[i];
        if (r->kind != SHARED_ALLOW || !shared_row_holds(r, now) ||
            !cidr_parse(slice_str(r->key), &out[list.count]))
            continue;
        list.count++;
        if (open_relay_too_much(&list, why, sizeof(why)))
            list.count--;
    }
    return list.count;
}
