/* SPDX-License-Identifier: Apache-2.0 */
#include "base/log.h"

#include <fcntl.h>
#include <jansson.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/alloc.h"
#include "base/metrics.h"
#include "base/random.h"
#include "base/utf8.h"

static const struct msg_id some_id = {
    {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16}};
static char line[RECORD_LINE_MAX];

static void start(struct record *r)
{
    record_init(r, LOG_EV_DELIVERED);
    r->time.ms = INT64_C(1795362218123);
    record_msg_id(r, "id", some_id);
}

static void test_text(void **state)
{
    (void)state;
    static const struct {
        struct slice value;
        const char *want;
    } rows[] = {
        {SLICE_INIT("a@b.example"), "a@b.example"},
        {SLICE_INIT(""), "\"\""},
        {SLICE_INIT("two words"), "\"two words\""},
        {SLICE_INIT("x\nforged id=1"), "\"x\\nforged id=1\""},
        {SLICE_INIT("say \"hi\""), "\"say \\\"hi\\\"\""},
        {SLICE_INIT("back\\slash"), "\"back\\\\slash\""},
        {SLICE_INIT("a=b"), "\"a=b\""},
        {SLICE_INIT("nul\0nul"), "\"nul\\x00nul\""},
        {SLICE_INIT("\x1b[31mred"), "\"\\x1b[31mred\""},
        {SLICE_INIT("\xc3\xa9"), "\"\xc3\xa9\""},
        {SLICE_INIT("\xff\xc3"), "\"\\xff\\xc3\""},
        {SLICE_INIT("\xc0\xaf"), "\"\\xc0\\xaf\""},
        {SLICE_INIT("\xc2\x85"), "\"\\u0085\""},
        {SLICE_INIT("\xe2\x80\xae"
                    "evil"),
            "\"\\u202eevil\""},
        {SLICE_INIT("\xf3\xa0\x81\x81"), "\"\\U000e0041\""},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct record r;
        char want[512];
        start(&r);
        record_slice(&r, "to", rows[i].value);
        size_t len = record_render_text(&r, line, sizeof(line));
        snprintf(want, sizeof(want),
            "2026-11-22T15:43:38.123Z info delivered id=%s to=%s", r.id_text,
            rows[i].want);
        assert_string_equal(line, want);
        assert_int_equal(len, strlen(want));
    }
}

static void test_types(void **state)
{
    (void)state;
    struct record r;
    struct ipaddr ip;
    struct slice value;
    assert_true(ipaddr_parse(SLICE("2001:db8::1"), &ip));
    start(&r);
    record_int(&r, "zero", 0);
    record_int(&r, "least", INT64_MIN);
    record_int(&r, "most", INT64_MAX);
    record_bool(&r, "yes", true);
    record_ip(&r, "ip", ip);
    record_printf(&r, "delay", "%d.%d", 3, 4);
    record_msg_id(&r, "of", some_id);
    record_render_event(&r, line, sizeof(line));
    assert_non_null(strstr(line, " zero=0 least=-9223372036854775808 "
                                 "most=9223372036854775807 yes=true ip=2001:db8::1 "
                                 "delay=3.4 of=0"));
    assert_true(record_get(&r, "delay", &value) && slice_eq(value, SLICE("3.4")));
    assert_true(record_get(&r, "id", &value) && value.len == MSG_ID_TEXT);
    assert_false(record_get(&r, "del", &value));
}

static void test_long_values_are_cut(void **state)
{
    (void)state;
    struct record r;
    struct slice value;
    char big[600];
    memset(big, 'x', sizeof(big));
    start(&r);
    record_slice(&r, "exact", slice_make(big, RECORD_VALUE_MAX));
    record_slice(&r, "over", slice_make(big, RECORD_VALUE_MAX + 1));
    static const char euro[] = {'\xe2', '\x82', '\xac'};
    memcpy(big + RECORD_VALUE_MAX - 4, euro, sizeof(euro));
    record_slice(&r, "euro", slice_make(big, sizeof(big)));
    assert_true(record_get(&r, "exact", &value));
    assert_int_equal(value.len, RECORD_VALUE_MAX);
    assert_true(record_get(&r, "over", &value));
    assert_int_equal(value.len, RECORD_VALUE_MAX);
    assert_memory_equal(value.ptr + value.len - 4, "x...", 4);
    assert_true(record_get(&r, "euro", &value));
    assert_true(utf8_valid(value));
    assert_false(r.cut);
    for (int i = 0; i < 4; i++)
        record_slice(&r, "more", slice_make(big, sizeof(big)));
    assert_true(r.cut);
    record_render_text(&r, line, sizeof(line));
    assert_string_equal(line + strlen(line) - 9, " cut=true");
}

/* Whatever is in there, and however little room: JSON that a strict parser takes. */
static void check_json(const struct record *r, size_t room)
{
    json_error_t why;
    size_t len = record_render_json(r, line, room);
    assert_true(len < room);
    assert_int_equal(strlen(line), len);
    assert_true(utf8_valid(slice_make(line, len)));
    assert_null(strchr(line, '\n'));
    json_t *json = json_loadb(line, len, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, &why);
    if (!json)
        fail_msg("%s in %s", why.text, line);
    assert_string_equal(json_string_value(json_object_get(json, "event")), "delivered");
    json_decref(json);
}

static void test_json(void **state)
{
    (void)state;
    struct record r;
    start(&r);
    record_str(&r, "to", "a@b");
    record_int(&r, "size", 12);
    record_bool(&r, "secure", false);
    record_slice(&r, "reply", SLICE("250 \"ok\"\n\xff\xe2\x80\xae\xf0\x9f\x98\x80"));
    record_render_json(&r, line, sizeof(line));
    char want[512];
    snprintf(want, sizeof(want),
        "{\"time\":\"2026-11-22T15:43:38.123Z\",\"event\":\"delivered\",\"id\":\"%s\","
        "\"level\":\"info\",\"to\":\"a@b\",\"size\":12,\"secure\":false,"
        "\"reply\":\"250 \\\"ok\\\"\\u000a\\ufffd\\u202e\xf0\x9f\x98\x80\"}",
        r.id_text);
    assert_string_equal(line, want);
}

static void test_hostile_bytes(void **state)
{
    (void)state;
    for (int round = 0; round < 2000; round++) {
        struct record r;
        unsigned char bytes[700];
        start(&r);
        for (int i = 0; i < 5; i++) {
            char key[16];
            size_t len = (size_t)random_below(sizeof(bytes));
            random_bytes(bytes, len);
            snprintf(key, sizeof(key), "k%d", i);
            record_slice(&r, key, slice_make(bytes, len));
        }
        check_json(&r, sizeof(line));
        check_json(&r, 512 + (size_t)random_below(4000));
        size_t len = record_render_text(&r, line, 512 + (size_t)random_below(4000));
        assert_true(utf8_valid(slice_make(line, len)));
        for (size_t i = 0; i < len; i++)
            assert_true((unsigned char)line[i] >= 0x20 && line[i] != 0x7f);
    }
}

static void test_pack(void **state)
{
    (void)state;
    struct record r, back;
    unsigned char packed[RECORD_PACKED_MAX + 1];
    char again[RECORD_LINE_MAX];
    start(&r);
    record_slice(&r, "to", SLICE("a\0b"));
    record_int(&r, "n", -5);
    record_bool(&r, "b", true);
    size_t len = record_pack(&r, packed, sizeof(packed));
    assert_true(len > 0);
    assert_true(record_unpack(slice_make(packed, len), &back));
    record_render_json(&r, line, sizeof(line));
    record_render_json(&back, again, sizeof(again));
    assert_string_equal(line, again);
    assert_memory_equal(back.id.bytes, some_id.bytes, MSG_ID_BYTES);
    for (size_t cut = 0; cut < len; cut++) {
        char *copy = mem_alloc(cut); /* so that ASan sees a byte too far */
        memcpy(copy, packed, cut);
        assert_false(record_unpack(slice_make(copy, cut), &back));
        free(copy);
        assert_int_equal(record_pack(&r, packed, cut), 0);
        record_pack(&r, packed, sizeof(packed));
    }
    assert_false(record_unpack(slice_make(packed, len + 1), &back));
}

static void test_pack_refuses(void **state)
{
    (void)state;
    struct record r, back;
    unsigned char packed[RECORD_PACKED_MAX];
    start(&r);
    record_int(&r, "n", 55);
    size_t len = record_pack(&r, packed, sizeof(packed));
    /* the pair is the tail: type, 1, 'n', 0, 2, '5', '5' */
    static const struct {
        size_t back;
        unsigned char byte;
    } rows[] = {{7, 9}, {7, 2}, {6, 0}, {6, 200}, {5, 'N'}, {5, '"'}, {3, 3}, {3, 1},
        {2, 'x'}, {2, '0'}, {1, '.'}};
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        unsigned char before = packed[len - rows[i].back];
        packed[len - rows[i].back] = rows[i].byte;
        assert_false(record_unpack(slice_make(packed, len), &back));
        packed[len - rows[i].back] = before;
    }
    assert_true(record_unpack(slice_make(packed, len), &back));
    packed[0] = 2; /* a version to come */
    assert_false(record_unpack(slice_make(packed, len), &back));
}

static void test_biggest_record_packs(void **state)
{
    (void)state;
    struct record r;
    unsigned char packed[RECORD_PACKED_MAX];
    char x[RECORD_VALUE_MAX] = {0};
    for (unsigned event = 0; event < LOG_EVENT_COUNT; event++) {
        record_init(&r, (enum log_event)event);
        record_msg_id(&r, "id", some_id);
        for (size_t len = sizeof(x); len; len /= 2)
            while (!r.cut)
                record_slice(&r, "k", slice_make(x, len)),
                    r.cut = r.len > RECORD_BYTES - len;
        assert_true(record_pack(&r, packed, sizeof(packed)) > 0);
    }
}

static unsigned sink_calls;
static void count_sink(const struct record *r, void *ctx)
{
    (void)r;
    (void)ctx;
    sink_calls++;
}

static void *other_thread(void *arg)
{
    (void)arg;
    log_say(LOG_EV_STORE, "from a thread that ends");
    return NULL;
}

static size_t read_all(int fd, char *out, size_t size)
{
    ssize_t n = read(fd, out, size - 1);
    size_t len = n > 0 ? (size_t)n : 0;
    out[len] = '\0';
    return len;
}

/* Standard error is a pipe here; what is written, when, and what a full one costs. */
static void test_output(void **state)
{
    (void)state;
    int fds[2], saved = dup(STDERR_FILENO);
    pthread_t thread;
    char got[65536];
    assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
    fcntl(fds[0], F_SETFL, O_NONBLOCK);
    dup2(fds[1], STDERR_FILENO);
    log_open(LOG_INFO, false, "node1");
    log_add_sink(count_sink, NULL);
    log_say(LOG_EV_STORE, "one");
    assert_int_equal(read_all(fds[0], got, sizeof(got)), 0);
    log_flush();
    read_all(fds[0], got, sizeof(got));
    assert_non_null(strstr(got, " info store text=one\n"));
    log_say(LOG_EV_CONNECT, "below the level");
    log_say(LOG_EV_STORE, "first");
    log_say(LOG_EV_ALARM, "urgent");
    read_all(fds[0], got, sizeof(got));
    assert_non_null(strstr(got, "text=first\n"));
    assert_non_null(strstr(got, "text=urgent\n"));
    assert_null(strstr(got, "below"));
    assert_int_equal(sink_calls, 4);
    pthread_create(&thread, NULL, other_thread, NULL);
    pthread_join(thread, NULL);
    read_all(fds[0], got, sizeof(got));
    assert_non_null(strstr(got, "thread that ends"));
    dup2(saved, STDERR_FILENO);
    close(saved);
    close(fds[0]);
    close(fds[1]);
}

static void test_sweeper(void **state)
{
    (void)state;
    int fds[2], saved = dup(STDERR_FILENO);
    char got[4096];
    assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
    dup2(fds[1], STDERR_FILENO);
    log_say(LOG_EV_STORE, "left lying");
    read_all(fds[0], got, sizeof(got)); /* blocks until the sweeper comes */
    assert_non_null(strstr(got, "left lying"));
    dup2(saved, STDERR_FILENO);
    close(saved);
    close(fds[0]);
    close(fds[1]);
}

static void test_stuck_reader(void **state)
{
    (void)state;
    int fds[2], saved = dup(STDERR_FILENO);
    static char got[1 << 17];
    assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
    fcntl(fds[0], F_SETFL, O_NONBLOCK);
    dup2(fds[1], STDERR_FILENO);
    int64_t lost_before = metric_read(METRIC_log_lines_lost_total);
    struct mono started = mono_now();
    for (int i = 0; i < 20000; i++)
        log_say(LOG_EV_STORE, "a line of some length to fill the pipe, number %d", i);
    log_flush();
    int64_t lost = metric_read(METRIC_log_lines_lost_total) - lost_before;
    assert_true(mono_diff_ms(mono_now(), started) < 5000);
    assert_true(lost > 10000);
    read_all(fds[0], got, sizeof(got));
    log_say(LOG_EV_ALARM, "readable again");
    read_all(fds[0], got, sizeof(got));
    dup2(saved, STDERR_FILENO);
    close(saved);
    close(fds[0]);
    close(fds[1]);
    char want[64];
    snprintf(
        want, sizeof(want), "baton: %lld log lines were lost here\n", (long long)lost);
    assert_non_null(strstr(got, want));
    assert_non_null(strstr(got, "readable again"));
}

static void test_tables(void **state)
{
    (void)state;
    enum log_event event;
    enum log_level level;
    for (unsigned i = 0; i < LOG_EVENT_COUNT; i++) {
        assert_true(
            log_event_parse(slice_str(log_event_name((enum log_event)i)), &event));
        assert_int_equal(event, i);
        assert_true(strlen(log_event_meaning((enum log_event)i)) > 0);
    }
    assert_true(log_event_is_of_message(LOG_EV_BOUNCED));
    assert_false(log_event_is_of_message(LOG_EV_START));
    assert_true(log_level_parse(SLICE("error"), &level) && level == LOG_ERROR);
    assert_false(log_level_parse(SLICE("loud"), &level));
}

int main(void)
{
    unsetenv("JOURNAL_STREAM");
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_text),
        cmocka_unit_test(test_types),
        cmocka_unit_test(test_long_values_are_cut),
        cmocka_unit_test(test_json),
        cmocka_unit_test(test_hostile_bytes),
        cmocka_unit_test(test_pack),
        cmocka_unit_test(test_pack_refuses),
        cmocka_unit_test(test_biggest_record_packs),
        cmocka_unit_test(test_tables),
        cmocka_unit_test(test_output),
        cmocka_unit_test(test_sweeper),
        cmocka_unit_test(test_stuck_reader),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
