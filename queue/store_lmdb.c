/* SPDX-License-Identifier: Apache-2.0 */
/* The LMDB store's life: directory and lock, environment, identity, disk space. */
#include "queue/store_lmdb.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/log.h"
#include "base/random.h"

#define TABLES_MAX 24
#define READERS_MAX 256
#define ALLOCATE_STEP_MAX (UINT64_C(64) << 20)
#define ALLOCATE_STEP_MIN (UINT64_C(1) << 20)
#define ALLOCATE_AGAIN_MS 1000
#define ZERO_PIECE_BYTES ((size_t)512 << 10)
#define QUIET_MS 100 /* without mail: time for chores */

static const char *const table_names[TABLE_COUNT] = {
    [TABLE_META] = "meta",
    [TABLE_MSG] = "msg",
    [TABLE_RCPT] = "rcpt",
    [TABLE_BODY] = "body",
    [TABLE_BREF] = "bref",
    [TABLE_PART] = "part",
    [TABLE_GONE] = "gone",
    [TABLE_TOMB] = "tomb",
    [TABLE_QUAR] = "quar",
    [TABLE_NODE] = "node",
    [TABLE_UNIT] = "unit",
    [TABLE_MORE] = "more",
};
_Static_assert(TABLE_COUNT <= TABLES_MAX, "LMDB is told how many tables there are");

void lmdb_die(const struct lmdb_store *s, const char *doing, int rc)
{
    log_flush();
    die("baton: queue %s: %s failed: %s; nobody knows what is on disk now: look at the "
        "disk "
        "(dmesg, df), then start again",
        s->dir, doing, mdb_strerror(rc));
}

void lmdb_begin(struct lmdb_store *s)
{
    int rc = mdb_txn_begin(s->env, NULL, 0, &s->txn);
    if (rc)
        lmdb_die(s, "begin", rc);
    s->free_pages = LMDB_FREE_PAGES_MAX;
    s->delta = (struct store_delta){0};
    s->author.now = wall_now();
}

void lmdb_commit(struct lmdb_store *s)
{
    lmdb_measure(s);
    int rc = mdb_txn_commit(s->txn);
    if (rc)
        lmdb_die(s, "commit", rc);
}

/* --- disk space --- */

static uint64_t table_pages(struct lmdb_store *s, MDB_dbi dbi, size_t *entries_out)
{
    MDB_stat stat = {0};
    if (mdb_stat(s->txn, dbi, &stat) != 0)
        return 0;
    *entries_out = stat.ms_entries;
    return stat.ms_branch_pages + stat.ms_leaf_pages + stat.ms_overflow_pages;
}

/* LMDB keeps the page counts of each tree, so that what is in use is a sum of a dozen
 * numbers. Pages on the free list are not in it: they are where the next mail goes. */
void lmdb_measure(struct lmdb_store *s)
{
    struct store_counters *c = &s->base.counters;
    size_t entries[TABLE_COUNT] = {0}, unused;
    uint64_t pages = 2 + table_pages(s, 0, &unused) + table_pages(s, 1, &unused);
    for (unsigned t = 0; t < TABLE_COUNT; t++)
        pages += table_pages(s, s->dbi[t], &entries[t]);
    atomic_store_explicit(&c->used, pages * LMDB_PAGE_BYTES, memory_order_relaxed);
    atomic_store_explicit(&c->bodies, entries[TABLE_BREF], memory_order_relaxed);
    atomic_store_explicit(&c->body_rows, entries[TABLE_BODY], memory_order_relaxed);
    atomic_store_explicit(&c->quarantined, entries[TABLE_QUAR], memory_order_relaxed);
    atomic_store_explicit(&c->rows, entries[TABLE_UNIT], memory_order_relaxed);
}

/* A full disk is no reason to refuse mail for which our own file has room: pages on the
 * free list, with what was taken ahead as the reserve. */
static bool enough_without_growth(struct lmdb_store *s, uint64_t extent, uint64_t have)
{
    uint64_t used = atomic_load(&s->base.counters.used);
    return extent > used && extent - used >= 2 * s->ahead &&
           have >= extent + s->ahead / 2;
}

static void allocation_failed(struct lmdb_store *s, int error)
{
    bool was_open = atomic_exchange(&s->base.disk_grows, false);
    s->allocate_at = mono_add_ms(mono_now(), ALLOCATE_AGAIN_MS);
    if (was_open)
        log_say(LOG_EV_STORE_PROBLEM,
            "%s: no disk space ahead (%s); no new mail until there is", s->dir,
            strerror(error));
}

void lmdb_allocate(struct lmdb_store *s)
{
    struct store_counters *c = &s->base.counters;
    MDB_envinfo info;
    int fd;
    mdb_env_info(s->env, &info);
    uint64_t extent = (uint64_t)(info.me_last_pgno + 1) * LMDB_PAGE_BYTES;
    uint64_t have = atomic_load_explicit(&c->allocated, memory_order_relaxed);
    uint64_t want = extent + s->ahead;
    if (want <= have)
        return;
    if (!atomic_load(&s->base.disk_grows) && mono_diff_ms(s->allocate_at, mono_now()) > 0)
        return;
    want = (want + s->step - 1) / s->step * s->step;
    mdb_env_get_fd(s->env, &fd);
    int (*allocate)(int, off_t, off_t) = atomic_load(&s->allocate);
    int error = allocate(fd, (off_t)have, (off_t)(want - have));
    if (error == 0)
        atomic_store(&c->allocated, want);
    if (error && !enough_without_growth(s, extent, have)) {
        allocation_failed(s, error);
        return;
    }
    if (!atomic_exchange(&s->base.disk_grows, true))
        log_say(LOG_EV_STORE, "%s: there is disk space again", s->dir);
}

/* The first write to an allocated block makes the file system log that it holds data now,
 * which doubles the time of the commit (0.12 against 0.25 ms on a quiet disk). So in idle
 * moments the writer writes the blocks once. LMDB never has anything behind its last
 * page, and no transaction runs. */
bool lmdb_zero_ahead(struct lmdb_store *s)
{
    static const char zeros[ZERO_PIECE_BYTES];
    MDB_envinfo info;
    int fd;
    mdb_env_info(s->env, &info);
    uint64_t extent = (uint64_t)(info.me_last_pgno + 1) * LMDB_PAGE_BYTES;
    uint64_t have = atomic_load(&s->base.counters.allocated);
    if (s->zeroed < extent)
        s->zeroed = extent;
    if (s->zeroed >= have)
        return false;
    size_t len =
        have - s->zeroed < sizeof(zeros) ? (size_t)(have - s->zeroed) : sizeof(zeros);
    mdb_env_get_fd(s->env, &fd);
    ssize_t n = pwrite(fd, zeros, len, (off_t)s->zeroed);
    if (n <= 0) {
        s->zeroed = have; /* only speed is lost */
        return false;
    }
    s->zeroed += (uint64_t)n;
    if (fdatasync(fd) != 0)
        lmdb_die(s, "fdatasync", errno);
    return true;
}

static uint64_t clamp(uint64_t value, uint64_t low, uint64_t high)
{
    return value < low ? low : value > high ? high : value;
}

/* Two batches ahead: what a transaction writes and what it copies on the way. */
static void plan_allocation(struct lmdb_store *s)
{
    s->allocate = posix_fallocate;
    s->step = clamp(s->base.quota / 16, ALLOCATE_STEP_MIN, ALLOCATE_STEP_MAX) /
              ALLOCATE_STEP_MIN * ALLOCATE_STEP_MIN;
    s->sweep_at = (uint32_t)clamp(
        s->base.quota / 64 / LMDB_PAGE_BYTES, LMDB_LATER_ROWS, LMDB_SWEEP_ROWS);
    s->ahead = 2 * (s->base.batch_bytes + LMDB_FREE_PAGES_MAX * LMDB_PAGE_BYTES / 4);
}

void store_lmdb_set_allocate(
    struct store *s, int (*allocate)(int fd, off_t at, off_t len))
{
    atomic_store(&lmdb_of(s)->allocate, allocate);
}

/* --- directory --- */

static void name_other(struct lmdb_store *s, char *why, size_t why_size)
{
    char pid[16] = "?";
    int fd = openat(s->dir_fd, "pid", O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? -1 : read(fd, pid, sizeof(pid) - 1);
    if (fd >= 0)
        close(fd);
    if (n > 0)
        pid[strcspn(pid, "\n")] = '\0';
    snprintf(why, why_size,
        "%s: in use by process %s; stop that one first, or give this one another "
        "data_dir",
        s->dir, pid);
}

static bool write_pid(struct lmdb_store *s)
{
    char text[16];
    int fd = openat(s->dir_fd, "pid", O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0)
        return false;
    int len = snprintf(text, sizeof(text), "%ld\n", (long)getpid());
    bool ok = write(fd, text, (size_t)len) == len;
    close(fd);
    return ok;
}

static void sync_parent(const char *dir)
{
    char path[4096];
    snprintf(path, sizeof(path), "%s/..", dir);
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd >= 0) {
        fsync(fd);
        close(fd);
    }
}

static bool open_dir(struct lmdb_store *s, char *why, size_t why_size)
{
    bool made = mkdir(s->dir, 0700) == 0;
    if (!made && errno != EEXIST) {
        snprintf(why, why_size,
            "%s: cannot make it: %s; make its parent, or set data_dir", s->dir,
            strerror(errno));
        return false;
    }
    s->dir_fd = open(s->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (s->dir_fd < 0) {
        snprintf(why, why_size,
            "%s: cannot open it: %s; it must belong to the user we run as", s->dir,
            strerror(errno));
        return false;
    }
    if (flock(s->dir_fd, LOCK_EX | LOCK_NB) != 0) {
        name_other(s, why, why_size);
        return false;
    }
    if (made)
        sync_parent(s->dir);
    if (!write_pid(s)) {
        snprintf(why, why_size, "%s: cannot write there: %s; check owner, mode and space",
            s->dir, strerror(errno));
        return false;
    }
    return true;
}

/* --- environment --- */

static bool env_failed(
    struct lmdb_store *s, const char *what, int rc, char *why, size_t size)
{
    snprintf(why, size, "%s: %s: %s%s", s->dir, what, mdb_strerror(rc),
        rc == ENOMEM
            ? "; the map needs address space: raise ulimit -v, or lower queue.quota"
        : rc == MDB_INVALID || rc == MDB_CORRUPTED || rc == MDB_VERSION_MISMATCH
            ? "; data.mdb is no queue of ours: put it aside, or restore it"
            : "; check owner, mode and space");
    return false;
}

static bool open_env(struct lmdb_store *s, uint64_t map_bytes, char *why, size_t why_size)
{
    int dead;
    int rc = mdb_env_create(&s->env);
    if (rc)
        return env_failed(s, "cannot start LMDB", rc, why, why_size);
    mdb_env_set_mapsize(s->env, map_bytes);
    mdb_env_set_maxdbs(s->env, TABLES_MAX);
    mdb_env_set_maxreaders(s->env, READERS_MAX);
    /* The default flags are the durable ones; NOTLS frees read transactions from threads.
     */
    rc = mdb_env_open(s->env, s->dir, MDB_NOTLS, 0600);
    if (rc)
        return env_failed(s, "cannot open the queue", rc, why, why_size);
    mdb_reader_check(s->env, &dead);
    if (fsync(s->dir_fd) != 0)
        return env_failed(s, "fsync", errno, why, why_size);
    return true;
}

static int open_tables(struct lmdb_store *s)
{
    int rc = 0;
    for (unsigned t = 0; t < TABLE_COUNT && rc == 0; t++)
        rc = mdb_dbi_open(s->txn, table_names[t], MDB_CREATE, &s->dbi[t]);
    return rc;
}

/* --- identity --- */

static void make_identity(struct lmdb_store *s, struct wall now)
{
    baton__disk__meta__init(&s->meta);
    s->meta.schema = STORE_SCHEMA;
    while (s->meta.node_id == 0 || (uint32_t)s->meta.node_id == 0)
        s->meta.node_id = random_u64();
    s->meta.created_ms = s->meta.last_commit_ms = now.ms;
    s->meta.clean_shutdown = true;
    s->base.identity.created = true;
}

static enum err read_identity(struct lmdb_store *s)
{
    struct slice bytes;
    enum err e = lmdb_get(s, s->txn, TABLE_META, SLICE("store"), &bytes);
    if (e != ERR_OK)
        return e;
    struct arena *arena = arena_new(512);
    Baton__Disk__Meta *m = meta_row_unpack(arena, bytes);
    if (m) {
        s->meta = *m;
        s->meta.cluster_id = (ProtobufCBinaryData){0};
        if (m->cluster_id.len == sizeof(s->cluster_id)) {
            memcpy(s->cluster_id, m->cluster_id.data, sizeof(s->cluster_id));
            s->meta.cluster_id =
                (ProtobufCBinaryData){sizeof(s->cluster_id), s->cluster_id};
        }
    }
    arena_free(arena);
    return m ? ERR_OK : ERR_STORE_DAMAGED;
}

static bool check_identity(struct lmdb_store *s, char *why, size_t why_size)
{
    enum err e = read_identity(s);
    MDB_stat stat = {0};
    mdb_stat(s->txn, s->dbi[TABLE_MSG], &stat);
    if (e == ERR_STORE_NOT_FOUND && stat.ms_entries == 0) {
        make_identity(s, wall_now());
        return true;
    }
    if (e != ERR_OK) {
        snprintf(why, why_size,
            "%s: the row that says whose queue this is is damaged; restore the directory "
            "from a copy, or put it aside and start empty",
            s->dir);
        return false;
    }
    if (s->meta.schema == STORE_SCHEMA)
        return true;
    snprintf(why, why_size,
        "%s: written with schema %u, this program knows %u; run the version that wrote "
        "it",
        s->dir, s->meta.schema, STORE_SCHEMA);
    return false;
}

/* A new epoch for each run, committed before anybody may use it. */
static void begin_epoch(struct lmdb_store *s)
{
    struct store_identity *id = &s->base.identity;
    id->clean_shutdown = s->meta.clean_shutdown;
    id->last_commit.ms = s->meta.last_commit_ms;
    id->made_at.ms = s->meta.created_ms;
    s->meta.clean_shutdown = false;
    s->meta.epoch++;
    id->epoch = s->meta.epoch;
    id->node_id = s->meta.node_id;
    id->node32 = (uint32_t)s->meta.node_id;
    id->schema = s->meta.schema;
    s->author = (struct row_author){
        .node_id = s->meta.node_id, .epoch = s->meta.epoch, .now = wall_now()};
    atomic_store(&s->base.last_commit_ms, s->meta.last_commit_ms);
}

static bool start(struct lmdb_store *s, char *why, size_t why_size)
{
    MDB_stat stat = {0};
    lmdb_allocate(s);
    int rc = mdb_txn_begin(s->env, NULL, 0, &s->txn);
    if (rc == 0)
        rc = open_tables(s);
    if (rc)
        return env_failed(s, "cannot open the tables", rc, why, why_size);
    if (!check_identity(s, why, why_size)) {
        mdb_txn_abort(s->txn);
        return false;
    }
    begin_epoch(s);
    rc = lmdb_put_meta(s);
    mdb_stat(s->txn, s->dbi[TABLE_MSG], &stat);
    atomic_store(&s->base.counters.units, stat.ms_entries);
    mdb_stat(s->txn, s->dbi[TABLE_GONE], &stat);
    s->sweeping = s->has_gone = stat.ms_entries > 0;
    lmdb_measure(s);
    rc = rc ? rc : mdb_txn_commit(s->txn);
    return rc ? env_failed(s, "cannot write", rc, why, why_size) : true;
}

/* --- doors --- */

static void free_readers(struct lmdb_store *s)
{
    while (s->readers) {
        struct reader *r = s->readers;
        s->readers = r->next;
        mdb_txn_abort(r->txn);
        free(r);
    }
}

static void release(struct lmdb_store *s)
{
    free_readers(s);
    if (s->env)
        mdb_env_close(s->env);
    if (s->dir_fd >= 0)
        close(s->dir_fd);
    pthread_mutex_destroy(&s->readers_lock);
    free(s->dir);
    store_fini(&s->base);
}

struct store *store_open(const struct store_settings *set, char *why, size_t why_size)
{
    struct lmdb_store *s = mem_zalloc(sizeof(*s));
    store_init(&s->base, &store_lmdb_backend, set->quota_bytes);
    s->dir = mem_strdup(slice_str(set->dir));
    s->dir_fd = -1;
    pthread_mutex_init(&s->readers_lock, NULL);
    plan_allocation(s);
    uint64_t map = set->map_bytes ? set->map_bytes : 4 * set->quota_bytes;
    if (!open_dir(s, why, why_size) || !open_env(s, map, why, why_size) ||
        !start(s, why, why_size)) {
        release(s);
        return NULL;
    }
    store_start(&s->base);
    return &s->base;
}

static void lmdb_close(struct store *base)
{
    struct lmdb_store *s = lmdb_of(base);
    lmdb_begin(s);
    s->meta.clean_shutdown = true;
    s->meta.last_commit_ms = store_clock_step(base, s->author.now);
    int rc = lmdb_put_meta(s);
    if (rc)
        lmdb_die(s, "close", rc);
    lmdb_commit(s);
    release(s);
}

/* What the writer does with its spare time; how long until it wants to be asked again. */
static int chores(struct lmdb_store *s)
{
    if (!atomic_load(&s->base.disk_grows)) {
        lmdb_allocate(s);
        return ALLOCATE_AGAIN_MS;
    }
    int64_t quiet = mono_diff_ms(mono_now(), s->ran_at);
    if (!s->has_gone && s->zeroed >= atomic_load(&s->base.counters.allocated))
        return (int)STORE_CLOCK_IDLE_MS;
    if (quiet < QUIET_MS)
        return (int)(QUIET_MS - quiet);
    s->sweeping = s->has_gone;
    if (s->sweeping)
        return 0;
    return lmdb_zero_ahead(s) ? 1 : (int)STORE_CLOCK_IDLE_MS;
}

static int idle_ms(struct store *base)
{
    struct lmdb_store *s = lmdb_of(base);
    if (s->sweeping || atomic_load(&base->clock_accepted_ms))
        return 0;
    int64_t since = mono_diff_ms(mono_now(), s->meta_at);
    if (since >= STORE_CLOCK_IDLE_MS)
        return 0;
    int left = (int)(STORE_CLOCK_IDLE_MS - since), wish = chores(s);
    return wish < left ? wish : left;
}

const struct store_backend store_lmdb_backend = {.run = lmdb_run,
    .idle_ms = idle_ms,
    .close = lmdb_close,
    .scan = lmdb_scan,
    .read_unit = lmdb_read_unit,
    .read_rows = lmdb_read_rows,
    .body_info = lmdb_body_info,
    .next_body = lmdb_next_body,
    .list_ids = lmdb_list_ids,
    .read_meta = lmdb_read_meta,
    .scan_rows = lmdb_scan_rows,
    .read_row = lmdb_read_row,
    .next_quar = lmdb_next_quar,
    .read_quar = lmdb_read_quar};
