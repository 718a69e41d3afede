/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/log.h"
#include "base/metrics.h"
#include "node/batond.h"

#define HELPERS 4
#define HELPERS_WAITING 10000

static bool refuse(const char *why)
{
    log_say(LOG_EV_STOP, "%s", why);
    log_flush();
    return false;
}

/* --- systemd (sd_notify's datagram, which is all we need of it) --- */

static void tell_systemd(const char *what)
{
    const char *path = getenv("NOTIFY_SOCKET");
    struct sockaddr_un to = {.sun_family = AF_UNIX};
    if (!path || strlen(path) >= sizeof(to.sun_path))
        return;
    memcpy(to.sun_path, path, strlen(path));
    socklen_t len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + strlen(path));
    if (to.sun_path[0] == '@')
        to.sun_path[0] = '\0';
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return;
    if (sendto(fd, what, strlen(what), MSG_NOSIGNAL, (struct sockaddr *)&to, len) < 0)
        log_say(LOG_EV_START, "systemd cannot be told: %s", strerror(errno));
    close(fd);
}

/* --- signals --- */

static void signal_arrived(struct watcher *w, int what)
{
    struct node *n = CONTAINER_OF(w, struct node, signals);
    struct signalfd_siginfo info;
    (void)what;
    while (read(w->fd, &info, sizeof(info)) == (ssize_t)sizeof(info)) {
        if (info.ssi_signo != SIGHUP) {
            log_say(LOG_EV_STOP, "signal %u: stopping", info.ssi_signo);
            n->stopping = true;
            loop_stop(n->main);
            return;
        }
        struct settings_problems problems;
        settings_problems_init(&problems);
        node_reload(n, &problems);
        settings_problems_fini(&problems);
    }
}

static bool watch_signals(struct node *n)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGHUP);
    /* Blocked before any thread starts, so that all of them inherit it. */
    pthread_sigmask(SIG_BLOCK, &set, NULL);
    int fd = signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
    if (fd < 0)
        return refuse("signalfd failed");
    watcher_init(&n->signals, n->main, fd, signal_arrived);
    watcher_set(&n->signals, WATCH_READ);
    return true;
}

static void second_fired(struct timer *t)
{
    struct node *n = CONTAINER_OF(t, struct node, second);
    alarms_look(n);
    history_trust_clock(n->history, rights_clock_trusted(n->rights, wall_now()));
    face_tick(n);
    timer_set(t, mono_add_ms(mono_now(), 1000));
}

static void flush_log(void *ctx)
{
    (void)ctx;
    log_flush();
}

/* --- what is on disk --- */

static bool open_disk(struct node *n)
{
    char dir[4096], why[1024];
    struct store_settings store = {
        .dir = dir, .quota_bytes = n->settings->queue.quota_bytes};
    if (mkdir(n->settings->data_dir, 0700) != 0 && errno != EEXIST) {
        snprintf(why, sizeof(why),
            "data_dir %s cannot be made: %s; make it, owned by batond's user",
            n->settings->data_dir, strerror(errno));
        return refuse(why);
    }
    snprintf(dir, sizeof(dir), "%s/queue", n->settings->data_dir);
    n->store = store_open(&store, why, sizeof(why));
    if (!n->store)
        return refuse(why);
    snprintf(dir, sizeof(dir), "%s/history", n->settings->data_dir);
    n->history = history_open(dir, n->settings->history.keep_ms,
        n->settings->history.max_bytes, why, sizeof(why));
    if (!n->history)
        return refuse(why);
    log_add_sink(history_sink, n->history);
    return true;
}

static void unit_found(const struct scan_unit *unit, void *ctx)
{
    struct node *n = ctx;
    if (!n->engine)
        schedule_add_scanned(n->schedule, unit);
    else if (!unit->clustered)
        engine_found_unit(n->engine, unit->id);
}

static void scan_progress(uint64_t done, uint64_t total, void *ctx)
{
    (void)ctx;
    log_say(LOG_EV_STORE, "reading the queue: %llu of %llu units",
        (unsigned long long)done, (unsigned long long)total);
    log_flush();
}

static bool scan_queue(struct node *n)
{
    struct scan_result found;
    struct mono from = mono_now();
    enum err err = store_scan(n->store, unit_found, scan_progress, n, &found);
    if (err != ERR_OK)
        return refuse("the queue cannot be read; see the lines above");
    struct record r;
    record_init(&r, LOG_EV_STORE);
    record_str(&r, "text", "queue read");
    record_int(&r, "units", (int64_t)found.units);
    record_int(&r, "recipients", (int64_t)found.recipients);
    record_int(&r, "bytes", (int64_t)found.bytes);
    record_int(&r, "orphan_bodies_removed", (int64_t)found.orphan_bodies_removed);
    record_int(&r, "damaged", (int64_t)found.damaged);
    record_int(&r, "ms", mono_diff_ms(mono_now(), from));
    record_emit(&r);
    return true;
}

/* --- loops --- */

static void *run_loop(void *arg)
{
    struct node_loop *l = arg;
    loop_run(l->loop);
    log_flush();
    return NULL;
}

static void make_loops(struct node *n)
{
    long cores = sysconf(_SC_NPROCESSORS_ONLN);
    n->loop_count = n->settings->loops ? n->settings->loops
                    : cores > 0        ? (unsigned)cores
                                       : 1;
    n->loops = mem_zalloc(n->loop_count * sizeof(*n->loops));
    for (unsigned i = 0; i < n->loop_count; i++) {
        struct node_loop *l = &n->loops[i];
        l->loop = loop_new();
        loop_after_round(l->loop, flush_log, NULL);
        l->conns = conns_new(l->loop);
        l->delivery = delivery_loop_new(l->loop, l->conns, &n->delivery_env);
    }
}

static void start_loops(struct node *n)
{
    for (unsigned i = 0; i < n->loop_count; i++) {
        char name[16];
        if (pthread_create(&n->loops[i].thread, NULL, run_loop, &n->loops[i]) != 0)
            die("baton: cannot start a loop thread: %s", strerror(errno));
        snprintf(name, sizeof(name), "loop-%u", i);
        pthread_setname_np(n->loops[i].thread, name);
        n->loops[i].running = true;
    }
}

static void stop_loops(struct node *n)
{
    for (unsigned i = 0; i < n->loop_count; i++)
        loop_stop(n->loops[i].loop);
    for (unsigned i = 0; i < n->loop_count; i++)
        if (n->loops[i].running)
            pthread_join(n->loops[i].thread, NULL);
}

/* --- mail on its way in --- */

static void message_accepted(struct message *m, void *ctx)
{
    struct node *n = ctx;
    schedule_accepted(n->schedule, m);
    message_unref(m);
}

static void log_problems(const struct settings_problems *problems)
{
    struct slice rest = buf_slice(&problems->text);
    while (rest.len > 0) {
        struct slice line = slice_head(rest, slice_find(rest, '\n'));
        log_say(LOG_EV_CONFIG_PROBLEM, "%.*s", SLICE_ARG(line));
        rest = slice_from(rest, line.len + 1);
    }
    log_flush();
}

static bool open_intake(struct node *n)
{
    struct loop **loops = mem_zalloc(n->loop_count * sizeof(*loops));
    struct conns **conns = mem_zalloc(n->loop_count * sizeof(*conns));
    struct store_identity who = store_identity(n->store);
    struct settings_problems problems;
    for (unsigned i = 0; i < n->loop_count; i++) {
        loops[i] = n->loops[i].loop;
        conns[i] = n->loops[i].conns;
    }
    struct intake_deps deps = {.loops = loops,
        .conns = conns,
        .loop_count = n->loop_count,
        .store = n->store,
        .rights = n->rights,
        .hot = schedule_hot(n->schedule),
        .resolver = n->resolver,
        .helpers = n->helpers,
        .node = who.node32,
        .epoch = who.epoch,
        .accepted = message_accepted,
        .ctx = n};
    settings_problems_init(&problems);
    n->intake = intake_new(&deps, n->settings, &problems);
    log_problems(&problems);
    settings_problems_fini(&problems);
    free(loops);
    free(conns);
    atomic_store(&n->intake_known, n->intake);
    return n->intake != NULL;
}

static bool open_delivery(struct node *n)
{
    char why[512];
    n->tls = tls_client_new(n->settings->tls.ca_file, why, sizeof(why));
    if (!n->tls)
        return refuse(why);
    n->rights =
        rights_new(n->store, n->settings->cluster.is_set ? &engine_backend : NULL, NULL);
    n->delivery_env = (struct delivery_env){.store = n->store,
        .rights = n->rights,
        .resolver = n->resolver,
        .helpers = n->helpers,
        .tls = n->tls,
        .node = n->settings->hostname};
    n->schedule = schedule_new(&n->delivery_env, settings_ref(n->settings));
    return true;
}

static void start_delivery(struct node *n)
{
    struct delivery_loop **all =
        mem_zalloc(n->loop_count * sizeof(struct delivery_loop *));
    for (unsigned i = 0; i < n->loop_count; i++)
        all[i] = n->loops[i].delivery;
    schedule_start(n->schedule, all, n->loop_count);
}

bool node_start(struct node *n)
{
    char why[1024];
    n->started = mono_now();
    n->main = loop_new();
    n->alarms = alarms_new();
    loop_after_round(n->main, flush_log, NULL);
    if (!watch_signals(n) || !open_disk(n))
        return false;
    n->helpers = workers_new(HELPERS, HELPERS_WAITING, "helper");
    n->resolver = resolver_new(n->settings, why, sizeof(why));
    if (!n->resolver)
        return refuse(why);
    if (!open_delivery(n))
        return false;
    if (!cluster_open(n, why, sizeof(why)))
        return refuse(why);
    if (!scan_queue(n))
        return false;
    if (!cluster_start(n, why, sizeof(why)))
        return refuse(why);
    make_loops(n);
    if (!open_intake(n))
        return false;
    if (!face_open(n, why, sizeof(why)))
        return refuse(why);
    start_loops(n);
    start_delivery(n);
    n->recovered = true;
    timer_init(&n->second, n->main, second_fired);
    timer_set(&n->second, mono_now());
    log_say(LOG_EV_READY, "taking mail");
    log_flush();
    tell_systemd("READY=1");
    return true;
}

void node_run(struct node *n)
{
    loop_run(n->main);
}

/* --- reload --- */

bool node_reload(struct node *n, struct settings_problems *problems)
{
    tell_systemd("RELOADING=1");
    struct settings *s = settings_read(n->config_file, problems);
    if (s)
        cluster_check(s, problems);
    if (s && problems->count == 0)
        intake_check(s, problems);
    if (problems->count > 0 || !intake_reload(n->intake, s, problems)) {
        log_problems(problems);
        log_say(LOG_EV_CONFIG_PROBLEM,
            "%u problems: the settings in force stay as they are", problems->count);
        settings_unref(s);
        tell_systemd("READY=1");
        return false;
    }
    enum log_level level;
    if (log_level_parse(slice_str(s->log.level), &level))
        log_set_level(level);
    resolver_reload(n->resolver, s);
    schedule_reload(n->schedule, s);
    if (n->engine)
        engine_reload(n->engine, s);
    settings_unref(n->settings);
    n->settings = s;
    log_say(LOG_EV_CONFIG, "settings reloaded from %s", n->config_file);
    tell_systemd("READY=1");
    return true;
}

/* --- stop: no new mail, then no new attempts, then no loops, then no queue --- */

static void drain(struct node *n)
{
    struct mono until = mono_add_ms(mono_now(), n->settings->stop_timeout_ms);
    tell_systemd("STOPPING=1");
    if (n->intake)
        intake_drain(n->intake);
    schedule_stop(n->schedule, n->settings->stop_timeout_ms);
    while (n->intake && intake_sessions(n->intake) > 0 && mono_now().ns < until.ns)
        if (mailbox_wait(loop_mailbox(n->main), 20))
            mailbox_take(loop_mailbox(n->main));
    cluster_stop(n);
}

static void close_rooms(struct node *n)
{
    if (n->intake)
        intake_free(n->intake);
    schedule_free(n->schedule);
    workers_free(n->helpers);
    /* Answers what is open, to mailboxes that are drained next. */
    resolver_free(n->resolver);
    mailbox_drain(loop_mailbox(n->main)); /* a `batonctl resolve` that was open */
    engine_free(n->engine);
    face_free(n);
    for (unsigned i = 0; i < n->loop_count; i++) {
        mailbox_drain(loop_mailbox(n->loops[i].loop));
        delivery_loop_free(n->loops[i].delivery);
        conns_free(n->loops[i].conns);
        loop_free(n->loops[i].loop);
    }
    free(n->loops);
    rights_free(n->rights);
    tls_client_unref(n->tls);
}

static void end_main(struct node *n)
{
    if (n->signals.ev) {
        int fd = n->signals.fd;
        watcher_fini(&n->signals);
        close(fd);
    }
    loop_free(n->main);
}

void node_stop(struct node *n)
{
    if (n->recovered)
        drain(n);
    stop_loops(n);
    /* Its answers go to the loops, which have ended but are still there. */
    if (n->store)
        store_stop(n->store);
    if (n->face)
        face_close(n);
    close_rooms(n);
    if (n->second.ev)
        timer_fini(&n->second);
    if (n->store)
        store_close(n->store);
    log_say(LOG_EV_STOP, "stopped");
    log_flush();
    /* The sink goes with the process. */
    if (n->history)
        history_close(n->history);
    end_main(n);
    alarms_free(n->alarms);
    settings_unref(n->settings);
}
