/* SPDX-License-Identifier: Apache-2.0 */
#include "node/control/control.h"

#include <errno.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/log.h"
#include "base/utf8.h"
#include "node/control/control_run.h"
#include "node/control/socket.h"

#define COMMANDS_MAX 64

struct command {
    const char *name;
    enum control_effect effect;
    control_handler *handler, *wide; /* wide: NULL when it is about this node alone */
    void *ctx, *wide_ctx;
};

struct control_conn {
    TAILQ_ENTRY(control_conn) entry;
    struct control *control;
    struct watcher watcher;
    int fd;
    struct buf in, out;
    struct control_request *request; /* under way, or NULL */
    bool input_ended;                /* half-closed: answers still go out */
    bool overrun;    /* the client does not read; closed at the next chance */
    bool held_back;  /* a handler was told to wait for on_drained */
    bool doomed;     /* freed as soon as nobody is inside */
    unsigned inside; /* calls from here into handlers */
};

struct control {
    struct loop *loop;
    struct control_socket socket;
    struct watcher watcher;
    struct command commands[COMMANDS_MAX];
    unsigned command_count;
    unsigned conn_count;
    TAILQ_HEAD(, control_conn) conns;
};

/* --- connections --- */

static void watch(struct control_conn *c)
{
    /* A handler that was told to wait hears of it even when all has gone meanwhile. */
    int what = buf_len(&c->out) || c->overrun || c->held_back ? WATCH_WRITE : 0;
    /* Reading goes on while a command runs: that is how we learn that the client went. */
    if (!c->input_ended && buf_len(&c->in) < CONTROL_LINE_MAX)
        what |= WATCH_READ;
    watcher_set(&c->watcher, what);
}

static void accept_more(struct control *ctl)
{
    watcher_set(
        &ctl->watcher, ctl->conn_count < CONTROL_CONNECTIONS_MAX ? WATCH_READ : 0);
}

static void conn_free(struct control_conn *c)
{
    struct control *ctl = c->control;
    TAILQ_REMOVE(&ctl->conns, c, entry);
    watcher_fini(&c->watcher);
    close(c->fd);
    buf_fini(&c->in);
    buf_fini(&c->out);
    free(c);
    ctl->conn_count--;
    accept_more(ctl);
}

/* The client is gone, or must go. A request under way is cut loose and told. */
static void conn_close(struct control_conn *c)
{
    struct control_request *req = c->request;
    if (c->doomed)
        return;
    c->doomed = true;
    watcher_set(&c->watcher, 0);
    c->request = NULL;
    if (req) {
        req->conn = NULL;
        c->inside++;
        if (req->on_cancel)
            req->on_cancel(req);
        c->inside--;
    }
    if (c->inside == 0)
        conn_free(c);
}

/* False when the connection is closed by it. */
static bool flush(struct control_conn *c)
{
    if (c->overrun) {
        log_say(LOG_EV_OVERLOAD, "control: a client does not read its answers; closed");
        conn_close(c);
        return false;
    }
    while (buf_len(&c->out)) {
        struct slice s = buf_slice(&c->out);
        ssize_t n = send(c->fd, s.ptr, s.len, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno == EAGAIN)
            break;
        if (n < 0) {
            conn_close(c);
            return false;
        }
        buf_consume(&c->out, (size_t)n);
    }
    return true;
}

static void run_commands(struct control_conn *c);

static void drained(struct control_conn *c)
{
    struct control_request *req = c->request;
    if (buf_len(&c->out) >= CONTROL_UNSENT_HIGH)
        return;
    c->held_back = false;
    if (req && req->on_drained)
        req->on_drained(req);
}

static bool peer_hung_up(int fd)
{
    struct pollfd p = {.fd = fd, .events = 0};
    return poll(&p, 1, 0) > 0 && (p.revents & (POLLHUP | POLLERR));
}

/* False when the connection is closed by it. */
static bool fill(struct control_conn *c)
{
    size_t room = CONTROL_LINE_MAX - buf_len(&c->in);
    if (room == 0)
        return true;
    ssize_t n = recv(c->fd, buf_reserve(&c->in, room), room, MSG_DONTWAIT);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return true;
    if (n > 0) {
        buf_commit(&c->in, (size_t)n);
        return true;
    }
    c->input_ended = true;
    if (n == 0 && !peer_hung_up(c->fd))
        return true; /* "echo ... | nc -N": it still reads */
    conn_close(c);
    return false;
}

static void conn_ready(struct watcher *w, int what)
{
    struct control_conn *c = CONTAINER_OF(w, struct control_conn, watcher);
    c->inside++;
    bool alive = !(what & WATCH_READ) || fill(c);
    if (alive && (what & WATCH_WRITE) && flush(c))
        drained(c);
    if (!c->doomed)
        run_commands(c);
    c->inside--;
    if (c->doomed && c->inside == 0)
        conn_free(c);
}

static void conn_new(struct control *ctl, int fd)
{
    struct control_conn *c = mem_zalloc(sizeof(*c));
    c->control = ctl;
    c->fd = fd;
    buf_init(&c->in, CONTROL_LINE_MAX);
    buf_init(&c->out, CONTROL_UNSENT_MAX);
    watcher_init(&c->watcher, ctl->loop, fd, conn_ready);
    TAILQ_INSERT_TAIL(&ctl->conns, c, entry);
    ctl->conn_count++;
    watch(c);
    accept_more(ctl);
}

static void accept_ready(struct watcher *w, int what)
{
    struct control *ctl = CONTAINER_OF(w, struct control, watcher);
    (void)what;
    while (ctl->conn_count < CONTROL_CONNECTIONS_MAX) {
        int fd = accept4(ctl->socket.fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd < 0)
            return;
        conn_new(ctl, fd);
    }
}

/* --- commands --- */

static struct command *find_command(struct control *ctl, const char *name)
{
    for (unsigned i = 0; i < ctl->command_count; i++)
        if (strcmp(ctl->commands[i].name, name) == 0)
            return &ctl->commands[i];
    return NULL;
}

/* `by`: the node that asks for an operator of its own; NULL: our client. */
static void log_operator(
    const struct control_conn *c, const char *by, const char *command, json_t *args)
{
    struct ucred who = {0};
    socklen_t len = sizeof(who);
    struct record r;
    record_init(&r, LOG_EV_OPERATOR);
    record_str(&r, "command", command);
    if (c) {
        getsockopt(c->fd, SOL_SOCKET, SO_PEERCRED, &who, &len);
        record_int(&r, "uid", who.uid);
        record_int(&r, "pid", who.pid);
    } else {
        record_str(&r, "by", by);
    }
    char *text = json_dumps(args, JSON_COMPACT | JSON_SORT_KEYS);
    if (text)
        record_str(&r, "args", text);
    free(text);
    record_emit(&r);
}

static void run_handler(
    struct control_request *req, const char *name, json_t *args, const char *by)
{
    const struct command *command = name ? find_command(req->control, name) : NULL;
    if (!command) {
        control_fail(req, 1, "run batonctl and batond of the same version",
            "this node does not know the command \"%.100s\"", name ? name : "");
        return;
    }
    if (!json_is_object(args)) {
        control_fail(req, 1, NULL, "args must be an object");
        return;
    }
    req->command = command->name;
    /* Our own part of what a client asks all nodes was logged with the client. */
    if (command->effect == CONTROL_CHANGES && (req->conn || by))
        log_operator(req->conn, by, name, args);
    if (command->wide && !req->run && !json_is_true(json_object_get(args, "local")))
        command->wide(req, args, command->wide_ctx);
    else
        command->handler(req, args, command->ctx);
}

static void run_command(struct control_conn *c, json_t *message)
{
    const char *name = json_string_value(json_object_get(message, "command"));
    json_t *args = json_object_get(message, "args"), *none = NULL;
    struct control_request *req = mem_zalloc(sizeof(*req));
    req->control = c->control;
    req->conn = c;
    c->request = req;
    if (!args)
        args = none = json_object();
    run_handler(req, name, args, NULL);
    json_decref(none);
}

void control_run(struct control *ctl, const char *name, json_t *args, const char *by,
    size_t max_bytes, control_run_done *done, void *ctx)
{
    struct control_request *req = mem_zalloc(sizeof(*req));
    req->control = ctl;
    req->run = control_run_new(req, loop_mailbox(ctl->loop), max_bytes, done, ctx);
    run_handler(req, name, args, by);
}

static void run_line(struct control_conn *c, struct slice line)
{
    json_error_t why;
    json_t *message = json_loadb(line.ptr, line.len, JSON_REJECT_DUPLICATES, &why);
    if (!message) {
        struct control_request *req = mem_zalloc(sizeof(*req));
        req->control = c->control;
        req->conn = c;
        c->request = req;
        control_fail(req, 1, NULL, "not a JSON object in one line: %s", why.text);
        return;
    }
    run_command(c, message);
    json_decref(message);
}

/* What has arrived whole, one command at a time. Called with `inside` held. */
static void run_commands(struct control_conn *c)
{
    while (!c->doomed && !c->request) {
        struct slice got = buf_slice(&c->in);
        size_t end = slice_find(got, '\n');
        if (end == got.len && c->input_ended && buf_len(&c->out) == 0) {
            conn_close(c);
            return;
        }
        if (end == got.len)
            break;
        /* The handler may look at nothing of the line later: it is gone after the call.
         */
        char *line = mem_strdup(slice_head(got, end));
        buf_consume(&c->in, end + 1);
        if (end > 0)
            run_line(c, slice_make(line, end));
        free(line);
    }
    if (!c->doomed && !c->request && buf_len(&c->in) >= CONTROL_LINE_MAX) {
        conn_close(c); /* a line without end */
        return;
    }
    if (!c->doomed && flush(c))
        watch(c);
}

void control_register(struct control *ctl, const char *command,
    enum control_effect effect, control_handler *handler, void *ctx)
{
    INVARIANT(ctl->command_count < COMMANDS_MAX && !find_command(ctl, command));
    ctl->commands[ctl->command_count++] = (struct command){
        .name = command, .effect = effect, .handler = handler, .ctx = ctx};
}

void control_widen(
    struct control *ctl, const char *command, control_handler *handler, void *ctx)
{
    struct command *c = find_command(ctl, command);
    INVARIANT(c && !c->wide);
    c->wide = handler;
    c->wide_ctx = ctx;
}

/* --- the handle --- */

bool control_is_gone(const struct control_request *req)
{
    return req->run ? control_run_is_full(req->run) : !req->conn;
}

bool control_reply_lines(struct control_request *req, struct slice lines)
{
    struct control_conn *c = req->conn;
    if (req->run)
        return control_run_take(req->run, lines);
    if (!c || c->overrun)
        return false;
    c->overrun = !buf_append(&c->out, lines);
    /* Sent from conn_ready or run_commands, never from here: a failure would call the
     * handler's on_cancel below its feet. */
    c->held_back = buf_len(&c->out) >= CONTROL_UNSENT_HIGH;
    watch(c);
    return !c->overrun && !c->held_back;
}

bool control_reply(struct control_request *req, json_t *object)
{
    char *text = json_dumps(object, JSON_COMPACT);
    json_decref(object);
    INVARIANT(text);
    size_t len = strlen(text);
    text[len] = '\n'; /* in the place of the NUL */
    bool more = control_reply_lines(req, slice_make(text, len + 1));
    free(text);
    return more;
}

static void end(struct control_request *req, json_t *object)
{
    req->on_cancel = NULL;
    req->on_drained = NULL;
    struct control_conn *c = req->conn;
    if (req->run) {
        control_run_end(req->run, object);
        free(req);
        return;
    }
    control_reply(req, object);
    free(req);
    if (!c)
        return;
    c->request = NULL;
    if (c->inside)
        return; /* run_commands goes on by itself */
    c->inside++;
    run_commands(c);
    c->inside--;
    if (c->doomed)
        conn_free(c);
}

void control_finish(struct control_request *req, int exit_code)
{
    end(req, json_pack("{s:b,s:i}", "end", 1, "exit", exit_code));
}

void control_finish_with(struct control_request *req, int exit_code, json_t *more)
{
    json_t *object = json_pack("{s:b,s:i}", "end", 1, "exit", exit_code);
    json_object_update(object, more);
    json_decref(more);
    end(req, object);
}

void control_local(struct control_request *req, json_t *args)
{
    const struct command *command = find_command(req->control, req->command);
    command->handler(req, args, command->ctx);
}

void control_fail(struct control_request *req, int exit_code, const char *next_step,
    const char *format, ...)
{
    char text[1024];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    json_t *object = json_pack("{s:b,s:i}", "end", 1, "exit", exit_code);
    json_object_set_new(object, "error", control_text(slice_str(text)));
    if (next_step)
        json_object_set_new(object, "next_step", control_text(slice_str(next_step)));
    end(req, object);
}

json_t *control_text(struct slice s)
{
    json_t *text = json_stringn(s.ptr ? s.ptr : "", s.len);
    if (text)
        return text;
    struct buf fixed;
    uint32_t code;
    buf_init(&fixed, s.len * 3 + 1);
    while (s.len) {
        unsigned len = utf8_decode(s, &code);
        buf_append(&fixed, len ? slice_head(s, len) : SLICE("\xef\xbf\xbd"));
        s = slice_from(s, len ? len : 1);
    }
    text = json_stringn(buf_slice(&fixed).ptr, buf_len(&fixed));
    buf_fini(&fixed);
    return text;
}

/* --- open and close --- */

struct control *control_open(
    struct loop *loop, const char *path, char *why, size_t why_size)
{
    struct control_socket socket;
    if (!control_socket_open(path, &socket, why, why_size))
        return NULL;
    struct control *ctl = mem_zalloc(sizeof(*ctl));
    ctl->loop = loop;
    ctl->socket = socket;
    TAILQ_INIT(&ctl->conns);
    watcher_init(&ctl->watcher, loop, socket.fd, accept_ready);
    watcher_set(&ctl->watcher, WATCH_READ);
    return ctl;
}

void control_close(struct control *ctl)
{
    if (!ctl)
        return;
    while (!TAILQ_EMPTY(&ctl->conns)) {
        struct control_conn *c = TAILQ_FIRST(&ctl->conns);
        flush(c);
        if (!TAILQ_EMPTY(&ctl->conns) && TAILQ_FIRST(&ctl->conns) == c)
            conn_close(c);
    }
    watcher_fini(&ctl->watcher);
    control_socket_close(&ctl->socket);
    free(ctl);
}
