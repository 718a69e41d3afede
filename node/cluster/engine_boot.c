/* SPDX-License-Identifier: Apache-2.0 */
/* From the disk to the core: the cluster's own rows before the store's scan, the rows of
 * the units behind it, and units that have none because they are from before the cluster:
 * those are this node's, with this node alone in their list. */
#include <stdio.h>
#include <stdlib.h>

#include "base/alloc.h"
#include "base/log.h"
#include "node/cluster/engine_internal.h"

struct reading {
    struct engine *engine;
    struct core_cfg cfg;
    struct unit_row unit;
    unsigned bad;
    char what[64];
};

static void node_row(const struct store_row *row, void *ctx)
{
    struct reading *r = ctx;
    struct engine *e = r->engine;
    struct core_event event;
    enum rows_kind kind = rows_get(row, &event, &r->cfg, &r->unit, &e->identity);
    if (kind == ROWS_BAD) {
        r->bad++;
        snprintf(r->what, sizeof(r->what), "'%c', %u bytes",
            row->key_len && row->key[0] >= 'a' && row->key[0] <= 'z' ? row->key[0] : '?',
            (unsigned)row->value.len);
        return;
    }
    if (kind == ROWS_IDENTITY) {
        e->has_identity = true;
        return;
    }
    if (event.kind == EV_BOOT_META)
        e->meta = event.u.meta;
    if (event.kind == EV_BOOT_CFG)
        e->cfg = r->cfg;
    engine_step(e, &event);
}

static bool read_node_rows(struct engine *e, char *why, size_t why_size)
{
    struct reading *r = mem_zalloc(sizeof(*r));
    uint64_t damaged = 0;
    r->engine = e;
    enum err err = store_scan_rows(e->deps.store, STORE_ROW_NODE, node_row, r, &damaged);
    bool ok = err == ERR_OK && r->bad == 0;
    if (!ok)
        snprintf(why, why_size,
            "%s/queue: the node's own memory of the cluster is damaged (%s): what it "
            "promised to the others is not known any more. Remove this node from the "
            "cluster with `batonctl node remove %s` on another, give it a fresh "
            "data_dir, and let it join again",
            e->settings->data_dir, r->bad ? r->what : err_text(err),
            settings_node_name(e->settings));
    free(r);
    return ok;
}

static bool is_born(const struct engine *e)
{
    return e->cfg.count > 0;
}

static bool same_disk(struct engine *e, char *why, size_t why_size)
{
    if (is_born(e) && strcmp(e->identity.name, e->settings->cluster.name) != 0) {
        snprintf(why, why_size,
            "%s: cluster.name is %s, but %s belongs to the cluster %s; set the name "
            "back, or give this node another data_dir",
            e->settings->file, e->settings->cluster.name, e->settings->data_dir,
            e->identity.name);
        return false;
    }
    if (e->meta.node && e->meta.node != e->node) {
        snprintf(why, why_size,
            "%s/queue holds the memory of another node: it was put together from two "
            "disks; restore it whole, or start with a fresh data_dir",
            e->settings->data_dir);
        return false;
    }
    return true;
}

static void take_name(struct engine *e, const char *name, const unsigned char *id)
{
    memset(&e->identity, 0, sizeof(e->identity));
    snprintf(e->identity.name, sizeof(e->identity.name), "%s", name);
    memcpy(e->identity.id, id, sizeof(e->identity.id));
}

/* Not in a configuration yet: by which way will it come into one? */
static bool find_way(struct engine *e, char *why, size_t why_size)
{
    switch (birth_look(e->settings, &e->birth, why, why_size)) {
    case BIRTH_INIT:
        e->wants_init = true;
        take_name(e, e->birth.cluster, e->birth.cluster_id);
        return true;
    case BIRTH_TOKEN:
        if (!token_read(e->settings->cluster.join, e->settings->cluster.name, wall_now(),
                &e->token, why, why_size))
            return false;
        e->wants_join = true;
        take_name(e, e->token.cluster, e->token.cluster_id);
        return true;
    case BIRTH_MEMBER:
        snprintf(why, why_size,
            "%s/cluster.member says that this node belongs to the cluster %s, but its "
            "queue does not know it: the disk was replaced. Remove cluster.member and "
            "join with a token of `batonctl cluster token`",
            e->settings->data_dir, e->birth.cluster);
        return false;
    case BIRTH_NONE:
    case BIRTH_BAD:
        return false;
    }
    return false;
}

bool engine_boot(struct engine *e, char *why, size_t why_size)
{
    if (!read_node_rows(e, why, why_size) || !same_disk(e, why, why_size))
        return false;
    if (!is_born(e) && !find_way(e, why, why_size))
        return false;
    memcpy(e->wire.id, e->identity.id, sizeof(e->wire.id));
    memcpy(e->birth.cluster_id, e->identity.id, sizeof(e->birth.cluster_id));
    snprintf(e->birth.cluster, sizeof(e->birth.cluster), "%.31s", e->identity.name);
    return true;
}

/* --- units --- */

static void unit_row_read(const struct store_row *row, void *ctx)
{
    struct reading *r = ctx;
    struct core_event event;
    struct cluster_identity none;
    if (rows_get(row, &event, &r->cfg, &r->unit, &none) != ROWS_EVENT) {
        r->bad++;
        return;
    }
    engine_was_taken(r->engine, &r->unit);
    engine_step(r->engine, &event);
}

void engine_found_unit(struct engine *e, struct unit_id id)
{
    if (e->found_count == e->found_room) {
        e->found_room = e->found_room ? e->found_room * 2 : 256;
        e->found = mem_realloc(e->found, e->found_room * sizeof(*e->found));
    }
    e->found[e->found_count++] = id;
}

static void fill_adopted(
    struct engine *e, const struct unit_record *u, struct unit_row *row)
{
    const struct message *m = u->message;
    *row = (struct unit_row){.id = rows_core_id(u->id),
        .term = 1,
        .owner = e->node,
        .owner_epoch = e->meta.epoch,
        .mine = e->meta.epoch,
        .state = UNIT_LIVE,
        .rcpt_count = (uint8_t)u->rcpt_count,
        .list_count = 1,
        .flags = m->reverse_path.len == 0 ? UNIT_NULL_SENDER : 0,
        .due_s = (uint32_t)(u->next_due.ms / 1000),
        .expires_s = (uint32_t)(m->units[0].expires.ms / 1000),
        .size_bytes = (uint32_t)m->size,
        .body_crc = m->body_crc};
    row->list[0] = (struct row_holder){.node = e->node, .status = LIST_HOLD};
    for (unsigned i = 0; i < u->rcpt_count; i++) {
        uint64_t bit = rights_bit(u->rcpts[i].rcpt.index);
        if (u->rcpts[i].state == RCPT_DELIVERED)
            row->delivered |= bit;
        else if (rcpt_state_is_final(u->rcpts[i].state))
            row->failed |= bit;
    }
}

static bool adopt(struct engine *e, struct unit_id id, char *why, size_t why_size)
{
    struct core_unit_id core_id = rows_core_id(id);
    struct unit_record *u = NULL;
    struct unit_row row;
    if (engine_unit(e, &core_id, &row))
        return true;
    if (store_read_unit(e->deps.store, id, &u) != ERR_OK)
        return true; /* put aside as damaged meanwhile */
    bool fits = u->rcpt_count <= UNIT_RCPTS_MAX && id.unit < MESSAGE_UNITS_MAX &&
                u->message->size <= UINT32_MAX;
    if (fits) {
        struct core_event event = {.kind = EV_BOOT_UNIT, .u.unit = &row};
        fill_adopted(e, u, &row);
        engine_step(e, &event);
    } else {
        char text[UNIT_ID_TEXT_MAX];
        unit_id_format(id, text);
        snprintf(why, why_size,
            "%s from before the cluster has %u recipients at one domain, and a cluster "
            "keeps at most %u together; start once more without the section cluster and "
            "let it be delivered, or drop it",
            text, u->rcpt_count, UNIT_RCPTS_MAX);
    }
    unit_record_free(u);
    return fits;
}

static bool read_units(struct engine *e, char *why, size_t why_size)
{
    struct reading *r = mem_zalloc(sizeof(*r));
    uint64_t damaged = 0;
    r->engine = e;
    enum err err =
        store_scan_rows(e->deps.store, STORE_ROW_UNIT, unit_row_read, r, &damaged);
    bool ok = err == ERR_OK;
    if (!ok)
        snprintf(why, why_size, "%s/queue: the rows of the units cannot be read: %s",
            e->settings->data_dir, err_text(err));
    if (r->bad || damaged)
        log_say(LOG_EV_STORE_PROBLEM,
            "%u rows of units do not make sense and %llu are damaged: copies on other "
            "nodes take their place",
            r->bad, (unsigned long long)damaged);
    free(r);
    for (unsigned i = 0; ok && i < e->found_count; i++)
        ok = adopt(e, e->found[i], why, why_size);
    return ok;
}

static void identity_stored(struct store_op *op, void *owner)
{
    struct store_cluster *sc = CONTAINER_OF(op, struct store_cluster, op);
    struct engine *e = owner;
    e->jobs--;
    if (op->result != ERR_OK)
        engine_die(e, "the store did not take the name of the cluster");
    free((void *)(uintptr_t)sc->rows);
    free(sc);
}

/* The first operation of all: whatever else is written speaks of this cluster. */
static void store_identity_row(struct engine *e)
{
    unsigned char value[ROW_VALUE_MAX];
    struct store_row row;
    rows_put_identity(&e->identity, &row, value);
    struct store_row *kept = mem_zalloc(sizeof(*kept) + row.value.len);
    struct store_cluster *sc = mem_zalloc(sizeof(*sc));
    *kept = row;
    memcpy(kept + 1, value, row.value.len);
    kept->value.ptr = (const char *)(kept + 1);
    sc->rows = kept;
    sc->row_count = 1;
    sc->op.kind = STORE_OP_CLUSTER;
    sc->op.reply_to = e->box;
    sc->op.done = identity_stored;
    e->jobs++;
    store_submit(e->deps.store, &sc->op);
}

bool engine_boot_core(struct engine *e, char *why, size_t why_size)
{
    struct core_event end = {.kind = EV_BOOT_END};
    if (e->meta.epoch == 0) {
        /* Never in a session: numbers go on from those of the queue. */
        struct core_event meta = {.kind = EV_BOOT_META};
        e->meta = (struct core_meta){
            .node = e->node, .epoch = store_identity(e->deps.store).epoch};
        meta.u.meta = e->meta;
        engine_step(e, &meta);
    }
    if (!read_units(e, why, why_size))
        return false;
    free(e->found);
    e->found = NULL;
    e->found_count = e->found_room = 0;
    if (!is_born(e))
        store_identity_row(e);
    engine_wall(e);
    engine_step(e, &end);
    return true;
}
