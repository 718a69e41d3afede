/* SPDX-License-Identifier: Apache-2.0 */
/* `allow` and `user lock`: state of the cluster that changes at run time. A change is on
 * disk here before it is confirmed, in force at once, and told to all members; every ten
 * seconds one of them is asked whether it knows the same, so that who was away learns. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/log.h"
#include "base/random.h"
#include "node/control/shared.h"
#include "node/control/wide.h"
#include "node/intake/open_relay.h"

#define LOOK_MS 1000
#define SYNC_EVERY 10 /* looks */

struct waiting {
    struct waiting *next;
    struct control_request *req;
};

struct shared_state {
    struct control_handlers *handlers;
    struct shared table;
    struct timer timer;
    unsigned looks;
    bool changed; /* since the last save began */
    bool saving;
    struct waiting *waiting, *saved_for; /* requests; those of the save under way */
    struct job job;
    char *text; /* what is being written */
    int error;
    struct engine_query query;
    bool asking;
    bool untold; /* a change that came while a question was under way */
};

/* --- in force --- */

static void apply(struct shared_state *s)
{
    const struct control_sources *src = &s->handlers->sources;
    if (s->handlers->stopped)
        return;
    struct cidr *nets = mem_alloc(SHARED_ROWS_MAX * sizeof(*nets));
    const char **users = mem_alloc(SHARED_ROWS_MAX * sizeof(char *));
    unsigned user_count = 0;
    struct wall now = wall_now();
    unsigned net_count = shared_nets(&s->table, now, nets, SHARED_ROWS_MAX);
    for (unsigned i = 0; i < s->table.count; i++) {
        const struct shared_row *r = &s->table.rows[i];
        if (r->kind == SHARED_LOCK && shared_row_holds(r, now))
            users[user_count++] = r->key;
    }
    src->granted(src->ctx, nets, net_count, users, user_count);
    free(nets);
    free(users);
}

/* --- on disk --- */

static bool write_file(const char *path, const char *text)
{
    char temporary[4200];
    snprintf(temporary, sizeof(temporary), "%s.new", path);
    int fd = open(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    size_t len = strlen(text);
    bool ok = fd >= 0 && write(fd, text, len) == (ssize_t)len && fsync(fd) == 0;
    int error = errno;
    if (fd >= 0)
        close(fd);
    errno = error;
    return ok && rename(temporary, path) == 0;
}

static void sync_folder(const char *path)
{
    char folder[4200];
    snprintf(folder, sizeof(folder), "%s", path);
    char *slash = strrchr(folder, '/');
    if (!slash)
        return;
    *slash = '\0';
    int fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return;
    if (fsync(fd) != 0)
        log_say(LOG_EV_OPERATOR, "%s cannot be synced: %s", folder, strerror(errno));
    close(fd);
}

static void save_job(struct job *job)
{
    struct shared_state *s = CONTAINER_OF(job, struct shared_state, job);
    const char *path = s->handlers->sources.state_file;
    s->error = write_file(path, s->text) ? 0 : errno;
    if (s->error == 0)
        sync_folder(path);
}

static void save(struct shared_state *s);

static void saved(struct mail *mail, void *owner)
{
    struct shared_state *s = CONTAINER_OF(mail, struct shared_state, job.mail);
    (void)owner;
    s->saving = false;
    free(s->text);
    s->text = NULL;
    while (s->saved_for) {
        struct waiting *w = s->saved_for;
        s->saved_for = w->next;
        if (s->error)
            control_fail(w->req, 1,
                "mend that and say it again; it is in force until the "
                "next start",
                "%s cannot be written: %s", s->handlers->sources.state_file,
                strerror(s->error));
        else
            control_finish(w->req, 0);
        free(w);
    }
    if (s->changed)
        save(s);
}

static void save(struct shared_state *s)
{
    if (s->saving)
        return;
    json_t *rows = shared_json(&s->table);
    s->text = json_dumps(rows, JSON_INDENT(1));
    json_decref(rows);
    s->saved_for = s->waiting;
    s->waiting = NULL;
    s->changed = false;
    s->job = (struct job){
        .run = save_job, .done = saved, .reply_to = loop_mailbox(s->handlers->loop)};
    s->saving = workers_submit(s->handlers->sources.helpers, &s->job);
    if (!s->saving) {
        s->error = EAGAIN;
        s->saving = true;
        saved(&s->job.mail, NULL);
    }
}

static void load(struct shared_state *s)
{
    json_error_t why;
    const char *path = s->handlers->sources.state_file;
    if (access(path, F_OK) != 0)
        return;
    json_t *rows = json_load_file(path, JSON_REJECT_DUPLICATES, &why);
    if (!json_is_array(rows))
        log_say(LOG_EV_CONFIG_PROBLEM,
            "%s cannot be read (%s): what batonctl allow and user lock said is not in "
            "force",
            path, why.text);
    shared_merge(&s->table, rows, wall_now());
    json_decref(rows);
}

/* --- to and from the other nodes --- */

static void ask(struct shared_state *s, uint64_t only, json_t *args);

static void asked(struct engine_query *q, void *owner)
{
    struct shared_state *s = CONTAINER_OF(q, struct shared_state, query);
    unsigned taken = 0;
    (void)owner;
    for (unsigned i = 0; i < q->answer_count; i++) {
        json_t *line = json_array_get(json_object_get(q->answers[i].answer, "lines"), 0);
        json_t *rows = json_object_get(line, "rows");
        if (json_is_array(rows))
            taken += shared_merge(&s->table, rows, wall_now());
        json_decref(q->answers[i].answer);
    }
    free(q->answers);
    json_decref(q->question);
    s->asking = false;
    if (taken) {
        apply(s);
        s->changed = true;
        save(s);
    }
    if (s->untold && !s->handlers->stopped) {
        s->untold = false;
        ask(s, 0, json_pack("{s:o}", "rows", shared_json(&s->table)));
    }
}

static void ask(struct shared_state *s, uint64_t only, json_t *args)
{
    const struct control_peers *peers = s->handlers->sources.peers;
    json_t *question = json_pack("{s:s,s:o,s:s}", "command", "shared", "args", args, "by",
        s->handlers->sources.node);
    if (!peers || s->asking) {
        s->untold = s->untold || only == 0;
        json_decref(question);
        return;
    }
    s->asking = true;
    s->query = (struct engine_query){.question = question,
        .only = only,
        .timeout_ms = WIDE_TIMEOUT_MS,
        .reply_to = loop_mailbox(s->handlers->loop),
        .done = asked};
    peers->ask(peers->ctx, &s->query);
}

static json_t *hash_args(const struct shared_state *s)
{
    char text[20];
    snprintf(text, sizeof(text), "%016llx", (unsigned long long)shared_hash(&s->table));
    return json_pack("{s:s}", "hash", text);
}

/* One member that is alive, by lot; false when there is none. */
static bool ask_one(struct shared_state *s)
{
    const struct control_peers *peers = s->handlers->sources.peers;
    struct engine_status *st = mem_alloc(sizeof(*st));
    uint64_t chosen = 0;
    unsigned seen = 0;
    peers->status(peers->ctx, st);
    for (unsigned i = 0; i < st->member_count; i++)
        if (!st->members[i].is_self && st->members[i].view == 0 &&
            random_below(++seen) == 0)
            chosen = st->members[i].node;
    free(st);
    if (chosen)
        ask(s, chosen, hash_args(s));
    return chosen != 0;
}

/* {"hash"}: what we know, when it is not the same. {"rows"}: take these. */
static void handle_shared(struct control_request *req, json_t *args, void *ctx)
{
    struct shared_state *s = ((struct control_handlers *)ctx)->shared;
    json_t *rows = json_object_get(args, "rows"), *ours = hash_args(s);
    if (json_is_array(rows) && shared_merge(&s->table, rows, wall_now())) {
        apply(s);
        s->changed = true;
        save(s);
    } else if (!rows && !json_equal(json_object_get(ours, "hash"),
                            json_object_get(args, "hash"))) {
        control_reply(req, json_pack("{s:o}", "rows", shared_json(&s->table)));
    }
    json_decref(ours);
    control_finish(req, 0);
}

/* Rows end by themselves; a clock that was set is noticed too. */
static void look(struct timer *t)
{
    struct shared_state *s = CONTAINER_OF(t, struct shared_state, timer);
    if (s->table.count)
        apply(s);
    if (s->handlers->sources.peers && (s->looks % SYNC_EVERY || ask_one(s)))
        s->looks++;
    timer_set(t, mono_add_ms(mono_now(), LOOK_MS));
}

/* --- the commands --- */

static void change(struct control_handlers *h, struct control_request *req,
    enum shared_kind kind, const char *key, struct wall until, bool gone)
{
    struct shared_state *s = h->shared;
    const struct shared_row *row =
        shared_write(&s->table, kind, key, until, gone, h->sources.node, wall_now());
    if (!row) {
        control_fail(req, 1, "put what stays into the settings",
            "there are %d of them already", SHARED_ROWS_MAX);
        return;
    }
    struct waiting *w = mem_zalloc(sizeof(*w));
    w->req = req;
    w->next = s->waiting;
    s->waiting = w;
    json_t *told = shared_row_json(row);
    control_reply(req, json_incref(told));
    ask(s, 0, json_pack("{s:[o]}", "rows", told));
    apply(s);
    s->changed = true;
    save(s);
}

static bool take_net(struct control_request *req, json_t *args, char key[SHARED_KEY_MAX])
{
    const char *text;
    char why[256];
    if (!control_arg_text(req, args, "net", &text))
        return false;
    if (shared_net(slice_str(text ? text : ""), key, why, sizeof(why)))
        return true;
    control_fail(req, 1, "give the network of the machines that should relay", "%s", why);
    return false;
}

static void handle_add(struct control_request *req, json_t *args, void *ctx)
{
    struct control_handlers *h = ctx;
    char key[SHARED_KEY_MAX], why[256];
    const char *how_long;
    int64_t for_ms = 0;
    struct wall now = wall_now();
    struct cidr *nets = NULL;
    if (!take_net(req, args, key) || !control_arg_text(req, args, "for", &how_long))
        return;
    if (how_long && (!duration_parse(slice_str(how_long), &for_ms) || for_ms < 1000 ||
                        for_ms > INT64_C(3650) * 86400000)) {
        control_fail(req, 1, "write it like 30m", "--for must be from 1s to 3650d");
        return;
    }
    nets = mem_alloc((SHARED_ROWS_MAX + 1) * sizeof(*nets));
    struct cidr_list all = {.items = nets,
        .count = shared_nets(&h->shared->table, now, nets, SHARED_ROWS_MAX)};
    bool much = cidr_parse(slice_str(key), &nets[all.count++]) &&
                open_relay_too_much(&all, why, sizeof(why));
    free(nets);
    if (much)
        control_fail(req, 1, "batonctl allow ls shows what is there", "%s", why);
    else
        change(h, req, SHARED_ALLOW, key, (struct wall){for_ms ? now.ms + for_ms : 0},
            false);
}

static void handle_rm(struct control_request *req, json_t *args, void *ctx)
{
    struct control_handlers *h = ctx;
    char key[SHARED_KEY_MAX];
    if (!take_net(req, args, key))
        return;
    if (!shared_find(&h->shared->table, SHARED_ALLOW, key, wall_now()))
        control_fail(req, 1,
            "batonctl allow ls shows what was; relay_clients are in the "
            "settings",
            "%s was not allowed at run time", key);
    else
        change(h, req, SHARED_ALLOW, key, (struct wall){0}, true);
}

static void list(struct control_request *req, void *ctx, enum shared_kind kind)
{
    struct control_handlers *h = ctx;
    struct wall now = wall_now();
    for (unsigned i = 0; i < h->shared->table.count; i++) {
        const struct shared_row *r = &h->shared->table.rows[i];
        if (r->kind != kind || !shared_row_holds(r, now))
            continue;
        json_t *o = json_object();
        json_set_text(o, kind == SHARED_ALLOW ? "net" : "user", slice_str(r->key));
        json_object_set_new(o, "until", json_time(r->until));
        json_set_text(o, "by", slice_str(r->by));
        json_object_set_new(o, "since", json_time((struct wall){r->stamp}));
        control_reply(req, o);
    }
    control_finish(req, 0);
}

static void handle_ls(struct control_request *req, json_t *args, void *ctx)
{
    (void)args;
    list(req, ctx, SHARED_ALLOW);
}

static void handle_locks(struct control_request *req, json_t *args, void *ctx)
{
    (void)args;
    list(req, ctx, SHARED_LOCK);
}

static void handle_lock(struct control_request *req, json_t *args, void *ctx)
{
    struct control_handlers *h = ctx;
    const char *user;
    bool unlock = strcmp(req->command, "user unlock") == 0;
    if (!control_arg_text(req, args, "user", &user))
        return;
    if (!user || !user[0] || strlen(user) >= SHARED_KEY_MAX)
        control_fail(req, 1, NULL, "give the name of a user");
    else if (unlock && !shared_find(&h->shared->table, SHARED_LOCK, user, wall_now()))
        control_fail(req, 1, "a ! or * in the users file locks, too",
            "%.100s was not locked at run time", user);
    else
        change(h, req, SHARED_LOCK, user, (struct wall){0}, unlock);
}

void allow_register(struct control *c, struct control_handlers *h)
{
    struct shared_state *s = mem_zalloc(sizeof(*s));
    h->shared = s;
    s->handlers = h;
    load(s);
    apply(s);
    timer_init(&s->timer, h->loop, look);
    look(&s->timer);
    control_register(c, "allow add", CONTROL_CHANGES, handle_add, h);
    control_register(c, "allow rm", CONTROL_CHANGES, handle_rm, h);
    control_register(c, "allow ls", CONTROL_READS, handle_ls, h);
    control_register(c, "user lock", CONTROL_CHANGES, handle_lock, h);
    control_register(c, "user unlock", CONTROL_CHANGES, handle_lock, h);
    control_register(c, "user locks", CONTROL_READS, handle_locks, h);
    control_register(c, "shared", CONTROL_READS, handle_shared, h);
}

void allow_free(struct control_handlers *h)
{
    if (!h->shared)
        return;
    timer_fini(&h->shared->timer);
    free(h->shared->text);
    free(h->shared);
}
