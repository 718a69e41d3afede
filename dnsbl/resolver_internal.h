/* SPDX-License-Identifier: Apache-2.0 */
/* For the files of the resolver alone. Everything here is the resolver's thread's, unless
 * it says otherwise. */
#ifndef DNSBL_RESOLVER_INTERNAL_H
#define DNSBL_RESOLVER_INTERNAL_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>

#include "base/arena.h"
#include "base/loop.h"
#include "dnsbl/resolver.h"

struct ub_ctx;

#define QUESTION_TIMEOUT_MS 30000
#define ANCHORS_MAX 16
#define WHY_MAX 300

/* ---- what of the settings the resolver needs: a deep copy, immutable ---- */
struct resolver_config {
    struct arena *arena;
    const char *data_dir;
    const char *trust_anchor;
    const char *bogus_name; /* a name that must be found bogus, or "" */
    uint64_t cache_bytes;
    bool dnssec;
    struct netaddr *forward;
    unsigned forward_count;
    struct stub_settings *stubs;
    unsigned stub_count;
    const char **insecure;
    unsigned insecure_count;
    /* filled by resolver_anchors_prepare */
    struct resolver_anchor {
        const char *zone; /* dns_name_check's form */
        const char *file; /* in data_dir, kept current by RFC 5011 */
    } anchors[ANCHORS_MAX];
    unsigned anchor_count;
    uint32_t anchor_source; /* CRC32C of the file it was copied from */
};
/* NULL with `why` when a name in there is not one, or the anchor cannot be had. Any
 * thread. */
struct resolver_config *resolver_config_new(
    const struct settings *s, char *why, size_t why_size);
void resolver_config_free(struct resolver_config *c);
bool resolver_config_same(
    const struct resolver_config *a, const struct resolver_config *b);

/* Copies the trust anchors to data_dir, one file a zone ("root.key", "example.org.key"),
 * when they are not there or the source has changed since. `force`: in any case. Any
 * thread. */
bool resolver_anchors_prepare(
    struct resolver_config *c, bool force, char *why, size_t why_size);

/* ---- what libunbound prints ---- */
#define REASONS_MAX 64
struct resolver_log {
    FILE *stream; /* NULL when libunbound has closed it */
    char line[512];
    size_t len;
    struct mono window; /* at most so many lines a minute go to our log */
    unsigned in_window;
    unsigned next_reason;
    struct resolver_reason {
        char question[280]; /* "name. TYPE IN" */
        char text[WHY_MAX];
    } reasons[REASONS_MAX];
};
/* Before the first and before each further context. */
void resolver_log_before_context(struct resolver_log *log, struct ub_ctx *any);
void resolver_log_attach(struct resolver_log *log, struct ub_ctx *ctx);
/* After the last context. */
void resolver_log_close(struct resolver_log *log);
/* One line of it, without the newline (tests). */
void resolver_log_line(struct resolver_log *log, const char *line);
/* Why the question failed last, or "". */
const char *resolver_log_reason(
    const struct resolver_log *log, const char *name, enum dns_type type);
/* "validation failure <question>: reason" -> "reason" */
const char *resolver_log_shorten(const char *reason);

/* ---- a libunbound context with its questions under way ---- */
TAILQ_HEAD(dns_query_list, dns_query);
struct resolver_context {
    struct ub_ctx *ub;
    struct resolver *resolver;
    struct resolver_config *config; /* owned */
    struct dns_query_list under_way;
    bool retired; /* a reload has put another in its place */
    TAILQ_ENTRY(resolver_context) entry;
};
TAILQ_HEAD(resolver_context_list, resolver_context);

/* WRONG: the first anchor is replaced by one that no key matches, so that all below it
 * must come out bogus. */
enum anchor_choice { ANCHOR_REAL, ANCHOR_WRONG };
/* A context ready for questions, or NULL with `why`. */
struct ub_ctx *resolver_ub_new(struct resolver *r, const struct resolver_config *c,
    enum anchor_choice anchor, char *why, size_t why_size);
/* Accepts NULL. */
void resolver_ub_free(struct resolver *r, struct ub_ctx *ub);

/* ---- the self-test ---- */
#define PROBES_MAX (ANCHORS_MAX + 2)
struct resolver_test;
/* ANCHOR: the zone of a trust anchor must come back secure. WRONG_ANCHOR: the same zone
 * under an anchor that no key matches must be bogus. BOGUS_NAME: so must the operator's
 * test name. */
enum probe_kind { PROBE_ANCHOR, PROBE_WRONG_ANCHOR, PROBE_BOGUS_NAME };
struct probe {
    struct resolver_test *test;
    enum probe_kind kind;
    char name[256];
    enum resolver_health verdict; /* UNTESTED: no answer yet, or nobody answers */
    bool open;
};
struct resolver_test {
    struct resolver *resolver;
    struct ub_ctx *real,
        *wrong; /* with caches of their own, empty at first; NULL between */
    struct probe probes[PROBES_MAX];
    unsigned probe_count;
    unsigned open;
    struct timer timer; /* the next test, or the end of this one */
    bool running;
    bool said_untested;
    int64_t retry_ms;
    char text[WHY_MAX]; /* why it failed */
};
void resolver_test_init(struct resolver_test *t, struct resolver *r);
/* Soon: at start, after a reload. */
void resolver_test_start(struct resolver_test *t);
void resolver_test_fini(struct resolver_test *t);
/* What one answer proves (pure). `text` says what to look at when it is FAILED. */
enum resolver_health resolver_test_judge(enum probe_kind kind, const char *name,
    bool answered, enum dns_security security, const char *why_bogus, char text[WHY_MAX]);
/* What all of them prove together (pure). */
enum resolver_health resolver_test_verdict(const struct probe *probes, unsigned count);

struct resolver {
    struct loop *loop;
    pthread_t thread;
    struct resolver_context *current;
    struct resolver_context_list contexts; /* current and retired ones */
    unsigned under_way;
    struct timer timeout; /* of the oldest question */
    struct mail stop_mail, sweep_mail;
    bool sweeping;
    bool stopping;
    struct resolver_log log;
    struct resolver_test test;
    pthread_mutex_t health_lock; /* the one thing other threads read */
    enum resolver_health health;
    char health_text[WHY_MAX];
};

/* Starts a question on the resolver's own thread; q->done is called there, at once or
 * later, when q->reply_to is NULL. */
void resolver_start(struct resolver *r, struct dns_query *q);
void resolver_set_health(
    struct resolver *r, enum resolver_health health, const char *text);
/* "MX of example.org" */
void resolver_question_text(const struct dns_query *q, char out[WHY_MAX]);

/* ---- pure parts of the compound questions (tests) ---- */
/* From an answer to MX (or the lack of one) to the hosts in order; `arena` gets the
 * names. */
void resolver_mx_from_answer(const char *domain, const struct dns_answer *a,
    struct arena *arena, struct mx_set *out);
/* Joins the families; an unwanted one is not looked at. */
void resolver_host_from_answers(struct host_query *q);

#endif
