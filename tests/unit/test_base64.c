/* SPDX-License-Identifier: Apache-2.0 */
#include "proto/base64.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <cmocka.h>

static const struct {
    const char *octets, *text;
} PAIRS[] = {
    /* RFC 4648 10 */
    {"", ""},
    {"f", "Zg=="},
    {"fo", "Zm8="},
    {"foo", "Zm9v"},
    {"foob", "Zm9vYg=="},
    {"fooba", "Zm9vYmE="},
    {"foobar", "Zm9vYmFy"},
    {"\xff\xfe\xfd", "//79"},
    {"\xfb\xef\xbe", "++++"},
};

static const char *const BAD[] = {
    "Z",
    "Zg",
    "Zg=",
    "Zg==\n",
    "Zh==",
    "Zm9=",
    "====",
    "Z===",
    "=g==",
    "Zg==Zg==",
    "Zm9v====",
    " Zg==",
    "Zm 9",
    "Zm9-",
    "Zm9_",
    "Zg=a",
    "Z\xc3\xa9==",
};

static void encodes_and_decodes(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof PAIRS / sizeof *PAIRS; i++) {
        struct buf out;
        buf_init(&out, 100);
        assert_true(base64_encode(&out, slice_str(PAIRS[i].octets)));
        assert_true(slice_eq(buf_slice(&out), slice_str(PAIRS[i].text)));
        buf_clear(&out);
        assert_true(base64_decode(&out, slice_str(PAIRS[i].text)));
        assert_true(slice_eq(buf_slice(&out), slice_str(PAIRS[i].octets)));
        buf_fini(&out);
    }
}

static void refuses_what_is_not(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof BAD / sizeof *BAD; i++) {
        struct buf out;
        buf_init(&out, 100);
        if (base64_decode(&out, slice_str(BAD[i])))
            fail_msg("took %s", BAD[i]);
        assert_int_equal(buf_len(&out), 0);
        buf_fini(&out);
    }
    struct buf out;
    buf_init(&out, 100);
    assert_false(base64_decode(&out, slice_make("Zm9\0", 4)));
    buf_fini(&out);
}

/* Every prefix of a good text is good exactly at whole groups. */
static void cut_at_every_length(void **state)
{
    (void)state;
    struct slice text = SLICE("Zm9vYmFyZm9vYg==");
    for (size_t len = 0; len <= text.len; len++) {
        struct buf out;
        buf_init(&out, 100);
        bool want = len % 4 == 0;
        assert_int_equal(base64_decode(&out, slice_head(text, len)), want);
        buf_fini(&out);
    }
}

static void respects_the_maximum(void **state)
{
    (void)state;
    struct buf out;
    buf_init(&out, 5);
    assert_false(base64_decode(&out, SLICE("Zm9vYmFy")));
    assert_false(base64_encode(&out, SLICE("foobar")));
    assert_int_equal(buf_len(&out), 0);
    buf_fini(&out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(encodes_and_decodes),
        cmocka_unit_test(refuses_what_is_not),
        cmocka_unit_test(cut_at_every_length),
        cmocka_unit_test(respects_the_maximum),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
