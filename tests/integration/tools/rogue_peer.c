/* SPDX-License-Identifier: Apache-2.0 */
/* A peer that breaks the rules which libzmq's own client keeps: ZMTP 3.1 and CURVE by
 * hand, on one TCP connection, with the key of whoever it plays.
 *
 *   rogue_peer OWN_KEY|- THEIR_KEY ADDRESS:PORT knock       may I come in?
 *   ... frames       frames in hex from standard input, a line each; "+..." has more
 * parts
 *   ... flood SECONDS BYTES    whole frames of noise, as fast as they are taken
 *   ... flood SECONDS BYTES ping   and every tenth a heartbeat
 *   ... parts SECONDS BYTES    one message that never ends
 *   ... silent SECONDS         nothing
 *
 * Prints "in" or "out", and at the end "sent FRAMES BYTES open|closed". */
#include <errno.h>
#include <poll.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/clock.h"
#include "base/netaddr.h"
#include "cluster/transport.h"

#define KEY crypto_box_PUBLICKEYBYTES
#define FRAME_MAX (2u << 20)
#define FLAG_LARGE 2
#define FLAG_COMMAND 4

static struct {
    int fd;
    struct transport_keys own, session, theirs;
    unsigned char server_session[KEY], shared[crypto_box_BEFORENMBYTES];
    uint64_t nonce, frames, bytes;
    bool is_closed;
} peer;
static unsigned char out[FRAME_MAX + 64], in[4096];

static bool write_all(const unsigned char *from, size_t len)
{
    while (len > 0) {
        ssize_t n = send(peer.fd, from, len, MSG_NOSIGNAL);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0) {
            peer.is_closed = errno != EAGAIN && errno != EWOULDBLOCK;
            return false;
        }
        from += n;
        len -= (size_t)n;
    }
    return true;
}

static bool read_all(unsigned char *to, size_t len)
{
    while (len > 0) {
        ssize_t n = recv(peer.fd, to, len, 0);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return false;
        to += n;
        len -= (size_t)n;
    }
    return true;
}

static void put_number(unsigned char *to, uint64_t value, unsigned bytes)
{
    for (unsigned i = 0; i < bytes; i++)
        to[i] = (unsigned char)(value >> (8 * (bytes - 1 - i)));
}

/* "CurveZMQHELLO---" and the like, and a number that only grows. */
static void make_nonce(
    const char *prefix, unsigned char nonce[crypto_box_NONCEBYTES], unsigned char *at)
{
    put_number(at, ++peer.nonce, 8);
    memcpy(nonce, prefix, 16);
    memcpy(nonce + 16, at, 8);
}

/* A command or message whose `len` bytes stand in `out` behind 9 of room. */
static bool send_body(unsigned flags, size_t len)
{
    if (len < 256) {
        out[7] = (unsigned char)flags;
        out[8] = (unsigned char)len;
        return write_all(out + 7, 2 + len);
    }
    out[0] = (unsigned char)(flags | FLAG_LARGE);
    put_number(out + 1, len, 8);
    return write_all(out, 9 + len);
}

static bool read_command(size_t *len_out)
{
    unsigned char head[2];
    if (!read_all(head, 2) || head[0] != FLAG_COMMAND)
        return false;
    *len_out = head[1];
    return read_all(in, *len_out);
}

static bool greet(void)
{
    unsigned char mine[64] = {0xff}, its[64];
    mine[9] = 0x7f;
    mine[10] = 3;
    memcpy(mine + 12, "CURVE", 5);
    return write_all(mine, sizeof(mine)) && read_all(its, sizeof(its)) && its[10] == 3;
}

static bool hello(void)
{
    static const unsigned char zeros[64];
    unsigned char nonce[crypto_box_NONCEBYTES], *body = out + 9;
    memset(body, 0, 200);
    memcpy(body, "\5HELLO\1", 7);
    memcpy(body + 80, peer.session.public_key, KEY);
    make_nonce("CurveZMQHELLO---", nonce, body + 112);
    return crypto_box_easy(body + 120, zeros, sizeof(zeros), nonce,
               peer.theirs.public_key, peer.session.secret_key) == 0 &&
           send_body(FLAG_COMMAND, 200);
}

static bool welcome(unsigned char cookie[96])
{
    unsigned char nonce[crypto_box_NONCEBYTES], plain[128];
    size_t len;
    if (!read_command(&len) || len != 168 || memcmp(in, "\7WELCOME", 8) != 0)
        return false;
    memcpy(nonce, "WELCOME-", 8);
    memcpy(nonce + 8, in + 8, 16);
    if (crypto_box_open_easy(plain, in + 24, 144, nonce, peer.theirs.public_key,
            peer.session.secret_key) != 0)
        return false;
    memcpy(peer.server_session, plain, KEY);
    memcpy(cookie, plain + KEY, 96);
    return crypto_box_beforenm(
               peer.shared, peer.server_session, peer.session.secret_key) == 0;
}

static bool initiate(const unsigned char cookie[96])
{
    static const char meta[] = "\13Socket-Type\0\0\0\6DEALER\10Identity\0\0\0";
    unsigned char nonce[crypto_box_NONCEBYTES], vouch_nonce[crypto_box_NONCEBYTES];
    unsigned char plain[256], session_and_server[2 * KEY], *body = out + 9;
    memcpy(plain, peer.own.public_key, KEY);
    randombytes_buf(plain + KEY, 16);
    memcpy(vouch_nonce, "VOUCH---", 8);
    memcpy(vouch_nonce + 8, plain + KEY, 16);
    memcpy(session_and_server, peer.session.public_key, KEY);
    memcpy(session_and_server + KEY, peer.theirs.public_key, KEY);
    if (crypto_box_easy(plain + 48, session_and_server, 2 * KEY, vouch_nonce,
            peer.server_session, peer.own.secret_key) != 0)
        return false;
    memcpy(plain + 128, meta, sizeof(meta));
    memcpy(body, "\10INITIATE", 9);
    memcpy(body + 9, cookie, 96);
    make_nonce("CurveZMQINITIATE", nonce, body + 105);
    size_t len = 128 + sizeof(meta);
    return crypto_box_easy_afternm(body + 113, plain, len, nonce, peer.shared) == 0 &&
           send_body(FLAG_COMMAND, 113 + 16 + len);
}

static bool come_in(void)
{
    unsigned char cookie[96];
    size_t len;
    return greet() && hello() && welcome(cookie) && initiate(cookie) &&
           read_command(&len) && len >= 6 && memcmp(in, "\5READY", 6) == 0;
}

/* Whatever they send is heartbeats and the like. */
static void read_away(void)
{
    struct pollfd p = {.fd = peer.fd, .events = POLLIN};
    while (poll(&p, 1, 0) > 0) {
        ssize_t n = recv(peer.fd, in, sizeof(in), MSG_DONTWAIT);
        if (n <= 0) {
            peer.is_closed = peer.is_closed || n == 0 || errno == ECONNRESET;
            return;
        }
    }
}

/* `flags`: 1 has more parts, 2 is a command. */
static bool send_frame(const unsigned char *bytes, size_t len, unsigned flags)
{
    static unsigned char plain[FRAME_MAX + 1];
    unsigned char nonce[crypto_box_NONCEBYTES], *body = out + 9;
    plain[0] = (unsigned char)flags;
    memcpy(plain + 1, bytes, len);
    memcpy(body, "\7MESSAGE", 8);
    make_nonce("CurveZMQMESSAGEC", nonce, body + 8);
    if (crypto_box_easy_afternm(body + 16, plain, 1 + len, nonce, peer.shared) != 0 ||
        !send_body(0, 16 + 16 + 1 + len))
        return false;
    peer.frames++;
    peer.bytes += len;
    read_away();
    return !peer.is_closed;
}

static void pour(double seconds, size_t size, bool is_endless, bool has_pings)
{
    static unsigned char noise[FRAME_MAX];
    struct mono end = mono_add_ms(mono_now(), (int64_t)(seconds * 1000));
    randombytes_buf(noise, size);
    noise[0] = 1; /* data, to the transport */
    while (mono_now().ns < end.ns && send_frame(noise, size, is_endless))
        if (has_pings && peer.frames % 10 == 0)
            send_frame((const unsigned char *)"\4PING\0\144", 7, 2);
}

static void stay(double seconds)
{
    struct mono end = mono_add_ms(mono_now(), (int64_t)(seconds * 1000));
    while (mono_now().ns < end.ns && !peer.is_closed) {
        struct pollfd p = {.fd = peer.fd, .events = POLLIN};
        poll(&p, 1, 50);
        read_away();
    }
}

static void send_lines(void)
{
    static char line[2 * FRAME_MAX + 16];
    static unsigned char bytes[FRAME_MAX];
    while (fgets(line, sizeof(line), stdin)) {
        size_t len = 0, used = line[0] == '+';
        sodium_hex2bin(bytes, sizeof(bytes), line + used, strcspn(line + used, "\n"),
            NULL, &len, NULL);
        if (!send_frame(bytes, len, used == 1))
            return;
    }
    stay(0.5); /* for them to read it, and to close if they like */
}

static void connect_to(const char *text)
{
    struct netaddr address;
    struct sockaddr_storage sa;
    struct timeval wait = {.tv_sec = 8};
    if (!netaddr_parse(slice_str(text), 0, &address))
        die("rogue_peer: no address: %s", text);
    socklen_t len = netaddr_to_sockaddr(address, &sa);
    peer.fd = socket(sa.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    setsockopt(peer.fd, SOL_SOCKET, SO_RCVTIMEO, &wait, sizeof(wait));
    setsockopt(peer.fd, SOL_SOCKET, SO_SNDTIMEO, &wait, sizeof(wait));
    if (peer.fd < 0 || connect(peer.fd, (struct sockaddr *)&sa, len) != 0)
        die("rogue_peer: %s: %s", text, strerror(errno));
}

static void load(const char *path, struct transport_keys *keys)
{
    char why[512];
    if (strcmp(path, "-") == 0)
        transport_keys_make(keys);
    else if (!transport_keys_load(path, keys, why, sizeof(why)))
        die("rogue_peer: %s", why);
}

int main(int argc, char **argv)
{
    if (argc < 5 || sodium_init() < 0)
        die("rogue_peer: see its head");
    double seconds = argc > 5 ? strtod(argv[5], NULL) : 0;
    size_t size = argc > 6 ? strtoull(argv[6], NULL, 10) : 1;
    if (size < 1 || size > FRAME_MAX)
        die("rogue_peer: frames have 1 to %u bytes", FRAME_MAX);
    load(argv[1], &peer.own);
    load(argv[2], &peer.theirs);
    transport_keys_make(&peer.session);
    connect_to(argv[3]);
    bool is_in = come_in();
    printf("%s\n", is_in ? "in" : "out");
    fflush(stdout);
    if (is_in && strcmp(argv[4], "frames") == 0)
        send_lines();
    else if (is_in && (strcmp(argv[4], "flood") == 0 || strcmp(argv[4], "parts") == 0))
        pour(seconds, size, argv[4][0] == 'p', argc > 7);
    else if (is_in)
        stay(seconds);
    printf("sent %llu %llu %s\n", (unsigned long long)peer.frames,
        (unsigned long long)peer.bytes, peer.is_closed ? "closed" : "open");
    return 0;
}
