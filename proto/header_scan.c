/* SPDX-License-Identifier: Apache-2.0 */
#include "proto/header_scan.h"

enum {
    AT_LINE_START,
    AT_NAME,       /* inside a field's name */
    AT_NAME_BLANK, /* blanks between name and colon (RFC 5322 4.5.3, obsolete) */
    AT_VALUE,      /* the rest of a line */
    AT_EMPTY_CR,   /* a CR at a line's start */
};

/* Names longer than the buffer are nobody's we know. */
#define NAME_TOO_LONG 33

static const struct slice NAMES[HEADER_KIND_COUNT] = {
    [HEADER_OTHER] = SLICE_INIT(""),
    [HEADER_AUTO_SUBMITTED] = SLICE_INIT("Auto-Submitted"),
    [HEADER_BCC] = SLICE_INIT("Bcc"),
    [HEADER_CC] = SLICE_INIT("Cc"),
    [HEADER_CONTENT_TRANSFER_ENCODING] = SLICE_INIT("Content-Transfer-Encoding"),
    [HEADER_CONTENT_TYPE] = SLICE_INIT("Content-Type"),
    [HEADER_DATE] = SLICE_INIT("Date"),
    [HEADER_DELIVERED_TO] = SLICE_INIT("Delivered-To"),
    [HEADER_FROM] = SLICE_INIT("From"),
    [HEADER_MESSAGE_ID] = SLICE_INIT("Message-ID"),
    [HEADER_MIME_VERSION] = SLICE_INIT("MIME-Version"),
    [HEADER_RECEIVED] = SLICE_INIT("Received"),
    [HEADER_REPLY_TO] = SLICE_INIT("Reply-To"),
    [HEADER_RESENT_BCC] = SLICE_INIT("Resent-Bcc"),
    [HEADER_RESENT_CC] = SLICE_INIT("Resent-Cc"),
    [HEADER_RESENT_DATE] = SLICE_INIT("Resent-Date"),
    [HEADER_RESENT_FROM] = SLICE_INIT("Resent-From"),
    [HEADER_RESENT_MESSAGE_ID] = SLICE_INIT("Resent-Message-ID"),
    [HEADER_RESENT_SENDER] = SLICE_INIT("Resent-Sender"),
    [HEADER_RESENT_TO] = SLICE_INIT("Resent-To"),
    [HEADER_RETURN_PATH] = SLICE_INIT("Return-Path"),
    [HEADER_SENDER] = SLICE_INIT("Sender"),
    [HEADER_SUBJECT] = SLICE_INIT("Subject"),
    [HEADER_TO] = SLICE_INIT("To"),
};

enum header_kind header_kind_of(struct slice name)
{
    for (int kind = HEADER_OTHER + 1; kind < HEADER_KIND_COUNT; kind++) {
        if (NAMES[kind].len == name.len && slice_eq_nocase(NAMES[kind], name))
            return (enum header_kind)kind;
    }
    return HEADER_OTHER;
}

void header_scan_init(struct header_scan *h)
{
    /* The list of fields is 1 KiB that nobody reads before it is written. */
    memset(h, 0, offsetof(struct header_scan, fields));
    h->state = AT_LINE_START;
    h->field_is_listed = false;
    h->offset = h->line_start = 0;
    h->name_len = 0;
}

/* The field read so far ends where the current line starts. */
static void close_field(struct header_scan *h)
{
    h->header_bytes = h->line_start;
    h->body_start = h->line_start;
    if (h->field_is_listed)
        h->fields[h->field_count - 1].end = h->line_start;
    h->field_is_listed = false;
}

/* The current line is not of the header section: it was the last one. */
static void end_without_blank(struct header_scan *h)
{
    h->done = true;
    h->no_header_end = true;
}

/* The colon came: the name is whole. `h->offset` is behind the colon. */
static void open_field(struct header_scan *h)
{
    enum header_kind kind = HEADER_OTHER;
    if (h->name_len < NAME_TOO_LONG)
        kind = header_kind_of(slice_make(h->name, h->name_len));
    if (h->count[kind] < UINT16_MAX)
        h->count[kind]++;
    h->state = AT_VALUE;
    if (kind == HEADER_OTHER || kind == HEADER_RECEIVED)
        return;
    if (h->field_count == HEADER_FIELDS_MAX) {
        h->overflow = true;
        return;
    }
    h->fields[h->field_count++] =
        (struct header_field){kind, h->line_start, h->offset, h->offset};
    h->field_is_listed = true;
}

/* RFC 5322 3.6.8 ftext; octets over 127 are none (RFC 6532 leaves names alone). */
static bool is_name_octet(char c)
{
    return c > ' ' && c <= '~' && c != ':';
}

static void name_octet(struct header_scan *h, char c)
{
    if (h->name_len < sizeof h->name)
        h->name[h->name_len++] = c;
    else
        h->name_len = NAME_TOO_LONG;
}

/* The first octet of a line. */
static void start_line(struct header_scan *h, char c)
{
    h->line_start = h->offset;
    if ((c == ' ' || c == '\t') && h->offset > 0) {
        h->state = AT_VALUE; /* folded: goes on with the field */
        return;
    }
    close_field(h);
    h->name_len = 0;
    if (c == '\r') {
        h->state = AT_EMPTY_CR;
    } else if (c == '\n') {
        h->done = true;
        h->body_start = h->offset + 1;
    } else if (is_name_octet(c)) {
        name_octet(h, c);
        h->state = AT_NAME;
    } else {
        end_without_blank(h);
    }
}

static void in_name(struct header_scan *h, char c)
{
    if (c == ':') {
        h->offset++;
        open_field(h);
        h->offset--;
    } else if (c == ' ' || c == '\t') {
        h->state = AT_NAME_BLANK;
    } else if (h->state == AT_NAME && is_name_octet(c)) {
        name_octet(h, c);
    } else {
        end_without_blank(h);
    }
}

static bool has_8bit(struct slice s)
{
    uint64_t word, all = 0;
    for (; s.len >= sizeof word; s = slice_from(s, sizeof word)) {
        memcpy(&word, s.ptr, sizeof word);
        all |= word;
    }
    for (size_t i = 0; i < s.len; i++)
        all |= (unsigned char)s.ptr[i];
    return (all & UINT64_C(0x8080808080808080)) != 0;
}

/* The run up to and with the LF; its length. */
static size_t in_value(struct header_scan *h, struct slice rest)
{
    size_t lf = slice_find(rest, '\n');
    struct slice run = slice_head(rest, lf + 1);
    h->has_8bit |= has_8bit(run);
    if (lf < rest.len)
        h->state = AT_LINE_START;
    return run.len;
}

static size_t step(struct header_scan *h, struct slice rest)
{
    char c = rest.ptr[0];
    switch (h->state) {
    case AT_LINE_START:
        start_line(h, c);
        return 1;
    case AT_NAME:
    case AT_NAME_BLANK:
        in_name(h, c);
        return 1;
    case AT_EMPTY_CR:
        h->done = true;
        h->no_header_end = c != '\n';
        if (c == '\n')
            h->body_start = h->offset + 1;
        return 1;
    default:
        return in_value(h, rest);
    }
}

enum parse header_scan_feed(struct header_scan *h, struct slice bytes)
{
    while (bytes.len > 0 && !h->done) {
        size_t used = step(h, bytes);
        h->offset += (uint32_t)used;
        bytes = slice_from(bytes, used);
    }
    return h->done ? PARSE_DONE : PARSE_MORE;
}

void header_scan_end(struct header_scan *h)
{
    if (h->done)
        return;
    if (h->state == AT_VALUE || h->state == AT_LINE_START)
        h->line_start = h->offset; /* a last line without its end belongs to its field */
    close_field(h);
    end_without_blank(h);
}

const struct header_field *header_scan_find(
    const struct header_scan *h, enum header_kind kind)
{
    for (unsigned i = 0; i < h->field_count; i++) {
        if (h->fields[i].kind == kind)
            return &h->fields[i];
    }
    return NULL;
}
