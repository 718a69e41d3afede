/* SPDX-License-Identifier: Apache-2.0 */
/* The limits of a destination that several nodes keep together: cluster/budget.h and
 * node/delivery/quota.h, with frames that are lost and late, on a clock of their own. */
#include "cluster/budget.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "base/alloc.h"
#include "node/delivery/quota.h"

#define NODES 5
#define MS INT64_C(1000000)
#define SEC (1000 * MS)
#define STEP (10 * MS)
#define NOTES 512
#define SENT_MAX 4096
#define KEY UINT64_C(0x123456789abcdef)

struct node;
struct note {
    enum { NOTE_NONE, NOTE_ASK, NOTE_GRANT, NOTE_NEED, NOTE_SHARE, NOTE_FLOOR } kind;
    int64_t at;
    uint64_t number;
    uint64_t from, to;
    struct msg_budget msg;
    struct budget_need need;
    uint32_t serial, share[BUDGET_KINDS];
};

/* One node: the schedule's side with one destination, and the engine's. */
struct node {
    uint64_t id;
    struct budgets *budgets;
    struct quota quota;
    struct quota_terms terms;
    bool is_up, is_cut; /* cut: alive, and nobody hears it */
    unsigned connections, demand;
    struct {
        int64_t ends;
    } under_way[64];
    unsigned under_way_count;
    uint32_t ready; /* messages that wait */
};

static struct {
    int64_t now;
    uint64_t random;
    unsigned loss; /* per cent */
    struct budget_limits limits;
    struct node node[NODES + 1];
    unsigned count;
    struct note note[NOTES];
    uint64_t notes;
    int64_t sent[SENT_MAX]; /* when messages arrived: a ring */
    unsigned sent_count;
    unsigned most_connections;
    unsigned frames;
} w;

static uint32_t any(uint32_t below)
{
    w.random = w.random * UINT64_C(6364136223846793005) + 1442695040888963407u;
    return (uint32_t)(w.random >> 33) % below;
}

static struct note *post(int kind, int64_t delay)
{
    for (unsigned i = 0; i < NOTES; i++)
        if (w.note[i].kind == NOTE_NONE) {
            w.note[i] = (struct note){
                .kind = (unsigned)kind, .at = w.now + delay, .number = ++w.notes};
            return &w.note[i];
        }
    fail_msg("too many notes");
    return NULL;
}

/* Within a node in order, if not at once. */
static int64_t lag(void)
{
    return 7 * MS;
}

static void sent(void *ctx, uint64_t to, bool grant, const struct msg_budget *msg)
{
    struct node *n = ctx;
    assert_true(msg->count > 0 && msg->count <= BUDGET_ENTRIES);
    assert_true(to != n->id && to >= 1 && to <= NODES);
    w.frames++;
    if (n->is_cut || w.node[to].is_cut || any(100) < w.loss)
        return;
    struct note *note = post(grant ? NOTE_GRANT : NOTE_ASK, (1 + any(40)) * MS);
    note->from = n->id;
    note->to = to;
    note->msg = *msg;
}

static void share_told(
    void *ctx, uint64_t key, uint32_t serial, const uint32_t share[BUDGET_KINDS])
{
    struct node *n = ctx;
    struct note *note = post(NOTE_SHARE, lag());
    assert_int_equal(key, KEY);
    note->to = n->id;
    note->serial = serial;
    memcpy(note->share, share, sizeof(note->share));
}

static void floor_told(void *ctx, const uint32_t floor[BUDGET_KINDS])
{
    struct node *n = ctx;
    struct note *note = post(NOTE_FLOOR, lag());
    note->to = n->id;
    memcpy(note->share, floor, sizeof(note->share));
}

static void look(struct node *n, bool lower)
{
    struct quota_need need;
    uint32_t used = n->quota.under_way + n->quota.count;
    uint32_t most = w.limits.most[BUDGET_MESSAGES];
    uint32_t have[QUOTA_KINDS] = {n->connections, used};
    uint32_t want[QUOTA_KINDS] = {n->demand > n->connections ? n->demand : n->connections,
        used + n->ready < most ? used + n->ready : most};
    if (most == 0)
        have[QUOTA_MESSAGES] = want[QUOTA_MESSAGES] = 0;
    if (!quota_look(&n->quota, &n->terms, have, want, lower, &need))
        return;
    struct note *note = post(NOTE_NEED, lag());
    note->to = n->id;
    note->need = (struct budget_need){.key = KEY, .serial = need.serial};
    memcpy(note->need.have, need.have, sizeof(need.have));
    memcpy(note->need.want, need.want, sizeof(need.want));
    memcpy(note->need.may, need.may, sizeof(need.may));
}

static void deliver(struct note *note)
{
    struct node *n = &w.node[note->to];
    struct note now = *note;
    note->kind = NOTE_NONE;
    if (!n->is_up)
        return;
    if (now.kind == NOTE_ASK) {
        budgets_asked(n->budgets, now.from, 1, &now.msg, w.now);
    } else if (now.kind == NOTE_GRANT) {
        budgets_granted(n->budgets, now.from, &now.msg, w.now);
    } else if (now.kind == NOTE_NEED) {
        budgets_need(n->budgets, &now.need, w.now);
    } else if (now.kind == NOTE_SHARE) {
        quota_share(&n->quota, &n->terms, now.serial, now.share);
    } else {
        uint32_t have[QUOTA_KINDS] = {
            n->connections, n->quota.under_way + n->quota.count};
        memcpy(n->terms.floor, now.share, sizeof(now.share));
        quota_floor(&n->quota, &n->terms, have);
    }
}

static void use_messages(struct node *n)
{
    for (unsigned i = 0; i < n->under_way_count;) {
        if (w.now < n->under_way[i].ends) {
            i++;
            continue;
        }
        quota_end(&n->quota, w.now);
        n->under_way[i] = n->under_way[--n->under_way_count];
    }
    uint32_t left = quota_messages(&n->quota, &n->terms, w.now);
    while (left-- > 0 && n->ready > 0 && n->under_way_count < 64) {
        int64_t takes = (int64_t)any(20) * STEP;
        quota_start(&n->quota);
        n->ready--;
        n->under_way[n->under_way_count++].ends = w.now + takes;
        /* it arrives somewhere between */
        w.sent[w.sent_count++ % SENT_MAX] = w.now + takes / 2;
    }
}

static void use(struct node *n)
{
    while (n->connections < n->demand && quota_may_connect(&n->quota, n->connections))
        n->connections++;
    if (n->connections > n->demand || n->connections > n->quota.share[0])
        n->connections -= any(4) == 0; /* ends when it ends */
    if (w.limits.most[BUDGET_MESSAGES])
        use_messages(n);
    look(n, (w.now / STEP) % 25 == (int64_t)n->id);
}

static unsigned connections(void)
{
    unsigned sum = 0;
    for (unsigned i = 1; i <= w.count; i++)
        sum += w.node[i].is_up ? w.node[i].connections : 0;
    return sum;
}

/* Messages that arrived within a period before `at`. */
static unsigned arrived(int64_t at)
{
    unsigned sum = 0, all = w.sent_count < SENT_MAX ? w.sent_count : SENT_MAX;
    for (unsigned i = 0; i < all; i++)
        sum += w.sent[i] <= at && w.sent[i] > at - w.limits.period_ns;
    return sum;
}

/* The oldest that is due: what a node says to itself stays in order. */
static struct note *next_note(void)
{
    struct note *best = NULL;
    for (unsigned i = 0; i < NOTES; i++)
        if (w.note[i].kind != NOTE_NONE && w.note[i].at <= w.now &&
            (!best || w.note[i].number < best->number))
            best = &w.note[i];
    return best;
}

static void step(void)
{
    w.now += STEP;
    for (struct note *note; (note = next_note()) != NULL;)
        deliver(note);
    for (unsigned i = 1; i <= w.count; i++) {
        if (!w.node[i].is_up)
            continue;
        if ((w.now / STEP + i) % 25 == 0)
            budgets_tick(w.node[i].budgets, w.now);
        use(&w.node[i]);
    }
    unsigned sum = connections();
    w.most_connections = sum > w.most_connections ? sum : w.most_connections;
}

static void run(int64_t for_ns)
{
    int64_t end = w.now + for_ns;
    while (w.now < end) {
        step();
        if (w.limits.most[BUDGET_MESSAGES] && w.now > 3 * SEC)
            assert_in_range(arrived(w.now - SEC), 0, w.limits.most[BUDGET_MESSAGES]);
    }
}

/* What node `at` thinks of the others. `gone`: known to be closed for ever. */
static void members(unsigned at, unsigned dead, bool gone)
{
    struct budget_member m[NODES];
    for (unsigned i = 1; i <= w.count; i++) {
        bool lost = i == dead || (w.node[at].is_cut && i != at);
        m[i - 1] = (struct budget_member){
            .node = i, .is_reachable = !lost, .may_send = !(i == dead && gone)};
    }
    budgets_members(w.node[at].budgets, m, w.count, w.now);
}

static void all_members(unsigned dead, bool gone)
{
    for (unsigned i = 1; i <= w.count; i++)
        if (w.node[i].is_up && i != dead)
            members(i, dead, gone);
}

static void open_world(
    unsigned count, uint32_t connections_max, uint32_t messages, int64_t period)
{
    static const struct budget_events events = {sent, share_told, floor_told};
    memset(&w, 0, sizeof(w));
    w.now = 1000 * SEC;
    w.random = 7;
    w.count = count;
    w.limits = (struct budget_limits){{connections_max, messages}, period};
    for (unsigned i = 1; i <= count; i++) {
        struct node *n = &w.node[i];
        n->id = i;
        n->is_up = true;
        n->terms.period_ns = messages ? period : 0;
        quota_init(&n->quota, &n->terms);
        n->budgets = budgets_new(i, &events, n);
        budgets_limits(n->budgets, &w.limits, w.now);
    }
    all_members(0, false);
}

static void close_world(void)
{
    for (unsigned i = 1; i <= w.count; i++) {
        budgets_free(w.node[i].budgets);
        quota_fini(&w.node[i].quota);
    }
}

static unsigned coordinator(void)
{
    return (unsigned)budgets_coordinator(w.node[1].budgets, KEY);
}

/* ---- connections ---- */

static void a_busy_node_gets_what_idle_ones_leave(void **unused)
{
    (void)unused;
    open_world(3, 6, 0, 0); /* no floor: 6 / 12 */
    run(6 * SEC);
    w.node[1].demand = 30;
    run(SEC);
    assert_int_equal(w.node[1].connections, 6);
    w.node[2].demand = 30; /* from now on both want all of it */
    run(6 * SEC);
    assert_int_equal(w.node[1].connections, 3);
    assert_int_equal(w.node[2].connections, 3);
    w.node[3].demand = 1; /* a small want is met */
    run(6 * SEC);
    assert_int_equal(w.node[3].connections, 1);
    assert_int_equal(connections(), 6);
    w.node[1].demand = 0;
    run(3 * SEC);
    assert_int_equal(w.node[2].connections, 5);
    assert_int_equal(w.most_connections, 6);
    close_world();
}

static void the_floor_needs_no_question(void **unused)
{
    (void)unused;
    open_world(3, 24, 0, 0);
    run(6 * SEC);
    w.node[1].demand = 2;
    run(SEC);
    assert_int_equal(w.node[1].connections, 2);
    assert_int_equal(w.frames, 0);
    assert_int_equal(budgets_counts(w.node[1].budgets).needs, 0);
    w.node[1].demand = 100;
    run(3 * SEC);
    assert_int_equal(w.node[1].connections, 20); /* two floors of two are kept */
    w.node[1].demand = 0;
    run(3 * SEC);
    assert_int_equal(budgets_counts(w.node[1].budgets).needs, 0);
    unsigned frames = w.frames;
    run(10 * SEC);
    assert_int_equal(w.frames, frames);
    for (unsigned i = 1; i <= 3; i++)
        assert_int_equal(budgets_counts(w.node[i].budgets).coordinated, 0);
    close_world();
}

static void without_a_limit_nothing_is_said(void **unused)
{
    (void)unused;
    open_world(3, 0, 0, 0);
    run(SEC);
    w.node[1].demand = 500;
    run(3 * SEC);
    assert_int_equal(w.node[1].connections, 500);
    assert_int_equal(w.frames, 0);
    close_world();
}

static void alone_all_of_it(void **unused)
{
    (void)unused;
    open_world(1, 6, 0, 0);
    w.node[1].demand = 30;
    run(SEC);
    assert_int_equal(w.node[1].connections, 6);
    assert_int_equal(w.frames, 0);
    close_world();
}

/* One connection for three: each has its turn. */
static void fewer_than_nodes_go_round(void **unused)
{
    (void)unused;
    unsigned had[NODES + 1] = {0};
    open_world(3, 1, 0, 0);
    run(6 * SEC);
    for (unsigned i = 1; i <= 3; i++)
        w.node[i].demand = 1;
    for (unsigned t = 0; t < 600; t++) {
        run(STEP * 10);
        for (unsigned i = 1; i <= 3; i++)
            had[i] += w.node[i].connections;
    }
    assert_int_equal(w.most_connections, 1);
    for (unsigned i = 1; i <= 3; i++)
        assert_in_range(had[i], 60, 600);
    close_world();
}

static void random_demand(void)
{
    for (unsigned i = 1; i <= w.count; i++)
        if (any(300) == 0) {
            w.node[i].demand = any(3) ? any(30) : 0;
            w.node[i].ready += any(40);
        }
}

static void run_random(int64_t for_ns)
{
    int64_t end = w.now + for_ns;
    while (w.now < end) {
        random_demand();
        run(STEP);
    }
}

static void never_above_the_limit(void **unused)
{
    (void)unused;
    for (uint32_t limit = 1; limit <= 50; limit += 7)
        for (unsigned loss = 0; loss <= 30; loss += 15) {
            open_world(5, limit, 20, 2 * SEC);
            w.random = limit * 100 + loss;
            w.loss = loss;
            run_random(60 * SEC);
            assert_in_range(w.most_connections, limit - limit / 5, limit);
            close_world();
        }
}

/* ---- a coordinator that goes ---- */

static void a_dead_coordinator(bool only_cut)
{
    open_world(3, 12, 0, 0);
    run(6 * SEC);
    for (unsigned i = 1; i <= 3; i++)
        w.node[i].demand = 30;
    run(6 * SEC);
    assert_int_equal(connections(), 12);
    unsigned dead = coordinator(), other = dead % 3 + 1;
    w.node[dead].is_up = only_cut;
    w.node[dead].is_cut = true;
    w.node[other].demand = 2;
    if (only_cut)
        members(dead, 0, false);
    run(4 * SEC); /* not noticed yet */
    all_members(dead, false);
    run(11 * SEC); /* known as dead, its session is not closed: its share is kept */
    for (unsigned i = 1; i <= 3; i++)
        if (i != dead)
            assert_in_range(w.node[i].connections, i == other ? 2 : 4, 12);
    if (only_cut) /* it has lost its lease */
        w.node[dead].demand = 0;
    run(2 * SEC);
    assert_in_range(w.most_connections, 12, 12);
    all_members(dead, true);
    run(7 * SEC);
    unsigned sum = 0;
    for (unsigned i = 1; i <= 3; i++)
        sum += i == dead ? 0 : w.node[i].connections;
    assert_int_equal(sum, 12);
    assert_int_equal(w.most_connections, 12);
    close_world();
}

static void death_leaves_even_shares_then_all(void **unused)
{
    (void)unused;
    a_dead_coordinator(false);
}

static void a_partition_does_not_double_the_limit(void **unused)
{
    (void)unused;
    a_dead_coordinator(true);
}

/* Nobody ever says that it is dead: even shares, after one lease. */
static void unanswered_means_an_even_share(void **unused)
{
    (void)unused;
    open_world(3, 12, 0, 0);
    run(6 * SEC);
    unsigned dead = coordinator();
    w.node[dead].is_up = false;
    for (unsigned i = 1; i <= 3; i++)
        w.node[i].demand = 30;
    run(SEC);
    assert_int_equal(connections(), 2); /* floors */
    run(6 * SEC);
    assert_int_equal(connections(), 8);
    assert_int_equal(budgets_counts(w.node[dead % 3 + 1].budgets).without, 1);
    close_world();
}

static void the_second_node_joins(void **unused)
{
    (void)unused;
    open_world(2, 8, 0, 0);
    struct budget_member alone = {.node = 1, .is_reachable = true, .may_send = true};
    budgets_members(w.node[1].budgets, &alone, 1, w.now);
    w.node[2].is_up = false;
    w.node[1].demand = 30;
    run(7 * SEC);
    assert_int_equal(w.node[1].connections, 8);
    w.node[2].is_up = true;
    w.node[2].demand = 30;
    all_members(0, false);
    run(15 * SEC);
    assert_int_equal(w.node[1].connections, 4);
    assert_int_equal(w.node[2].connections, 4);
    assert_in_range(w.most_connections, 8, 9); /* 9: the newcomer's floor */
    close_world();
}

/* ---- messages ---- */

static void a_rate_is_used_up_and_not_passed(void **unused)
{
    (void)unused;
    open_world(3, 0, 50, SEC);
    run(6 * SEC);
    w.node[1].ready = w.node[2].ready = 4000;
    run(3 * SEC);
    unsigned before = w.sent_count;
    run(10 * SEC); /* invariant: never above */
    assert_in_range(w.sent_count - before, 350, 500);
    w.node[2].ready = 0;
    run(3 * SEC);
    before = w.sent_count;
    run(5 * SEC);
    assert_in_range(w.sent_count - before, 175, 250);
    close_world();
}

static void rates_are_shortened(void **unused)
{
    (void)unused;
    static const struct {
        uint32_t count;
        int64_t period;
        uint32_t want;
        int64_t want_period;
    } table[] = {{1, 60 * SEC, 1, 60 * SEC}, {199, 60 * SEC, 199, 60 * SEC},
        {1000, 60 * SEC, 100, 6 * SEC}, {5000, SEC, 5000, SEC},
        {100000, 3600 * SEC, 100, 3600 * SEC / 1000}, {250, 3 * SEC, 125, 3 * SEC / 2}};
    for (unsigned i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
        uint32_t count;
        int64_t period;
        quota_period(table[i].count, table[i].period, &count, &period);
        assert_int_equal(count, table[i].want);
        assert_int_equal(period, table[i].want_period);
        /* never more in the long time than was said */
        assert_true((double)count * (double)table[i].period <=
                    (double)table[i].count * (double)period + 1);
    }
}

/* ---- frames of anybody ---- */

static void senseless_frames_are_passed_over(void **unused)
{
    (void)unused;
    open_world(3, 12, 0, 0);
    run(6 * SEC);
    struct budgets *b = w.node[coordinator()].budgets;
    struct msg_budget m = {.sent_ns = 5, .count = BUDGET_ENTRIES};
    for (unsigned i = 0; i < BUDGET_ENTRIES; i++)
        m.entry[i] = (struct budget_entry){KEY + i, {UINT32_MAX, UINT32_MAX}, {9, 9}};
    budgets_asked(b, 99, 1, &m, w.now); /* no member */
    budgets_granted(b, 2, &m, w.now);   /* nobody asked */
    assert_int_equal(budgets_counts(b).coordinated, 0);
    /* one that holds all: nobody else gets anything, until its lease is over */
    unsigned liar = coordinator() % 3 + 1, other = liar % 3 + 1;
    budgets_asked(b, liar, 1, &m, w.now);
    w.node[other].demand = 5;
    run(3 * SEC);
    assert_in_range(w.node[other].connections, 0, 1);
    run(5 * SEC);
    assert_int_equal(w.node[other].connections, 5);
    close_world();
}

static void tables_are_bounded(void **unused)
{
    (void)unused;
    open_world(2, 12, 0, 0);
    run(6 * SEC);
    struct budgets *b = w.node[1].budgets;
    struct msg_budget m = {.sent_ns = 5, .count = 1};
    for (uint64_t key = 1; key < 4 * BUDGET_KEYS; key++) {
        m.entry[0] = (struct budget_entry){key * 977, {1, 0}, {5, 0}};
        budgets_asked(b, 2, 1, &m, w.now);
        for (unsigned i = 0; i < NOTES; i++)
            w.note[i].kind = NOTE_NONE;
    }
    assert_int_equal(budgets_counts(b).coordinated, BUDGET_KEYS);
    w.now += 7 * SEC;
    budgets_tick(b, w.now);
    assert_int_equal(budgets_counts(b).coordinated, 0);
    close_world();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_busy_node_gets_what_idle_ones_leave),
        cmocka_unit_test(the_floor_needs_no_question),
        cmocka_unit_test(without_a_limit_nothing_is_said),
        cmocka_unit_test(alone_all_of_it),
        cmocka_unit_test(fewer_than_nodes_go_round),
        cmocka_unit_test(never_above_the_limit),
        cmocka_unit_test(death_leaves_even_shares_then_all),
        cmocka_unit_test(a_partition_does_not_double_the_limit),
        cmocka_unit_test(unanswered_means_an_even_share),
        cmocka_unit_test(the_second_node_joins),
        cmocka_unit_test(a_rate_is_used_up_and_not_passed),
        cmocka_unit_test(rates_are_shortened),
        cmocka_unit_test(senseless_frames_are_passed_over),
        cmocka_unit_test(tables_are_bounded),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
