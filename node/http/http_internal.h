/* SPDX-License-Identifier: Apache-2.0 */
/* http.c has sockets, http_answer.c has requests and answers: bytes in, bytes out. */
#ifndef NODE_HTTP_HTTP_INTERNAL_H
#define NODE_HTTP_HTTP_INTERNAL_H

#include "node/http/http.h"

#define HTTP_REQUEST_MAX 8192
#define HTTP_ANSWER_MAX (4u << 20)

struct http_check {
    enum http_probe probe;
    const char *name;
    http_check_fn *check;
    void *ctx;
};

struct http_content {
    struct http_check checks[HTTP_CHECKS_MAX];
    unsigned check_count;
    struct {
        http_metrics_fn *render;
        void *ctx;
    } metrics[HTTP_CHECKS_MAX];
    unsigned metrics_count;
};

/* Has the head of a request arrived? Its length with the empty line, or 0. */
size_t http_request_end(struct slice bytes);
/* The whole answer to a request head (of http_request_end), or to one that is too long
 * (`head` empty). */
void http_answer(const struct http_content *content, struct slice head, struct buf *out);

#endif
