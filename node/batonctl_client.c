/* SPDX-License-Identifier: Apache-2.0 */
/* The way to the node, and one exchange with it. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/settings.h"
#include "base/utf8.h"
#include "node/batonctl.h"

#define DEFAULT_CONFIG "/etc/baton/baton.yaml"
#define DEFAULT_SOCKET "/run/baton/control.sock"
/* The longest silence of a node that is well. */
#define SILENCE_S 60

char *ctl_find_socket(const struct command_line *line)
{
    const char *env = getenv("BATON_CONTROL");
    if (line->control)
        return mem_strdup(slice_str(line->control));
    if (env && env[0] && !line->config)
        return mem_strdup(slice_str(env));
    struct settings_problems problems;
    settings_problems_init(&problems);
    struct settings *s =
        settings_read(line->config ? line->config : DEFAULT_CONFIG, &problems);
    char *path = NULL;
    if (s) {
        path = mem_strdup(slice_str(s->control));
    } else if (!line->config) {
        /* Not there, not readable by this user, or broken: the usual place is a good
         * guess. */
        path = mem_strdup(SLICE(DEFAULT_SOCKET));
    } else {
        fprintf(stderr, "batonctl: cannot find the control socket in the settings:\n%.*s",
            SLICE_ARG(buf_slice(&problems.text)));
    }
    settings_unref(s);
    settings_problems_fini(&problems);
    return path;
}

static int cannot_connect(const char *path, int error)
{
    if (error == EACCES || error == EPERM) {
        fprintf(stderr,
            "batonctl: %s: permission denied; run it as root, or as a member of the "
            "socket's "
            "group\n",
            path);
        return EXIT_USAGE;
    }
    fprintf(stderr,
        "batonctl: no answer at %s (%s): is batond running? try: systemctl status "
        "baton\n",
        path, strerror(error));
    return EXIT_NO_ANSWER;
}

static int dial(const struct ctl *ctl, bool patient, int *fd_out)
{
    *fd_out = -1;
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    struct timeval silence = {.tv_sec = SILENCE_S};
    if (strlen(ctl->path) >= sizeof(address.sun_path)) {
        fprintf(stderr, "batonctl: %s: too long for the path of a socket\n", ctl->path);
        return EXIT_USAGE;
    }
    snprintf(address.sun_path, sizeof(address.sun_path), "%s", ctl->path);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return cannot_connect(ctl->path, errno);
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &silence, sizeof(silence));
    if (!patient)
        setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &silence, sizeof(silence));
    if (connect(fd, (struct sockaddr *)&address, sizeof(address)) != 0) {
        int error = errno;
        close(fd);
        return cannot_connect(ctl->path, error);
    }
    *fd_out = fd;
    return EXIT_WELL;
}

static bool send_request(int fd, const char *command, json_t *args)
{
    json_t *request = json_pack("{s:s,s:o}", "command", command, "args", args);
    char *text = json_dumps(request, JSON_COMPACT);
    json_decref(request);
    if (!text)
        die("batonctl: the arguments are not UTF-8");
    size_t len = strlen(text), sent = 0;
    text[len++] = '\n';
    while (sent < len) {
        ssize_t n = send(fd, text + sent, len - sent, MSG_NOSIGNAL);
        if (n <= 0)
            break;
        sent += (size_t)n;
    }
    free(text);
    return sent == len;
}

static void print_error(json_t *end)
{
    struct slice error = get_text(end, "error"), next = get_text(end, "next_step");
    struct buf text;
    if (error.len == 0)
        return;
    fflush(stdout);
    buf_init(&text, 1 << 20);
    buf_append_str(&text, "batonctl: ");
    /* Several lines (the problems of a reload) stay several. */
    while (error.len) {
        size_t line = slice_find(error, '\n');
        utf8_escape(slice_head(error, line), &text);
        buf_append_char(&text, '\n');
        error = slice_from(error, line + 1);
    }
    if (next.len) {
        buf_append_str(&text, "  next: ");
        utf8_escape(next, &text);
        buf_append_char(&text, '\n');
    }
    fprintf(stderr, "%.*s", SLICE_ARG(buf_slice(&text)));
    buf_fini(&text);
}

/* "batonctl: mx2, mx3: ..." for what an answer of the cluster lacks. */
static void print_names(const json_t *end, const char *key, const char *meaning)
{
    const json_t *names = json_object_get(end, key);
    struct buf text;
    size_t i;
    json_t *name;
    if (json_array_size(names) == 0)
        return;
    fflush(stdout);
    buf_init(&text, 1 << 16);
    json_array_foreach(names, i, name)
    {
        buf_append_str(&text, i ? ", " : "batonctl: ");
        utf8_escape(slice_make(json_string_value(name), json_string_length(name)), &text);
    }
    fprintf(stderr, "%.*s %s\n", SLICE_ARG(buf_slice(&text)), meaning);
    buf_fini(&text);
}

/* True while there is more to come. */
static bool take_line(struct ctl *ctl, char *line, size_t len, ctl_line_fn *handle,
    void *ctx, int *code_out)
{
    json_t *object = json_loadb(line, len, 0, NULL);
    bool end = object && json_is_true(json_object_get(object, "end"));
    if (end) {
        *code_out = (int)get_int(object, "exit");
        print_error(object);
        ctl->incomplete = json_object_get(object, "not_answered") != NULL;
        print_names(
            object, "not_answered", "did not answer: what only it knows is missing");
        print_names(object, "cut", "has more than fits into one answer: narrow it down");
    } else if (ctl->json) {
        fwrite(line, 1, len, stdout);
    } else if (object) {
        handle(ctl, object, ctx);
    }
    json_decref(object);
    return !end;
}

static int take_answer(struct ctl *ctl, FILE *in, ctl_line_fn *handle, void *ctx)
{
    char *line = NULL;
    size_t size = 0;
    ssize_t len;
    int code = EXIT_NO_ANSWER;
    bool more = true;
    while (more && (len = getline(&line, &size, in)) > 0) {
        more = take_line(ctl, line, (size_t)len, handle, ctx, &code);
        /* For those who follow: each line as it comes. */
        if (more && (ctl->json || ctl->columns))
            fflush(stdout);
    }
    free(line);
    if (!more)
        return code;
    fflush(stdout);
    fprintf(stderr, "batonctl: %s at %s; see its log: journalctl -u baton\n",
        errno == EAGAIN ? "the node does not answer" : "the node hung up", ctl->path);
    return EXIT_NO_ANSWER;
}

int ctl_call(struct ctl *ctl, const char *command, json_t *args, bool patient,
    ctl_line_fn *line, void *ctx)
{
    int fd, code = dial(ctl, patient, &fd);
    if (code != EXIT_WELL) {
        json_decref(args);
        return code;
    }
    FILE *in = fdopen(fd, "r");
    if (!in)
        die("batonctl: out of memory");
    errno = 0;
    if (send_request(fd, command, args))
        code = take_answer(ctl, in, line, ctx);
    else
        code = cannot_connect(ctl->path, errno);
    fclose(in);
    return code;
}
