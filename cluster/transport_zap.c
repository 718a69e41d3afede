/* SPDX-License-Identifier: Apache-2.0 */
/* The ZAP handler (RFC 27): for each CURVE handshake libzmq asks it whether the key may
 * come in. It runs at the handshake only, so it is the door and not the guard: each frame
 * is checked again where it is received. */
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <zmq.h>

#include "base/alloc.h"
#include "cluster/transport_internal.h"

#define ENTRIES_MAX (PEERS_MAX + GUESTS_MAX + 1)
#define PART_MAX 256
/* version, request id, domain, address, routing id, mechanism, key */
#define PARTS 7
enum {
    PART_VERSION,
    PART_REQUEST,
    PART_DOMAIN,
    PART_ADDRESS,
    PART_MECHANISM = 5,
    PART_KEY
};
#define USER_BYTES (2 * TRANSPORT_KEY_BYTES + 1)

struct entry {
    unsigned char key[TRANSPORT_KEY_BYTES];
    enum zap_kind kind;
};

struct zap {
    void *socket;
    pthread_t thread;
    pthread_mutex_t lock;
    unsigned count;
    struct entry entries[ENTRIES_MAX];
    uint64_t refused;
    char last_address[64];
};

struct part {
    size_t len;
    char bytes[PART_MAX];
};

const char *zap_domain(enum transport_lane lane)
{
    return lane == TRANSPORT_BULK ? "bulk" : "control";
}

static struct entry *find(struct zap *zap, const unsigned char *key, enum zap_kind kind)
{
    for (unsigned i = 0; i < zap->count; i++)
        if (zap->entries[i].kind == kind &&
            memcmp(zap->entries[i].key, key, TRANSPORT_KEY_BYTES) == 0)
            return &zap->entries[i];
    return NULL;
}

void zap_allow(struct zap *zap, const unsigned char *key, enum zap_kind kind)
{
    pthread_mutex_lock(&zap->lock);
    if (!find(zap, key, kind)) {
        INVARIANT(zap->count < ENTRIES_MAX);
        memcpy(zap->entries[zap->count].key, key, TRANSPORT_KEY_BYTES);
        zap->entries[zap->count++].kind = kind;
    }
    pthread_mutex_unlock(&zap->lock);
}

void zap_forget(struct zap *zap, const unsigned char *key, enum zap_kind kind)
{
    pthread_mutex_lock(&zap->lock);
    struct entry *entry = find(zap, key, kind);
    if (entry)
        *entry = zap->entries[--zap->count];
    pthread_mutex_unlock(&zap->lock);
}

uint64_t zap_refused(struct zap *zap, char last_address[64])
{
    pthread_mutex_lock(&zap->lock);
    uint64_t refused = zap->refused;
    memcpy(last_address, zap->last_address, sizeof(zap->last_address));
    pthread_mutex_unlock(&zap->lock);
    return refused;
}

bool zap_user_parse(const char *user, unsigned char *key_out)
{
    if (!user || strlen(user) != USER_BYTES - 1)
        return false;
    for (unsigned i = 0; i < TRANSPORT_KEY_BYTES; i++) {
        unsigned value = 0;
        for (unsigned j = 0; j < 2; j++) {
            char c = user[2 * i + j];
            if (!ascii_is_digit(c) && (c < 'a' || c > 'f'))
                return false;
            value = value << 4 | (unsigned)(ascii_is_digit(c) ? c - '0' : c - 'a' + 10);
        }
        key_out[i] = (unsigned char)value;
    }
    return true;
}

static void user_format(const unsigned char *key, char out[USER_BYTES])
{
    static const char digits[] = "0123456789abcdef";
    for (unsigned i = 0; i < TRANSPORT_KEY_BYTES; i++) {
        out[2 * i] = digits[key[i] >> 4];
        out[2 * i + 1] = digits[key[i] & 15];
    }
    out[USER_BYTES - 1] = '\0';
}

static bool part_is(const struct part *part, const char *text)
{
    return slice_eq(slice_make(part->bytes, part->len), slice_str(text));
}

/* A guest has the control lane alone. */
static bool judge(struct zap *zap, const struct part *parts)
{
    if (!part_is(&parts[PART_MECHANISM], "CURVE") ||
        parts[PART_KEY].len != TRANSPORT_KEY_BYTES)
        return false;
    const unsigned char *key = (const unsigned char *)parts[PART_KEY].bytes;
    return find(zap, key, ZAP_PEER) ||
           (find(zap, key, ZAP_GUEST) && part_is(&parts[PART_DOMAIN], "control"));
}

static bool is_allowed(struct zap *zap, const struct part *parts)
{
    pthread_mutex_lock(&zap->lock);
    bool ok = judge(zap, parts);
    if (!ok) {
        zap->refused++;
        snprintf(zap->last_address, sizeof(zap->last_address), "%.*s",
            (int)parts[PART_ADDRESS].len, parts[PART_ADDRESS].bytes);
    }
    pthread_mutex_unlock(&zap->lock);
    return ok;
}

/* One request. 0: not a sound one; -1: the context ends. */
static int receive(void *socket, struct part parts[PARTS])
{
    int count = 0, more = 1;
    bool sound = true;
    while (more) {
        struct part scratch, *part = count < PARTS ? &parts[count] : &scratch;
        size_t more_size = sizeof(more);
        int len = zmq_recv(socket, part->bytes, sizeof(part->bytes), 0);
        if (len < 0 && errno == EINTR)
            continue;
        if (len < 0 || zmq_getsockopt(socket, ZMQ_RCVMORE, &more, &more_size) != 0)
            return -1;
        sound = sound && (size_t)len <= sizeof(part->bytes);
        part->len = (size_t)len <= sizeof(part->bytes) ? (size_t)len : 0;
        count++;
    }
    return sound && count == PARTS && part_is(&parts[PART_VERSION], "1.0");
}

static void send_part(void *socket, const char *text, size_t len, int flags)
{
    while (zmq_send(socket, text, len, flags) < 0 && errno == EINTR)
        continue;
}

/* The refusal is 300, "temporary": libzmq then closes the connection without a word, and
 * an honest peer that was not known yet tries again. After a 400 its 4.3.4 would give up
 * for ever. */
static void answer(void *socket, const struct part *request, bool ok, const char *user)
{
    send_part(socket, "1.0", 3, ZMQ_SNDMORE);
    send_part(socket, request->bytes, request->len, ZMQ_SNDMORE);
    send_part(socket, ok ? "200" : "300", 3, ZMQ_SNDMORE);
    send_part(socket, ok ? "OK" : "no", 2, ZMQ_SNDMORE);
    send_part(socket, user, ok ? strlen(user) : 0, ZMQ_SNDMORE);
    send_part(socket, "", 0, 0);
}

static void *serve(void *arg)
{
    struct zap *zap = arg;
    struct part parts[PARTS];
    int got;
    while ((got = receive(zap->socket, parts)) >= 0) {
        char user[USER_BYTES] = "";
        bool ok = got > 0 && is_allowed(zap, parts);
        if (ok)
            user_format((const unsigned char *)parts[PART_KEY].bytes, user);
        answer(zap->socket, &parts[PART_REQUEST], ok, user);
    }
    zmq_close(zap->socket);
    return NULL;
}

struct zap *zap_start(void *zmq, char *why, size_t why_size)
{
    struct zap *zap = mem_zalloc(sizeof(*zap));
    pthread_mutex_init(&zap->lock, NULL);
    zap->socket = zmq_socket(zmq, ZMQ_REP);
    int linger = 0;
    if (!zap->socket ||
        zmq_setsockopt(zap->socket, ZMQ_LINGER, &linger, sizeof(linger)) ||
        zmq_bind(zap->socket, "inproc://zeromq.zap.01") != 0) {
        snprintf(why, why_size, "the handler of keys cannot start: %s",
            zmq_strerror(zmq_errno()));
        if (zap->socket)
            zmq_close(zap->socket);
        free(zap);
        return NULL;
    }
    if (pthread_create(&zap->thread, NULL, serve, zap) != 0)
        die("baton: cannot start the thread that checks the keys of nodes");
    pthread_setname_np(zap->thread, "zap");
    return zap;
}

void zap_stop(struct zap *zap)
{
    if (!zap)
        return;
    pthread_join(zap->thread, NULL);
    pthread_mutex_destroy(&zap->lock);
    free(zap);
}
