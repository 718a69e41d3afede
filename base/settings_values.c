/* SPDX-License-Identifier: Apache-2.0 */
/* Single values and lists of them. */
#include <inttypes.h>
#include <stdio.h>

#include "base/settings_internal.h"
#include "base/utf8.h"

#define TEXT_MAX 4000

/* A value that is there, and is not a list or mapping. */
static bool is_scalar(struct reader *r, const struct spot *at, const struct tree *t)
{
    if (t->kind != TREE_SCALAR)
        reader_problem(r, at, "must be one value, not a %s",
            t->kind == TREE_LIST ? "list" : "mapping");
    else if (tree_is_null(t))
        reader_problem(r, at, "has no value");
    else
        return true;
    return false;
}

bool read_text(struct reader *r, const struct spot *at, const struct tree *t, size_t max,
    const char **out)
{
    if (!is_scalar(r, at, t))
        return false;
    if (t->text.len > max) {
        reader_problem(r, at, "is longer than %zu bytes", max);
        return false;
    }
    for (size_t i = 0; i < t->text.len; i++)
        if ((unsigned char)t->text.ptr[i] < ' ' || t->text.ptr[i] == 0x7f) {
            reader_problem(r, at, "has a control character in it");
            return false;
        }
    *out = arena_strdup(r->s->arena, t->text);
    return true;
}

bool read_choice(struct reader *r, const struct spot *at, const struct tree *t,
    const char *choices, unsigned *out)
{
    if (!is_scalar(r, at, t))
        return false;
    for (unsigned n = 0;; n++) {
        struct slice word = choice_name(choices, n);
        if (word.len == 0)
            break;
        if (slice_eq(word, t->text)) {
            *out = n;
            return true;
        }
    }
    reader_problem(r, at, "must be one of: %s", choices);
    return false;
}

bool read_duration(struct reader *r, const struct spot *at, const struct tree *t,
    int64_t min, int64_t max, int64_t *out)
{
    int64_t ms;
    char least[32], most[32];
    if (!is_scalar(r, at, t))
        return false;
    struct slice text =
        min == 0 && slice_eq(t->text, SLICE("off")) ? SLICE("0") : t->text;
    if (!duration_parse(text, &ms)) {
        reader_problem(r, at, "must be a duration like 30s, 5m, 4h, 5d or 1h30m");
        return false;
    }
    if (ms < min || ms > max) {
        duration_print(min, least);
        duration_print(max, most);
        reader_problem(r, at, "out of range: %s to %s", least, most);
        return false;
    }
    *out = ms;
    return true;
}

bool read_count(struct reader *r, const struct spot *at, const struct tree *t,
    uint32_t min, uint32_t max, uint32_t *out)
{
    uint64_t number;
    if (!is_scalar(r, at, t))
        return false;
    if (!slice_u64(t->text, UINT32_MAX, &number)) {
        reader_problem(r, at, "must be a whole number");
        return false;
    }
    if (number < min || number > max) {
        reader_problem(r, at, "out of range: %" PRIu32 " to %" PRIu32, min, max);
        return false;
    }
    *out = (uint32_t)number;
    return true;
}

bool read_size(struct reader *r, const struct spot *at, const struct tree *t,
    uint64_t min, uint64_t max, uint64_t *out)
{
    uint64_t bytes;
    char least[32], most[32];
    if (!is_scalar(r, at, t))
        return false;
    if (!size_parse(t->text, &bytes)) {
        reader_problem(r, at, "must be a size like 64KB, 50MB, 20GB or 64KiB");
        return false;
    }
    if (bytes < min || bytes > max) {
        size_print(min, least);
        size_print(max, most);
        reader_problem(r, at, "out of range: %s to %s", least, most);
        return false;
    }
    *out = bytes;
    return true;
}

bool read_bool(struct reader *r, const struct spot *at, const struct tree *t, bool *out)
{
    unsigned which;
    if (!read_choice(r, at, t, "true|false|yes|no|on|off", &which))
        return false;
    *out = which % 2 == 0;
    return true;
}

static bool label_is_sound(struct slice label)
{
    if (label.len == 0 || label.len > 63 || label.ptr[0] == '-' ||
        label.ptr[label.len - 1] == '-')
        return false;
    for (size_t i = 0; i < label.len; i++) {
        char c = label.ptr[i];
        if (!ascii_is_alnum(c) && c != '-' && c != '_')
            return false;
    }
    return true;
}

bool domain_is_sound(struct slice domain)
{
    if (domain.len == 0 || domain.len > 253)
        return false;
    for (;;) {
        size_t dot = slice_find(domain, '.');
        if (!label_is_sound(slice_head(domain, dot)))
            return false;
        if (dot == domain.len)
            return true;
        domain = slice_from(domain, dot + 1);
    }
}

static char *lower_copy(struct reader *r, struct slice text)
{
    char *copy = arena_strdup(r->s->arena, text);
    for (size_t i = 0; i < text.len; i++)
        copy[i] = ascii_lower(copy[i]);
    return copy;
}

static bool has_high_bytes(struct slice text)
{
    for (size_t i = 0; i < text.len; i++)
        if ((unsigned char)text.ptr[i] >= 0x80)
            return true;
    return false;
}

static void bad_domain(struct reader *r, const struct spot *at, struct slice text)
{
    if (has_high_bytes(text))
        reader_problem(r, at, "write the domain as an A-label (xn--...)");
    else
        reader_problem(
            r, at, "\"%.*s\" is not a domain name", SLICE_ARG(slice_head(text, 80)));
}

bool read_domain(struct reader *r, const struct spot *at, const struct tree *t,
    bool stars, const char **out)
{
    if (!is_scalar(r, at, t))
        return false;
    struct slice text = t->text;
    if (stars && slice_eq(text, SLICE("*"))) {
        *out = "*";
        return true;
    }
    if (stars && slice_starts(text, SLICE("*.")))
        text = slice_from(text, 1);
    if (text.len > 1 && text.ptr[text.len - 1] == '.')
        text.len--;
    bool below = stars && text.len && text.ptr[0] == '.';
    if (!domain_is_sound(below ? slice_from(text, 1) : text)) {
        bad_domain(r, at, t->text);
        return false;
    }
    *out = lower_copy(r, text);
    return true;
}

/* The local part is looked at closely by those who know RFC 5321; here it must not be
 * empty nor hold what would break a line. */
bool read_address(struct reader *r, const struct spot *at, const struct tree *t,
    bool whole_domain, const char **out)
{
    const char *text;
    if (!read_text(r, at, t, 512, &text))
        return false;
    struct slice s = slice_str(text);
    size_t sign = slice_rfind(s, '@');
    bool local_ok = sign > 0 || whole_domain;
    if (sign == s.len || !local_ok || slice_find(s, '<') < s.len ||
        slice_find(s, '>') < s.len || !domain_is_sound(slice_from(s, sign + 1)) ||
        !utf8_valid(s)) {
        reader_problem(r, at, "must be an address like user@example.net%s",
            whole_domain ? ", or a whole domain like @example.net" : "");
        return false;
    }
    char *copy = arena_strdup(r->s->arena, s);
    for (size_t i = sign; i < s.len; i++)
        copy[i] = ascii_lower(copy[i]);
    *out = copy;
    return true;
}

void *read_list(struct reader *r, const struct spot *at, const struct tree *t,
    size_t size, item_fn *item, unsigned *count_out)
{
    unsigned count = t->kind == TREE_LIST ? t->count : 1, index = 0, good = 0;
    *count_out = 0;
    if (tree_is_null(t) || count == 0)
        return NULL;
    char *items = arena_alloc(r->s->arena, count * size);
    if (t->kind != TREE_LIST) {
        *count_out = item(r, at, t, items);
        return *count_out ? items : NULL;
    }
    for (const struct tree *one = t->first; one; one = one->next, index++) {
        struct spot here = {.up = at, .index = index, .line = one->line};
        good += item(r, &here, one, items + good * size);
    }
    *count_out = good;
    return good ? items : NULL;
}

static bool text_item(
    struct reader *r, const struct spot *at, const struct tree *t, void *element)
{
    return read_text(r, at, t, TEXT_MAX, element);
}

static bool domain_item(
    struct reader *r, const struct spot *at, const struct tree *t, void *element)
{
    return read_domain(r, at, t, false, element);
}

static bool cidr_item(
    struct reader *r, const struct spot *at, const struct tree *t, void *element)
{
    if (!is_scalar(r, at, t))
        return false;
    if (cidr_parse(t->text, element))
        return true;
    reader_problem(r, at, "must be a network like 192.0.2.0/24 or 2001:db8::/32");
    return false;
}

static bool netaddr_item(
    struct reader *r, const struct spot *at, const struct tree *t, void *element)
{
    if (!is_scalar(r, at, t))
        return false;
    if (netaddr_parse(t->text, 0, element))
        return true;
    reader_problem(r, at, "must be an address and a port like 0.0.0.0:25 or [::]:25");
    return false;
}

void read_text_list(
    struct reader *r, const struct spot *at, const struct tree *t, struct text_list *out)
{
    out->items = read_list(r, at, t, sizeof(char *), text_item, &out->count);
}

void read_domain_list(
    struct reader *r, const struct spot *at, const struct tree *t, struct text_list *out)
{
    out->items = read_list(r, at, t, sizeof(char *), domain_item, &out->count);
}

void read_cidr_list(
    struct reader *r, const struct spot *at, const struct tree *t, struct cidr_list *out)
{
    out->items = read_list(r, at, t, sizeof(struct cidr), cidr_item, &out->count);
}

void read_netaddr_list(struct reader *r, const struct spot *at, const struct tree *t,
    struct netaddr **out, unsigned *count_out)
{
    *out = read_list(r, at, t, sizeof(struct netaddr), netaddr_item, count_out);
}

/* "host", "host:25", "[host]:25"; brackets as in Postfix, though nothing here is looked
 * up as MX anyway. */
static bool parse_hop(
    struct reader *r, struct slice text, uint16_t default_port, struct hop *out)
{
    uint64_t port = default_port;
    struct slice host = text, rest = {0};
    if (text.len && text.ptr[0] == '[') {
        size_t close = slice_find(text, ']');
        if (close == text.len)
            return false;
        host = slice_make(text.ptr + 1, close - 1);
        rest = slice_from(text, close + 1);
    } else if (slice_find(text, ':') < text.len) {
        host = slice_head(text, slice_find(text, ':'));
        rest = slice_from(text, host.len);
    }
    if (rest.len &&
        (rest.ptr[0] != ':' || !slice_u64(slice_from(rest, 1), UINT16_MAX, &port)))
        return false;
    if (host.len > 1 && host.ptr[host.len - 1] == '.')
        host.len--;
    if (port == 0 || !domain_is_sound(host))
        return false;
    /* "192.0.2" or "300.1.1.1": a mistyped address must not become a name. */
    if (ascii_is_digit(host.ptr[host.len - 1]))
        return false;
    *out = (struct hop){.host = lower_copy(r, host), .port = (uint16_t)port};
    return true;
}

static bool host_or_address(
    struct reader *r, struct slice text, uint16_t default_port, struct hop *out)
{
    struct netaddr address;
    if (!netaddr_parse(text, default_port, &address) || !address.port)
        return parse_hop(r, text, default_port, out);
    *out = (struct hop){.host = "", .address = address, .port = address.port};
    return true;
}

static bool hop_item(
    struct reader *r, const struct spot *at, const struct tree *t, void *element)
{
    if (!is_scalar(r, at, t))
        return false;
    if (host_or_address(r, t->text, 25, element))
        return true;
    reader_problem(r, at,
        "must be a host like [192.0.2.10]:25, [2001:db8::1]:25 or "
        "relay.example.net:25, or the word mx for DNS");
    return false;
}

void read_next_hop(
    struct reader *r, const struct spot *at, const struct tree *t, struct next_hop *out)
{
    if (t->kind == TREE_SCALAR && slice_eq(t->text, SLICE("mx"))) {
        out->by_mx = true;
        return;
    }
    unsigned before = r->problems->count;
    out->hops = read_list(r, at, t, sizeof(struct hop), hop_item, &out->hop_count);
    if (out->hop_count == 0 && r->problems->count == before)
        reader_problem(r, at, "has no value");
}
