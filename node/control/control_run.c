/* SPDX-License-Identifier: Apache-2.0 */
#include "node/control/control_run.h"

#include <stdlib.h>

#include "base/alloc.h"

struct control_run {
    struct control_request *req; /* NULL: ended */
    struct mailbox *box;
    struct mail mail; /* tells the handler that there is no room */
    bool posted, full;
    json_t *lines;
    size_t bytes, max_bytes;
    control_run_done *done;
    void *ctx;
};

struct control_run *control_run_new(struct control_request *req, struct mailbox *box,
    size_t max_bytes, control_run_done *done, void *ctx)
{
    struct control_run *run = mem_zalloc(sizeof(*run));
    run->req = req;
    run->box = box;
    run->max_bytes = max_bytes;
    run->done = done;
    run->ctx = ctx;
    run->lines = json_array();
    return run;
}

bool control_run_is_full(const struct control_run *run)
{
    return run->full;
}

static void stop_handler(struct mail *mail, void *owner)
{
    struct control_run *run = CONTAINER_OF(mail, struct control_run, mail);
    (void)owner;
    run->posted = false;
    if (!run->req)
        free(run);
    else if (run->req->on_cancel)
        run->req->on_cancel(run->req);
}

static void take_line(struct control_run *run, struct slice line)
{
    json_t *object = json_loadb(line.ptr, line.len, 0, NULL);
    if (object)
        json_array_append_new(run->lines, object);
}

bool control_run_take(struct control_run *run, struct slice lines)
{
    while (lines.len && !run->full) {
        size_t end = slice_find(lines, '\n');
        run->bytes += end + 1;
        run->full = run->bytes > run->max_bytes;
        if (!run->full && end)
            take_line(run, slice_head(lines, end));
        lines = slice_from(lines, end + 1);
    }
    /* Not from here: the handler is in the middle of its reply. */
    if (run->full && !run->posted) {
        run->posted = true;
        mailbox_post(run->box, &run->mail, stop_handler);
    }
    return !run->full;
}

void control_run_end(struct control_run *run, json_t *end)
{
    json_object_del(end, "end");
    json_object_set_new(end, "lines", run->lines);
    if (run->full)
        json_object_set_new(end, "cut", json_true());
    run->req = NULL;
    run->done(end, run->ctx);
    if (!run->posted)
        free(run);
}
