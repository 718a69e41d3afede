/* SPDX-License-Identifier: Apache-2.0 */
/* The token of a cluster, and the files by which a node is born into one. */
#include "node/cluster/token.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/buf.h"
#include "base/crc32c.h"
#include "base/random.h"
#include "node/cluster/birth.h"
#include "proto/base64.h"

static char why[512];

static struct token sample(unsigned hosts)
{
    struct token t = {.cluster = "prod", .expires = {1800000000000}, .host_count = hosts};
    random_bytes(t.cluster_id, sizeof(t.cluster_id));
    random_bytes(&t.invitation, sizeof(t.invitation));
    for (unsigned i = 0; i < hosts; i++) {
        t.hosts[i].node = random_u64() | 1;
        random_bytes(t.hosts[i].key, TRANSPORT_KEY_BYTES);
        assert_true(
            netaddr_parse(i % 2 ? SLICE("[2001:db8::1]:7420") : SLICE("10.0.0.1:7420"), 0,
                &t.hosts[i].address));
    }
    return t;
}

static void check_same(const struct token *a, const struct token *b)
{
    assert_memory_equal(a->cluster_id, b->cluster_id, sizeof(a->cluster_id));
    assert_string_equal(a->cluster, b->cluster);
    assert_memory_equal(&a->invitation, &b->invitation, sizeof(a->invitation));
    assert_int_equal(a->expires.ms, b->expires.ms);
    assert_int_equal(a->host_count, b->host_count);
    for (unsigned i = 0; i < a->host_count; i++) {
        assert_int_equal(a->hosts[i].node, b->hosts[i].node);
        assert_memory_equal(a->hosts[i].key, b->hosts[i].key, TRANSPORT_KEY_BYTES);
        assert_true(ipaddr_eq(a->hosts[i].address.ip, b->hosts[i].address.ip));
        assert_int_equal(a->hosts[i].address.port, b->hosts[i].address.port);
    }
}

static void test_round_trip(void **state)
{
    (void)state;
    for (unsigned hosts = 1; hosts <= TOKEN_HOSTS_MAX; hosts++) {
        char text[TOKEN_TEXT_MAX], again[TOKEN_TEXT_MAX], padded[TOKEN_TEXT_MAX + 8];
        struct token t = sample(hosts), back;
        token_encode(&t, text);
        assert_int_equal(strspn(text, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWX"
                                      "YZ0123456789-_"),
            strlen(text));
        assert_true(token_decode(slice_str(text), &back, why, sizeof(why)));
        check_same(&t, &back);
        token_encode(&back, again);
        assert_string_equal(text, again);
        snprintf(padded, sizeof(padded), " %s\r\n", text);
        assert_true(token_decode(slice_str(padded), &back, why, sizeof(why)));
    }
}

/* Every cut and every changed character is seen; nothing of the secret stays behind. */
static void test_damage(void **state)
{
    (void)state;
    static const struct token none;
    char text[TOKEN_TEXT_MAX];
    struct token t = sample(2), back;
    token_encode(&t, text);
    size_t len = strlen(text);
    for (size_t cut = 0; cut < len; cut++) {
        assert_false(token_decode(slice_make(text, cut), &back, why, sizeof(why)));
        assert_memory_equal(&back, &none, sizeof(none));
        assert_true(why[0] != '\0');
    }
    for (size_t at = 0; at < len; at++) {
        char was = text[at];
        text[at] = was == 'A' ? 'B' : 'A';
        assert_false(token_decode(slice_str(text), &back, why, sizeof(why)));
        text[at] = '+';
        assert_false(token_decode(slice_str(text), &back, why, sizeof(why)));
        text[at] = was;
    }
    char big[TOKEN_TEXT_MAX * 2];
    memset(big, 'A', sizeof(big));
    assert_false(token_decode(slice_make(big, sizeof(big)), &back, why, sizeof(why)));
    assert_non_null(strstr(why, "too long"));
}

/* With a right checksum: fields out of range. */
static void forge(struct buf *bytes, char text[TOKEN_TEXT_MAX])
{
    struct buf plain;
    uint32_t crc = crc32c(0, buf_slice(bytes).ptr, buf_len(bytes));
    for (int i = 3; i >= 0; i--)
        buf_append_char(bytes, (char)(crc >> (8 * i)));
    buf_init(&plain, 2048);
    base64_encode(&plain, buf_slice(bytes));
    size_t len = buf_len(&plain);
    memcpy(text, buf_slice(&plain).ptr, len);
    while (len && text[len - 1] == '=')
        len--;
    text[len] = '\0';
    for (char *c = text; *c; c++)
        *c = *c == '+' ? '-' : *c == '/' ? '_' : *c;
    buf_fini(&plain);
}

static void test_forged(void **state)
{
    (void)state;
    /* offset in the bytes of a token for "prod" with one host, and what goes there */
    static const struct {
        size_t at;
        unsigned char byte;
    } rows[] = {{0, 2}, {17, 0}, {17, 30}, {17, 255}, {18, ' '}, {18, 0}, {18, 0x80},
        {22 + 64, 0x80}, {22 + 64 + 8, 0}, {22 + 64 + 8, 2}, {22 + 64 + 8, 9},
        {22 + 73 + 40, 0}, {22 + 73 + 40, 5}, {22 + 73 + 41 + 15, 1}};
    struct token back;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        char text[TOKEN_TEXT_MAX], forged[TOKEN_TEXT_MAX];
        struct token t = sample(1);
        struct buf plain, bytes;
        token_encode(&t, text);
        buf_init(&plain, 2048);
        buf_init(&bytes, 2048);
        for (char *c = text; *c; c++)
            buf_append_char(&plain, *c == '-' ? '+' : *c == '_' ? '/' : *c);
        while (buf_len(&plain) % 4)
            buf_append_char(&plain, '=');
        assert_true(base64_decode(&bytes, buf_slice(&plain)));
        bytes.tail -= 4;
        assert_int_equal(buf_len(&bytes), 22 + 73 + 59);
        bytes.mem[bytes.head + rows[i].at] = (char)rows[i].byte;
        forge(&bytes, forged);
        if (token_decode(slice_str(forged), &back, why, sizeof(why)))
            fail_msg("row %zu was taken", i);
        buf_fini(&plain);
        buf_fini(&bytes);
    }
}

struct place {
    char dir[64], file[80], data[80];
};

static struct place place_make(void)
{
    struct place p = {.dir = "/var/tmp/baton-test-XXXXXX"};
    assert_non_null(mkdtemp(p.dir));
    snprintf(p.file, sizeof(p.file), "%s/join", p.dir);
    snprintf(p.data, sizeof(p.data), "%s/data", p.dir);
    return p;
}

static void place_remove(struct place *p)
{
    static const char *const names[] = {
        "data/cluster.init", "data/cluster.member", "data/cluster.init.new", "join"};
    char path[128];
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        snprintf(path, sizeof(path), "%s/%s", p->dir, names[i]);
        unlink(path);
    }
    rmdir(p->data);
    rmdir(p->dir);
}

static void write_file(const char *path, const char *text, mode_t mode)
{
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    fputs(text, file);
    fclose(file);
    chmod(path, mode);
}

static void test_file(void **state)
{
    (void)state;
    struct place p = place_make();
    struct token t = sample(3), back;
    struct wall before = {t.expires.ms - 1};
    char text[TOKEN_TEXT_MAX];
    assert_false(token_read(p.file, "prod", before, &back, why, sizeof(why)));
    assert_non_null(strstr(why, "batonctl cluster token"));
    token_encode(&t, text);
    write_file(p.file, text, 0600);
    assert_true(token_read(p.file, "prod", before, &back, why, sizeof(why)));
    check_same(&t, &back);
    assert_false(token_read(p.file, "other", before, &back, why, sizeof(why)));
    assert_non_null(strstr(why, "a token of the cluster prod"));
    assert_false(token_read(p.file, "prod", t.expires, &back, why, sizeof(why)));
    assert_non_null(strstr(why, "expired"));
    chmod(p.file, 0644);
    assert_false(token_read(p.file, "prod", before, &back, why, sizeof(why)));
    assert_non_null(strstr(why, "chmod 600"));
    write_file(p.file, "nonsense\n", 0600);
    assert_false(token_read(p.file, "prod", before, &back, why, sizeof(why)));
    assert_non_null(strstr(why, "/join is no token"));
    assert_false(token_read(p.dir, "prod", before, &back, why, sizeof(why)));
    place_remove(&p);
}

static struct settings *settings_in(const struct place *p, const char *cluster)
{
    struct settings_problems problems;
    char yaml[512];
    settings_problems_init(&problems);
    snprintf(
        yaml, sizeof(yaml), "hostname: a.example\ndata_dir: %s\n%s", p->data, cluster);
    struct settings *s = settings_parse(slice_str(yaml), "f", &problems);
    if (!s)
        fail_msg("%.*s", SLICE_ARG(buf_slice(&problems.text)));
    settings_problems_fini(&problems);
    return s;
}

#define PROD "cluster: {name: prod, node: a, listen: '127.0.0.1:0'}\n"

static void test_birth(void **state)
{
    (void)state;
    struct place p = place_make();
    struct settings *alone = settings_in(&p, ""), *prod = settings_in(&p, PROD);
    struct settings *other = settings_in(
        &p, "cluster: {name: test, node: a, listen: '127.0.0.1:0', join: /x}\n");
    struct birth first, again;
    assert_int_equal(mkdir(p.data, 0700), 0);
    assert_false(birth_init(alone, &first, why, sizeof(why)));
    assert_non_null(strstr(why, "has no section cluster"));
    assert_int_equal(birth_look(prod, &first, why, sizeof(why)), BIRTH_NONE);
    assert_non_null(strstr(why, "batonctl cluster init"));
    assert_int_equal(birth_look(other, &first, why, sizeof(why)), BIRTH_TOKEN);
    assert_true(birth_init(prod, &first, why, sizeof(why)));
    assert_true(birth_init(prod, &again, why, sizeof(why)));
    assert_memory_equal(&first, &again, sizeof(first));
    assert_int_equal(birth_look(prod, &again, why, sizeof(why)), BIRTH_INIT);
    assert_int_equal(birth_look(other, &again, why, sizeof(why)), BIRTH_BAD);
    assert_non_null(strstr(why, "of the cluster prod, and cluster.name is test"));
    assert_false(birth_init(other, &again, why, sizeof(why)));
    for (int twice = 0; twice < 2; twice++) {
        assert_true(birth_done(prod, &first, why, sizeof(why)));
        assert_int_equal(birth_look(prod, &again, why, sizeof(why)), BIRTH_MEMBER);
        assert_memory_equal(&first, &again, sizeof(first));
    }
    assert_false(birth_init(prod, &again, why, sizeof(why)));
    assert_non_null(strstr(why, "belongs to the cluster prod already"));
    settings_unref(alone);
    settings_unref(prod);
    settings_unref(other);
    place_remove(&p);
}

static void test_birth_damaged(void **state)
{
    (void)state;
    static const char *const texts[] = {"", "prod", "prod 00\n", " 00\n",
        "prod 0123456789abcdef0123456789abcdeg\n",
        "prod 0123456789abcdef0123456789abcdef",
        "prod  123456789abcdef0123456789abcdef\n",
        "a123456789b123456789c123456789d123456789 0123456789abcdef0123456789abcdef\n"};
    struct place p = place_make();
    struct settings *prod = settings_in(&p, PROD);
    struct birth out;
    char path[96];
    assert_int_equal(mkdir(p.data, 0700), 0);
    snprintf(path, sizeof(path), "%s/cluster.init", p.data);
    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
        write_file(path, texts[i], 0600);
        assert_int_equal(birth_look(prod, &out, why, sizeof(why)), BIRTH_BAD);
        assert_false(birth_init(prod, &out, why, sizeof(why)));
        assert_non_null(strstr(why, "cluster.init cannot be read"));
    }
    unlink(path);
    rmdir(p.data);
    write_file(p.data, "", 0600); /* a file in its place */
    assert_false(birth_init(prod, &out, why, sizeof(why)));
    unlink(p.data);
    settings_unref(prod);
    place_remove(&p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round_trip),
        cmocka_unit_test(test_damage),
        cmocka_unit_test(test_forged),
        cmocka_unit_test(test_file),
        cmocka_unit_test(test_birth),
        cmocka_unit_test(test_birth_damaged),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
