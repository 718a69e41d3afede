/* SPDX-License-Identifier: Apache-2.0 */
/* Plays tests/scenario/NAME.client against the SMTP client engine: canned servers,
 * virtual time. Every file is played with whole lines and octet by octet, and then once
 * for each octet of the server's side with the connection cut there, to see that no
 * message is ever called delivered without its 250, lost without a word, or in doubt
 * without a reason.
 *
 * A file, line by line:
 *   # text                    comment
 *   config KEY=VALUE ...      tls=none|may|encrypt|verify implicit=1 user= password=
 * eightbit=send chunking=prefer|never tx from=A to=A,B,...      a transaction for the
 * next `ready`; also size=N|auto (auto: the body's) 8bit=1 utf8=1 nocrlf=1 envid=
 * ret=full|hdrs notify=N orcpt=A body TEXT                 its body; \r \n \t \\ \xHH;
 * "*N TEXT" repeats it N times later                     the body's first pull says "not
 * yet" (see: arrive) S: LINE                   the server says LINE and CRLF;  s: TEXT
 * without CRLF C: LINE                   the client has said LINE and CRLF E: EVENT the
 * engine has called back: starttls, ready, final, rcpt I ERR CODE STATUS PHASE [dup]
 * [many] [blames], done N [failed] [stale] [dup] [dsn], closed ERR PHASE CODE STATUS
 * [clear] [blames] text TEXT                 the text of the last rcpt or closed event
 * has TEXT in it wait MS                   time passes; the engine is ticked gate
 * closed|hold|open|N   what the owner does with the last write; N: N octets at a time go
 * the owner writes on after `hold`, or the next N octets arrive | tls ok|fail | eof |
 * quit | abort ERR | stall | unstall (the socket takes nothing) All that the client said
 * and all events must have been asked for at the end. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>

#include <dirent.h>

#include "tests/unit/client_play.h"

/* --- the file --- */

static struct slice unescape(struct play *p, struct slice s)
{
    char *out = arena_alloc(p->arena, s.len + 1);
    size_t n = 0;
    for (size_t i = 0; i < s.len; i++) {
        char c = s.ptr[i];
        if (c == '\\' && i + 1 < s.len) {
            c = s.ptr[++i];
            if (c == 'x' && i + 2 < s.len) {
                char hex[3] = {s.ptr[i + 1], s.ptr[i + 2], 0};
                c = (char)strtoul(hex, NULL, 16);
                i += 2;
            } else {
                c = c == 'r' ? '\r' : c == 'n' ? '\n' : c == 't' ? '\t' : c;
            }
        }
        out[n++] = c;
    }
    return slice_make(out, n);
}

static struct slice word(struct slice *line)
{
    *line = slice_trim(*line);
    struct slice w = slice_head(*line, slice_find(*line, ' '));
    *line = slice_trim(slice_from(*line, w.len));
    return w;
}

static uint64_t number(struct play *p, struct slice s)
{
    uint64_t n = 0;
    if (!slice_u64(s, UINT32_MAX, &n))
        fail_at(p, "a number was expected", s);
    return n;
}

static void config_line(struct play *p, struct slice line)
{
    static const char *const policies[] = {"none", "may", "encrypt", "verify"};
    while (line.len) {
        struct slice w = word(&line);
        size_t eq = slice_find(w, '=');
        struct slice key = slice_head(w, eq), value = unescape(p, slice_from(w, eq + 1));
        for (int i = 0; i < 4 && slice_eq(key, SLICE("tls")); i++)
            if (slice_eq(value, slice_str(policies[i])))
                p->config.tls = (enum delivery_tls)i;
        if (slice_eq(key, SLICE("implicit")))
            p->config.tls_implicit = true;
        else if (slice_eq(key, SLICE("user")))
            p->config.user = value;
        else if (slice_eq(key, SLICE("password")))
            p->config.password = value;
        else if (slice_eq(key, SLICE("eightbit")))
            p->config.eight_bit = SMTP_EIGHT_BIT_SEND;
        else if (slice_eq(key, SLICE("chunking")))
            p->config.chunking = slice_eq(value, SLICE("prefer")) ? SMTP_CHUNKING_PREFER
                                                                  : SMTP_CHUNKING_NEVER;
    }
}

/* "a@x,b@y" or "N*a@x". */
static void add_rcpts(struct play *p, struct planned *plan, struct slice list)
{
    plan->rcpts = arena_alloc(p->arena, RCPT_MAX * sizeof(*plan->rcpts));
    plan->tx.rcpts = plan->rcpts;
    size_t star = slice_find(list, '*');
    if (star < list.len) {
        plan->tx.rcpt_count = (unsigned)number(p, slice_head(list, star));
        for (unsigned i = 0; i < plan->tx.rcpt_count; i++)
            plan->rcpts[i].address = slice_from(list, star + 1);
        return;
    }
    while (list.len) {
        struct slice a = slice_head(list, slice_find(list, ','));
        plan->rcpts[plan->tx.rcpt_count++].address = a;
        list = slice_from(list, a.len + 1);
    }
}

static void tx_word(
    struct play *p, struct planned *plan, struct slice key, struct slice value)
{
    if (slice_eq(key, SLICE("from")))
        plan->tx.reverse_path = value;
    else if (slice_eq(key, SLICE("to")))
        add_rcpts(p, plan, value);
    else if (slice_eq(key, SLICE("size")) && slice_eq(value, SLICE("auto")))
        plan->size_auto = true;
    else if (slice_eq(key, SLICE("size")))
        plan->tx.size = number(p, value);
    else if (slice_eq(key, SLICE("8bit")))
        plan->tx.eight_bit = true;
    else if (slice_eq(key, SLICE("utf8")))
        plan->tx.smtputf8 = true;
    else if (slice_eq(key, SLICE("nocrlf")))
        plan->tx.lacks_final_crlf = true;
    else if (slice_eq(key, SLICE("envid")))
        plan->tx.envid = value;
    else if (slice_eq(key, SLICE("ret")))
        plan->tx.ret = slice_eq(value, SLICE("full")) ? SMTP_RET_FULL : SMTP_RET_HDRS;
    else if (slice_eq(key, SLICE("notify")))
        plan->rcpts[0].notify = (uint8_t)number(p, value);
    else if (slice_eq(key, SLICE("orcpt")))
        plan->rcpts[0].orcpt = value;
    else
        fail_at(p, "unknown key", key);
}

static void tx_line(struct play *p, struct slice line)
{
    struct planned *plan = &p->plan[p->planned++];
    buf_init(&plan->body, 16 << 20);
    while (line.len) {
        struct slice w = word(&line);
        size_t eq = slice_find(w, '=');
        tx_word(p, plan, slice_head(w, eq), unescape(p, slice_from(w, eq + 1)));
    }
}

static void body_line(struct play *p, struct slice line)
{
    struct planned *plan = &p->plan[p->planned - 1];
    uint64_t times = 1;
    if (line.len && line.ptr[0] == '*') {
        line = slice_from(line, 1);
        times = number(p, word(&line));
    }
    struct slice text = unescape(p, line);
    while (times-- > 0)
        buf_append(&plan->body, text);
    if (plan->size_auto)
        plan->tx.size = buf_len(&plan->body);
}

static void expect_said(struct play *p, struct slice line)
{
    if (!p->strict)
        return;
    struct slice said = buf_slice(&p->said);
    size_t lf = slice_find(said, '\n');
    struct slice got = slice_head(said, lf > 0 ? lf - 1 : 0);
    if (lf == said.len || !slice_eq(got, unescape(p, line)))
        fail_at(p, "the client said something else", said);
    buf_consume(&p->said, lf + 1);
}

/* A big body: so many octets are to have been said, whatever they are. */
static void expect_octets(struct play *p, struct slice line)
{
    uint64_t n = number(p, word(&line));
    if (p->strict && buf_len(&p->said) < n)
        fail_at(p, "fewer octets", slice_make("", 0));
    if (p->strict)
        buf_consume(&p->said, n);
}

static void expect_event(struct play *p, struct slice line)
{
    if (!p->strict)
        return;
    struct slice all = buf_slice(&p->events);
    size_t lf = slice_find(all, '\n');
    if (lf == all.len || !slice_eq(slice_head(all, lf), line))
        fail_at(p, "another event", all);
    buf_consume(&p->events, lf + 1);
}

static void expect_text(struct play *p, struct slice want)
{
    struct slice text = buf_slice(&p->last_text);
    if (p->strict && !memmem(text.ptr, text.len, want.ptr, want.len))
        fail_at(p, "another text", text);
}

static void gate_line(struct play *p, struct slice line)
{
    p->gate = slice_eq(line, SLICE("open"))     ? GATE_OPEN
              : slice_eq(line, SLICE("closed")) ? GATE_CLOSED
              : slice_eq(line, SLICE("hold"))   ? GATE_HOLD
                                                : GATE_STEPS;
    p->gate_step = p->gate == GATE_STEPS ? number(p, line) : SIZE_MAX;
}

static void wait_line(struct play *p, struct slice line)
{
    p->now = mono_add_ms(p->now, (int64_t)number(p, line));
    smtp_client_tick(p->c, p->now);
}

static void abort_line(struct play *p)
{
    smtp_client_abort(p->c, ERR_SHUTTING_DOWN, p->now);
}

/* What needs the connection; begins it when that has not happened yet. */
static void act(struct play *p, struct slice verb, struct slice line)
{
    if (!p->c)
        p->c = smtp_client_new(&p->config, &handler, p, p->now);
    start_next(p);
    if (slice_eq(verb, SLICE("S:")))
        feed(p, unescape(p, arena_printf(p->arena, "%.*s\\r\\n", SLICE_ARG(line))));
    else if (slice_eq(verb, SLICE("s:")))
        feed(p, unescape(p, line));
    else if (p->cut)
        return; /* the rest is about a connection that is no more */
    else if (slice_eq(verb, SLICE("wait")))
        wait_line(p, line);
    else if (slice_eq(verb, SLICE("tls")))
        smtp_client_tls_started(p->c, slice_eq(line, SLICE("ok")), p->now);
    else if (slice_eq(verb, SLICE("eof")))
        smtp_client_eof(p->c, p->now);
    else if (slice_eq(verb, SLICE("quit")))
        smtp_client_quit(p->c, p->now);
    else if (slice_eq(verb, SLICE("abort")))
        abort_line(p);
    else if (slice_eq(verb, SLICE("go")) && !p->closed)
        write_final(p, p->gate_step);
    else if (slice_eq(verb, SLICE("arrive"))) {
        p->later = false;
        smtp_client_body_ready(p->c, p->now);
    } else if (slice_eq(verb, SLICE("unstall")))
        p->stalled = false;
    flush(p);
}

static void play_line(struct play *p, struct slice line)
{
    static const struct {
        struct slice verb;
        void (*run)(struct play *p, struct slice line);
    } plain[] = {
        {SLICE_INIT("config"), config_line},
        {SLICE_INIT("tx"), tx_line},
        {SLICE_INIT("body"), body_line},
        {SLICE_INIT("C:"), expect_said},
        {SLICE_INIT("N:"), expect_octets},
        {SLICE_INIT("E:"), expect_event},
        {SLICE_INIT("text"), expect_text},
        {SLICE_INIT("gate"), gate_line},
    };
    if (line.len == 0 || line.ptr[0] == '#')
        return;
    struct slice verb = slice_head(line, slice_find(line, ' '));
    line = slice_from(line, verb.len + 1);
    for (size_t i = 0; i < sizeof(plain) / sizeof(*plain); i++)
        if (slice_eq(verb, plain[i].verb)) {
            plain[i].run(p, line);
            return;
        }
    if (slice_eq(verb, SLICE("whole")))
        return;
    if (slice_eq(verb, SLICE("later")))
        p->later = true;
    else if (slice_eq(verb, SLICE("stall")))
        p->stalled = true;
    else
        act(p, verb, line);
}

static void play_init(struct play *p, const char *file)
{
    *p = (struct play){.file = file, .strict = true, .cut_at = SIZE_MAX};
    p->arena = arena_new(65536);
    p->now.ns = 1000 * NS_PER_S;
    p->config.ehlo_name = SLICE("relay.example.org");
    buf_init(&p->said, 64 << 20);
    buf_init(&p->events, 1 << 20);
    buf_init(&p->last_text, 4096);
}

static void play_fini(struct play *p)
{
    for (unsigned i = 0; i < p->planned; i++)
        buf_fini(&p->plan[i].body);
    smtp_client_free(p->c);
    buf_fini(&p->said);
    buf_fini(&p->events);
    buf_fini(&p->last_text);
    arena_free(p->arena);
}

static void play(struct play *p, struct slice text)
{
    while (text.len) {
        size_t lf = slice_find(text, '\n');
        p->line++;
        play_line(p, slice_head(text, lf));
        text = slice_from(text, lf + 1);
    }
    if (p->strict && buf_len(&p->said))
        fail_at(p, "the client said more", buf_slice(&p->said));
    if (p->strict && buf_len(&p->events))
        fail_at(p, "more events", buf_slice(&p->events));
}

static void cut_everywhere(const struct play *whole, struct slice text)
{
    /* Very long ones are cut at some places, to keep the test short. */
    size_t step = whole->fed > 4000 ? 97 : 1;
    for (size_t at = 0; at < whole->fed; at += step) {
        struct play p;
        play_init(&p, whole->file);
        struct fate reference[TX_MAX * 4];
        memcpy(reference, whole->fates, sizeof(reference));
        p.reference = reference;
        p.reference_count = whole->fate_count;
        p.strict = false;
        p.cut_at = at;
        play(&p, text);
        assert_int_equal(p.started, p.done);
        assert_true(p.closed);
        play_fini(&p);
    }
}

/* The last write goes out octet by octet and stops at each: in doubt exactly when all of
 * it, the whole of CRLF.CRLF, may have left. */
static void test_last_write_cut(void **state)
{
    (void)state;
    const size_t whole = 9; /* hi CRLF CRLF . CRLF */
    for (size_t left = 0; left <= whole; left++) {
        char text[1024];
        snprintf(text, sizeof(text),
            "gate %zu\ntx from=a@x.org to=b@y.org\nbody hi\\r\\n\\r\\n\nS: 220 x\nS: "
            "250-x\n"
            "S: 250 PIPELINING\nS: 250 ok\nS: 250 ok\nS: 354 go\n%s\neof\n",
            left, left ? "go" : "");
        struct play p;
        play_init(&p, "last write");
        p.strict = false;
        play(&p, slice_str(text));
        assert_int_equal(p.fate_count, 1);
        assert_int_equal(p.fates[0].err, ERR_CONNECTION_LOST);
        assert_int_equal(p.fates[0].dup, left == whole);
        play_fini(&p);
    }
}

static struct slice read_file(const char *path)
{
    static char text[1 << 20];
    FILE *f = fopen(path, "r");
    assert_non_null(f);
    size_t n = fread(text, 1, sizeof(text), f);
    fclose(f);
    return slice_make(text, n);
}

static void test_scenario(void **state)
{
    const char *path = *state;
    struct slice text = read_file(path);
    for (int by_octet = 0; by_octet < 2; by_octet++) {
        struct play p;
        play_init(&p, strrchr(path, '/') + 1);
        p.by_octet = by_octet && !memmem(text.ptr, text.len, "\nwhole\n", 7);
        play(&p, text);
        if (!by_octet)
            cut_everywhere(&p, text);
        play_fini(&p);
    }
}

static int by_name(const void *a, const void *b)
{
    return strcmp(
        ((const struct CMUnitTest *)a)->name, ((const struct CMUnitTest *)b)->name);
}

int main(void)
{
    static struct CMUnitTest tests[256];
    static char paths[256][1024];
    size_t count = 0;
    DIR *dir = opendir(TEST_SOURCE_DIR "/scenario");
    if (!dir)
        return 1;
    for (struct dirent *d = readdir(dir); d && count < 255; d = readdir(dir)) {
        if (!slice_ends_nocase(slice_str(d->d_name), SLICE(".client")))
            continue;
        snprintf(paths[count], sizeof(paths[count]), "%s/%s", TEST_SOURCE_DIR "/scenario",
            d->d_name);
        tests[count] = (struct CMUnitTest){.name = strrchr(paths[count], '/') + 1,
            .test_func = test_scenario,
            .initial_state = paths[count]};
        count++;
    }
    closedir(dir);
    tests[count++] =
        (struct CMUnitTest){.name = "~last write", .test_func = test_last_write_cut};
    qsort(tests, count, sizeof(*tests), by_name);
    return count < 2 ||
           _cmocka_run_group_tests("scenarios", tests, count, NULL, NULL) != 0;
}
