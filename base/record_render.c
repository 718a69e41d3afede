/* SPDX-License-Identifier: Apache-2.0 */
/* Records as lines: text and JSON. Hot: some microseconds of every message are spent
 * here, so plain values are copied in one piece and the second's text is kept. */
#include "base/alloc.h"
#include "base/record_internal.h"
#include "base/utf8.h"

/* Kept free for what ends a cut line. */
#define ROOM_FOR_END 16

struct out {
    char *mem;
    size_t len;
    size_t cap;
    bool full;
};

static struct out out_over(char *mem, size_t size)
{
    INVARIANT(size >= 512); /* all but the pairs fits: node is at most 255 */
    return (struct out){.mem = mem, .cap = size - 1 - ROOM_FOR_END};
}

static void add(struct out *o, struct slice s)
{
    if (s.len > o->cap - o->len) {
        o->full = true;
        return;
    }
    if (s.len)
        memcpy(o->mem + o->len, s.ptr, s.len);
    o->len += s.len;
}

static void add_char(struct out *o, char c)
{
    add(o, slice_make(&c, 1));
}

static void add_hex(struct out *o, const char *prefix, uint32_t value, int digits)
{
    static const char hex[] = "0123456789abcdef";
    add(o, slice_str(prefix));
    for (int shift = (digits - 1) * 4; shift >= 0; shift -= 4)
        add_char(o, hex[value >> shift & 15]);
}

/* The date and time to the second change once a second: formatting them each time would
 * be half of the cost of a line. */
static void add_time(struct out *o, struct wall t)
{
    static _Thread_local int64_t kept_second = INT64_MIN;
    static _Thread_local char kept[32];
    int64_t second = t.ms / 1000, ms = t.ms % 1000;
    if (ms < 0) {
        char text[32];
        wall_format_iso(t, text);
        add(o, slice_str(text));
        return;
    }
    if (second != kept_second) {
        wall_format_iso((struct wall){second * 1000}, kept);
        kept_second = second;
    }
    size_t len = strlen(kept);
    add(o, slice_make(kept, len - 4));
    char end[4] = {
        (char)('0' + ms / 100), (char)('0' + ms / 10 % 10), (char)('0' + ms % 10), 'Z'};
    add(o, slice_make(end, 4));
}

/* Printable ASCII without blank, quote, backslash and "=". */
static bool is_plain(struct slice s)
{
    for (size_t i = 0; i < s.len; i++) {
        unsigned char c = (unsigned char)s.ptr[i];
        if (c <= ' ' || c >= 0x7f || c == '"' || c == '\\' || c == '=')
            return false;
    }
    return s.len > 0;
}

static void add_text_hidden(struct out *o, uint32_t code)
{
    if (code == '\n' || code == '\r' || code == '\t')
        add(o, code == '\n' ? SLICE("\\n") : code == '\r' ? SLICE("\\r") : SLICE("\\t"));
    else if (code < 0x80)
        add_hex(o, "\\x", code, 2);
    else if (code <= 0xffff)
        add_hex(o, "\\u", code, 4);
    else
        add_hex(o, "\\U", code, 8);
}

static void add_text_value(struct out *o, struct slice s)
{
    uint32_t code;
    if (is_plain(s)) {
        add(o, s);
        return;
    }
    add_char(o, '"');
    while (s.len) {
        unsigned len = utf8_decode(s, &code);
        if (len == 0)
            add_hex(o, "\\x", (unsigned char)s.ptr[0], 2);
        else if (code == '"' || code == '\\')
            add(o, code == '"' ? SLICE("\\\"") : SLICE("\\\\"));
        else if (utf8_is_visible(code))
            add(o, slice_head(s, len));
        else
            add_text_hidden(o, code);
        s = slice_from(s, len ? len : 1);
    }
    add_char(o, '"');
}

static size_t finish(struct out *o)
{
    o->mem[o->len] = '\0';
    return o->len;
}

static void add_text_pair(struct out *o, struct slice key, struct slice value)
{
    add_char(o, ' ');
    add(o, key);
    add_char(o, '=');
    add_text_value(o, value);
}

static void add_event(struct out *o, const struct record *r)
{
    struct pair pair;
    size_t at = 0;
    bool cut = r->cut;
    add(o, slice_str(log_event_name((enum log_event)r->event)));
    if (r->has_id)
        add_text_pair(o, SLICE("id"), slice_make(r->id_text, MSG_ID_TEXT));
    while (record_next_pair(r, &at, &pair)) {
        size_t before = o->len;
        add_text_pair(o, pair.key, pair.value);
        if (o->full) {
            o->len = before;
            o->full = false;
            cut = true;
        }
    }
    o->cap += ROOM_FOR_END;
    if (cut)
        add(o, SLICE(" cut=true"));
}

size_t record_render_event(const struct record *r, char *out, size_t out_size)
{
    struct out o = out_over(out, out_size);
    add_event(&o, r);
    return finish(&o);
}

size_t record_render_text(const struct record *r, char *out, size_t out_size)
{
    struct out o = out_over(out, out_size);
    add_time(&o, r->time);
    add_char(&o, ' ');
    add(&o, slice_str(log_level_name((enum log_level)r->level)));
    add_char(&o, ' ');
    add_event(&o, r);
    return finish(&o);
}

static bool is_json_plain(struct slice s)
{
    for (size_t i = 0; i < s.len; i++) {
        unsigned char c = (unsigned char)s.ptr[i];
        if (c < ' ' || c >= 0x7f || c == '"' || c == '\\')
            return false;
    }
    return true;
}

static void add_json_hidden(struct out *o, uint32_t code)
{
    if (code > 0xffff) {
        add_hex(o, "\\u", 0xd800 + ((code - 0x10000) >> 10), 4);
        code = 0xdc00 + ((code - 0x10000) & 0x3ff);
    }
    add_hex(o, "\\u", code, 4);
}

static void add_json_string(struct out *o, struct slice s)
{
    uint32_t code;
    add_char(o, '"');
    if (is_json_plain(s)) {
        add(o, s);
        s.len = 0;
    }
    while (s.len) {
        unsigned len = utf8_decode(s, &code);
        if (len == 0)
            add(o, SLICE("\\ufffd"));
        else if (code == '"' || code == '\\')
            add(o, code == '"' ? SLICE("\\\"") : SLICE("\\\\"));
        else if (utf8_is_visible(code))
            add(o, slice_head(s, len));
        else
            add_json_hidden(o, code);
        s = slice_from(s, len ? len : 1);
    }
    add_char(o, '"');
}

static void add_json_key(struct out *o, struct slice key)
{
    add(o, SLICE(",\""));
    add(o, key);
    add(o, SLICE("\":"));
}

static void add_json_pairs(struct out *o, const struct record *r)
{
    struct pair pair;
    size_t at = 0;
    bool cut = r->cut;
    while (record_next_pair(r, &at, &pair)) {
        size_t before = o->len;
        add_json_key(o, pair.key);
        if (pair.type == PAIR_TEXT)
            add_json_string(o, pair.value);
        else
            add(o, pair.value);
        if (o->full) {
            o->len = before;
            o->full = false;
            cut = true;
        }
    }
    o->cap += ROOM_FOR_END;
    if (cut)
        add(o, SLICE(",\"cut\":true"));
}

size_t record_render_json(const struct record *r, char *out, size_t out_size)
{
    struct out o = out_over(out, out_size);
    add(&o, SLICE("{\"time\":\""));
    add_time(&o, r->time);
    add_char(&o, '"');
    add_json_key(&o, SLICE("event"));
    add_json_string(&o, slice_str(log_event_name((enum log_event)r->event)));
    if (r->has_id) {
        add_json_key(&o, SLICE("id"));
        add_json_string(&o, slice_make(r->id_text, MSG_ID_TEXT));
    }
    if (log_node()[0]) {
        add_json_key(&o, SLICE("node"));
        add_json_string(&o, slice_str(log_node()));
    }
    add_json_key(&o, SLICE("level"));
    add_json_string(&o, slice_str(log_level_name((enum log_level)r->level)));
    add_json_pairs(&o, r);
    add_char(&o, '}');
    return finish(&o);
}
