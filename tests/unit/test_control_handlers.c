/* SPDX-License-Identifier: Apache-2.0 */
/* The commands of the control socket against a store in memory and a real history, as a
 * client sees them. */
#include <ftw.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/alloc.h"
#include "base/log.h"
#include "base/metrics.h"
#include "node/control/sources.h"

#define HOUR_MS INT64_C(3600000)

static char dir[] = "/var/tmp/baton-test-XXXXXX";
static char path[100];
static struct loop *loop;
static struct store *store;
static struct workers *helpers;
static struct history *history;
static struct control *control;
static struct control_handlers *handlers;
static struct control_overview overview = {
    .due = 1, .deferred = 2, .oldest_age_s = 7200, .may_deliver = true, .address = ""};
static struct control_alarm alarm_now;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* of these two */
static struct msg_id_source ids;
static pthread_t thread;

/* --- messages --- */

static struct mailbox *box; /* this thread's */

static void op_done(struct store_op *op, void *owner)
{
    (void)op;
    (void)owner;
}

static void submit(struct store_op *op)
{
    op->reply_to = box;
    op->done = op_done;
    store_submit(store, op);
    while (!mailbox_wait(box, 10000) || mailbox_drain(box) == 0)
        ;
    assert_int_equal(op->result, ERR_OK);
}

static struct message *make_message(const char *from, int64_t age_ms, const char *domain,
    unsigned rcpts, const char *body)
{
    struct message *m = message_new();
    m->created.ms = wall_now().ms - age_ms;
    m->id = msg_id_next(&ids, m->created);
    m->reverse_path = arena_dup(m->arena, slice_str(from));
    m->origin = ORIGIN_SUBMISSION;
    m->user = SLICE("alice");
    m->listener = SLICE("submission");
    m->helo = SLICE("client.example");
    m->envid = SLICE("");
    m->why = SLICE("");
    m->body = body_new();
    body_append(m->body, slice_str(body));
    m->size = body_size(m->body);
    m->body_crc = body_crc(m->body);
    m->unit_count = 1;
    m->units = arena_alloc(m->arena, sizeof(*m->units));
    m->units[0].domain = arena_dup(m->arena, slice_str(domain));
    m->units[0].rcpt_count = (uint16_t)rcpts;
    m->units[0].expires.ms = m->created.ms + 120 * HOUR_MS;
    m->units[0].rcpts = arena_alloc(m->arena, rcpts * sizeof(struct recipient));
    for (unsigned i = 0; i < rcpts; i++) {
        m->units[0].rcpts[i].address = arena_printf(m->arena, "u%u@%s", i, domain);
        m->units[0].rcpts[i].orcpt = SLICE("");
        m->units[0].rcpts[i].index = (uint16_t)i;
    }
    return m;
}

static struct msg_id accept_message(
    const char *from, int64_t age_ms, const char *domain, unsigned rcpts)
{
    struct message *m = make_message(from, age_ms, domain, rcpts,
        "Subject: one\r\nX-Hostile: \x1b[31m\xff\r\n\r\nbody\r\n");
    struct store_accept a = {.op = {.kind = STORE_OP_ACCEPT}, .message = m};
    struct msg_id id = m->id;
    submit(&a.op);
    message_unref(m);
    return id;
}

/* The first recipient was tried and deferred. */
static void defer(struct msg_id id, const char *address, const char *reply)
{
    struct rcpt_record r = {.rcpt = {.address = slice_str(address), .orcpt = SLICE("")},
        .state = RCPT_DEFERRED,
        .attempts = 3,
        .next_due = {wall_now().ms + 300000},
        .last_attempt = {wall_now().ms - 1000},
        .last_reply = slice_str(reply),
        .last_status = SLICE("4.4.1"),
        .last_mx = SLICE("mx.b.example")};
    struct store_settle s = {.op = {.kind = STORE_OP_SETTLE},
        .unit = {id, 0},
        .rcpts = &r,
        .rcpt_count = 1,
        .next_due = r.next_due};
    submit(&s.op);
}

/* --- the node --- */

static void get_overview(void *ctx, struct control_overview *out)
{
    (void)ctx;
    pthread_mutex_lock(&lock);
    *out = overview;
    pthread_mutex_unlock(&lock);
}

static unsigned get_alarms(void *ctx, struct control_alarm *out, unsigned max)
{
    (void)ctx;
    pthread_mutex_lock(&lock);
    unsigned count = alarm_now.code[0] && max;
    if (count)
        out[0] = alarm_now;
    pthread_mutex_unlock(&lock);
    return count;
}

static void set_state(bool alarm, bool may_deliver)
{
    pthread_mutex_lock(&lock);
    snprintf(alarm_now.code, sizeof(alarm_now.code), "%s", alarm ? "overdue" : "");
    snprintf(alarm_now.text, sizeof(alarm_now.text), "mail is overdue");
    snprintf(alarm_now.next_step, sizeof(alarm_now.next_step), "look");
    alarm_now.severity = CONTROL_DEGRADED;
    overview.may_deliver = may_deliver;
    pthread_mutex_unlock(&lock);
}

static void do_reload(void *ctx, struct control_request *req)
{
    (void)ctx;
    control_reply(req, json_pack("{s:[s],s:[s]}", "changed", "retry.first",
                           "restart_needed", "data_dir"));
    control_finish(req, 0);
}

static void *run(void *arg)
{
    loop_run(arg);
    return NULL;
}

static void start_node(void)
{
    char why[512] = "";
    log_open(LOG_ERROR, false, "mx1");
    loop = loop_new();
    box = mailbox_new(NULL);
    store = store_open_ram(100000000);
    struct scan_result scan;
    assert_int_equal(store_scan(store, NULL, NULL, NULL, &scan), ERR_OK);
    helpers = workers_new(2, 64, "helper");
    history = history_open(dir, 24 * HOUR_MS, 1 << 24, why, sizeof(why));
    if (!history)
        fail_msg("%s", why);
    log_add_sink(history_sink, history);
    control = control_open(loop, path, why, sizeof(why));
    if (!control)
        fail_msg("%s", why);
    struct control_sources sources = {.store = store,
        .history = history,
        .helpers = helpers,
        .node = "mx1",
        .started = mono_now(),
        .overview = get_overview,
        .alarms = get_alarms,
        .reload = do_reload};
    handlers = control_handlers_new(control, loop, &sources);
    msg_id_source_init(&ids, 7, 1, 0);
    pthread_create(&thread, NULL, run, loop);
}

static void stop_node(void)
{
    loop_stop(loop);
    pthread_join(thread, NULL);
    control_close(control);
    workers_free(helpers);
    mailbox_drain(loop_mailbox(loop));
    control_handlers_free(handlers);
    loop_free(loop);
    history_close(history);
    store_close(store);
    mailbox_free(box);
}

/* --- a client --- */

static FILE *dial(void)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    snprintf(address.sun_path, sizeof(address.sun_path), "%s", path);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&address, sizeof(address)), 0);
    return fdopen(fd, "r+");
}

/* The objects of one answer, the end line too. */
static json_t *ask(const char *command, const char *args)
{
    char *line = NULL;
    size_t size = 0;
    json_t *all = json_array();
    FILE *io = dial();
    fprintf(io, "{\"command\":\"%s\",\"args\":%s}\n", command, args);
    fflush(io);
    for (;;) {
        assert_true(getline(&line, &size, io) > 0);
        json_t *one = json_loads(line, JSON_REJECT_DUPLICATES, NULL);
        if (!one)
            fail_msg("not JSON: %s", line);
        json_array_append_new(all, one);
        if (json_object_get(one, "end"))
            break;
    }
    free(line);
    fclose(io);
    return all;
}

static json_t *at(json_t *answer, size_t index)
{
    return json_array_get(answer, index);
}

static int exit_of(json_t *answer)
{
    json_t *end = at(answer, json_array_size(answer) - 1);
    return (int)json_integer_value(json_object_get(end, "exit"));
}

static const char *text_of(json_t *object, const char *key)
{
    const char *text = json_string_value(json_object_get(object, key));
    return text ? text : "(none)";
}

static int64_t int_of(json_t *object, const char *key)
{
    return json_integer_value(json_object_get(object, key));
}

/* --- tests --- */

static struct msg_id first, second;

static void test_status(void **state)
{
    (void)state;
    static const char *const queue_keys[] = {"messages", "recipients", "due", "deferred",
        "held", "in_doubt", "copies_short", "quarantined", "oldest_age_s"};
    static const char *const node_keys[] = {"id", "member", "view", "session", "address",
        "zone", "version", "config", "uptime_s", "lease", "view_age_s", "queued",
        "copies_held", "received_total", "delivered_total", "deferred_total",
        "bounced_total"};
    json_t *answer = ask("status", "{}");
    assert_int_equal(exit_of(answer), 0);
    json_t *status = at(answer, 0), *queue = json_object_get(status, "queue");
    json_t *node = json_array_get(json_object_get(status, "nodes"), 0);
    for (size_t i = 0; i < sizeof(queue_keys) / sizeof(queue_keys[0]); i++)
        assert_true(json_is_integer(json_object_get(queue, queue_keys[i])));
    for (size_t i = 0; i < sizeof(node_keys) / sizeof(node_keys[0]); i++)
        if (!json_object_get(node, node_keys[i]))
            fail_msg("no %s", node_keys[i]);
    assert_int_equal(int_of(queue, "messages"), 3);
    assert_int_equal(int_of(queue, "oldest_age_s"), 7200);
    assert_string_equal(text_of(node, "id"), "mx1");
    assert_string_equal(text_of(node, "lease"), "held");
    assert_int_equal(json_array_size(json_object_get(status, "alarms")), 0);
    json_decref(answer);
}

static void test_status_exit(void **state)
{
    (void)state;
    set_state(true, true);
    json_t *answer = ask("status", "{}");
    json_t *alarm = json_array_get(json_object_get(at(answer, 0), "alarms"), 0);
    assert_int_equal(exit_of(answer), 2);
    assert_string_equal(text_of(alarm, "code"), "overdue");
    assert_string_equal(text_of(alarm, "next_step"), "look");
    json_decref(answer);
    set_state(true, false);
    answer = ask("status", "{}");
    assert_int_equal(exit_of(answer), 3);
    assert_int_equal(json_array_size(json_object_get(at(answer, 0), "alarms")), 2);
    json_decref(answer);
    set_state(false, true);
}

static void test_queue_ls(void **state)
{
    (void)state;
    json_t *answer = ask("queue ls", "{}");
    char id[MSG_ID_TEXT + 1];
    msg_id_format(first, id);
    assert_int_equal(exit_of(answer), 0);
    assert_int_equal(json_array_size(answer), 4);
    json_t *unit = NULL;
    for (size_t i = 0; i < 3; i++)
        if (strcmp(text_of(at(answer, i), "id"), id) == 0)
            unit = at(answer, i);
    assert_non_null(unit);
    assert_string_equal(text_of(unit, "from"), "alice@a.example");
    assert_string_equal(text_of(unit, "node"), "mx1");
    assert_int_equal(int_of(unit, "copies"), 1);
    assert_true(int_of(unit, "size") > 0);
    assert_int_equal(strlen(text_of(unit, "received")), 24);
    json_t *rcpt = json_array_get(json_object_get(unit, "recipients"), 0);
    assert_string_equal(text_of(rcpt, "to"), "u0@b.example");
    assert_string_equal(text_of(rcpt, "state"), "deferred");
    assert_int_equal(int_of(rcpt, "attempts"), 3);
    assert_string_equal(text_of(rcpt, "last_reply"), "451 no\nfake\xef\xbf\xbd line");
    json_decref(answer);
}

static void test_filters(void **state)
{
    (void)state;
    static const struct {
        const char *args;
        size_t want;
    } rows[] = {{"{\"from\":\"alice@A.example\"}", 1}, {"{\"from\":\"@a.example\"}", 1},
        {"{\"from\":\"<>\"}", 1}, {"{\"from\":\"LIC\"}", 1},
        {"{\"to\":\"u1@b.example\"}", 1}, {"{\"to\":\"u0\"}", 3},
        {"{\"domain\":\"b.example\"}", 1}, {"{\"domain\":\".example\"}", 3},
        {"{\"domain\":\".b.example\"}", 1}, {"{\"domain\":\"other\"}", 0},
        {"{\"older\":\"3h\"}", 1}, {"{\"older\":\"1m\"}", 2},
        {"{\"reason\":\"451 NO\"}", 1}, {"{\"reason\":\"4.4.1\"}", 1},
        {"{\"reason\":\"unheard of\"}", 0}, {"{\"node\":\"mx1\"}", 3},
        {"{\"node\":\"mx2\"}", 0}, {"{\"domain\":\"b.example\",\"from\":\"<>\"}", 0},
        {"{\"limit\":2}", 2}};
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        json_t *answer = ask("queue ls", rows[i].args);
        if (json_array_size(answer) != rows[i].want + 1 || exit_of(answer) != 0)
            fail_msg("%s: %zu", rows[i].args, json_array_size(answer) - 1);
        json_decref(answer);
    }
    static const char *const bad[] = {
        "{\"older\":\"soon\"}", "{\"from\":5}", "{\"limit\":0}", "{\"egress\":\"x\"}"};
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        json_t *answer = ask("queue ls", bad[i]);
        assert_int_equal(exit_of(answer), 1);
        json_decref(answer);
    }
}

static void test_queue_show(void **state)
{
    (void)state;
    char args[200], id[MSG_ID_TEXT + 1];
    msg_id_format(first, id);
    snprintf(args, sizeof(args), "{\"id\":\"%s\",\"headers\":true}", id);
    json_t *answer = ask("queue show", args);
    json_t *unit = at(answer, 0);
    assert_int_equal(exit_of(answer), 0);
    assert_string_equal(text_of(unit, "origin"), "submission");
    assert_string_equal(text_of(unit, "user"), "alice");
    assert_string_equal(
        text_of(unit, "header"), "Subject: one\r\nX-Hostile: \x1b[31m\xef\xbf\xbd\r\n");
    assert_int_equal(json_array_size(json_object_get(unit, "recipients")), 2);
    assert_string_equal(
        text_of(json_array_get(json_object_get(unit, "recipients"), 0), "last_mx"),
        "mx.b.example");
    json_decref(answer);
    snprintf(args, sizeof(args), "{\"id\":\"%s-1\"}", id);
    answer = ask("queue show", args);
    assert_int_equal(exit_of(answer), 1);
    assert_non_null(strstr(text_of(at(answer, 0), "next_step"), "batonctl trace"));
    json_decref(answer);
    answer = ask("queue show", "{\"id\":\"nonsense\"}");
    assert_int_equal(exit_of(answer), 1);
    json_decref(answer);
}

static void test_queue_shape(void **state)
{
    (void)state;
    json_t *answer = ask("queue shape", "{\"limit\":1}");
    assert_int_equal(exit_of(answer), 0);
    assert_int_equal(json_array_size(answer), 4);
    assert_string_equal(text_of(at(answer, 0), "domain"), "TOTAL");
    assert_int_equal(int_of(at(answer, 0), "recipients"), 6);
    assert_int_equal(int_of(json_object_get(at(answer, 0), "ages"), "5m"), 1);
    assert_int_equal(int_of(json_object_get(at(answer, 0), "ages"), "320m"), 3);
    assert_int_equal(int_of(json_object_get(at(answer, 0), "ages"), "80m"), 2);
    assert_string_equal(text_of(at(answer, 1), "domain"), "c.example");
    assert_string_equal(text_of(at(answer, 2), "domain"), "OTHERS");
    assert_int_equal(int_of(at(answer, 2), "units"), 2);
    json_decref(answer);
}

static void emit(enum log_event event, struct msg_id id, const char *to)
{
    struct record r;
    record_init(&r, event);
    record_msg_id(&r, "id", id);
    record_str(&r, event == LOG_EV_RECEIVED ? "from" : "to", to);
    record_str(&r, "reply", "250 \"ok\"\n");
    record_emit(&r);
}

/* The history writes within a second: asked until it has. */
static json_t *ask_until(const char *command, const char *args, size_t lines)
{
    for (;;) {
        json_t *answer = ask(command, args);
        if (json_array_size(answer) >= lines + 1)
            return answer;
        json_decref(answer);
    }
}

static void test_trace(void **state)
{
    (void)state;
    char args[200], id[MSG_ID_TEXT + 1];
    emit(LOG_EV_RECEIVED, second, "sender@a.example");
    emit(LOG_EV_DELIVERED, second, "Rcpt@c.example");
    msg_id_format(second, id);
    snprintf(args, sizeof(args), "{\"what\":\"%s\"}", id);
    json_t *answer = ask_until("trace", args, 2);
    assert_int_equal(json_array_size(answer), 3);
    assert_string_equal(text_of(at(answer, 0), "event"), "received");
    assert_string_equal(text_of(at(answer, 1), "event"), "delivered");
    assert_string_equal(text_of(at(answer, 1), "id"), id);
    assert_string_equal(text_of(at(answer, 1), "node"), "mx1");
    assert_string_equal(text_of(at(answer, 1), "reply"), "250 \"ok\"\n");
    json_decref(answer);
    answer = ask_until("trace", "{\"what\":\"rcpt@C.example\"}", 2);
    assert_int_equal(json_array_size(answer), 3);
    json_decref(answer);
    answer = ask("trace", "{\"what\":\"nobody@c.example\"}");
    assert_int_equal(exit_of(answer), 1);
    json_decref(answer);
    answer = ask("trace", "{\"what\":\"nonsense\"}");
    assert_int_equal(exit_of(answer), 1);
    json_decref(answer);
}

static void test_events(void **state)
{
    (void)state;
    char *line = NULL;
    size_t size = 0;
    for (int i = 0; i < 5; i++)
        emit(LOG_EV_DELIVERED, second, "past@c.example");
    json_t *answer = ask("events", "{\"last\":3}");
    assert_int_equal(json_array_size(answer), 4);
    assert_string_equal(text_of(at(answer, 2), "to"), "past@c.example");
    json_decref(answer);
    FILE *io = dial();
    fprintf(io, "{\"command\":\"events\",\"args\":{\"follow\":true,\"last\":1}}\n");
    fflush(io);
    assert_true(getline(&line, &size, io) > 0);
    assert_non_null(strstr(line, "past@c.example"));
    emit(LOG_EV_ATTEMPT, second, "debug@c.example"); /* below the level */
    emit(LOG_EV_DEFERRED, second, "future@c.example");
    assert_true(getline(&line, &size, io) > 0);
    assert_non_null(strstr(line, "future@c.example"));
    /* Who does not read misses some, is told how many, and gets the newest. */
    for (int i = 0; i < 50000; i++)
        emit(LOG_EV_DELIVERED, second, "flood@c.example");
    emit(LOG_EV_DELIVERED, second, "last@c.example");
    int64_t seen = 0, lost = 0;
    while (getline(&line, &size, io) > 0 && !strstr(line, "last@c.example")) {
        json_t *one = json_loads(line, 0, NULL);
        assert_non_null(one);
        if (strcmp(text_of(one, "event"), "events_lost") == 0)
            lost += int_of(one, "count");
        else
            seen++;
        json_decref(one);
    }
    assert_int_equal(seen + lost, 50000);
    free(line);
    fclose(io);
}

static void test_small_commands(void **state)
{
    (void)state;
    json_t *answer = ask("log", "{\"level\":\"warn\"}");
    assert_int_equal(exit_of(answer), 0);
    assert_string_equal(text_of(at(answer, 0), "was"), "error");
    assert_int_equal(log_get_level(), LOG_WARN);
    log_set_level(LOG_ERROR);
    json_decref(answer);
    answer = ask("log", "{\"level\":\"loud\"}");
    assert_int_equal(exit_of(answer), 1);
    json_decref(answer);
    answer = ask("reload", "{}");
    assert_int_equal(exit_of(answer), 0);
    json_decref(answer);
    answer = ask("resolve", "{\"name\":\"a.example\"}");
    assert_int_equal(exit_of(answer), 1); /* no resolver here */
    json_decref(answer);
}

/* Longer than one page, and than what may wait unsent. */
static void test_long_list(void **state)
{
    (void)state;
    for (int i = 0; i < 6000; i++)
        accept_message(
            "bulk@long-sender-name-to-make-a-long-line.example", 0, "d.example", 1);
    json_t *answer = ask("queue ls", "{\"domain\":\"d.example\"}");
    assert_int_equal(json_array_size(answer), 6001);
    json_decref(answer);
    FILE *io = dial(); /* asks, and goes */
    fprintf(io, "{\"command\":\"queue ls\",\"args\":{}}\n");
    fclose(io);
    answer = ask("status", "{}");
    assert_int_equal(exit_of(answer), 0);
    json_decref(answer);
}

static int remove_one(const char *name, const struct stat *st, int flag, struct FTW *ftw)
{
    (void)st;
    (void)flag;
    (void)ftw;
    return remove(name);
}

static int setup(void **state)
{
    (void)state;
    start_node();
    first = accept_message("alice@a.example", HOUR_MS + 60000, "b.example", 2);
    second = accept_message("", 4 * HOUR_MS, "c.example", 3);
    accept_message("x@other.example", 1000, "e.example", 1);
    defer(first, "u0@b.example", "451 no\nfake\xff line");
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    stop_node();
    nftw(dir, remove_one, 16, FTW_DEPTH | FTW_PHYS);
    return 0;
}

int main(void)
{
    if (!mkdtemp(dir))
        return 1;
    snprintf(path, sizeof(path), "%s/control.sock", dir);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_status),
        cmocka_unit_test(test_status_exit),
        cmocka_unit_test(test_queue_ls),
        cmocka_unit_test(test_filters),
        cmocka_unit_test(test_queue_show),
        cmocka_unit_test(test_queue_shape),
        cmocka_unit_test(test_trace),
        cmocka_unit_test(test_events),
        cmocka_unit_test(test_small_commands),
        cmocka_unit_test(test_long_list),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
