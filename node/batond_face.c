/* SPDX-License-Identifier: Apache-2.0 */
/* What batonctl and HTTP see of this node. */
#include <stdio.h>
#include <stdlib.h>

#include "base/alloc.h"
#include "base/log.h"
#include "base/metrics.h"
#include "node/batond.h"
#include "node/control/cluster_alarms.h"
#include "node/control/members.h"
#include "node/control/sources.h"
#include "node/http/http.h"

#define OLDEST_EVERY_S 5

struct node_face {
    struct node *node;
    struct control *control;
    struct control_handlers *handlers;
    struct control_sources sources;
    struct control_peers peers;
    char state_file[4096];
    char address[NETADDR_TEXT_MAX]; /* where other nodes reach this one */
    struct http *http;
    struct job oldest_job; /* looks for the oldest unit: a read, so on a helper */
    bool oldest_under_way;
    unsigned oldest_in;
    struct wall oldest, oldest_found; /* 0: the queue is empty */
};

/* --- the oldest unit: ids sort by time, so it is the first row --- */

static bool first_unit(const struct unit_record *u, void *ctx)
{
    struct wall *out = ctx;
    *out = u->message->created;
    return false;
}

static void look_for_oldest(struct job *job)
{
    struct node_face *f = CONTAINER_OF(job, struct node_face, oldest_job);
    f->oldest_found = (struct wall){0};
    if (store_list(f->node->store, NULL, first_unit, &f->oldest_found) != ERR_OK)
        f->oldest_found = (struct wall){0};
}

static void oldest_known(struct mail *mail, void *owner)
{
    struct node_face *f = CONTAINER_OF(mail, struct node_face, oldest_job.mail);
    (void)owner;
    f->oldest = f->oldest_found;
    f->oldest_under_way = false;
    f->oldest_in = OLDEST_EVERY_S;
}

static void refresh_oldest(struct node_face *f)
{
    if (f->oldest_under_way || (f->oldest_in > 0 && --f->oldest_in > 0))
        return;
    f->oldest_job.run = look_for_oldest;
    f->oldest_job.done = oldest_known;
    f->oldest_job.reply_to = loop_mailbox(f->node->main);
    f->oldest_under_way = workers_submit(f->node->helpers, &f->oldest_job);
}

/* --- for the control socket --- */

/* True on a node alone, and on a witness, which needs none. */
static bool has_lease(struct node *n)
{
    if (!n->engine)
        return true;
    struct engine_status *st = mem_alloc(sizeof(*st));
    engine_status(n->engine, st);
    bool lacks = cluster_lacks_lease(st);
    free(st);
    return !lacks;
}

static void overview(void *ctx, struct control_overview *out)
{
    struct node_face *f = ctx;
    struct node *n = f->node;
    struct schedule_stats s = schedule_stats(n->schedule);
    struct store_stats disk;
    uint64_t busy = s.due + s.held;
    store_stats(n->store, &disk);
    if (s.units > disk.units)
        s.units = disk.units; /* what has gone since the scheduler's snapshot */
    const struct settings *set = n->settings;
    *out = (struct control_overview){.due = s.due,
        .deferred = s.units > busy ? s.units - busy : 0,
        .held = s.held,
        .in_doubt = s.in_doubt,
        .oldest_age_s =
            s.units > 0 && f->oldest.ms > 0 ? (wall_now().ms - f->oldest.ms) / 1000 : -1,
        .may_deliver = rights_may_deliver(n->rights) && has_lease(n),
        .config_hash = settings_cluster_hash(set),
        .address = f->address,
        .zone = set->cluster.zone,
        .role = set->cluster.is_set ? set->cluster.role : NULL};
    if (set->cluster.is_set)
        netaddr_format(set->cluster.advertise, f->address);
}

static unsigned list_alarms(void *ctx, struct control_alarm *out, unsigned max)
{
    struct node_face *f = ctx;
    struct alarm alarms[CONTROL_ALARMS_MAX];
    alarms_look(f->node); /* as it is now, not as it was up to a second ago */
    unsigned count = alarms_list(
        f->node->alarms, alarms, max < CONTROL_ALARMS_MAX ? max : CONTROL_ALARMS_MAX);
    for (unsigned i = 0; i < count; i++) {
        out[i] = (struct control_alarm){.severity = alarms[i].severity,
            .of_cluster = alarms[i].of_cluster,
            .since = alarms[i].since};
        snprintf(out[i].code, sizeof(out[i].code), "%s", alarms[i].code);
        snprintf(out[i].text, sizeof(out[i].text), "%s", alarms[i].text);
        snprintf(out[i].next_step, sizeof(out[i].next_step), "%s", alarms[i].next_step);
    }
    return count;
}

/* Settings that only a start can change and that differ: a list of names. */
static json_t *restart_needed(const struct settings *old, const struct settings *new)
{
    json_t *names = json_array();
    struct buf text;
    buf_init(&text, 65536);
    settings_need_restart(old, new, &text);
    struct slice rest = buf_slice(&text);
    while (rest.len > 0) {
        struct slice line = slice_head(rest, slice_find(rest, '\n'));
        json_array_append_new(names, control_text(line));
        rest = slice_from(rest, line.len + 1);
    }
    buf_fini(&text);
    return names;
}

/* An operator has looked at the clock and vouches for it. */
static void clock_accept(struct control_request *req, json_t *args, void *ctx)
{
    struct node_face *f = ctx;
    struct wall now = wall_now();
    char text[32];
    (void)args;
    wall_format_iso(now, text);
    rights_clock_accept(f->node->rights, now);
    control_reply(req, json_pack("{s:s}", "time", text));
    control_finish(req, 0);
}

static void reload(void *ctx, struct control_request *req)
{
    struct node_face *f = ctx;
    struct settings *old = settings_ref(f->node->settings);
    struct settings_problems problems;
    settings_problems_init(&problems);
    if (node_reload(f->node, &problems)) {
        json_t *names = restart_needed(old, f->node->settings);
        control_reply(req, json_pack("{s:o}", "restart_needed", names));
        control_finish(req, 0);
    } else {
        struct slice text = slice_trim(buf_slice(&problems.text));
        control_fail(req, 1,
            "mend the file and reload again; the old settings stay in force", "%.*s",
            SLICE_ARG(text));
    }
    settings_problems_fini(&problems);
    settings_unref(old);
}

/* --- for probes --- */

static bool ready_to_take(char *why, size_t why_size, void *ctx)
{
    struct node *n = ((struct node_face *)ctx)->node;
    enum err may = rights_may_accept(n->rights);
    if (n->stopping)
        snprintf(why, why_size, "stopping");
    else if (store_admit(n->store, 65536) != ERR_OK)
        snprintf(why, why_size, "the queue is full: new mail is refused with 452");
    else if (n->engine && may != ERR_OK)
        snprintf(why, why_size, "the cluster: %s", err_text(may));
    else
        return true;
    return false;
}

static bool ready_to_deliver(char *why, size_t why_size, void *ctx)
{
    struct node *n = ((struct node_face *)ctx)->node;
    if (!rights_may_deliver(n->rights))
        snprintf(why, why_size, "no right to deliver");
    else if (!has_lease(n))
        snprintf(why, why_size, "no lease: batonctl status says why");
    else
        return true;
    return false;
}

/* In the cluster at all: what rolls nodes one after the other waits for this. */
static bool ready_as_member(char *why, size_t why_size, void *ctx)
{
    struct node *n = ((struct node_face *)ctx)->node;
    if (!n->engine)
        return true;
    struct engine_status *st = mem_alloc(sizeof(*st));
    engine_status(n->engine, st);
    const struct engine_member *self = member_self(st);
    if (!self)
        snprintf(why, why_size, "not in the cluster %s", n->settings->cluster.name);
    else if (self->state == MEMBER_DRAINING)
        snprintf(why, why_size, "draining");
    else if (st->state && strcmp(st->state, "ready") != 0)
        snprintf(why, why_size, "%s", st->state);
    free(st);
    return why[0] == '\0';
}

static void more_metrics(struct buf *out, void *ctx)
{
    struct node_face *f = ctx;
    struct control_alarm alarms[CONTROL_ALARMS_MAX];
    unsigned count = list_alarms(f, alarms, CONTROL_ALARMS_MAX);
    buf_append_str(
        out, "# HELP baton_alarm Alarms that hold now\n# TYPE baton_alarm gauge\n");
    for (unsigned i = 0; i < count; i++)
        buf_printf(out, "baton_alarm{code=\"%s\"} 1\n", alarms[i].code);
    buf_printf(out,
        "# HELP baton_info Version of this node\n# TYPE baton_info gauge\n"
        "baton_info{version=\"%s\"} 1\n",
        BATON_VERSION);
    struct schedule_stats s = schedule_stats(f->node->schedule);
    buf_printf(out,
        "# HELP baton_oldest_seconds Age of the oldest message in the queue\n"
        "# TYPE baton_oldest_seconds gauge\nbaton_oldest_seconds %lld\n",
        s.units > 0 && f->oldest.ms > 0 ? (long long)(wall_now().ms - f->oldest.ms) / 1000
                                        : 0LL);
}

static void log_http(struct node_face *f)
{
    const struct settings *s = f->node->settings;
    for (unsigned i = 0; i < s->api.listen_count; i++) {
        struct netaddr at = s->api.listen[i];
        char text[NETADDR_TEXT_MAX];
        struct record r;
        at.port = http_port(f->http, i);
        netaddr_format(at, text);
        record_init(&r, LOG_EV_LISTENING);
        record_str(&r, "listener", "api");
        record_str(&r, "address", text);
        record_emit(&r);
    }
}

static bool open_http(struct node_face *f, char *why, size_t why_size)
{
    const struct settings *s = f->node->settings;
    if (s->api.listen_count == 0)
        return true;
    f->http = http_new(f->node->main, s->api.listen, s->api.listen_count, why, why_size);
    if (!f->http)
        return false;
    http_add_check(f->http, HTTP_READY, "intake", ready_to_take, f);
    http_add_check(f->http, HTTP_READY, "delivery", ready_to_deliver, f);
    if (f->node->engine)
        http_add_check(f->http, HTTP_READY, "cluster", ready_as_member, f);
    http_add_metrics(f->http, more_metrics, f);
    log_http(f);
    return true;
}

static void unit_of_cluster(void *ctx, struct unit_id id, struct control_unit *out)
{
    struct node_face *f = ctx;
    cluster_unit(f->node, id, out);
}

static void cluster_settings(
    void *ctx, void (*one)(const char *key, uint64_t hash, void *ctx), void *one_ctx)
{
    struct node_face *f = ctx;
    settings_cluster_each(f->node->settings, one, one_ctx);
}

static struct settings *in_force(void *ctx)
{
    return settings_ref(((struct node_face *)ctx)->node->settings);
}

static void grant(void *ctx, const struct cidr *nets, unsigned net_count,
    const char *const *users, unsigned user_count)
{
    struct node_face *f = ctx;
    intake_grant(f->node->intake, nets, net_count, users, user_count);
}

static void join_cluster(struct node_face *f)
{
    cluster_peers(f->node, &f->peers);
    f->sources.peers = &f->peers;
    f->sources.unit = unit_of_cluster;
    f->sources.settings = cluster_settings;
}

bool face_open(struct node *n, char *why, size_t why_size)
{
    struct node_face *f = mem_zalloc(sizeof(*f));
    n->face = f;
    f->node = n;
    f->sources = (struct control_sources){.store = n->store,
        .history = n->history,
        .resolver = n->resolver,
        .helpers = n->helpers,
        .node = settings_node_name(n->settings),
        .schedule = n->schedule,
        .rights = n->rights,
        .in_force = in_force,
        .started = n->started,
        .ctx = f,
        .overview = overview,
        .alarms = list_alarms,
        .granted = grant,
        .state_file = f->state_file,
        .reload = reload};
    snprintf(
        f->state_file, sizeof(f->state_file), "%s/shared.json", n->settings->data_dir);
    if (n->engine)
        join_cluster(f);
    f->control = control_open(n->main, n->settings->control, why, why_size);
    if (!f->control || !open_http(f, why, why_size))
        return false;
    f->handlers = control_handlers_new(f->control, n->main, &f->sources);
    cluster_questions(n, f->handlers);
    control_register(f->control, "clock accept", CONTROL_CHANGES, clock_accept, f);
    return true;
}

void face_close(struct node *n)
{
    control_handlers_stop(n->face->handlers);
    control_close(n->face->control);
    http_free(n->face->http);
}

void face_free(struct node *n)
{
    if (!n->face)
        return;
    mailbox_drain(loop_mailbox(n->main)); /* the helpers' last answers */
    control_handlers_free(n->face->handlers);
    free(n->face);
    n->face = NULL;
}

void face_tick(struct node *n)
{
    struct store_stats s;
    store_stats(n->store, &s);
    metric_set(METRIC_queue_bytes, (int64_t)s.used_bytes);
    metric_set(METRIC_queue_quota_bytes, (int64_t)s.quota_bytes);
    metric_set(METRIC_queue_recipients, (int64_t)s.recipients);
    refresh_oldest(n->face);
}
