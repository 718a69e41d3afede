/* SPDX-License-Identifier: Apache-2.0 */
/* The door for probes and Prometheus: /livez, /readyz, /metrics over plain HTTP/1.1 on
 * `api.listen`, GET and HEAD only, one request a connection. A request is at most 8 KiB
 * and is done within 10 s from its first byte to our last, and at most
 * HTTP_CONNECTIONS_MAX are served at once (more wait in the kernel), so a stranger who
 * finds it cannot hurt mail. Written over the loop rather than evhttp: evhttp counts its
 * timeouts from the last byte and cannot bound connections, so one slow client could hold
 * descriptors for ever. One loop's thread does all of it. */
#ifndef NODE_HTTP_HTTP_H
#define NODE_HTTP_HTTP_H

#include "base/buf.h"
#include "base/loop.h"
#include "base/netaddr.h"

#define HTTP_CONNECTIONS_MAX 64
#define HTTP_CHECKS_MAX 32

struct http;

/* Opens the listeners. NULL on error, with a line in `why` that names the address and
 * what to do. Set it up before the loop runs. */
struct http *http_new(struct loop *loop, const struct netaddr *listen, unsigned count,
    char *why, size_t why_size);
/* Closes all; accepts NULL. After the loop has ended, or on its thread. */
void http_free(struct http *h);

/* A check answers true, or false with a reason in `why`. It runs on the loop for each
 * probe: quick, never blocking. LIVE ones decide /livez (fail: restart me), READY ones
 * /readyz (fail: send me no mail). `name` must live as long. */
enum http_probe { HTTP_LIVE, HTTP_READY };
typedef bool http_check_fn(char *why, size_t why_size, void *ctx);
void http_add_check(struct http *h, enum http_probe probe, const char *name,
    http_check_fn *check, void *ctx);
/* Appends more Prometheus text behind the counters of base/metrics.h: what has labels. */
typedef void http_metrics_fn(struct buf *out, void *ctx);
void http_add_metrics(struct http *h, http_metrics_fn *render, void *ctx);

/* The port of the n-th listener, when 0 was asked for. */
uint16_t http_port(const struct http *h, unsigned index);

#endif
