/* SPDX-License-Identifier: Apache-2.0 */
/* The table of scalar settings as mdoc, for baton.yaml(5). */
#include "base/settings_internal.h"

static const char *type_word(const struct param *p)
{
    switch (p->type) {
    case PARAM_BOOL:
        return "true | false";
    case PARAM_COUNT:
        return "number";
    case PARAM_SIZE:
        return "size";
    case PARAM_DURATION:
        return "duration";
    case PARAM_TEXT:
        return param_choices(p) ? param_choices(p) : "text";
    case PARAM_RATE:
        return "count/duration";
    }
    return "";
}

/* Escapes what roff would take for itself. */
static void roff(const char *text, struct buf *out)
{
    for (const char *c = text; *c; c++) {
        if (*c == '\\')
            buf_append_str(out, "\\e");
        else if (*c == '-')
            buf_append_str(out, "\\-");
        else
            buf_append_char(out, *c);
    }
}

static void range(const struct param *p, struct buf *out)
{
    char least[32], most[32];
    switch (p->type) {
    case PARAM_BOOL:
    case PARAM_TEXT:
        return;
    case PARAM_SIZE:
        size_print(p->min, least);
        size_print(p->max, most);
        break;
    case PARAM_DURATION:
        duration_print((int64_t)p->min, least);
        duration_print((int64_t)p->max, most);
        break;
    case PARAM_COUNT:
    case PARAM_RATE:
        buf_printf(out, " Range %llu to %llu.", (unsigned long long)p->min,
            (unsigned long long)p->max);
        return;
    }
    buf_printf(out, " Range %s to %s.", least, most);
}

static void one(const struct param *p, struct buf *out)
{
    bool top = strcmp(p->section, "top") == 0;
    buf_printf(
        out, ".It Cm %s%s%s : Ar ", top ? "" : p->section, top ? "" : ".", p->name);
    roff(type_word(p), out);
    buf_append_char(out, '\n');
    /* A sentence: a capital in front, a full stop behind. */
    buf_append_char(out, ascii_upper(p->meaning[0]));
    roff(p->meaning + 1, out);
    buf_append_str(out, ".\n");
    if (p->initial[0])
        buf_printf(out, "Default\n.Ql %s .\n", p->initial);
    struct buf rest;
    buf_init(&rest, 256);
    range(p, &rest);
    if (buf_len(&rest))
        buf_printf(out, "%.*s\n", SLICE_ARG(slice_from(buf_slice(&rest), 1)));
    buf_fini(&rest);
    buf_printf(out, "%s%s\n",
        p->scope == PARAM_CLUSTER ? "All nodes of a cluster must agree.\n" : "",
        p->when == PARAM_START ? "Takes effect at the next start."
                               : "Takes effect with a reload.");
}

void settings_document(struct buf *out)
{
    buf_append_str(out, ".Bl -tag -width indent\n");
    for (unsigned i = 0; i < param_count; i++)
        one(&params[i], out);
    buf_append_str(out, ".El\n");
}
