/* SPDX-License-Identifier: Apache-2.0 */
/* Commands that the whole cluster answers, with stand-ins for the other nodes: mx2 and
 * mx3 say what the test wants, or nothing, or nonsense. */
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
#include "node/control/sources.h"
#include "node/control/wide.h"

static char dir[] = "/var/tmp/baton-test-XXXXXX";
static char path[100];
static struct loop *loop;
static struct store *store;
static struct workers *helpers;
static struct control *control;
static struct control_handlers *handlers;
static struct mailbox *box;
static struct msg_id_source ids;
static pthread_t thread;

/* --- the other nodes --- */

/* What node `index` (0: mx2, 1: mx3) answers; NULL: nothing in time. The loop's thread.
 */
typedef json_t *answer_fn(unsigned index, json_t *question);
static answer_fn *answers;
static unsigned asked;
static uint8_t mx3_view = 1;
static struct engine_admin last_admin;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t told = PTHREAD_COND_INITIALIZER;
static json_t *given[200]; /* by token, to questions put to us */

static void fake_status(void *ctx, struct engine_status *out)
{
    (void)ctx;
    *out = (struct engine_status){.name = "prod",
        .mode = MODE_QUORUM,
        .copies = 2,
        .min_copies = 2,
        .state = "ready",
        .lease_ms = 9000,
        .owned = 3,
        .copies_held = 4,
        .member_count = 4};
    for (unsigned i = 0; i < 4; i++) {
        struct engine_member *m = &out->members[i];
        *m = (struct engine_member){.node = i + 1,
            .roles = ROLE_VOTER | ROLE_STORE | ROLE_EGRESS,
            .state = i == 3 ? MEMBER_LEFT : MEMBER_UP,
            .view = i == 2 ? mx3_view : 0,
            .is_self = i == 0,
            .heard_ms = i == 2 ? 65000 : 100,
            .waiting = i == 2, /* we tell of one message of mx3's, */
            .waiting_rcpts = 2 * (i == 2),
            .version = "0.1.0"};
        snprintf(m->name, sizeof(m->name), "mx%u", i + 1);
    }
}

static void deliver(struct mail *mail, void *owner)
{
    struct engine_query *q = CONTAINER_OF(mail, struct engine_query, mail);
    q->done(q, owner);
}

static void fake_ask(void *ctx, struct engine_query *q)
{
    (void)ctx;
    asked++;
    q->answers = mem_zalloc(2 * sizeof(*q->answers));
    for (unsigned i = 0; i < 2; i++) {
        struct engine_answer *a = &q->answers[q->answer_count];
        if (q->only && q->only != i + 2)
            continue;
        a->node = i + 2;
        snprintf(a->name, sizeof(a->name), "mx%u", i + 2);
        a->answer = answers(i, q->question);
        q->answer_count++;
    }
    mailbox_post(q->reply_to, &q->mail, deliver);
}

static void fake_answer(void *ctx, uint64_t token, json_t *answer)
{
    (void)ctx;
    pthread_mutex_lock(&lock);
    if (token >= sizeof(given) / sizeof(given[0]) || given[token])
        abort(); /* answered twice */
    given[token] = answer;
    pthread_cond_signal(&told);
    pthread_mutex_unlock(&lock);
}

static void admin_mail(struct mail *mail, void *owner)
{
    struct engine_admin *a = CONTAINER_OF(mail, struct engine_admin, mail);
    a->done(a, owner);
}

static void fake_admin(void *ctx, struct engine_admin *a)
{
    (void)ctx;
    last_admin = *a;
    a->ok = strcmp(a->node, "mx3") != 0;
    snprintf(
        a->why, sizeof(a->why), "%s", a->ok ? "it is done" : "mx3 holds the only copy");
    snprintf(a->token, sizeof(a->token), "T0KEN");
    mailbox_post(a->reply_to, &a->mail, admin_mail);
}

static const struct control_peers peers = {
    .status = fake_status, .ask = fake_ask, .answer = fake_answer, .admin = fake_admin};

/* --- this node --- */

static void op_done(struct store_op *op, void *owner)
{
    (void)op;
    (void)owner;
}

static struct msg_id accept_message(int64_t age_ms)
{
    struct message *m = message_new();
    m->created.ms = 1800000000000 - age_ms;
    m->id = msg_id_next(&ids, m->created);
    m->reverse_path = SLICE("alice@a.example");
    m->origin = ORIGIN_SUBMISSION;
    m->user = m->listener = m->helo = m->envid = m->why = SLICE("");
    m->body = body_new();
    body_append(m->body, SLICE("Subject: x\r\n\r\nbody\r\n"));
    m->size = body_size(m->body);
    m->body_crc = body_crc(m->body);
    m->unit_count = 1;
    m->units = arena_alloc(m->arena, sizeof(*m->units));
    m->units[0].domain = SLICE("b.example");
    m->units[0].rcpt_count = 1;
    m->units[0].expires.ms = m->created.ms + 86400000;
    m->units[0].rcpts = arena_alloc(m->arena, sizeof(struct recipient));
    m->units[0].rcpts[0].address = SLICE("u@b.example");
    m->units[0].rcpts[0].orcpt = SLICE("");
    struct store_accept a = {
        .op = {.kind = STORE_OP_ACCEPT, .reply_to = box, .done = op_done}, .message = m};
    struct msg_id id = m->id;
    store_submit(store, &a.op);
    while (!mailbox_wait(box, 10000) || mailbox_drain(box) == 0)
        ;
    assert_int_equal(a.op.result, ERR_OK);
    message_unref(m);
    return id;
}

static void overview(void *ctx, struct control_overview *out)
{
    (void)ctx;
    *out = (struct control_overview){.due = 1,
        .deferred = 2,
        .oldest_age_s = 100,
        .may_deliver = true,
        .config_hash = 0x11,
        .address = "10.0.0.1:7420",
        .zone = "r1"};
}

static void settings(
    void *ctx, void (*one)(const char *key, uint64_t hash, void *ctx), void *one_ctx)
{
    (void)ctx;
    one("retry.first", 1, one_ctx);
    one("routes", 2, one_ctx);
}

/* Replies without end, as a handler that never looks at what control_reply says. */
static bool flood_cancelled;
static void flood_gone(struct control_request *req)
{
    flood_cancelled = true;
    control_finish(req, 0);
}
static void flood(struct control_request *req, json_t *args, void *ctx)
{
    (void)args;
    (void)ctx;
    req->on_cancel = flood_gone;
    for (int i = 0; i < 100; i++)
        control_reply(req, json_pack("{s:i}", "n", i));
}

static void *run(void *arg)
{
    loop_run(arg);
    return NULL;
}

static int setup(void **state)
{
    char why[512] = "";
    struct scan_result scan;
    (void)state;
    log_open(LOG_ERROR, false, "mx1");
    loop = loop_new();
    box = mailbox_new(NULL);
    store = store_open_ram(100000000);
    assert_int_equal(store_scan(store, NULL, NULL, NULL, &scan), ERR_OK);
    helpers = workers_new(2, 64, "helper");
    control = control_open(loop, path, why, sizeof(why));
    if (!control)
        fail_msg("%s", why);
    struct control_sources sources = {.store = store,
        .helpers = helpers,
        .peers = &peers,
        .node = "mx1",
        .started = mono_now(),
        .overview = overview,
        .settings = settings};
    handlers = control_handlers_new(control, loop, &sources);
    control_register(control, "flood", CONTROL_READS, flood, NULL);
    msg_id_source_init(&ids, 7, 1, 0);
    for (int i = 0; i < 3; i++)
        accept_message(3000 - i * 1000);
    pthread_create(&thread, NULL, run, loop);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    loop_stop(loop);
    pthread_join(thread, NULL);
    control_close(control);
    workers_free(helpers);
    mailbox_drain(loop_mailbox(loop));
    control_handlers_free(handlers);
    loop_free(loop);
    store_close(store);
    mailbox_free(box);
    rmdir(dir);
    for (unsigned i = 0; i < sizeof(given) / sizeof(given[0]); i++)
        json_decref(given[i]);
    return 0;
}

/* --- a client --- */

static json_t *ask_node(const char *command, const char *args, answer_fn *others)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    char *line = NULL;
    size_t size = 0;
    json_t *all = json_array();
    answers = others;
    asked = 0;
    snprintf(address.sun_path, sizeof(address.sun_path), "%s", path);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&address, sizeof(address)), 0);
    FILE *io = fdopen(fd, "r+");
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

static json_t *end_of(json_t *answer)
{
    return at(answer, json_array_size(answer) - 1);
}

static int exit_of(json_t *answer)
{
    return (int)json_integer_value(json_object_get(end_of(answer), "exit"));
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

static json_t *parse(const char *text)
{
    json_t *o = json_loads(text, JSON_DECODE_ANY, NULL);
    if (!o)
        fail_msg("not JSON: %s", text);
    return o;
}

static json_t *alarm_of(json_t *answer, const char *code)
{
    size_t i;
    json_t *one;
    json_array_foreach(json_object_get(at(answer, 0), "alarms"), i, one)
    {
        if (strcmp(text_of(one, "code"), code) == 0)
            return one;
    }
    return NULL;
}

/* --- status --- */

static const char *status_text; /* of mx2 */

static json_t *only_mx2(unsigned index, json_t *question)
{
    assert_string_equal(text_of(question, "command"), "status");
    assert_string_equal(text_of(question, "by"), "mx1");
    return index == 0 ? parse(status_text) : NULL;
}

#define NODE2                                                                            \
    "\"nodes\":[{\"id\":\"liar\",\"view\":\"dead\",\"queued\":7,\"version\":\"0.1.0\","  \
    "\"config\":\"0000000000000011\",\"zone\":\"r2\"}]"

static void test_status(void **state)
{
    (void)state;
    status_text =
        "{\"exit\":0,\"lines\":[{" NODE2
        ",\"queue\":{\"messages\":7,\"due\":5,\"oldest_age_s\":200,"
        "\"intake_open\":true,\"copies_short\":0},\"rates\":{\"received_per_s\":"
        "1.5},\"egress\":[{\"name\":\"a\",\"node\":\"mx2\"}],\"alarms\":[],"
        /* mx2 of four; of itself it tells itself */
        "\"waiting\":{\"mx3\":{\"messages\":4,\"recipients\":6},\"mx2\":{\"messages\":9},"
        "\"mx1\":{\"messages\":9}}}]}";
    json_t *answer = ask_node("status", "{}", only_mx2), *s = at(answer, 0);
    json_t *nodes = json_object_get(s, "nodes"), *queue = json_object_get(s, "queue");
    assert_int_equal(json_array_size(nodes), 3);
    assert_string_equal(text_of(json_object_get(s, "cluster"), "name"), "prod");
    assert_int_equal(int_of(json_object_get(s, "cluster"), "nodes"), 3);
    assert_string_equal(text_of(at(nodes, 0), "id"), "mx1");
    assert_string_equal(text_of(at(nodes, 0), "zone"), "r1");
    assert_int_equal(int_of(at(nodes, 0), "queued"), 3);
    assert_int_equal(int_of(at(nodes, 0), "copies_held"), 4);
    assert_int_equal(int_of(at(nodes, 0), "lease_ms"), 9000);
    /* who it is and whether it lives is for us to say */
    assert_string_equal(text_of(at(nodes, 1), "id"), "mx2");
    assert_string_equal(text_of(at(nodes, 1), "view"), "alive");
    assert_string_equal(text_of(at(nodes, 1), "zone"), "r2");
    assert_int_equal(int_of(at(nodes, 1), "queued"), 7);
    assert_int_equal(int_of(at(nodes, 1), "view_age_s"), 0);
    assert_string_equal(text_of(at(nodes, 2), "view"), "suspect");
    assert_int_equal(int_of(at(nodes, 2), "view_age_s"), 65);
    assert_true(json_is_false(json_object_get(at(nodes, 2), "answered")));
    assert_int_equal(int_of(at(nodes, 2), "queued"), 5);
    assert_true(json_is_true(json_object_get(at(nodes, 2), "waiting")));
    assert_int_equal(int_of(queue, "messages"), 15);
    assert_int_equal(int_of(queue, "waiting"), 5);
    assert_int_equal(int_of(queue, "recipients"), 8);
    assert_int_equal(int_of(queue, "due"), 6);
    assert_int_equal(int_of(queue, "oldest_age_s"), 200);
    assert_int_equal(json_array_size(json_object_get(s, "egress")), 1);
    assert_string_equal(text_of(alarm_of(answer, "no_answer"), "text"),
        "mx3 did not answer: the figures are without it");
    assert_int_equal(exit_of(answer), 2);
    json_t *missing = json_object_get(end_of(answer), "not_answered");
    assert_int_equal(json_array_size(missing), 1);
    assert_string_equal(json_string_value(at(missing, 0)), "mx3");
    json_decref(answer);
    mx3_view = 2; /* down: another alarm says so */
    answer = ask_node("status", "{}", only_mx2);
    assert_null(alarm_of(answer, "no_answer"));
    mx3_view = 1;
    json_decref(answer);
    answer = ask_node("status", "{\"local\":true}", only_mx2);
    assert_int_equal(json_array_size(json_object_get(at(answer, 0), "nodes")), 1);
    assert_int_equal(asked, 0);
    json_decref(answer);
}

static void test_status_alarms(void **state)
{
    (void)state;
    status_text =
        "{\"exit\":3,\"lines\":[{\"nodes\":[{\"config\":\"22\",\"version\":\"0.0.9\"}],"
        "\"settings\":{\"retry.first\":\"0000000000000001\",\"routes\":\"9\","
        "\"new.key\":\"1\"},\"alarms\":[{\"code\":\"copies_short\",\"text\":\"5\","
        "\"severity\":\"at_risk\",\"next_step\":\"x\"},{\"code\":\"node_down\","
        "\"text\":\"a\",\"cluster\":true},{\"code\":\"node_down\",\"text\":\"b\","
        "\"cluster\":true}]}]}";
    json_t *answer = ask_node("status", "{}", only_mx2);
    assert_int_equal(exit_of(answer), 3);
    assert_string_equal(text_of(alarm_of(answer, "settings_differ"), "text"),
        "settings of mx2 differ from mx1's: routes, new.key");
    assert_string_equal(text_of(alarm_of(answer, "versions_differ"), "text"),
        "mx2 has 0.0.9; mx1 has " BATON_VERSION);
    json_t *down = alarm_of(answer, "node_down");
    assert_string_equal(text_of(down, "text"), "a");
    assert_string_equal(json_string_value(at(json_object_get(down, "nodes"), 0)), "mx2");
    json_decref(answer);
}

/* What a peer says may be anything: the answer is whole all the same. */
static void test_status_garbage(void **state)
{
    (void)state;
    static const char *const junk[] = {"[]", "1", "null", "\"x\"", "{}",
        "{\"exit\":\"x\",\"lines\":[]}", "{\"exit\":0,\"lines\":{}}",
        "{\"exit\":0,\"lines\":[1]}", "{\"exit\":0,\"lines\":[]}",
        "{\"exit\":0,\"lines\":[{}]}",
        "{\"exit\":0,\"lines\":[{\"nodes\":5,\"queue\":[],\"rates\":\"x\",\"egress\":{},"
        "\"alarms\":{\"a\":1}}]}",
        "{\"exit\":0,\"lines\":[{\"nodes\":[1],\"queue\":{\"messages\":\"many\",\"due\":"
        "-5,\"intake_open\":[]},\"egress\":[7],\"alarms\":[1,{\"code\":2},{\"code\":"
        "\"z\"}],\"settings\":3}]}",
        "{\"exit\":0,\"lines\":[{\"nodes\":[{\"config\":[],\"version\":\"\\u001b[2J\"}],"
        "\"queue\":{\"messages\":9223372036854775807}}]}"};
    for (size_t i = 0; i < sizeof(junk) / sizeof(junk[0]); i++) {
        status_text = junk[i];
        json_t *answer = ask_node("status", "{}", only_mx2), *s = at(answer, 0);
        assert_int_equal(json_array_size(json_object_get(s, "nodes")), 3);
        assert_true(
            json_is_integer(json_object_get(json_object_get(s, "queue"), "messages")));
        assert_int_equal(exit_of(answer), 2);
        json_decref(answer);
        answer = ask_node("node ls", "{}", only_mx2);
        assert_int_equal(json_array_size(answer), 4);
        json_decref(answer);
    }
}

static void test_node_ls(void **state)
{
    (void)state;
    status_text = "{\"exit\":0,\"lines\":[{" NODE2 "}]}";
    json_t *answer = ask_node("node ls", "{}", only_mx2);
    assert_int_equal(json_array_size(answer), 4);
    assert_string_equal(text_of(at(answer, 1), "id"), "mx2");
    assert_int_equal(int_of(at(answer, 1), "queued"), 7);
    assert_string_equal(text_of(at(answer, 2), "member"), "up");
    assert_int_equal(exit_of(answer), 0);
    json_decref(answer);
}

/* --- queue --- */

static unsigned pages_asked;
static bool dies; /* mx3 answers one page only */

/* A message id whose time is `ms` before that of the youngest of ours. */
static const char *id_at(int64_t ms, char out[MSG_ID_TEXT + 1])
{
    struct msg_id_source s;
    msg_id_source_init(&s, 9, 1, 0);
    msg_id_format(msg_id_next(&s, (struct wall){1800000000000 - ms}), out);
    return out;
}

/* mx2 and mx3 have 5 messages each, 400 ms apart, in pages of two. */
static json_t *pages(unsigned index, json_t *question)
{
    json_t *args = json_object_get(question, "args"), *lines = json_array();
    int64_t from = 0, limit = 2;
    const char *after = json_string_value(json_object_get(args, "after"));
    char id[MSG_ID_TEXT + 1], next[40] = "";
    pages_asked++;
    assert_true(json_is_true(json_object_get(args, "page")));
    if (after)
        from = strtol(strrchr(after, '-') + 1, NULL, 10);
    if (index == 1 && dies && from > 0) {
        json_decref(lines);
        return NULL;
    }
    for (int64_t i = from; i < 5 && i < from + limit; i++) {
        id_at(4000 + index - i * 400, id);
        json_array_append_new(
            lines, json_pack("{s:s,s:s}", "id", id, "node", index ? "mx3" : "mx2"));
        snprintf(next, sizeof(next), "%s-%d", id, (int)i + 1);
    }
    json_array_append_new(lines, json_pack("{s:b,s:b,s:s}", "page_end", 1, "more",
                                     from + limit < 5, "after", next));
    return json_pack("{s:i,s:o}", "exit", 0, "lines", lines);
}

static void check_sorted(json_t *answer, size_t want)
{
    assert_int_equal(json_array_size(answer), want + 1);
    for (size_t i = 1; i < want; i++)
        if (strcmp(text_of(at(answer, i - 1), "id"), text_of(at(answer, i), "id")) > 0)
            fail_msg("line %zu is out of order", i);
}

static void test_queue_ls(void **state)
{
    (void)state;
    dies = false;
    pages_asked = 0;
    json_t *answer = ask_node("queue ls", "{}", pages);
    check_sorted(answer, 13);
    assert_int_equal(exit_of(answer), 0);
    assert_null(json_object_get(end_of(answer), "not_answered"));
    assert_int_equal(pages_asked, 6);
    json_decref(answer);
    for (int limit = 1; limit <= 14; limit++) {
        char args[40];
        snprintf(args, sizeof(args), "{\"limit\":%d}", limit);
        answer = ask_node("queue ls", args, pages);
        check_sorted(answer, limit < 13 ? (size_t)limit : 13);
        json_decref(answer);
    }
    dies = true;
    answer = ask_node("queue ls", "{}", pages);
    check_sorted(answer, 10);
    assert_string_equal(
        json_string_value(at(json_object_get(end_of(answer), "not_answered"), 0)), "mx3");
    json_decref(answer);
    answer = ask_node("queue ls", "{\"older\":\"x\"}", pages);
    assert_int_equal(exit_of(answer), 1);
    assert_string_equal(text_of(end_of(answer), "error"), "--older x is no duration");
    json_decref(answer);
}

/* A page that says there is more behind it, for ever the same. */
static json_t *endless(unsigned index, json_t *question)
{
    (void)question;
    return index ? NULL
                 : parse("{\"exit\":0,\"lines\":[{\"id\":\"x\"},{\"page_end\":true,"
                         "\"more\":true,\"after\":\"y\"}]}");
}

static json_t *strange(unsigned index, json_t *question)
{
    (void)question;
    return parse(index ? "{\"exit\":0,\"lines\":[{\"id\":7},{\"page_end\":true}]}"
                       : "{\"exit\":0,\"lines\":[{},{\"page_end\":true,\"more\":true,"
                         "\"after\":5}]}");
}

static void test_queue_ls_garbage(void **state)
{
    (void)state;
    json_t *answer = ask_node("queue ls", "{}", endless);
    assert_int_equal(json_array_size(answer), 3 + 2 + 1);
    json_decref(answer);
    answer = ask_node("queue ls", "{}", strange);
    assert_int_equal(json_array_size(answer), 3 + 2 + 1);
    json_decref(answer);
}

/* Of mx4, which is gone, both tell of u; of v mx3 is the owner; mx2 says so of itself. */
static json_t *waiting(unsigned index, json_t *question)
{
    (void)question;
    return parse(
        index
            ? "{\"exit\":0,\"lines\":[{\"id\":\"zu\",\"node\":\"mx4\",\"waiting\":true},"
              "{\"id\":\"zv\",\"node\":\"mx3\"},"
              "{\"id\":\"zw\",\"node\":\"mx2\",\"waiting\":true}]}"
            : "{\"exit\":0,\"lines\":[{\"id\":\"zu\",\"node\":\"mx4\",\"waiting\":true},"
              "{\"id\":\"zu\",\"unit\":1,\"node\":\"mx4\",\"waiting\":true},"
              "{\"id\":\"zv\",\"node\":\"mx4\",\"waiting\":true}]}");
}

static void test_queue_ls_of_the_gone(void **state)
{
    (void)state;
    json_t *answer = ask_node("queue ls", "{}", waiting);
    assert_int_equal(json_array_size(answer), 3 + 3 + 1);
    assert_string_equal(text_of(at(answer, 3), "node"), "mx4");
    assert_int_equal(int_of(at(answer, 3), "unit"), 0);
    assert_int_equal(int_of(at(answer, 4), "unit"), 1);
    assert_string_equal(text_of(at(answer, 5), "node"), "mx3");
    json_decref(answer);
}

static json_t *shapes(unsigned index, json_t *question)
{
    (void)question;
    return index
               ? NULL
               : parse("{\"exit\":0,\"lines\":[{\"domain\":\"TOTAL\",\"recipients\":50,"
                       "\"units\":50,\"ages\":{\"older\":50}},{\"domain\":\"b.example\","
                       "\"recipients\":10,\"units\":10,\"ages\":{\"older\":10}},{"
                       "\"domain\":\"c.example\",\"recipients\":38,\"units\":38,"
                       "\"ages\":{\"older\":38}},{\"domain\":\"OTHERS\",\"recipients\":"
                       "2,\"units\":2,\"ages\":{}},{\"no\":1},{\"domain\":3}]}");
}

static void test_queue_shape(void **state)
{
    (void)state;
    json_t *answer = ask_node("queue shape", "{}", shapes);
    assert_int_equal(json_array_size(answer), 5);
    assert_string_equal(text_of(at(answer, 0), "domain"), "TOTAL");
    assert_int_equal(int_of(at(answer, 0), "recipients"), 53);
    assert_string_equal(text_of(at(answer, 1), "domain"), "c.example");
    assert_string_equal(text_of(at(answer, 2), "domain"), "b.example");
    assert_int_equal(int_of(at(answer, 2), "recipients"), 13);
    assert_string_equal(text_of(at(answer, 3), "domain"), "OTHERS");
    json_decref(answer);
    answer = ask_node("queue shape", "{\"limit\":1}", shapes);
    assert_int_equal(json_array_size(answer), 4);
    assert_int_equal(int_of(at(answer, 2), "recipients"), 15);
    json_decref(answer);
}

static json_t *shows(unsigned index, json_t *question)
{
    (void)question;
    return index ? parse("{\"exit\":0,\"lines\":[{\"id\":\"x\",\"node\":\"mx3\"}]}")
                 : parse("{\"exit\":1,\"lines\":[],\"error\":\"not here\"}");
}

static json_t *nothing(unsigned index, json_t *question)
{
    (void)question;
    return index ? NULL : parse("{\"exit\":1,\"lines\":[],\"error\":\"not here\"}");
}

static void test_queue_show(void **state)
{
    (void)state;
    char args[80], id[MSG_ID_TEXT + 1];
    snprintf(args, sizeof(args), "{\"id\":\"%s\"}", id_at(99999, id));
    json_t *answer = ask_node("queue show", args, shows);
    assert_int_equal(json_array_size(answer), 2);
    assert_string_equal(text_of(at(answer, 0), "node"), "mx3");
    json_decref(answer);
    answer = ask_node("queue show", args, nothing);
    assert_int_equal(exit_of(answer), 1);
    assert_string_equal(text_of(end_of(answer), "error"), "no such message in the queue");
    assert_int_equal(json_array_size(json_object_get(end_of(answer), "not_answered")), 1);
    json_decref(answer);
}

/* --- quarantine --- */

static json_t *asides(unsigned index, json_t *question)
{
    bool ls = strcmp(text_of(question, "command"), "quarantine ls") == 0;
    return index ? NULL
           : ls  ? parse("{\"exit\":0,\"lines\":[{\"id\":\"x\",\"node\":\"mx2\"}]}")
                 : parse("{\"exit\":1,\"lines\":[],\"error\":\"not here\"}");
}

static void test_quarantine(void **state)
{
    (void)state;
    struct unit_id unit = {accept_message(500), 0};
    char id[UNIT_ID_TEXT_MAX], args[120];
    struct store_cluster put = {
        .op = {.kind = STORE_OP_CLUSTER, .reply_to = box, .done = op_done},
        .aside = &unit,
        .aside_count = 1,
        .aside_reason = SLICE("stale")};
    store_submit(store, &put.op);
    while (!mailbox_wait(box, 10000) || mailbox_drain(box) == 0)
        ;
    assert_int_equal(put.op.result, ERR_OK);
    unit_id_format(unit, id);
    json_t *answer = ask_node("quarantine ls", "{}", asides);
    assert_int_equal(json_array_size(answer), 3);
    assert_string_equal(text_of(at(answer, 0), "reason"), "stale");
    assert_string_equal(text_of(at(answer, 0), "from"), "alice@a.example");
    assert_string_equal(text_of(at(answer, 1), "node"), "mx2");
    json_decref(answer);
    snprintf(args, sizeof(args), "{\"id\":\"%s\"}", id);
    answer = ask_node("quarantine show", args, asides);
    assert_int_equal(json_array_size(answer), 2);
    assert_true(json_is_true(json_object_get(at(answer, 0), "releasable")));
    json_decref(answer);
    /* mx2 and mx3 do not say a word that is understood */
    answer = ask_node("quarantine release", args, asides);
    assert_non_null(strstr(text_of(end_of(answer), "error"), "mx2 did not answer"));
    json_decref(answer);
    answer = ask_node("quarantine drop", args, asides);
    assert_non_null(strstr(text_of(end_of(answer), "error"), "wants a reason"));
    json_decref(answer);
    snprintf(args, sizeof(args), "{\"id\":\"%s\",\"reason\":\"old\"}", id);
    answer = ask_node("quarantine drop", args, asides);
    assert_string_equal(text_of(at(answer, 0), "done"), "dropped");
    json_decref(answer);
    answer = ask_node("quarantine drop", args, asides);
    assert_int_equal(exit_of(answer), 1);
    json_decref(answer);
    answer = ask_node("quarantine show", "{\"id\":\"x\"}", asides);
    assert_int_equal(exit_of(answer), 1);
    json_decref(answer);
}

/* --- trace and events --- */

static json_t *timelines(unsigned index, json_t *question)
{
    (void)question;
    return parse(
        index ? "{\"exit\":0,\"lines\":[{\"time\":\"2026-01-01T00:00:02.000Z\",\"id\":"
                "\"b\",\"event\":\"takeover\"},{\"time\":\"2026-01-01T00:00:03.000Z\","
                "\"id\":\"a\",\"event\":\"delivered\"},{\"x\":1}]}"
              : "{\"exit\":0,\"lines\":[{\"time\":\"2026-01-01T00:00:00.000Z\",\"id\":"
                "\"a\",\"event\":\"received\"},{\"time\":\"2026-01-01T00:00:01.000Z\","
                "\"id\":\"b\",\"event\":\"received\"}]}");
}

static void check_events(json_t *answer, const char *want)
{
    char got[200] = "";
    for (size_t i = 0; i + 1 < json_array_size(answer); i++)
        snprintf(got + strlen(got), sizeof(got) - strlen(got), "%s-%s ",
            text_of(at(answer, i), "id"), text_of(at(answer, i), "event"));
    assert_string_equal(got, want);
}

/* --- quarantine release: who is asked, and what for --- */

static const char *looks[2]; /* of mx2 and mx3: the fields of their lines */
static json_t *release_asked[2];

static json_t *look_or_release(unsigned index, json_t *question)
{
    char line[1000];
    if (strcmp(text_of(question, "command"), "quarantine release") == 0) {
        json_decref(release_asked[index]);
        release_asked[index] = json_deep_copy(json_object_get(question, "args"));
        return parse("{\"exit\":0,\"lines\":[{\"id\":\"x\",\"done\":\"released\"}]}");
    }
    assert_string_equal(text_of(question, "command"), "quarantine look");
    if (!looks[index])
        return NULL;
    snprintf(line, sizeof(line), "{\"exit\":0,\"lines\":[{%s}]}", looks[index]);
    return parse(line);
}

#define ASIDE                                                                            \
    "\"aside\":true,\"releasable\":true,\"created_ms\":9000000000000,"                   \
    "\"since_ms\":5,\"fates\":[{\"index\":3,\"event\":\"delivered\"}]"
#define NOTHING "\"aside\":false,\"live\":false,\"since_ms\":5,\"fates\":[]"

static void test_release(void **state)
{
    (void)state;
    static const struct {
        const char *mx2, *mx3, *may; /* may: --may-duplicate */
        const char *want;            /* NULL: it is done by mx2 */
        bool forced;
    } rows[] = {
        {ASIDE, NOTHING, "false", NULL, false},
        {ASIDE, NOTHING, "true", NULL, false}, /* all is known */
        {ASIDE, NULL, "false", "mx3 did not answer", false},
        {ASIDE, NULL, "true", NULL, true},
        {ASIDE, "\"since_ms\":9000000000001", "false", "mx3 remembers only since 2255-",
            false},
        {ASIDE, "\"since_ms\":\"x\",\"fates\":{}", "false", "mx3 did not answer", false},
        {ASIDE, "\"live\":true,\"since_ms\":5", "true", "mx3 has it", false},
        {ASIDE, NOTHING ",\"released_as\":\"01abc\"", "true",
            "released before, on mx3, as 01abc", false},
        {"\"aside\":true,\"releasable\":false", NOTHING, "true",
            "too little of it is whole on mx2", false},
        {NOTHING, NOTHING, "true", "no node that answered has", false},
        {NULL, NULL, "false", "no node that answered has", false},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        char args[200];
        looks[0] = rows[i].mx2;
        looks[1] = rows[i].mx3;
        snprintf(args, sizeof(args),
            "{\"id\":\"01m00000000000000000000000\",\"may_duplicate\":%s}", rows[i].may);
        json_t *answer = ask_node("quarantine release", args, look_or_release);
        const char *error = text_of(end_of(answer), "error");
        if (rows[i].want && !strstr(error, rows[i].want))
            fail_msg("row %zu: %s", i, error);
        assert_int_equal(exit_of(answer), rows[i].want != NULL);
        assert_int_equal(release_asked[0] != NULL, rows[i].want == NULL);
        assert_null(release_asked[1]);
        if (!rows[i].want) {
            json_t *asked_for = release_asked[0];
            assert_string_equal(text_of(at(answer, 0), "done"), "released");
            assert_true(json_is_true(json_object_get(asked_for, "asked")));
            assert_int_equal(json_is_true(json_object_get(asked_for, "may_duplicate")),
                rows[i].forced);
            assert_int_equal(
                int_of(at(json_object_get(asked_for, "skip"), 0), "index"), 3);
        }
        json_decref(release_asked[0]);
        release_asked[0] = NULL;
        json_decref(answer);
    }
}

static void test_trace(void **state)
{
    (void)state;
    json_t *answer = ask_node("trace", "{\"what\":\"a@b.example\"}", timelines);
    check_events(answer, "(none)-(none) a-received a-delivered b-received b-takeover ");
    json_decref(answer);
    answer = ask_node("trace", "{\"what\":\"a@b.example\",\"limit\":1}", timelines);
    check_events(answer, "b-received b-takeover ");
    json_decref(answer);
    answer = ask_node("trace", "{\"what\":\"a@b.example\"}", nothing);
    assert_int_equal(exit_of(answer), 1);
    json_decref(answer);
}

static void test_events(void **state)
{
    (void)state;
    json_t *answer = ask_node("events", "{\"last\":3}", timelines);
    assert_int_equal(json_array_size(answer), 4);
    json_decref(answer);
    answer = ask_node("events", "{\"last\":-1}", timelines);
    assert_int_equal(exit_of(answer), 1);
    json_decref(answer);
}

/* --- questions of others --- */

static json_t *answer_to(uint64_t token)
{
    pthread_mutex_lock(&lock);
    while (!given[token])
        pthread_cond_wait(&told, &lock);
    json_t *answer = given[token];
    pthread_mutex_unlock(&lock);
    return answer;
}

static void question(uint64_t token, const char *text)
{
    control_question(handlers, token, parse(text));
}

static void test_questions(void **state)
{
    (void)state;
    static const char *const refused[] = {"{}", "[]", "7",
        "{\"command\":\"reload\",\"args\":{}}", "{\"command\":\"flood\",\"args\":{}}",
        "{\"command\":\"status\",\"args\":[]}", "{\"command\":\"drain\",\"args\":{}}",
        "{\"command\":\"events\",\"args\":{\"follow\":true}}"};
    uint64_t token = 0;
    for (; token < sizeof(refused) / sizeof(refused[0]); token++) {
        question(token, refused[token]);
        assert_int_equal(int_of(answer_to(token), "exit"), 1);
        assert_string_equal(text_of(answer_to(token), "error"),
            "this node does not answer that to other nodes");
    }
    question(token, "{\"command\":\"status\",\"args\":{\"part\":true},\"by\":\"mx2\"}");
    json_t *s = at(json_object_get(answer_to(token), "lines"), 0);
    assert_string_equal(
        text_of(at(json_object_get(s, "nodes"), 0), "config"), "0000000000000011");
    assert_string_equal(
        text_of(json_object_get(s, "settings"), "routes"), "0000000000000002");
    token++;
    question(token, "{\"command\":\"queue ls\",\"args\":{\"page\":true,\"limit\":2}}");
    json_t *lines = json_object_get(answer_to(token), "lines");
    assert_int_equal(json_array_size(lines), 3);
    assert_true(json_is_true(json_object_get(at(lines, 2), "page_end")));
}

static bool cut_seen;
static void flood_done(json_t *answer, void *ctx)
{
    (void)ctx;
    pthread_mutex_lock(&lock);
    cut_seen = json_is_true(json_object_get(answer, "cut")) && flood_cancelled &&
               json_array_size(json_object_get(answer, "lines")) == 10;
    json_decref(answer);
    given[199] = json_true();
    pthread_cond_signal(&told);
    pthread_mutex_unlock(&lock);
}

static void run_flood(struct mail *mail, void *owner)
{
    json_t *args = json_object();
    (void)mail;
    (void)owner;
    control_run(control, "flood", args, NULL, 80, flood_done, NULL);
    json_decref(args);
}

static void test_answers_are_bounded(void **state)
{
    (void)state;
    static struct mail mail;
    mailbox_post(loop_mailbox(loop), &mail, run_flood);
    answer_to(199);
    assert_true(cut_seen);
}

/* --- the operator --- */

static void check_refused(const char *command, const char *args, const char *want)
{
    last_admin.node[0] = '?';
    json_t *answer = ask_node(command, args, nothing);
    assert_int_equal(exit_of(answer), 1);
    if (!strstr(text_of(end_of(answer), "error"), want))
        fail_msg("%s: %s", command, text_of(end_of(answer), "error"));
    json_decref(answer);
}

static void test_admin(void **state)
{
    (void)state;
    json_t *answer = ask_node("drain", "{\"node\":\"mx2\"}", nothing);
    assert_int_equal(exit_of(answer), 0);
    assert_string_equal(text_of(at(answer, 0), "text"), "mx2 it is done");
    assert_null(json_object_get(at(answer, 0), "token"));
    assert_int_equal(last_admin.op, ENGINE_DRAIN);
    assert_string_equal(last_admin.node, "mx2");
    json_decref(answer);
    check_refused("remove", "{\"node\":\"mx3\"}", "mx3 holds the only copy");
    assert_int_equal(last_admin.op, ENGINE_REMOVE);
    check_refused("drain", "{\"node\":\"mx4\"}", "no member has the name \"mx4\"");
    check_refused("drain", "{}", "no member has the name");
    check_refused("undrain", "{\"node\":7}", "node must be a text");
    check_refused("force-fence", "{\"node\":\"mx2\"}", "only for a node that cannot run");
    check_refused(
        "force-fence", "{\"node\":\"mx2\",\"powered_off\":\"mx3\"}", "cannot run");
    check_refused("force-config", "{}", "wants their names");
    check_refused("force-config", "{\"powered_off\":\"mx2,mx9\"}", "\"mx9\"");
    assert_int_equal(last_admin.node[0], '?');
    answer =
        ask_node("force-fence", "{\"node\":\"mx2\",\"powered_off\":\"mx2\"}", nothing);
    assert_int_equal(exit_of(answer), 0);
    assert_int_equal(last_admin.op, ENGINE_FORCE_FENCE);
    json_decref(answer);
    answer = ask_node("force-config", "{\"powered_off\":\"mx1,mx2\"}", nothing);
    assert_int_equal(exit_of(answer), 0);
    assert_string_equal(last_admin.node, "mx1,mx2");
    json_decref(answer);
    answer = ask_node("cluster token", "{\"for\":\"2h\"}", nothing);
    assert_string_equal(text_of(at(answer, 0), "token"), "T0KEN");
    assert_int_equal(int_of(at(answer, 0), "for_s"), 7200);
    json_decref(answer);
    check_refused("cluster token", "{\"for\":\"8d\"}", "from 1m to 7d");
    check_refused("cluster token", "{\"for\":\"1s\"}", "from 1m to 7d");
}

int main(void)
{
    if (!mkdtemp(dir))
        return 1;
    snprintf(path, sizeof(path), "%s/control.sock", dir);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_status),
        cmocka_unit_test(test_status_alarms),
        cmocka_unit_test(test_status_garbage),
        cmocka_unit_test(test_node_ls),
        cmocka_unit_test(test_queue_ls),
        cmocka_unit_test(test_queue_ls_garbage),
        cmocka_unit_test(test_queue_ls_of_the_gone),
        cmocka_unit_test(test_queue_shape),
        cmocka_unit_test(test_queue_show),
        cmocka_unit_test(test_quarantine),
        cmocka_unit_test(test_release),
        cmocka_unit_test(test_trace),
        cmocka_unit_test(test_events),
        cmocka_unit_test(test_questions),
        cmocka_unit_test(test_answers_are_bounded),
        cmocka_unit_test(test_admin),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
