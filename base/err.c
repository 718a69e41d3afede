/* SPDX-License-Identifier: Apache-2.0 */
#include "base/err.h"

#include "base/alloc.h"

struct row {
    const char *name;
    enum err_class class;
    int code;
    const char *status;
    const char *text;
};

static const struct row rows[] = {
#define ERR(name, class, code, status, text)                                             \
    {#name, ERR_CLASS_##class, code, status, text},
#include "base/errors.def"
#undef ERR
};

static const struct row *row(enum err e)
{
    INVARIANT((unsigned)e < ERR_COUNT);
    return &rows[e];
}

enum err_class err_class(enum err e)
{
    return row(e)->class;
}

int err_code(enum err e)
{
    return row(e)->code;
}

const char *err_status(enum err e)
{
    return row(e)->status;
}

const char *err_text(enum err e)
{
    return row(e)->text;
}

const char *err_name(enum err e)
{
    return row(e)->name;
}
