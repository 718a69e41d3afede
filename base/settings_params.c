/* SPDX-License-Identifier: Apache-2.0 */
/* params.def at run time: finding, setting and printing the scalar settings. */
#include <inttypes.h>
#include <stdio.h>

#include "base/alloc.h"
#include "base/settings_internal.h"
#include "base/utf8.h"

#define AT_top(field) offsetof(struct settings, field)
#define AT_log(field) offsetof(struct settings, log.field)
#define AT_queue(field) offsetof(struct settings, queue.field)
#define AT_history(field) offsetof(struct settings, history.field)
#define AT_tls(field) offsetof(struct settings, tls.field)
#define AT_users(field) offsetof(struct settings, users.field)
#define AT_resolver(field) offsetof(struct settings, resolver.field)
#define AT_retry(field) offsetof(struct settings, retry.field)
#define AT_limits(field) offsetof(struct settings, limits.field)
#define AT_delivery(field) offsetof(struct settings, delivery.field)
#define AT_cluster(field) offsetof(struct settings, cluster.field)
#define FIELD_BOOL(section, name) AT_##section(name)
#define FIELD_COUNT(section, name) AT_##section(name)
#define FIELD_SIZE(section, name) AT_##section(name##_bytes)
#define FIELD_DURATION(section, name) AT_##section(name##_ms)
#define FIELD_TEXT(section, name) AT_##section(name)
#define FIELD_RATE(section, name) AT_##section(name)

#define ROW(section, name, type, initial, min, max, scope, when, text)                   \
    {#section, #name, PARAM_##type, initial, min, max, PARAM_##scope, PARAM_##when,      \
        text, FIELD_##type(section, name)},
#define ROWS(section) PARAMS_##section(ROW)
const struct param params[] = {PARAM_SECTIONS(ROWS)};
const unsigned param_count = sizeof(params) / sizeof(params[0]);

const struct param *param_find(const char *section, struct slice name)
{
    for (unsigned i = 0; i < param_count; i++)
        if (strcmp(params[i].section, section) == 0 &&
            slice_eq(slice_str(params[i].name), name))
            return &params[i];
    return NULL;
}

const char *param_choices(const struct param *p)
{
    static const struct {
        const char *section, *name, *choices;
    } rows[] = {{"log", "level", "debug|info|warn|error"}, {"log", "format", "text|json"},
        {"delivery", "eight_bit", "convert|bounce|send"},
        {"delivery", "tls", CHOICES_DELIVERY_TLS}, {"cluster", "role", "node|witness"}};
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
        if (strcmp(rows[i].section, p->section) == 0 &&
            strcmp(rows[i].name, p->name) == 0)
            return rows[i].choices;
    return NULL;
}

struct slice choice_name(const char *choices, unsigned n)
{
    struct slice left = slice_str(choices);
    while (n--)
        left = slice_from(left, slice_find(left, '|') + 1);
    return slice_head(left, slice_find(left, '|'));
}

static void print_limit(enum param_type type, uint64_t value, char out[32])
{
    switch (type) {
    case PARAM_SIZE:
        size_print(value, out);
        return;
    case PARAM_DURATION:
        duration_print((int64_t)value, out);
        return;
    case PARAM_BOOL:
    case PARAM_COUNT:
    case PARAM_TEXT:
    case PARAM_RATE:
        snprintf(out, 32, "%" PRIu64, value);
    }
}

static bool in_range(const struct param *p, uint64_t value, char why[256])
{
    char least[32], most[32];
    if (value >= p->min && value <= p->max)
        return true;
    print_limit(p->type, p->min, least);
    print_limit(p->type, p->max, most);
    snprintf(why, 256, "out of range: %s to %s", least, most);
    return false;
}

static bool parse_bool(struct slice text, bool *out)
{
    static const struct {
        struct slice word;
        bool value;
    } words[] = {{SLICE_INIT("true"), true}, {SLICE_INIT("false"), false},
        {SLICE_INIT("yes"), true}, {SLICE_INIT("no"), false}, {SLICE_INIT("on"), true},
        {SLICE_INIT("off"), false}};
    for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++)
        if (slice_eq(words[i].word, text)) {
            *out = words[i].value;
            return true;
        }
    return false;
}

static bool set_text(const struct param *p, struct settings *s, void *field,
    struct slice text, char why[256])
{
    const char *choices = param_choices(p), **out = field;
    if (text.len > p->max || text.len < p->min) {
        snprintf(why, 256, "must have %" PRIu64 " to %" PRIu64 " bytes", p->min, p->max);
        return false;
    }
    for (size_t i = 0; i < text.len; i++)
        if ((unsigned char)text.ptr[i] < ' ' || text.ptr[i] == 0x7f) {
            snprintf(why, 256, "has a control character in it");
            return false;
        }
    for (unsigned n = 0; choices; n++) {
        struct slice word = choice_name(choices, n);
        if (slice_eq(word, text))
            break;
        if (word.len == 0) {
            snprintf(why, 256, "must be one of: %s", choices);
            return false;
        }
    }
    *out = arena_strdup(s->arena, text);
    return true;
}

static bool set_number(
    const struct param *p, void *field, struct slice text, char why[256])
{
    uint64_t number;
    if (!slice_u64(text, UINT32_MAX, &number)) {
        snprintf(why, 256, "must be a whole number");
        return false;
    }
    if (!in_range(p, number, why))
        return false;
    *(uint32_t *)field = (uint32_t)number;
    return true;
}

static bool set_size(const struct param *p, void *field, struct slice text, char why[256])
{
    uint64_t bytes;
    if (!size_parse(text, &bytes)) {
        snprintf(why, 256, "must be a size like 64KB, 50MB, 20GB or 64KiB");
        return false;
    }
    if (!in_range(p, bytes, why))
        return false;
    *(uint64_t *)field = bytes;
    return true;
}

static bool set_duration(
    const struct param *p, void *field, struct slice text, char why[256])
{
    int64_t ms;
    if (p->min == 0 && slice_eq(text, SLICE("off")))
        text = SLICE("0");
    if (!duration_parse(text, &ms)) {
        snprintf(why, 256, "must be a duration like 30s, 5m, 4h, 5d or 1h30m");
        return false;
    }
    if (!in_range(p, (uint64_t)ms, why))
        return false;
    *(int64_t *)field = ms;
    return true;
}

static bool set_rate(const struct param *p, void *field, struct slice text, char why[256])
{
    struct rate rate;
    if (!rate_parse(text, &rate)) {
        snprintf(why, 256, "must be a rate like 1000/1m or 10/s");
        return false;
    }
    if (!in_range(p, rate.count, why))
        return false;
    if (rate.per_ms > 86400000) {
        snprintf(why, 256, "must be per at most 1d");
        return false;
    }
    *(struct rate *)field = rate;
    return true;
}

bool param_set(
    const struct param *p, struct settings *s, struct slice text, char why[256])
{
    void *field = (char *)s + p->offset;
    switch (p->type) {
    case PARAM_BOOL:
        if (parse_bool(text, field))
            return true;
        snprintf(why, 256, "must be true or false");
        return false;
    case PARAM_COUNT:
        return set_number(p, field, text, why);
    case PARAM_SIZE:
        return set_size(p, field, text, why);
    case PARAM_DURATION:
        return set_duration(p, field, text, why);
    case PARAM_TEXT:
        return set_text(p, s, field, text, why);
    case PARAM_RATE:
        return set_rate(p, field, text, why);
    }
    return false; /* not reached: the table has no other type */
}

static void print_value(const struct param *p, const void *field, char out[64])
{
    switch (p->type) {
    case PARAM_BOOL:
        snprintf(out, 64, "%s", *(const bool *)field ? "true" : "false");
        return;
    case PARAM_COUNT:
        snprintf(out, 64, "%" PRIu32, *(const uint32_t *)field);
        return;
    case PARAM_SIZE:
        size_print(*(const uint64_t *)field, out);
        return;
    case PARAM_DURATION:
        duration_print(*(const int64_t *)field, out);
        return;
    case PARAM_RATE:
        rate_print(*(const struct rate *)field, out);
        return;
    case PARAM_TEXT:
        out[0] = '\0'; /* texts are printed by print_text */
    }
}

void param_print(const struct param *p, const struct settings *s, struct buf *out)
{
    char text[64];
    const void *field = (const char *)s + p->offset;
    if (p->type == PARAM_TEXT) {
        print_text(slice_str(*(const char *const *)field), out);
        return;
    }
    print_value(p, field, text);
    buf_append_str(out, text);
}
