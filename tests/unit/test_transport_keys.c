/* SPDX-License-Identifier: Apache-2.0 */
/* The file that keeps a node's key pair. */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "cluster/transport.h"

static char folder[64], path[128], why[512];

static int setup(void **state)
{
    (void)state;
    snprintf(folder, sizeof(folder), "/tmp/baton-keys-XXXXXX");
    if (!mkdtemp(folder))
        return -1;
    snprintf(path, sizeof(path), "%s/cluster.key", folder);
    why[0] = '\0';
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    unlink(path);
    return rmdir(folder); /* fails when anything else was left there */
}

static size_t read_file(char *out, size_t size)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    assert_true(fd >= 0);
    ssize_t len = read(fd, out, size);
    close(fd);
    assert_true(len > 0);
    return (size_t)len;
}

static void write_file(const char *bytes, size_t len)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, bytes, len), len);
    close(fd);
}

static void test_made_once(void **state)
{
    (void)state;
    struct transport_keys made, again, other;
    struct stat st;
    assert_true(transport_keys_load(path, &made, why, sizeof(why)));
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 07777, 0600);
    assert_true(transport_keys_load(path, &again, why, sizeof(why)));
    assert_memory_equal(&made, &again, sizeof(made));
    transport_keys_make(&other);
    assert_memory_not_equal(other.public_key, made.public_key, TRANSPORT_KEY_BYTES);
    assert_memory_not_equal(other.secret_key, made.secret_key, TRANSPORT_KEY_BYTES);
    assert_memory_not_equal(made.public_key, made.secret_key, TRANSPORT_KEY_BYTES);
}

static void test_open_to_others(void **state)
{
    (void)state;
    struct transport_keys keys;
    assert_true(transport_keys_load(path, &keys, why, sizeof(why)));
    assert_int_equal(chmod(path, 0640), 0);
    assert_false(transport_keys_load(path, &keys, why, sizeof(why)));
    assert_non_null(strstr(why, path));
    assert_non_null(strstr(why, "chmod 600"));
}

/* Cut at each length, with each byte changed, with a byte too many: never taken. */
static void test_damaged(void **state)
{
    (void)state;
    struct transport_keys keys;
    char good[256], bad[256];
    assert_true(transport_keys_load(path, &keys, why, sizeof(why)));
    size_t len = read_file(good, sizeof(good) - 1);
    for (size_t i = 0; i < len; i++) {
        write_file(good, i);
        assert_false(transport_keys_load(path, &keys, why, sizeof(why)));
        memcpy(bad, good, len);
        bad[i] = (char)(bad[i] ^ (i % 3 ? 0x01 : 0x80));
        write_file(bad, len);
        if (transport_keys_load(path, &keys, why, sizeof(why)))
            fail_msg("byte %zu changed and nobody saw it", i);
        assert_non_null(strstr(why, "next step"));
    }
    memcpy(bad, good, len);
    bad[len] = '\n';
    write_file(bad, len + 1);
    assert_false(transport_keys_load(path, &keys, why, sizeof(why)));
    write_file(good, len);
    assert_true(transport_keys_load(path, &keys, why, sizeof(why)));
}

static void test_not_a_file(void **state)
{
    (void)state;
    struct transport_keys keys;
    char missing[192];
    snprintf(missing, sizeof(missing), "%s/none/cluster.key", folder);
    assert_false(transport_keys_load(missing, &keys, why, sizeof(why)));
    assert_non_null(strstr(why, missing));
    assert_false(transport_keys_load(folder, &keys, why, sizeof(why)));
    assert_int_equal(symlink("/etc/hostname", path), 0);
    assert_false(transport_keys_load(path, &keys, why, sizeof(why)));
    unlink(path);
    assert_int_equal(mkfifo(path, 0600), 0);
    assert_false(transport_keys_load(path, &keys, why, sizeof(why))); /* and no waiting */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_made_once, setup, teardown),
        cmocka_unit_test_setup_teardown(test_open_to_others, setup, teardown),
        cmocka_unit_test_setup_teardown(test_damaged, setup, teardown),
        cmocka_unit_test_setup_teardown(test_not_a_file, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
