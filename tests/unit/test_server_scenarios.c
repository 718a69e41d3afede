/* SPDX-License-Identifier: Apache-2.0 */
/* Runs tests/scenario/server_*.smtp: a client's and a server's lines, what the handler is
 * told, and virtual time. Each is run with the client's bytes in one piece, byte by byte
 * and in odd pieces, with the same result. The words: config KEY=VALUE ...       before
 * the first line: see take_config C: text                    the client sends a line,
 * CRLF added; \r \n \0 \\ \xHH \s (blank) C! text                    the same without
 * CRLF repeat N text              N lines fill N text                N copies of text, no
 * line ends S: text                    the next line of the server is this; "..." at the
 * end: begins so S> 250                     the next reply, all its lines, has this code
 *   H: text                    the handler was told this, after what the last H: found
 *   H! text                    the handler was never told anything that begins so
 *   answer KIND CODE [STATUS] text     the handler's answer from now on
 *   answer KIND close          no reply, the connection is closed
 *   answer KIND later          none until `now CODE [STATUS] text`, `challenge text` or
 * `forget` tls                        STARTTLS was said: what the client sent is dropped,
 * handshake tick 5m                    time passes, in one step closed, open the engine
 * wants to close, does not hold, release, shutdown, drop (the connection is gone), piece
 * (one piece only) */
#include "tests/unit/server_scenario.h"

#include <glob.h>

/* --- driving the engine --- */

static void collect(struct run *r)
{
    struct buf *out = smtp_server_output(r->server);
    buf_append(&r->output, buf_slice(out));
    buf_consume(out, buf_len(out));
}

static void start(struct run *r)
{
    if (!r->is_new)
        return;
    r->is_new = false;
    r->server = smtp_server_new(&r->config, &HANDLER, r, r->now);
    smtp_server_start(r->server, r->now);
    collect(r);
}

/* Feeds what is waiting, in pieces, as far as it goes. */
static void pump(struct run *r)
{
    size_t used;
    do {
        struct slice all = buf_slice(&r->input);
        size_t piece = r->piece && r->piece < all.len ? r->piece : all.len;
        used = smtp_server_feed(r->server, slice_head(all, piece), r->now);
        buf_consume(&r->input, used);
        collect(r);
        if (smtp_server_tls_pending(r->server))
            break;
    } while (used > 0 && buf_len(&r->input) > 0);
    smtp_server_feed(r->server, SLICE(""), r->now);
    r->is_ready = false;
}

/* --- words --- */

static int hex(char c)
{
    return ascii_is_digit(c) ? c - '0' : ascii_lower(c) - 'a' + 10;
}

static void unescape(struct buf *out, const char *at)
{
    for (; *at; at++) {
        if (*at != '\\') {
            buf_append_char(out, *at);
            continue;
        }
        at++;
        if (*at == 'x') {
            buf_append_char(out, (char)(hex(at[1]) << 4 | hex(at[2])));
            at += 2;
        } else {
            buf_append_char(out, *at == 'r'   ? '\r'
                                 : *at == 'n' ? '\n'
                                 : *at == '0' ? '\0'
                                 : *at == 's' ? ' '
                                              : *at);
        }
    }
}

/* "text" against a pattern that may end in "...". */
static bool matches(struct slice text, const char *pattern)
{
    struct slice p = slice_str(pattern);
    if (slice_ends_nocase(p, SLICE("...")))
        return slice_starts(text, slice_head(p, p.len - 3));
    return slice_eq(text, p);
}

static bool next_line(struct run *r, struct slice *line)
{
    struct slice all = buf_slice(&r->output);
    size_t lf = slice_find(all, '\n');
    if (lf == all.len)
        return false;
    assert_true(lf > 0 && all.ptr[lf - 1] == '\r');
    *line = slice_head(all, lf - 1);
    return true;
}

static void expect_line(struct run *r, const char *want)
{
    struct slice line;
    if (!next_line(r, &line))
        FAIL(r, "the server says nothing, want: %s", want);
    if (!matches(line, want))
        FAIL(r, "the server says: %.*s\n  want: %s", SLICE_ARG(line), want);
    buf_consume(&r->output, line.len + 2);
}

static void expect_reply(struct run *r, const char *code)
{
    struct slice line;
    bool is_last;
    do {
        if (!next_line(r, &line))
            FAIL(r, "no reply, want: %s", code);
        if (!slice_starts(line, slice_str(code)))
            FAIL(r, "the server says: %.*s\n  want: %s", SLICE_ARG(line), code);
        is_last = line.ptr[3] == ' ';
        buf_consume(&r->output, line.len + 2);
    } while (!is_last);
}

static void expect_event(struct run *r, const char *want)
{
    for (unsigned i = r->event_seen; i < r->event_count; i++) {
        if (matches(slice_str(r->events[i]), want)) {
            r->event_seen = i + 1;
            return;
        }
    }
    for (unsigned i = r->event_seen; i < r->event_count; i++)
        print_error("  told: %s\n", r->events[i]);
    FAIL(r, "the handler was not told: %s", want);
}

static void expect_no_event(struct run *r, const char *unwanted)
{
    for (unsigned i = 0; i < r->event_count; i++) {
        if (slice_starts(slice_str(r->events[i]), slice_str(unwanted)))
            FAIL(r, "the handler was told: %s", r->events[i]);
    }
}

static void take_config(struct run *r, char *key, char *value)
{
    struct smtp_server_config *c = &r->config;
    uint64_t number = 0;
    slice_u64(slice_str(value), UINT64_MAX, &number);
    if (!strcmp(key, "line_ends")) {
        c->line_ends = !strcmp(value, "normalise") ? SMTP_LINE_ENDS_NORMALISE
                                                   : SMTP_LINE_ENDS_REJECT;
    } else if (!strcmp(key, "tls")) {
        c->tls_is_active = !strcmp(value, "implicit");
        c->tls = !strcmp(value, "offered")    ? SMTP_TLS_OFFERED
                 : !strcmp(value, "required") ? SMTP_TLS_REQUIRED
                                              : SMTP_TLS_NONE;
    } else if (!strcmp(key, "auth")) {
        snprintf(r->mechanisms, sizeof r->mechanisms, "%s", value);
        for (char *at = r->mechanisms; *at; at++)
            *at = *at == ',' ? ' ' : *at;
        c->auth_mechanisms = r->mechanisms;
    } else if (!strcmp(key, "max_message_bytes")) {
        c->max_message_bytes = number;
    } else if (!strcmp(key, "max_recipients")) {
        c->max_recipients = (uint32_t)number;
    } else if (!strcmp(key, "max_errors")) {
        c->max_errors = (uint32_t)number;
    } else if (!strcmp(key, "max_hops")) {
        c->max_hops = (uint32_t)number;
    } else if (!strcmp(key, "max_header_bytes")) {
        c->max_header_bytes = (uint32_t)number;
    } else if (!strcmp(key, "max_text_line_bytes")) {
        c->max_text_line_bytes = (uint32_t)number;
    } else if (!strcmp(key, "data_rate_bytes")) {
        c->data_rate_bytes = number;
    } else if (!strcmp(key, "no_smtputf8")) {
        c->no_smtputf8 = true;
    } else if (!strcmp(key, "xclient")) {
        c->xclient_allowed = true;
    } else {
        FAIL(r, "unknown config: %s", key);
    }
}

static void word_config(struct run *r, char *rest)
{
    char *save;
    for (char *word = strtok_r(rest, " ", &save); word;
         word = strtok_r(NULL, " ", &save)) {
        char *value = strchr(word, '=');
        if (!value)
            FAIL(r, "config %s", word);
        *value++ = '\0';
        take_config(r, word, value);
    }
}

/* "550 5.1.1 text", "250 text", "close" */
static void parse_answer(char *rest, struct answer *a)
{
    *a = (struct answer){.code = (int)strtol(rest, &rest, 10)};
    while (*rest == ' ')
        rest++;
    char *blank = strchr(rest, ' ');
    if (ascii_is_digit(rest[0]) && rest[1] == '.' && blank) {
        snprintf(a->status, sizeof a->status, "%.*s", (int)(blank - rest), rest);
        rest = blank + 1;
    }
    snprintf(a->text, sizeof a->text, "%s", rest);
}

static void word_answer(struct run *r, char *rest)
{
    char *blank = strchr(rest, ' ');
    if (!blank)
        FAIL(r, "answer %s", rest);
    *blank++ = '\0';
    for (int kind = 0; kind < KIND_COUNT; kind++) {
        struct answer *a = &r->answers[kind];
        if (strcmp(rest, KINDS[kind]) != 0)
            continue;
        if (!strcmp(blank, "later")) {
            *a = (struct answer){.is_later = true};
        } else if (!strncmp(blank, "challenge", 9)) {
            *a = (struct answer){.is_challenge = true};
            snprintf(a->text, sizeof a->text, "%s", blank[9] ? blank + 10 : "");
        } else {
            parse_answer(blank, a);
        }
        return;
    }
    FAIL(r, "unknown kind: %s", rest);
}

/* Answers the oldest open request. */
static void answer_now(struct run *r, struct answer *a)
{
    if (r->open_count == 0)
        FAIL(r, "no request is open");
    struct smtp_request *q = r->open[0];
    memmove(r->open, r->open + 1, --r->open_count * sizeof *r->open);
    bool is_live = smtp_request_is_live(q);
    give(q, a);
    if (r->is_ready != is_live)
        FAIL(r, "ready was %scalled", r->is_ready ? "" : "not ");
    if (!r->server)
        return;
    /* Who does not feed at once has a timer all the same. */
    bool is_idle = smtp_server_wants_input(r->server) && !smtp_server_closing(r->server);
    if (is_idle && smtp_server_deadline(r->server).ns == MONO_NEVER.ns)
        FAIL(r, "no deadline after an answer");
    pump(r);
}

static void word_now(struct run *r, char *rest)
{
    struct answer a;
    parse_answer(rest, &a);
    answer_now(r, &a);
}

static void word_challenge(struct run *r, char *rest)
{
    struct answer a = {.is_challenge = true};
    snprintf(a.text, sizeof a.text, "%s", rest);
    answer_now(r, &a);
}

static void word_forget(struct run *r, char *rest)
{
    (void)rest;
    for (unsigned i = 0; i < r->open_count; i++)
        smtp_request_drop(r->open[i]);
    r->open_count = 0;
    if (r->server)
        pump(r);
}

static void word_repeat(struct run *r, char *rest)
{
    for (long n = strtol(rest, &rest, 10); n > 0; n--) {
        unescape(&r->input, rest + 1);
        buf_append_str(&r->input, "\r\n");
    }
}

static void word_fill(struct run *r, char *rest)
{
    for (long n = strtol(rest, &rest, 10); n > 0; n--)
        unescape(&r->input, rest + 1);
}

static void word_tls(struct run *r, char *rest)
{
    (void)rest;
    if (!smtp_server_tls_pending(r->server))
        FAIL(r, "no handshake is due");
    buf_clear(&r->input);
    smtp_server_tls_started(r->server, r->now);
    collect(r);
}

static void word_tick(struct run *r, char *rest)
{
    long n = strtol(rest, &rest, 10);
    r->now = mono_add_ms(r->now, *rest == 'm' ? n * 60000 : *rest == 's' ? n * 1000 : n);
    smtp_server_tick(r->server, r->now);
    collect(r);
}

static void word_closed(struct run *r, char *rest)
{
    (void)rest;
    if (!smtp_server_closing(r->server))
        FAIL(r, "does not close");
}

static void word_open(struct run *r, char *rest)
{
    (void)rest;
    if (smtp_server_closing(r->server))
        FAIL(r, "closes: %.*s", SLICE_ARG(buf_slice(&r->output)));
}

static void word_hold(struct run *r, char *rest)
{
    (void)rest;
    smtp_server_hold(r->server, true, r->now);
}

static void word_release(struct run *r, char *rest)
{
    (void)rest;
    smtp_server_hold(r->server, false, r->now);
    pump(r);
}

static void word_shutdown(struct run *r, char *rest)
{
    (void)rest;
    smtp_server_shutdown(r->server, ERR_SHUTTING_DOWN);
    collect(r);
}

static void word_drop(struct run *r, char *rest)
{
    (void)rest;
    smtp_server_free(r->server);
    r->server = NULL;
}

static void word_piece(struct run *r, char *rest)
{
    (void)rest;
    r->only_whole = true;
}

static const struct word {
    const char *name;
    void (*run)(struct run *r, char *rest);
    bool is_setting; /* needs no engine */
    bool is_input;   /* goes on collecting what the client sends */
} WORDS[] = {
    {"config", word_config, true, false},
    {"answer", word_answer, true, false},
    {"piece", word_piece, true, false},
    {"repeat", word_repeat, false, true},
    {"fill", word_fill, false, true},
    {"now", word_now, true, false},
    {"forget", word_forget, true, false},
    {"challenge", word_challenge, false, false},
    {"tls", word_tls, false, false},
    {"tick", word_tick, false, false},
    {"closed", word_closed, false, false},
    {"open", word_open, false, false},
    {"hold", word_hold, false, false},
    {"release", word_release, false, false},
    {"shutdown", word_shutdown, false, false},
    {"drop", word_drop, false, false},
};

/* Two-letter words: "C: ", "S> ", ... True when it was input. */
static bool run_mark(struct run *r, char *line)
{
    char *rest = line[2] == ' ' ? line + 3 : line + 2;
    bool is_input = line[0] == 'C';
    if (is_input) {
        start(r);
        unescape(&r->input, rest);
        buf_append_str(&r->input, line[1] == ':' ? "\r\n" : "");
        return true;
    }
    if (line[0] == 'S' && line[1] == ':')
        expect_line(r, rest);
    else if (line[0] == 'S')
        expect_reply(r, rest);
    else if (line[1] == ':')
        expect_event(r, rest);
    else
        expect_no_event(r, rest);
    return false;
}

static bool run_word(struct run *r, char *line)
{
    char *rest = strchr(line, ' ');
    if (rest)
        *rest++ = '\0';
    for (size_t i = 0; i < sizeof WORDS / sizeof *WORDS; i++) {
        if (strcmp(WORDS[i].name, line) != 0)
            continue;
        if (!WORDS[i].is_setting)
            start(r);
        static char none[1];
        WORDS[i].run(r, rest ? rest : none);
        return WORDS[i].is_input;
    }
    FAIL(r, "unknown word: %s", line);
    return false;
}

static bool is_input_line(const char *line)
{
    return line[0] == 'C' || !strncmp(line, "repeat ", 7) || !strncmp(line, "fill ", 5);
}

static void run_line(struct run *r, char *line, bool *pending)
{
    if (line[0] == '#' || line[0] == '\0')
        return;
    if (*pending && !is_input_line(line)) {
        pump(r);
        *pending = false;
    }
    bool is_mark = (line[0] == 'C' || line[0] == 'S' || line[0] == 'H') &&
                   (line[1] == ':' || line[1] == '>' || line[1] == '!');
    if (is_mark && line[0] != 'C')
        start(r);
    bool is_input = is_mark ? run_mark(r, line) : run_word(r, line);
    *pending = is_input || *pending;
}

static void run_init(struct run *r, const char *file, size_t piece)
{
    *r = (struct run){.file = file, .piece = piece, .now = {INT64_C(1000000000)}};
    r->is_new = true;
    r->config.hostname = "mx.test";
    buf_init(&r->input, 1u << 24);
    buf_init(&r->output, 1u << 24);
    buf_init(&r->body, 1u << 24);
    static const int codes[KIND_COUNT] = {250, 250, 354, 250, 535, 535, 220, 252, 220};
    for (int i = 0; i < KIND_COUNT; i++) {
        r->answers[i].code = codes[i];
        snprintf(r->answers[i].text, sizeof r->answers[i].text, "ok");
    }
}

static void run_fini(struct run *r)
{
    if (buf_len(&r->output) > 0)
        FAIL(r, "the server also says: %.*s", SLICE_ARG(buf_slice(&r->output)));
    smtp_server_free(r->server);
    for (unsigned i = 0; i < r->open_count; i++)
        smtp_request_drop(r->open[i]);
    for (unsigned i = 0; i < r->event_count; i++)
        free(r->events[i]);
    buf_fini(&r->input);
    buf_fini(&r->output);
    buf_fini(&r->body);
}

/* False: the scenario is about one piece, others make no sense. */
static bool run_scenario(const char *file, size_t piece)
{
    static struct run r;
    run_init(&r, strrchr(file, '/') + 1, piece);
    FILE *f = fopen(file, "r");
    assert_non_null(f);
    char line[8192];
    bool pending = false;
    while (fgets(line, sizeof line, f) && !(r.only_whole && piece)) {
        r.line++;
        line[strcspn(line, "\n")] = '\0';
        run_line(&r, line, &pending);
    }
    if (pending && r.server)
        pump(&r);
    fclose(f);
    bool only_whole = r.only_whole;
    run_fini(&r);
    return !only_whole;
}

static void scenario(void **state)
{
    static const size_t pieces[] = {0, 1, 2, 3, 5, 7, 11, 64};
    for (size_t i = 0; i < sizeof pieces / sizeof *pieces; i++) {
        if (!run_scenario(*state, pieces[i]))
            return;
    }
}

int main(void)
{
    static struct CMUnitTest tests[256];
    size_t count = 0;
    glob_t found;
    if (glob(TEST_SOURCE_DIR "/scenario/server_*.smtp", 0, NULL, &found) != 0)
        return 1;
    for (; count < found.gl_pathc && count < 256; count++) {
        char *path = found.gl_pathv[count];
        tests[count] =
            (struct CMUnitTest){strrchr(path, '/') + 1, scenario, NULL, NULL, path};
    }
    int failed = _cmocka_run_group_tests("scenarios", tests, count, NULL, NULL);
    globfree(&found);
    return failed;
}
