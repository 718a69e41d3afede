/* SPDX-License-Identifier: Apache-2.0 */
#include "node/http/http_internal.h"

#include "base/metrics.h"

size_t http_request_end(struct slice bytes)
{
    static const char crlf[] = "\r\n\r\n", lf[] = "\n\n";
    const char *a = memmem(bytes.ptr, bytes.len, crlf, 4);
    const char *b = memmem(bytes.ptr, bytes.len, lf, 2);
    size_t end_a = a ? (size_t)(a - bytes.ptr) + 4 : 0;
    size_t end_b = b ? (size_t)(b - bytes.ptr) + 2 : 0;
    if (end_a && end_b)
        return end_a < end_b ? end_a : end_b;
    return end_a ? end_a : end_b;
}

struct answer {
    const char *status;
    const char *type;
    const char *header; /* one more, with its line end, or "" */
    struct buf body;
};

#define PLAIN "text/plain; charset=utf-8"
#define PROMETHEUS "text/plain; version=0.0.4; charset=utf-8"

static void say(struct answer *a, const char *status, const char *body)
{
    a->status = status;
    buf_append_str(&a->body, body);
}

/* "ok", or one line a check that fails. */
static void probe(
    const struct http_content *content, enum http_probe which, struct answer *a)
{
    unsigned failed = 0;
    for (unsigned i = 0; i < content->check_count; i++) {
        const struct http_check *c = &content->checks[i];
        char why[256] = "";
        if (c->probe != which || c->check(why, sizeof(why), c->ctx))
            continue;
        buf_printf(&a->body, "%s: %s\n", c->name, why[0] ? why : "not ready");
        failed++;
    }
    if (failed)
        a->status = "503 Service Unavailable";
    else
        say(a, "200 OK", "ok\n");
}

static void metrics(const struct http_content *content, struct answer *a)
{
    metrics_render(&a->body);
    for (unsigned i = 0; i < content->metrics_count; i++)
        content->metrics[i].render(&a->body, content->metrics[i].ctx);
    a->status = a->body.failed ? "500 Internal Server Error" : "200 OK";
    a->type = PROMETHEUS;
}

static struct slice take_word(struct slice *line)
{
    size_t end = slice_find(*line, ' ');
    struct slice word = slice_head(*line, end);
    *line = slice_from(*line, end + 1);
    return word;
}

static void route(const struct http_content *content, struct slice path, struct answer *a)
{
    path = slice_head(path, slice_find(path, '?'));
    if (slice_eq(path, SLICE("/livez")))
        probe(content, HTTP_LIVE, a);
    else if (slice_eq(path, SLICE("/readyz")))
        probe(content, HTTP_READY, a);
    else if (slice_eq(path, SLICE("/metrics")))
        metrics(content, a);
    else
        say(a, "404 Not Found", "not here; there are /livez, /readyz and /metrics\n");
}

/* True when the body is not to be sent. */
static bool answer_head(
    const struct http_content *content, struct slice head, struct answer *a)
{
    struct slice line = slice_trim(slice_head(head, slice_find(head, '\n')));
    struct slice method = take_word(&line), path = take_word(&line);
    bool is_head = slice_eq(method, SLICE("HEAD"));
    if (head.len == 0) {
        say(a, "431 Request Header Fields Too Large", "the request is too long\n");
    } else if (method.len == 0 || path.len == 0 || path.ptr[0] != '/' ||
               !slice_starts(line, SLICE("HTTP/1."))) {
        say(a, "400 Bad Request", "this is not HTTP/1.1\n");
    } else if (!is_head && !slice_eq(method, SLICE("GET"))) {
        say(a, "405 Method Not Allowed", "only GET and HEAD\n");
        a->header = "Allow: GET, HEAD\r\n";
    } else {
        route(content, path, a);
    }
    return is_head;
}

void http_answer(const struct http_content *content, struct slice head, struct buf *out)
{
    struct answer a = {.type = PLAIN, .header = ""};
    buf_init(&a.body, HTTP_ANSWER_MAX - 1024);
    bool no_body = answer_head(content, head, &a);
    buf_printf(out,
        "HTTP/1.1 %s\r\nContent-Type: %s\r\nContent-Length: %zu\r\n%s"
        "Cache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\n"
        "Connection: close\r\n\r\n",
        a.status, a.type, buf_len(&a.body), a.header);
    if (!no_body)
        buf_append(out, buf_slice(&a.body));
    buf_fini(&a.body);
}
