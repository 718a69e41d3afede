/* SPDX-License-Identifier: Apache-2.0 */
#include "node/delivery/body_source.h"

#include <stdlib.h>

#include "base/alloc.h"

#define WINDOW_ROWS 16
#define WINDOW_BYTES (WINDOW_ROWS * BODY_ROW_BYTES)

enum window_state { WINDOW_EMPTY, WINDOW_READING, WINDOW_FULL };

struct window {
    struct job job;
    struct body_source *source;
    struct store *store;
    struct msg_id id;
    uint32_t row;
    uint32_t turn; /* of the begin it was read for: an older one is not wanted any more */
    enum window_state state;
    enum err err;
    size_t len;
    char *bytes;
};

struct body_source {
    struct store *store;
    struct workers *helpers;
    struct mailbox *mailbox;
    void (*ready)(void *ctx);
    void *ctx;
    const struct body_chunk *chunk; /* from memory: the next one */
    bool from_disk;
    struct msg_id id;
    uint32_t rows;
    uint32_t next_row; /* to be read */
    uint32_t turn;
    unsigned out; /* the window to hand out next */
    bool holding; /* the window before `out` is with the caller */
    bool waiting; /* the caller was told LATER */
    bool freed;
    unsigned reading;
    struct window windows[2];
};

struct body_source *body_source_new(struct store *store, struct workers *helpers,
    struct mailbox *mailbox, void (*ready)(void *ctx), void *ctx)
{
    struct body_source *b = mem_zalloc(sizeof(*b));
    b->store = store;
    b->helpers = helpers;
    b->mailbox = mailbox;
    b->ready = ready;
    b->ctx = ctx;
    for (unsigned i = 0; i < 2; i++) {
        b->windows[i].source = b;
        b->windows[i].store = store;
    }
    return b;
}

static void really_free(struct body_source *b)
{
    free(b->windows[0].bytes);
    free(b->windows[1].bytes);
    free(b);
}

void body_source_free(struct body_source *b)
{
    if (!b)
        return;
    b->freed = true;
    if (b->reading == 0)
        really_free(b);
}

void body_source_begin_memory(struct body_source *b, const struct body *body)
{
    body_source_end(b);
    b->chunk = body_chunks(body);
}

static void read_window(struct job *job)
{
    struct window *w = CONTAINER_OF(job, struct window, job);
    w->err = store_read_body(w->store, w->id, w->row, w->bytes, &w->len);
}

static void fill_windows(struct body_source *b);

static void window_read(struct mail *mail, void *owner)
{
    struct window *w = CONTAINER_OF(mail, struct window, job.mail);
    struct body_source *b = w->source;
    (void)owner;
    b->reading--;
    w->state = w->turn == b->turn ? WINDOW_FULL : WINDOW_EMPTY;
    if (b->freed) {
        if (b->reading == 0)
            really_free(b);
        return;
    }
    fill_windows(b);
    if (b->waiting && b->windows[b->out].state == WINDOW_FULL) {
        b->waiting = false;
        b->ready(b->ctx);
    }
}

static void start_read(struct body_source *b, struct window *w)
{
    if (!w->bytes)
        w->bytes = mem_alloc(WINDOW_BYTES);
    w->id = b->id;
    w->row = b->next_row;
    w->turn = b->turn;
    w->state = WINDOW_READING;
    w->job.run = read_window;
    w->job.done = window_read;
    w->job.reply_to = b->mailbox;
    b->next_row += WINDOW_ROWS;
    b->reading++;
    if (!workers_submit(b->helpers, &w->job)) {
        /* The helpers are swamped: this delivery gives way and is tried again later. */
        b->reading--;
        w->state = WINDOW_FULL;
        w->err = ERR_OVERLOADED;
    }
}

static void fill_windows(struct body_source *b)
{
    for (unsigned i = 0; i < 2; i++) {
        /* In the order in which they will be handed out. */
        unsigned at = (b->out + i) % 2;
        struct window *w = &b->windows[at];
        bool held = b->holding && at != b->out;
        if (w->state == WINDOW_READING && w->turn != b->turn)
            return; /* a late reader of the message before has the memory still */
        if (w->state == WINDOW_EMPTY && !held && b->next_row < b->rows && b->from_disk)
            start_read(b, w);
    }
}

void body_source_begin_disk(struct body_source *b, struct msg_id id, uint32_t rows)
{
    body_source_end(b);
    b->from_disk = true;
    b->id = id;
    b->rows = rows;
    fill_windows(b);
}

static enum smtp_body_state next_from_memory(struct body_source *b, struct slice *out)
{
    const struct body_chunk *chunk = b->chunk;
    if (!chunk || chunk->len == 0)
        return SMTP_BODY_END;
    *out = slice_make(chunk->bytes, chunk->len);
    b->chunk = chunk->next;
    return SMTP_BODY_MORE;
}

enum smtp_body_state body_source_next(struct body_source *b, struct slice *out)
{
    if (!b->from_disk)
        return next_from_memory(b, out);
    if (b->holding) {
        b->windows[1 - b->out].state = WINDOW_EMPTY;
        b->holding = false;
        fill_windows(b);
    }
    struct window *w = &b->windows[b->out];
    if (w->state == WINDOW_EMPTY && b->next_row >= b->rows)
        return SMTP_BODY_END;
    if (w->state != WINDOW_FULL) {
        b->waiting = true;
        return SMTP_BODY_LATER;
    }
    if (w->err != ERR_OK || w->len == 0)
        return SMTP_BODY_FAILED;
    *out = slice_make(w->bytes, w->len);
    b->holding = true;
    b->out = 1 - b->out;
    return SMTP_BODY_MORE;
}

void body_source_end(struct body_source *b)
{
    b->chunk = NULL;
    b->from_disk = false;
    b->holding = b->waiting = false;
    b->out = 0;
    b->next_row = b->rows = 0;
    b->turn++;
    for (unsigned i = 0; i < 2; i++)
        if (b->windows[i].state == WINDOW_FULL)
            b->windows[i].state = WINDOW_EMPTY;
}
