/* SPDX-License-Identifier: Apache-2.0 */
#include "node/mail/submission.h"

#include <stdio.h>

enum {
    AT_LINE,  /* first octet of a line of the header section */
    IN_NAME,  /* field name, kept in `name` until the colon */
    IN_VALUE, /* behind the colon, up to the end of the line */
    AT_CR,    /* CR where a line began: the empty line, or nonsense */
    IN_BODY,
};

void submission_init(struct submission *s, struct body *out, struct slice hostname,
    struct msg_id id, struct wall now)
{
    s->out = out;
    s->hostname = hostname;
    s->id = id;
    s->now = now;
    s->state = AT_LINE;
    s->drop = s->any_field = s->has_date = s->has_message_id = false;
    s->name_len = 0;
}

static void emit(struct submission *s, struct slice bytes)
{
    if (bytes.len)
        body_append(s->out, bytes);
}

static void add_missing(struct submission *s)
{
    char line[512];
    char text[48];
    if (!s->has_date) {
        wall_format_rfc5322(s->now, text);
        int n = snprintf(line, sizeof(line), "Date: %s\r\n", text);
        emit(s, slice_make(line, (size_t)n));
    }
    if (!s->has_message_id) {
        msg_id_format(s->id, text);
        struct slice host = slice_head(s->hostname, 255);
        int n = snprintf(
            line, sizeof(line), "Message-ID: <%s@%.*s>\r\n", text, SLICE_ARG(host));
        emit(s, slice_make(line, (size_t)n));
    }
}

/* The header section ends here, without an empty line of its own: what was kept of this
 * line is the first of the body. */
static void end_without_empty_line(struct submission *s)
{
    add_missing(s);
    emit(s, SLICE("\r\n"));
    emit(s, slice_make(s->name, s->name_len));
    s->name_len = 0;
    s->state = IN_BODY;
}

/* The name is complete, with its colon: keep the field or drop it. */
static void begin_field(struct submission *s)
{
    struct slice name = slice_trim(slice_make(s->name, s->name_len - 1u));
    s->any_field = true;
    s->drop = slice_eq_nocase(name, SLICE("Return-Path")) ||
              slice_eq_nocase(name, SLICE("Bcc")) ||
              slice_eq_nocase(name, SLICE("Resent-Bcc"));
    s->has_date |= slice_eq_nocase(name, SLICE("Date"));
    s->has_message_id |= slice_eq_nocase(name, SLICE("Message-ID"));
    if (!s->drop)
        emit(s, slice_make(s->name, s->name_len));
    s->name_len = 0;
    s->state = IN_VALUE;
}

/* RFC 5322 3.6.8 (and 4.5: blanks before the colon). */
static bool fits_name(const struct submission *s, char c)
{
    unsigned char u = (unsigned char)c;
    bool blank = c == ' ' || c == '\t';
    bool behind_blank = s->name_len && (s->name[s->name_len - 1] == ' ' ||
                                           s->name[s->name_len - 1] == '\t');
    if (s->name_len >= SUBMISSION_NAME_MAX)
        return false;
    return blank ? s->name_len > 0 : u > 32 && u < 127 && (!behind_blank || c == ':');
}

static void take_name(struct submission *s, char c)
{
    bool fits = fits_name(s, c) && !(c == ':' && s->name_len == 0);
    s->name[s->name_len++] = c;
    if (!fits)
        end_without_empty_line(s);
    else if (c == ':')
        begin_field(s);
}

static void take_line_start(struct submission *s, char c)
{
    if (c == '\r') {
        s->state = AT_CR;
    } else if (c == '\n') {
        add_missing(s);
        emit(s, SLICE("\n"));
        s->state = IN_BODY;
    } else if (s->any_field && (c == ' ' || c == '\t')) {
        if (!s->drop)
            emit(s, slice_make(&c, 1));
        s->state = IN_VALUE;
    } else {
        s->drop = false;
        s->state = IN_NAME;
        take_name(s, c);
    }
}

static void take_behind_cr(struct submission *s, char c)
{
    if (c == '\n') {
        add_missing(s);
        emit(s, SLICE("\r\n"));
        s->state = IN_BODY;
        return;
    }
    s->name[0] = '\r';
    s->name[1] = c;
    s->name_len = 2;
    end_without_empty_line(s);
}

/* Up to the end of the line, or all there is. Returns how much that was. */
static size_t take_value(struct submission *s, struct slice bytes)
{
    size_t lf = slice_find(bytes, '\n');
    size_t used = lf < bytes.len ? lf + 1 : lf;
    if (!s->drop)
        emit(s, slice_head(bytes, used));
    if (lf < bytes.len)
        s->state = AT_LINE;
    return used;
}

void submission_feed(struct submission *s, struct slice bytes)
{
    size_t at = 0;
    while (at < bytes.len && s->state != IN_BODY) {
        char c = bytes.ptr[at];
        if (s->state == IN_VALUE) {
            at += take_value(s, slice_from(bytes, at));
            continue;
        }
        at++;
        if (s->state == AT_LINE)
            take_line_start(s, c);
        else if (s->state == AT_CR)
            take_behind_cr(s, c);
        else
            take_name(s, c);
    }
    if (at < bytes.len)
        emit(s, slice_from(bytes, at));
}

void submission_end(struct submission *s)
{
    if (s->state == IN_BODY)
        return;
    /* Of a field that is dropped nothing has been written that a line end would have to
     * end. */
    if (s->state == AT_LINE || s->state == AT_CR || (s->state == IN_VALUE && s->drop)) {
        add_missing(s);
        emit(s, SLICE("\r\n"));
    } else if (s->state == IN_NAME) {
        end_without_empty_line(s);
    } else {
        /* Cut in the middle of a field. */
        emit(s, SLICE("\r\n"));
        add_missing(s);
        emit(s, SLICE("\r\n"));
    }
    s->state = IN_BODY;
}
