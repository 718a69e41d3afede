/* SPDX-License-Identifier: Apache-2.0 */
/* A network in user space, as bad as a test wants it. N network namespaces, each with one
 * TUN device "lan", and one device more in the namespace it was started in (endpoint 0,
 * the test itself); every packet passes here, and each directed link has rules of its
 * own. The namespaces have no name: they are gone when this process and theirs are.
 *
 *   netrelay NODES SUBNET SEED       SUBNET "10.77.3": endpoint i is SUBNET.i, 0 is
 * SUBNET.254
 *
 * Prints "ready", then answers each line on standard input with a line; ends with it.
 *   ns I                   the path of endpoint I's namespace, for nsenter --net
 *   set FROM TO KEY VALUE  FROM, TO: a number or *; KEY: cut 0|1, lose PERCENT,
 *                          delay MS, hold 0|1 (kept, and let go in a burst)
 *   heal                   no rules
 *   count FROM TO          packets passed and dropped */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <sched.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/timerfd.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define ENDS_MAX 17
#define PACKET_MAX 2048
/* Of a link that delays or holds; what does not fit is dropped, as a router would. */
#define QUEUE_MAX 4096
#define BURST 64

struct packet {
    struct packet *next;
    int64_t due_ns;
    size_t len;
    unsigned char bytes[PACKET_MAX];
};

struct link {
    int cut, lose, delay, hold;
    uint64_t passed, dropped;
    struct packet *head, *tail;
    unsigned queued;
};

static struct {
    int count, tun[ENDS_MAX], ns[ENDS_MAX];
    char subnet[16];
    struct link links[ENDS_MAX][ENDS_MAX];
    uint64_t seed;
    int epoll, timer;
} net;

static void die(const char *what)
{
    fprintf(stderr, "netrelay: %s: %s\n", what, strerror(errno));
    exit(1);
}

static int64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static int draw_percent(void)
{
    net.seed ^= net.seed << 13;
    net.seed ^= net.seed >> 7;
    net.seed ^= net.seed << 17;
    return (int)(net.seed % 100);
}

/* --- making it --- */

static void run(char *const argv[])
{
    pid_t child = fork();
    int status = 0;
    if (child == 0) {
        execvp(argv[0], argv);
        _exit(127);
    }
    if (child < 0 || waitpid(child, &status, 0) < 0 || status != 0) {
        fprintf(stderr, "netrelay: %s %s %s failed\n", argv[0], argv[1], argv[2]);
        exit(1);
    }
}

/* In the namespace this process is in at the moment. */
static int make_tun(int which)
{
    struct ifreq request = {.ifr_flags = IFF_TUN | IFF_NO_PI};
    char name[IFNAMSIZ], four[32], six[32];
    int fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC | O_NONBLOCK);
    /* The one outside needs a name that another test has not. */
    snprintf(name, sizeof(name), which ? "lan" : "bt%d", (int)getpid());
    snprintf(request.ifr_name, sizeof(request.ifr_name), "%s", name);
    if (fd < 0 || ioctl(fd, TUNSETIFF, &request) != 0)
        die("cannot make a TUN device");
    int host = which ? which : 254;
    unsigned a = 0, b = 0, c = 0;
    if (sscanf(net.subnet, "%u.%u.%u", &a, &b, &c) != 3)
        die("SUBNET is three numbers");
    snprintf(four, sizeof(four), "%s.%d/24", net.subnet, host);
    snprintf(six, sizeof(six), "fd77:%x:%x::%x/64", b, c, (unsigned)host);
    run((char *[]){"ip", "link", "set", "lo", "up", NULL});
    run((char *[]){"ip", "addr", "add", four, "dev", name, NULL});
    run((char *[]){
        "ip", "link", "set", name, "mtu", "1400", "txqueuelen", "5000", "up", NULL});
    if (access("/proc/sys/net/ipv6", F_OK) == 0)
        run((char *[]){"ip", "addr", "add", six, "dev", name, "nodad", NULL});
    return fd;
}

static void make_net(void)
{
    net.tun[0] = make_tun(0);
    net.ns[0] = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
    for (int i = 1; i < net.count; i++) {
        if (unshare(CLONE_NEWNET) != 0)
            die("cannot make a network namespace");
        net.ns[i] = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
        net.tun[i] = make_tun(i);
    }
    if (setns(net.ns[0], CLONE_NEWNET) != 0)
        die("cannot come back to the first namespace");
}

static void watch(int fd, uint32_t id)
{
    struct epoll_event event = {.events = EPOLLIN, .data = {.u32 = id}};
    if (epoll_ctl(net.epoll, EPOLL_CTL_ADD, fd, &event) != 0)
        die("epoll_ctl");
}

/* --- packets --- */

static void put(int to, struct link *link, const unsigned char *bytes, size_t len)
{
    if (write(net.tun[to], bytes, len) == (ssize_t)len)
        link->passed++;
    else
        link->dropped++;
}

static void enqueue(struct link *link, const unsigned char *bytes, size_t len)
{
    struct packet *p = link->queued < QUEUE_MAX ? malloc(sizeof(*p)) : NULL;
    if (!p) {
        link->dropped++;
        return;
    }
    p->next = NULL;
    p->due_ns = now_ns() + (int64_t)link->delay * 1000000;
    p->len = len;
    memcpy(p->bytes, bytes, len);
    if (link->tail)
        link->tail->next = p;
    else
        link->head = p;
    link->tail = p;
    link->queued++;
}

static void forward(int from, int to, const unsigned char *bytes, size_t len)
{
    struct link *link = &net.links[from][to];
    if (link->cut || draw_percent() < link->lose)
        link->dropped++;
    else if (link->delay || link->hold || link->head)
        enqueue(link, bytes, len);
    else
        put(to, link, bytes, len);
}

/* The last octet of the destination is the endpoint. Multicast and broadcast end here. */
static int destination(const unsigned char *bytes, size_t len)
{
    int host = -1;
    if (len >= 20 && bytes[0] >> 4 == 4)
        host = bytes[19];
    else if (len >= 40 && bytes[0] >> 4 == 6 && bytes[24] == 0xfd)
        host = bytes[39];
    if (host == 254)
        return 0;
    return host >= 1 && host < net.count ? host : -1;
}

static void read_tun(int from)
{
    unsigned char bytes[PACKET_MAX];
    for (int i = 0; i < BURST; i++) {
        ssize_t len = read(net.tun[from], bytes, sizeof(bytes));
        if (len <= 0)
            return;
        int to = destination(bytes, (size_t)len);
        if (to >= 0 && to != from)
            forward(from, to, bytes, (size_t)len);
    }
}

/* Lets go what is due; the instant of the next one, or 0. */
static int64_t let_go(int64_t now)
{
    int64_t next = 0;
    for (int from = 0; from < net.count; from++)
        for (int to = 0; to < net.count; to++) {
            struct link *link = &net.links[from][to];
            while (link->head && !link->hold && link->head->due_ns <= now) {
                struct packet *p = link->head;
                link->head = p->next;
                if (!link->head)
                    link->tail = NULL;
                link->queued--;
                put(to, link, p->bytes, p->len);
                free(p);
            }
            if (link->head && !link->hold && (next == 0 || link->head->due_ns < next))
                next = link->head->due_ns;
        }
    return next;
}

static void set_timer(int64_t at_ns)
{
    struct itimerspec spec = {.it_value = {at_ns / 1000000000, at_ns % 1000000000}};
    timerfd_settime(net.timer, TFD_TIMER_ABSTIME, &spec, NULL);
}

/* --- commands --- */

static bool range(const char *text, int *first, int *last)
{
    char *end;
    long n = strtol(text, &end, 10);
    if (strcmp(text, "*") == 0) {
        *first = 0;
        *last = net.count - 1;
        return true;
    }
    *first = *last = (int)n;
    return *end == '\0' && end != text && n >= 0 && n < net.count;
}

static int *rule(struct link *link, const char *key)
{
    return strcmp(key, "cut") == 0     ? &link->cut
           : strcmp(key, "lose") == 0  ? &link->lose
           : strcmp(key, "delay") == 0 ? &link->delay
           : strcmp(key, "hold") == 0  ? &link->hold
                                       : NULL;
}

static bool set(const char *from, const char *to, const char *key, int value)
{
    int f0, f1, t0, t1;
    if (!range(from, &f0, &f1) || !range(to, &t0, &t1) || value < 0)
        return false;
    for (int f = f0; f <= f1; f++)
        for (int t = t0; t <= t1; t++) {
            int *field = rule(&net.links[f][t], key);
            if (!field)
                return false;
            *field = value;
        }
    return true;
}

static void heal(void)
{
    static const char *const keys[] = {"cut", "lose", "delay", "hold"};
    for (unsigned i = 0; i < sizeof(keys) / sizeof(keys[0]); i++)
        set("*", "*", keys[i], 0);
}

static void command(const char *line)
{
    char from[8], to[8], key[8];
    int value, end = 0, f0, f1, t0, t1;
    if (sscanf(line, "set %7s %7s %7s %d%n", from, to, key, &value, &end) == 4 &&
        line[end] == '\0' && set(from, to, key, value))
        printf("ok\n");
    else if (sscanf(line, "count %7s %7s", from, to) == 2 && range(from, &f0, &f1) &&
             range(to, &t0, &t1) && f0 == f1 && t0 == t1)
        printf("ok %" PRIu64 " %" PRIu64 "\n", net.links[f0][t0].passed,
            net.links[f0][t0].dropped);
    else if (sscanf(line, "ns %7s", from) == 1 && range(from, &f0, &f1) && f0 == f1)
        printf("ok /proc/%d/fd/%d\n", (int)getpid(), net.ns[f0]);
    else if (strcmp(line, "heal") == 0) {
        heal();
        printf("ok\n");
    } else
        printf("what? %s\n", line);
    fflush(stdout);
}

/* False at the end. */
static bool read_commands(void)
{
    static char buf[4096];
    static size_t used;
    ssize_t len = read(0, buf + used, sizeof(buf) - 1 - used);
    if (len <= 0)
        return false;
    used += (size_t)len;
    char *end;
    while ((end = memchr(buf, '\n', used))) {
        *end = '\0';
        command(buf);
        used -= (size_t)(end + 1 - buf);
        memmove(buf, end + 1, used);
    }
    return used < sizeof(buf) - 1;
}

static void serve(void)
{
    struct epoll_event events[ENDS_MAX + 2];
    for (;;) {
        int count = epoll_wait(net.epoll, events, ENDS_MAX + 2, -1);
        for (int i = 0; i < count; i++) {
            uint64_t ticks;
            int id = (int)events[i].data.u32;
            if (id < net.count)
                read_tun(id);
            else if (id == ENDS_MAX && !read_commands())
                return;
            else if (id == ENDS_MAX + 1 && read(net.timer, &ticks, sizeof(ticks)) < 0 &&
                     errno != EAGAIN)
                die("timerfd");
        }
        set_timer(let_go(now_ns()));
    }
}

int main(int argc, char **argv)
{
    net.count = argc == 4 ? (int)strtol(argv[1], NULL, 10) + 1 : 0;
    if (net.count < 2 || net.count > ENDS_MAX) {
        fprintf(
            stderr, "usage: netrelay NODES SUBNET SEED (1 to %d nodes)\n", ENDS_MAX - 1);
        return 2;
    }
    snprintf(net.subnet, sizeof(net.subnet), "%s", argv[2]);
    net.seed = strtoull(argv[3], NULL, 10) | 1;
    make_net();
    net.epoll = epoll_create1(EPOLL_CLOEXEC);
    net.timer = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
    if (net.epoll < 0 || net.timer < 0)
        die("epoll");
    for (int i = 0; i < net.count; i++)
        watch(net.tun[i], (uint32_t)i);
    watch(0, ENDS_MAX);
    watch(net.timer, ENDS_MAX + 1);
    printf("ready\n");
    fflush(stdout);
    serve();
    return 0;
}
