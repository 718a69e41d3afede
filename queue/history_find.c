/* SPDX-License-Identifier: Apache-2.0 */
/* Looking things up: index, then the record itself, which decides. */
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/alloc.h"
#include "queue/history_internal.h"

#define MESSAGES_MAX 10000u

/* What a search works on: the segments as they are now, and the open one's matches later.
 */
struct search {
    struct history *h;
    struct segment *segments;
    unsigned count;
};

static void begin_search(struct search *s, struct history *h)
{
    history_flush(h);
    pthread_mutex_lock(&h->list_lock);
    *s = (struct search){.h = h, .count = h->count};
    s->segments = mem_alloc(h->count * sizeof(*s->segments));
    if (h->count)
        memcpy(s->segments, h->segments, h->count * sizeof(*s->segments));
    pthread_mutex_unlock(&h->list_lock);
}

/* In the order of the file. False: the segment went meanwhile, or is not sealed and not
 * open. */
static int matches(struct search *s, unsigned i, enum index_kind kind, uint32_t hash,
    struct offsets *out)
{
    struct history *h = s->h;
    struct segment *seg = &s->segments[i];
    char name[24];
    out->count = 0;
    pthread_mutex_lock(&h->list_lock);
    bool open = h->log_fd >= 0 && h->segments[h->count - 1].number == seg->number;
    if (open)
        index_find_memory(&h->index, kind, hash, out);
    pthread_mutex_unlock(&h->list_lock);
    if (!open)
        index_find_file(h->dir_fd, seg, kind, hash, out);
    if (out->count == 0)
        return -1;
    segment_name(seg->number, "log", name);
    return openat(h->dir_fd, name, O_RDONLY | O_CLOEXEC);
}

static void find_id(struct search *s, struct msg_id id, struct offsets *at,
    void (*found)(const struct record *r, void *ctx), void *ctx)
{
    uint32_t hash = history_hash_id(id);
    struct record r;
    for (unsigned i = 0; i < s->count; i++) {
        int fd = matches(s, i, INDEX_ID, hash, at);
        if (fd < 0)
            continue;
        for (uint32_t n = 0; n < at->count; n++)
            if (segment_read(fd, at->items[n], &r) && msg_id_eq(r.id, id))
                found(&r, ctx);
        close(fd);
    }
}

enum err history_find_id(struct history *h, struct msg_id id,
    void (*found)(const struct record *r, void *ctx), void *ctx)
{
    struct search s;
    struct offsets at = {0};
    begin_search(&s, h);
    find_id(&s, id, &at, found, ctx);
    free(at.items);
    free(s.segments);
    return ERR_OK;
}

struct wall history_since(struct history *h)
{
    int64_t since = wall_now().ms - h->keep_ms;
    pthread_mutex_lock(&h->list_lock);
    /* The first segment has number 1: when it is not there, older ones have left. */
    if (h->count && h->segments[0].number > 1 && h->segments[0].first_ms > since)
        since = h->segments[0].first_ms;
    pthread_mutex_unlock(&h->list_lock);
    return (struct wall){since};
}

struct messages {
    struct msg_id *ids;
    unsigned count, max;
};

static bool names_address(const struct record *r, struct slice address)
{
    struct slice value;
    return (record_get(r, "from", &value) && slice_eq_nocase(value, address)) ||
           (record_get(r, "to", &value) && slice_eq_nocase(value, address));
}

static void add_message(struct messages *m, struct msg_id id)
{
    for (unsigned i = m->count; i-- > 0;)
        if (msg_id_eq(m->ids[i], id))
            return;
    m->ids[m->count++] = id;
}

static int by_id(const void *a, const void *b)
{
    return memcmp(a, b, sizeof(struct msg_id));
}

enum err history_find_address(struct history *h, struct slice address,
    unsigned max_messages, void (*found)(const struct record *r, void *ctx), void *ctx)
{
    struct search s;
    struct offsets at = {0};
    struct record r;
    struct messages m = {
        .max = max_messages < MESSAGES_MAX ? max_messages : MESSAGES_MAX};
    uint32_t hash = history_hash_address(address);
    m.ids = mem_alloc(m.max * sizeof(*m.ids));
    begin_search(&s, h);
    for (unsigned i = s.count; i-- > 0 && m.count < m.max;) {
        int fd = matches(&s, i, INDEX_ADDRESS, hash, &at);
        if (fd < 0)
            continue;
        for (uint32_t n = at.count; n-- > 0 && m.count < m.max;)
            if (segment_read(fd, at.items[n], &r) && names_address(&r, address))
                add_message(&m, r.id);
        close(fd);
    }
    if (m.count)
        qsort(m.ids, m.count, sizeof(*m.ids), by_id);
    for (unsigned i = 0; i < m.count; i++)
        find_id(&s, m.ids[i], &at, found, ctx);
    free(m.ids);
    free(at.items);
    free(s.segments);
    return ERR_OK;
}
