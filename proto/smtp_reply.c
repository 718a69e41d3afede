/* SPDX-License-Identifier: Apache-2.0 */
#include "proto/smtp_reply.h"

enum { AT_CODE, AT_SEPARATOR, AT_TEXT, AT_CR };

void smtp_reply_parser_init(struct smtp_reply_parser *p)
{
    *p = (struct smtp_reply_parser){0};
    buf_init(&p->text, SMTP_REPLY_TEXT_MAX);
}

void smtp_reply_parser_fini(struct smtp_reply_parser *p)
{
    buf_fini(&p->text);
}

static void begin_line(struct smtp_reply_parser *p)
{
    p->state = AT_CODE;
    p->digits = 0;
    p->code = 0;
    p->line_len = 0;
    p->is_last_line = false;
}

static void begin_reply(struct smtp_reply_parser *p)
{
    buf_clear(&p->text);
    p->reply = (struct smtp_reply){0};
    p->bytes = 0;
    p->is_finished = false;
    begin_line(p);
}

static bool take_digit(struct smtp_reply_parser *p, char c)
{
    /* RFC 5321 4.2: 2..5, then 0..5, then a digit; 1yz is no SMTP reply. The second digit
     * is taken as it comes: nothing depends on it. */
    if (!ascii_is_digit(c) || (p->digits == 0 && (c < '2' || c > '5'))) {
        return false;
    }
    p->code = p->code * 10 + (c - '0');
    if (++p->digits < 3) {
        return true;
    }
    p->state = AT_SEPARATOR;
    if (p->reply.line_count > 0 && p->reply.code != p->code) {
        return false;
    }
    p->reply.code = p->code;
    return true;
}

static void keep_text(struct smtp_reply_parser *p, struct slice run)
{
    size_t room =
        p->line_len < SMTP_REPLY_LINE_MAX ? SMTP_REPLY_LINE_MAX - p->line_len : 0;
    size_t room_all = SMTP_REPLY_TEXT_MAX - buf_len(&p->text);
    struct slice kept = slice_head(run, room < room_all ? room : room_all);
    p->reply.is_cut |= kept.len < run.len;
    buf_append(&p->text, kept);
    p->line_len += run.len;
}

static bool end_line(struct smtp_reply_parser *p)
{
    if (++p->reply.line_count > SMTP_REPLY_LINES_MAX) {
        return false;
    }
    if (p->is_last_line) {
        p->is_finished = true;
        return true;
    }
    if (!buf_append_char(&p->text, '\n')) {
        p->reply.is_cut = true;
    }
    begin_line(p);
    return true;
}

/* What follows the code: "-" goes on, " " or the end of the line is the last one. */
static bool take_separator(struct smtp_reply_parser *p, char c)
{
    p->is_last_line = c != '-';
    if (c == '\n') {
        return end_line(p);
    }
    p->state = c == '\r' ? AT_CR : AT_TEXT;
    return c == '-' || c == ' ' || c == '\r';
}

/* The run up to CR, LF or the end of `in`. */
static size_t take_text(struct smtp_reply_parser *p, struct slice in)
{
    size_t run = slice_find(in, '\n');
    size_t cr = slice_find(slice_head(in, run), '\r');
    keep_text(p, slice_head(in, cr));
    return cr;
}

/* One step; *at moves on. False: not a reply. */
static bool step(struct smtp_reply_parser *p, struct slice in, size_t *at)
{
    char c = in.ptr[*at];
    switch (p->state) {
    case AT_CODE:
        ++*at;
        return take_digit(p, c);
    case AT_SEPARATOR:
        ++*at;
        return take_separator(p, c);
    case AT_CR:
        if (c != '\n') { /* a CR on its own is text, kept for who shows it to escape */
            keep_text(p, SLICE("\r"));
            p->state = AT_TEXT;
            return true;
        }
        ++*at;
        return end_line(p);
    default:
        if (c == '\n') {
            ++*at;
            return end_line(p);
        }
        if (c == '\r') {
            ++*at;
            p->state = AT_CR;
            return true;
        }
        *at += take_text(p, slice_from(in, *at));
        return true;
    }
}

static void finish(struct smtp_reply_parser *p)
{
    p->reply.text = buf_slice(&p->text);
    struct slice first = slice_head(p->reply.text, slice_find(p->reply.text, '\n'));
    smtp_status_split(first, p->reply.code, p->reply.status, NULL);
}

enum parse smtp_reply_feed(struct smtp_reply_parser *p, struct slice in, size_t *used_out)
{
    *used_out = 0;
    if (p->is_bad) {
        return PARSE_BAD;
    }
    if (p->is_finished) {
        begin_reply(p);
    }
    size_t at = 0;
    while (at < in.len && !p->is_finished) {
        if (!step(p, in, &at) || p->bytes + at > SMTP_REPLY_BYTES_MAX) {
            p->is_bad = true;
            return PARSE_BAD;
        }
    }
    p->bytes += at;
    *used_out = at;
    if (!p->is_finished) {
        return PARSE_MORE;
    }
    finish(p);
    return PARSE_DONE;
}

bool smtp_reply_next_line(struct slice *rest, struct slice *line_out)
{
    if (!rest->ptr) {
        return false;
    }
    size_t end = slice_find(*rest, '\n');
    *line_out = slice_head(*rest, end);
    *rest = end < rest->len ? slice_from(*rest, end + 1) : (struct slice){NULL, 0};
    return true;
}

/* One to three digits at `at`. */
static size_t digits_at(struct slice text, size_t at)
{
    size_t n = 0;
    while (n < 3 && at + n < text.len && ascii_is_digit(text.ptr[at + n])) {
        n++;
    }
    return n;
}

bool smtp_status_split(
    struct slice text, int code, char status_out[SMTP_STATUS_MAX], struct slice *rest_out)
{
    if (status_out) {
        status_out[0] = '\0';
    }
    if (rest_out) {
        *rest_out = text;
    }
    if (text.len < 5 || text.ptr[0] != (char)('0' + code / 100) || text.ptr[1] != '.') {
        return false;
    }
    size_t subject = digits_at(text, 2);
    size_t dot = 2 + subject;
    if (subject == 0 || dot >= text.len || text.ptr[dot] != '.') {
        return false;
    }
    size_t detail = digits_at(text, dot + 1);
    size_t end = dot + 1 + detail;
    if (detail == 0 || (end < text.len && text.ptr[end] != ' ')) {
        return false;
    }
    if (status_out) {
        memcpy(status_out, text.ptr, end);
        status_out[end] = '\0';
    }
    if (rest_out) {
        *rest_out = slice_trim(slice_from(text, end));
    }
    return true;
}

/* Longest text of a line: 512 octets with code, status and CRLF (RFC 5321 4.5.3.1.5). */
#define LINE_TEXT_MAX 480

static bool append_clean(struct buf *out, struct slice text)
{
    text = slice_head(text, LINE_TEXT_MAX);
    char *room = buf_reserve(out, text.len + 1);
    if (!room) {
        return false;
    }
    for (size_t i = 0; i < text.len; i++) {
        char c = text.ptr[i];
        room[i] = c >= ' ' && c <= '~' ? c : '?';
    }
    buf_commit(out, text.len);
    return true;
}

static bool append_line(
    struct buf *out, int code, bool is_last, const char *status, struct slice text)
{
    char head[4] = {(char)('0' + code / 100), (char)('0' + code / 10 % 10),
        (char)('0' + code % 10), is_last ? ' ' : '-'};
    if (text.len > 0 && text.ptr[text.len - 1] == '\r') {
        text.len--;
    }
    return buf_append(out, slice_make(head, sizeof head)) &&
           (!status || (buf_append_str(out, status) && buf_append_char(out, ' '))) &&
           append_clean(out, text) && buf_append(out, SLICE("\r\n"));
}

bool smtp_reply_append(struct buf *out, int code, const char *status, struct slice text)
{
    struct slice rest = text.ptr ? text : SLICE("");
    struct slice line;
    while (smtp_reply_next_line(&rest, &line)) {
        if (!append_line(out, code, !rest.ptr, status, line)) {
            return false;
        }
    }
    return true;
}
