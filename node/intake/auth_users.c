/* SPDX-License-Identifier: Apache-2.0 */
#include "node/intake/auth_users.h"

#include <crypt.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "base/alloc.h"
#include "base/random.h"
#include "node/intake/text_file.h"

#define FILE_MAX (16u << 20)
/* For a file without users: what mkpasswd would write today. */
#define DUMMY_HASH                                                                       \
    "$y$j9T$F5Jx5fExrKuPp53xLKQ..1$X3DX6M94c7o.9agCG9G317fhZg9SqC.5i5rd.RhAtQ7"
#define DEFAULT_ITERATIONS "4096"

struct user {
    struct slice name;
    char *hash; /* NUL-terminated, in the file's memory */
    bool has_verifier;
    struct auth_verifier verifier;
};

struct auth_users {
    atomic_uint refs;
    struct text_file text;
    struct user *users; /* sorted by name */
    unsigned count, cap;
    unsigned verifiers;
    const char *dummy_hash;
    const char *dummy_iterations;
    unsigned char secret[32]; /* makes salts for users who do not exist */
    Gsasl *gsasl;
};

/* --- the file --- */

static bool take(struct slice *rest, char until, char *out, size_t out_size)
{
    size_t end = until ? slice_find(*rest, until) : rest->len;
    bool fits = end > 0 && end < out_size && (!until || end < rest->len);
    if (!fits)
        return false;
    memcpy(out, rest->ptr, end);
    out[end] = '\0';
    *rest = slice_from(*rest, end + 1);
    return true;
}

static bool is_base64(const char *text)
{
    for (; *text; text++)
        if (!ascii_is_alnum(*text) && *text != '+' && *text != '/' && *text != '=')
            return false;
    return true;
}

static bool parse_verifier(struct slice text, struct auth_verifier *v)
{
    static const struct slice rfc = SLICE_INIT("SCRAM-SHA-256$");
    static const struct slice gnu = SLICE_INIT("{SCRAM-SHA-256}");
    uint64_t iterations;
    bool is_rfc = slice_starts(text, rfc);
    if (!is_rfc && !slice_starts(text, gnu))
        return false;
    text = slice_from(text, is_rfc ? rfc.len : gnu.len);
    bool whole = take(&text, is_rfc ? ':' : ',', v->iterations, sizeof(v->iterations)) &&
                 take(&text, is_rfc ? '$' : ',', v->salt, sizeof(v->salt)) &&
                 take(&text, is_rfc ? ':' : ',', v->stored_key, sizeof(v->stored_key)) &&
                 take(&text, '\0', v->server_key, sizeof(v->server_key));
    return whole && slice_u64(slice_str(v->iterations), 10000000, &iterations) &&
           iterations >= 4096 && is_base64(v->salt) && is_base64(v->stored_key) &&
           is_base64(v->server_key) && strlen(v->stored_key) == 44 &&
           strlen(v->server_key) == 44;
}

static bool is_locked(struct slice hash)
{
    return hash.len && (hash.ptr[0] == '!' || hash.ptr[0] == '*');
}

static const char *parse_line(struct slice line, struct user *out)
{
    size_t colon = slice_find(line, ':');
    struct slice rest = slice_from(line, colon + 1);
    struct slice hash = slice_head(rest, slice_find(rest, ':'));
    struct slice verifier = slice_from(rest, hash.len + 1);
    *out = (struct user){.name = slice_head(line, colon)};
    if (colon == line.len || colon == 0 || colon > AUTH_USER_MAX)
        return "want name:hash[:SCRAM-SHA-256 verifier]";
    if (hash.len == 0)
        return "the user has no password hash";
    out->hash = mem_strdup(hash);
    if (!is_locked(hash)) {
        int verdict = crypt_checksalt(out->hash);
        if (verdict == CRYPT_SALT_INVALID || verdict == CRYPT_SALT_METHOD_DISABLED)
            return "not a crypt(3) hash that this machine knows; make one with mkpasswd";
    }
    if (verifier.len == 0)
        return NULL;
    if (!parse_verifier(verifier, &out->verifier))
        return "not a SCRAM-SHA-256 verifier";
    out->has_verifier = true;
    return NULL;
}

static void add(struct auth_users *u, const struct user *user)
{
    if (u->count == u->cap) {
        u->cap = u->cap ? 2 * u->cap : 64;
        u->users = mem_realloc(u->users, u->cap * sizeof(*u->users));
    }
    u->users[u->count++] = *user;
    u->verifiers += user->has_verifier;
}

static int by_name(const void *a, const void *b)
{
    const struct user *x = a, *y = b;
    return slice_cmp(x->name, y->name);
}

static void read_lines(
    struct auth_users *u, const char *file, struct settings_problems *problems)
{
    struct text_lines lines = text_lines_of(&u->text);
    struct slice line;
    while (text_lines_next(&lines, &line)) {
        struct user user;
        const char *wrong = parse_line(line, &user);
        if (wrong) {
            /* The line itself is not shown: it holds a hash. */
            settings_problem(problems, file, lines.number, "users", "%s", wrong);
            free(user.hash);
        } else {
            add(u, &user);
        }
    }
    if (u->count)
        qsort(u->users, u->count, sizeof(*u->users), by_name);
    for (unsigned i = 1; i < u->count; i++)
        if (slice_eq(u->users[i - 1].name, u->users[i].name))
            settings_problem(problems, file, 0, "users", "user %.*s is there twice",
                SLICE_ARG(u->users[i].name));
}

/* What it costs to check a user who does not exist: as much as the first who does. */
static void choose_dummies(struct auth_users *u)
{
    u->dummy_hash = DUMMY_HASH;
    u->dummy_iterations = DEFAULT_ITERATIONS;
    for (unsigned i = u->count; i-- > 0;) {
        if (!is_locked(slice_str(u->users[i].hash)))
            u->dummy_hash = u->users[i].hash;
        if (u->users[i].has_verifier)
            u->dummy_iterations = u->users[i].verifier.iterations;
    }
}

static void start_library(struct auth_users *u)
{
    if (gsasl_init(&u->gsasl) != GSASL_OK)
        die("baton: libgsasl cannot start");
    gsasl_callback_hook_set(u->gsasl, u);
    gsasl_callback_set(u->gsasl, auth_sasl_callback);
    random_bytes(u->secret, sizeof(u->secret));
}

static void note_mode(
    const struct auth_users *u, const char *file, char *warning, size_t warning_size)
{
    if (warning_size)
        warning[0] = '\0';
    if (u->text.mode & (S_IROTH | S_IWOTH | S_IWGRP))
        snprintf(warning, warning_size,
            "%s is open to others (mode %03o): chmod 0640 %s, owner root, group baton",
            file, (unsigned)(u->text.mode & 0777), file);
}

struct auth_users *auth_users_load(const char *file, const char *settings_file,
    int settings_line_number, struct settings_problems *problems, char *warning,
    size_t warning_size)
{
    char why[300];
    unsigned before = problems->count;
    struct auth_users *u = mem_zalloc(sizeof(*u));
    atomic_init(&u->refs, 1);
    start_library(u);
    if (text_file_read(&u->text, file, FILE_MAX, why, sizeof(why)))
        read_lines(u, file, problems);
    else
        settings_problem(
            problems, settings_file, settings_line_number, "users.file", "%s", why);
    if (problems->count > before) {
        auth_users_unref(u);
        return NULL;
    }
    choose_dummies(u);
    note_mode(u, file, warning, warning_size);
    return u;
}

struct auth_users *auth_users_ref(struct auth_users *u)
{
    atomic_fetch_add_explicit(&u->refs, 1, memory_order_relaxed);
    return u;
}

void auth_users_unref(struct auth_users *u)
{
    if (!u || atomic_fetch_sub_explicit(&u->refs, 1, memory_order_acq_rel) != 1)
        return;
    for (unsigned i = 0; i < u->count; i++)
        free(u->users[i].hash);
    free(u->users);
    text_file_fini(&u->text);
    gsasl_done(u->gsasl);
    free(u);
}

unsigned auth_users_count(const struct auth_users *u)
{
    return u->count;
}

const char *auth_users_mechanisms(const struct auth_users *u)
{
    return u->count && u->verifiers == u->count ? "PLAIN LOGIN SCRAM-SHA-256"
                                                : "PLAIN LOGIN";
}

Gsasl *auth_users_gsasl(const struct auth_users *u)
{
    return u->gsasl;
}

/* --- questions of the helpers --- */

static const struct user *find(const struct auth_users *u, struct slice name)
{
    struct user key = {.name = name};
    return u->count ? bsearch(&key, u->users, u->count, sizeof(key), by_name) : NULL;
}

/* Looks at every octet, whatever the first ones are. */
static bool equal(const char *a, const char *b)
{
    size_t len = strlen(a);
    unsigned char difference = 0;
    if (strlen(b) != len)
        return false;
    for (size_t i = 0; i < len; i++)
        difference |= (unsigned char)(a[i] ^ b[i]);
    return difference == 0;
}

bool auth_users_check_password(
    const struct auth_users *u, struct slice name, const char *password)
{
    const struct user *user = find(u, name);
    bool known = user && !is_locked(slice_str(user->hash));
    const char *hash = known ? user->hash : u->dummy_hash;
    struct crypt_data *room = mem_zalloc(sizeof(*room));
    const char *made = crypt_r(password, hash, room);
    bool same = made && made[0] != '*' && equal(made, hash);
    explicit_bzero(room, sizeof(*room));
    free(room);
    return known && same;
}

/* 16 octets of a keyed hash of the name, as base64: the same salt each time, as a real
 * user would have. */
static void dummy_verifier(
    const struct auth_users *u, struct slice name, struct auth_verifier *out)
{
    uint64_t keys[4], salt[2];
    char *text = NULL;
    size_t text_len;
    memcpy(keys, u->secret, sizeof(keys));
    salt[0] = slice_hash(name, keys[0]);
    salt[1] = slice_hash(name, keys[1]);
    *out = (struct auth_verifier){0};
    snprintf(out->iterations, sizeof(out->iterations), "%s", u->dummy_iterations);
    if (gsasl_base64_to((const char *)salt, sizeof(salt), &text, &text_len) == GSASL_OK)
        snprintf(out->salt, sizeof(out->salt), "%s", text);
    gsasl_free(text);
    text = NULL;
    /* A key that no password fits: nobody knows what hashes to the secret. */
    if (gsasl_base64_to((const char *)u->secret, sizeof(u->secret), &text, &text_len) ==
        GSASL_OK) {
        snprintf(out->stored_key, sizeof(out->stored_key), "%s", text);
        snprintf(out->server_key, sizeof(out->server_key), "%s", text);
    }
    gsasl_free(text);
}

void auth_users_verifier(
    const struct auth_users *u, struct slice name, struct auth_verifier *out)
{
    const struct user *user = find(u, name);
    if (user && user->has_verifier && !is_locked(slice_str(user->hash)))
        *out = user->verifier;
    else
        dummy_verifier(u, name, out);
}
