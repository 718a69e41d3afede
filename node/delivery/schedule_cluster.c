/* SPDX-License-Identifier: Apache-2.0 */
/* The schedule of a node in a cluster: units come and go by the cluster's word, in any
 * order with what intake says of them, and all stands still without a lease. */
#include <stdlib.h>

#include "base/alloc.h"
#include "node/delivery/destination.h"

/* Reads under way at one time: a takeover starts thousands of units. */
#define LOADING_MAX 64

void schedule_cluster_init(struct schedule *s)
{
    STAILQ_INIT(&s->starting);
    s->paused = rights_clustered(s->env->rights);
    units_index(s->units);
}

/* --- cancelled before it was known --- */

static unsigned find_early(const struct schedule *s, struct unit_id id)
{
    unsigned count = s->early_count < EARLY_MAX ? s->early_count : EARLY_MAX;
    for (unsigned i = 0; i < count; i++)
        if (unit_id_cmp(s->early[i], id) == 0)
            return i;
    return EARLY_MAX;
}

static void note_early(struct schedule *s, struct unit_id id)
{
    if (find_early(s, id) == EARLY_MAX)
        s->early[s->early_count++ % EARLY_MAX] = id;
}

static void forget_early(struct schedule *s, struct unit_id id)
{
    unsigned at = find_early(s, id);
    if (at < EARLY_MAX)
        s->early[at] = (struct unit_id){0}; /* no unit's */
}

struct sched_unit *schedule_new_unit(struct schedule *s, struct unit_id id)
{
    struct sched_unit *unit = units_find(s->units, id);
    if (unit) /* what is in hand now spares the read from disk */
        return unit->place == UNIT_STARTING ? unit : NULL;
    return find_early(s, id) == EARLY_MAX ? units_add(s->units, id) : NULL;
}

/* --- start --- */

struct start_note {
    struct mail mail;
    struct job job;
    STAILQ_ENTRY(start_note) link;
    struct schedule *schedule;
    struct unit_id id;
    uint64_t rcpts, doubt;
    struct wall due;
    struct unit_record *record;
    enum err err;
};

static void free_note(struct start_note *note)
{
    unit_record_free(note->record);
    free(note);
}

static void read_on_helper(struct job *job)
{
    struct start_note *note = CONTAINER_OF(job, struct start_note, job);
    struct store *store = note->schedule->env->store;
    note->err = store_read_unit(store, note->id, &note->record);
}

static void place_loaded(
    struct schedule *s, struct sched_unit *unit, const struct unit_record *u)
{
    const struct message *m = u->message;
    struct scan_unit found = {.id = u->id,
        .domain = m->units[0].domain,
        .expires = m->units[0].expires,
        .held = u->held};
    int64_t not_before = unit->due_ms;
    found.next_due.ms = u->next_due.ms > not_before ? u->next_due.ms : not_before;
    unit->generation = s->generation;
    schedule_place_found(s, unit, schedule_group_of(s, m, 0), &found);
    schedule_unit_wait(s, unit, unit->due_ms);
}

static void not_loaded(struct schedule *s, struct start_note *note)
{
    struct sched_unit *unit = units_find(s->units, note->id);
    char id[UNIT_ID_TEXT_MAX];
    unit_id_format(note->id, id);
    log_say(LOG_EV_STORE, "unit %s is this node's to deliver and cannot be read: %s", id,
        err_text(note->err));
    rights_suspect(s->env->rights, note->id);
    s->in_doubt -= unit->in_doubt;
    units_remove(s->units, unit);
}

static void loaded(struct mail *mail, void *owner)
{
    struct start_note *note = CONTAINER_OF(mail, struct start_note, job.mail);
    struct schedule *s = note->schedule;
    struct sched_unit *unit = units_find(s->units, note->id);
    (void)owner;
    s->loading--;
    /* Or it was cancelled, or came from intake meanwhile. */
    if (unit && unit->place == UNIT_STARTING && !s->stopping) {
        if (note->err == ERR_OK)
            place_loaded(s, unit, note->record);
        else
            not_loaded(s, note);
    }
    free_note(note);
    schedule_load_some(s);
}

void schedule_load_some(struct schedule *s)
{
    struct start_note *note;
    while (
        !s->stopping && s->loading < LOADING_MAX && (note = STAILQ_FIRST(&s->starting))) {
        note->job.run = read_on_helper;
        note->job.done = loaded;
        note->job.reply_to = loop_mailbox(s->loop);
        if (!workers_submit(s->env->helpers, &note->job))
            return; /* the sweep tries again */
        STAILQ_REMOVE_HEAD(&s->starting, link);
        s->loading++;
    }
}

void schedule_set_doubt(struct schedule *s, struct sched_unit *unit, unsigned rcpts)
{
    s->in_doubt -= unit->in_doubt;
    unit->in_doubt = (uint16_t)rcpts;
    s->in_doubt += unit->in_doubt;
}

/* Known already. `more`: recipients may be tried now that could not before. */
static void start_again(
    struct schedule *s, struct sched_unit *unit, struct wall due, bool more)
{
    if (unit->place == UNIT_WAITING && (due.ms != 0 || more))
        schedule_unit_wait(s, unit, due.ms);
    if (unit->place == UNIT_STARTING || unit->place == UNIT_ACTIVE)
        unit->due_ms = due.ms;
    unit->nudged = unit->place == UNIT_ACTIVE;
    unit->restarted = unit->restarted || unit->cancelled;
    unit->cancelled = false;
}

static void start_unit(struct schedule *s, struct start_note *note)
{
    struct sched_unit *unit = units_find(s->units, note->id);
    bool is_known = unit != NULL;
    if (!is_known) {
        unit = units_add(s->units, note->id);
        unit->place = UNIT_STARTING;
        unit->due_ms = note->due.ms;
    }
    bool more = (note->rcpts & ~unit->rcpts) != 0;
    unit->rcpts = note->rcpts;
    schedule_set_doubt(s, unit, (unsigned)__builtin_popcountll(note->doubt));
    if (is_known) {
        start_again(s, unit, note->due, more);
        free_note(note);
    } else {
        STAILQ_INSERT_TAIL(&s->starting, note, link);
        schedule_load_some(s);
    }
}

static void start_arrived(struct mail *mail, void *owner)
{
    struct start_note *note = CONTAINER_OF(mail, struct start_note, mail);
    struct schedule *s = note->schedule;
    (void)owner;
    if (s->stopping) {
        free_note(note);
        return;
    }
    forget_early(s, note->id);
    start_unit(s, note);
}

void schedule_unit_start(struct schedule *s, struct unit_id id, uint64_t rcpts,
    uint64_t doubt, struct wall due)
{
    struct start_note *note = mem_zalloc(sizeof(*note));
    note->schedule = s;
    note->id = id;
    note->rcpts = rcpts;
    note->doubt = doubt;
    note->due = due;
    mailbox_post(loop_mailbox(s->loop), &note->mail, start_arrived);
}

/* --- cancel --- */

struct cancel_note {
    struct mail mail;
    struct schedule *schedule;
    struct unit_id id;
};

static void cancel_unit(struct schedule *s, struct sched_unit *unit)
{
    switch ((enum unit_place)unit->place) {
    case UNIT_STARTING:
        schedule_set_doubt(s, unit, 0);
        units_remove(s->units, unit);
        return;
    case UNIT_ACTIVE:
        unit->cancelled = true;
        unit->restarted = false;
        schedule_forget_hot(s, unit); /* what it says of the recipients gets old */
        return;
    case UNIT_READY:
        group_remove_ready(unit->group, unit);
        if (unit->group->ready_count == 0)
            group_stop_failing(unit->group);
        break;
    case UNIT_HELD:
        s->held--;
        break;
    case UNIT_WAITING:
        schedule_leave_failed_line(unit);
        break;
    }
    schedule_unit_gone(s, unit);
}

static void cancel_all(struct schedule *s)
{
    uint32_t count;
    struct unit_id *ids = units_ids(s->units, &count);
    for (uint32_t i = 0; i < count; i++) {
        struct sched_unit *unit = units_find(s->units, ids[i]);
        if (unit)
            cancel_unit(s, unit);
    }
    free(ids);
}

static void cancel_arrived(struct mail *mail, void *owner)
{
    static const struct unit_id none;
    struct cancel_note *note = CONTAINER_OF(mail, struct cancel_note, mail);
    struct schedule *s = note->schedule;
    struct sched_unit *unit = units_find(s->units, note->id);
    (void)owner;
    if (unit_id_cmp(note->id, none) == 0)
        cancel_all(s);
    else if (unit)
        cancel_unit(s, unit);
    else
        note_early(s, note->id);
    free(note);
}

void schedule_unit_cancel(struct schedule *s, struct unit_id id)
{
    struct cancel_note *note = mem_alloc(sizeof(*note));
    note->schedule = s;
    note->id = id;
    mailbox_post(loop_mailbox(s->loop), &note->mail, cancel_arrived);
}

void schedule_cancelled_home(struct schedule *s, struct sched_unit *unit)
{
    struct start_note *note = NULL;
    if (unit->restarted && !s->stopping) {
        note = mem_zalloc(sizeof(*note));
        note->schedule = s;
        note->id = unit->id;
        note->rcpts = unit->rcpts;
        note->due.ms = unit->due_ms;
    }
    schedule_unit_gone(s, unit);
    if (note)
        start_unit(s, note);
}

/* --- the lease --- */

struct pause_note {
    struct mail mail;
    struct schedule *schedule;
    bool paused;
};

static void go_on(struct schedule *s)
{
    groups_fail_some(s);
    for (unsigned i = 0; i < TABLE_BUCKETS; i++) {
        struct group *g, *next;
        for (g = LIST_FIRST(&s->groups[i]); g; g = next) {
            next = LIST_NEXT(g, bucket);
            group_advance(g);
        }
    }
}

static void pause_arrived(struct mail *mail, void *owner)
{
    struct pause_note *note = CONTAINER_OF(mail, struct pause_note, mail);
    struct schedule *s = note->schedule;
    bool was_paused = s->paused;
    (void)owner;
    s->paused = note->paused;
    free(note);
    if (was_paused && !s->paused)
        go_on(s);
}

void schedule_pause(struct schedule *s, bool paused)
{
    struct pause_note *note = mem_alloc(sizeof(*note));
    note->schedule = s;
    note->paused = paused;
    mailbox_post(loop_mailbox(s->loop), &note->mail, pause_arrived);
}

void schedule_cluster_fini(struct schedule *s)
{
    struct start_note *note;
    while ((note = STAILQ_FIRST(&s->starting))) {
        STAILQ_REMOVE_HEAD(&s->starting, link);
        free_note(note);
    }
}
