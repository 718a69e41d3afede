/* SPDX-License-Identifier: Apache-2.0 */
#include "node/delivery/parcel_load.h"

#include <stdlib.h>

#include "base/alloc.h"

struct load {
    struct job job;
    struct mail late; /* when the helpers refuse */
    struct store *store;
    struct parcel *parcel;
    parcel_loaded_fn *loaded;
    void *ctx;
    enum err err;
    bool lacks_final_crlf;
};

static bool ends_in_crlf(struct store *store, const struct unit_record *u)
{
    char *rows = mem_alloc(16 * BODY_ROW_BYTES);
    size_t len = 0;
    bool ends = true;
    if (u->body_rows > 0 &&
        store_read_body(store, u->id.msg, u->body_rows - 1, rows, &len) == ERR_OK &&
        len > 0)
        ends = rows[len - 1] == '\n';
    free(rows);
    return ends;
}

static void read_unit(struct job *job)
{
    struct load *l = CONTAINER_OF(job, struct load, job);
    l->err = store_read_unit(l->store, l->parcel->id, &l->parcel->record);
    if (l->err == ERR_OK)
        l->lacks_final_crlf = !ends_in_crlf(l->store, l->parcel->record);
}

static void finish(struct load *l)
{
    l->loaded(l->parcel, l->err, l->lacks_final_crlf, l->ctx);
    free(l);
}

static void unit_read(struct mail *mail, void *owner)
{
    (void)owner;
    finish(CONTAINER_OF(mail, struct load, job.mail));
}

static void refused(struct mail *mail, void *owner)
{
    (void)owner;
    finish(CONTAINER_OF(mail, struct load, late));
}

void parcel_load(
    struct delivery_loop *dl, struct parcel *parcel, parcel_loaded_fn *loaded, void *ctx)
{
    const struct delivery_env *env = delivery_loop_env(dl);
    struct load *l = mem_zalloc(sizeof(*l));
    l->store = env->store;
    l->parcel = parcel;
    l->loaded = loaded;
    l->ctx = ctx;
    l->job.run = read_unit;
    l->job.done = unit_read;
    l->job.reply_to = delivery_loop_mailbox(dl);
    if (workers_submit(env->helpers, &l->job))
        return;
    l->err = ERR_OVERLOADED;
    mailbox_post(delivery_loop_mailbox(dl), &l->late, refused);
}
