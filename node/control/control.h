/* SPDX-License-Identifier: Apache-2.0 */
/* batonctl's door: a UNIX socket that takes one JSON object a line,
 *   {"command":"queue ls","args":{"domain":"example.org"}}
 * and answers with lines of JSON objects, the last of which is
 *   {"end":true,"exit":0}                 exit: what batonctl exits with
 *   {"end":true,"exit":1,"error":"...","next_step":"..."}
 * Commands of one connection run one after the other. Who may open the socket (mode 0660)
 * may do everything; who did is in the log (SO_PEERCRED) for commands that change
 * something.
 *
 * All of this, and every handler, runs on one loop's thread. A handler answers at once or
 * later: it keeps the request until control_finish, which ends it. When the client goes
 * first, the request's on_cancel is called (once), further replies are dropped, and the
 * handler still finishes. Handlers that block do so on helpers (base/workers.h).
 *
 * Bounds: CONTROL_CONNECTIONS_MAX connections, lines of at most CONTROL_LINE_MAX, and
 * CONTROL_UNSENT_MAX of unsent answers: a handler with a long list watches control_reply.
 */
#ifndef NODE_CONTROL_CONTROL_H
#define NODE_CONTROL_CONTROL_H

#include <jansson.h>

#include "base/loop.h"
#include "base/slice.h"

#define CONTROL_CONNECTIONS_MAX 32
#define CONTROL_LINE_MAX 65536
#define CONTROL_UNSENT_MAX (8u << 20)
/* Above so much a handler should wait for on_drained. */
#define CONTROL_UNSENT_HIGH (1u << 20)

struct control;
struct control_request;

/* Makes the directory when it is missing, removes a socket that nobody answers on, and
 * listens. NULL with a line in `why` when another daemon answers there or it cannot be
 * done. */
struct control *control_open(
    struct loop *loop, const char *path, char *why, size_t why_size);
/* Cancels what is under way (their handlers still finish, and must before the loop is
 * freed), closes all, removes the socket if it is ours. Accepts NULL. Loop's thread, or
 * after it. */
void control_close(struct control *c);

enum control_effect { CONTROL_READS, CONTROL_CHANGES };
typedef void control_handler(struct control_request *req, json_t *args, void *ctx);
/* `args` is borrowed for the call and always an object. `command` must live as long. */
void control_register(struct control *c, const char *command, enum control_effect effect,
    control_handler *handler, void *ctx);

/* In a cluster, what a client asks goes here, and the handler above is for this node's
 * part of the answer (control_run). Not when the arguments have "local": true. Registered
 * before. */
void control_widen(
    struct control *c, const char *command, control_handler *handler, void *ctx);

/* Runs a command's own handler without a client: for a question of another node, or for
 * our part of an answer for the whole cluster. `done` gets, now or later, and owns,
 *   {"exit":0,"lines":[...]}, with "error" and "next_step" when it failed, and
 *   "cut":true when there was more than `max_bytes`.
 * `by`: whose wish it is, for the log of what changes something. */
typedef void control_run_done(json_t *answer, void *ctx);
void control_run(struct control *c, const char *command, json_t *args, const char *by,
    size_t max_bytes, control_run_done *done, void *ctx);

/* --- the handle --- */
struct control_run;
struct control_request {
    struct control *control;
    struct control_conn *conn; /* NULL when the client is gone */
    struct control_run *run;   /* in the place of a client */
    const char *command;
    /* The handler's: */
    void *state;
    void (*on_cancel)(struct control_request *req); /* the client is gone */
    void (*on_drained)(
        struct control_request *req); /* less than CONTROL_UNSENT_HIGH waits */
};

/* One line; takes the reference. False when the client is gone or more than
 * CONTROL_UNSENT_HIGH waits to be sent: stop, and go on in on_drained. The line itself is
 * not lost unless CONTROL_UNSENT_MAX is passed, which closes the connection. */
bool control_reply(struct control_request *req, json_t *object);
/* The same for lines that are JSON already, each with its newline. */
bool control_reply_lines(struct control_request *req, struct slice lines);
/* Ends the request. The handle is gone. */
void control_finish(struct control_request *req, int exit_code);
/* With more in the end line; takes `more`, an object. */
void control_finish_with(struct control_request *req, int exit_code, json_t *more);
/* From a handler of control_widen: hands the request on to the command's own. */
void control_local(struct control_request *req, json_t *args);
/* Ends it with an error for people; `next_step` may be NULL. */
void control_fail(struct control_request *req, int exit_code, const char *next_step,
    const char *format, ...) __attribute__((format(printf, 4, 5)));
bool control_is_gone(const struct control_request *req);

/* --- arguments: NULL or the default when absent; a wrong type is refused with
 * control_fail, which ends the request, and false. --- */
bool control_arg_text(
    struct control_request *req, json_t *args, const char *key, const char **out);
bool control_arg_int(struct control_request *req, json_t *args, const char *key,
    int64_t min, int64_t max, int64_t *out);
bool control_arg_bool(
    struct control_request *req, json_t *args, const char *key, bool *out);
/* Any text as a JSON string: what is not UTF-8 becomes U+FFFD. New reference. */
json_t *control_text(struct slice s);

#endif
