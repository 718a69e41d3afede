/* SPDX-License-Identifier: Apache-2.0 */
/* The third kind of failure (the first two, our bugs and no memory, end the process): the
 * world said no. One table, errors.def, holds each error's class, SMTP code, enhanced
 * status code (RFC 3463) and text; the reply, the retry and the log line all follow from
 * its row. */
#ifndef BASE_ERR_H
#define BASE_ERR_H

enum err {
#define ERR(name, class, code, status, text) ERR_##name,
#include "base/errors.def"
#undef ERR
    ERR_COUNT
};

enum err_class { ERR_CLASS_NONE, ERR_CLASS_TRANSIENT, ERR_CLASS_PERMANENT };

#define MUST_CHECK __attribute__((warn_unused_result))

enum err_class err_class(enum err e);
/* SMTP reply code, 250 for ERR_OK. */
int err_code(enum err e);
/* "4.3.1" */
const char *err_status(enum err e);
/* "mail queue is full" */
const char *err_text(enum err e);
/* "STORE_FULL", for logs and tests */
const char *err_name(enum err e);

#endif
