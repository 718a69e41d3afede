/* SPDX-License-Identifier: Apache-2.0 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>

#include "base/buf.h"
#include "node/mail/convert8.h"
#include "node/mail/encode.h"

static const struct {
    const char *name, *input;
    enum convert8 result;
    const char *want; /* the message, or why not */
} cases[] = {
    {"seven bits", "Subject: x\r\n\r\nabc\r\n", CONVERT8_NOTHING, NULL},
    {"text without MIME",
        "Subject: x\r\n\r\nB\xc3\xbc"
        "cher = a\r\n",
        CONVERT8_DONE,
        "Subject: x\r\nMIME-Version: 1.0\r\nContent-Type: text/plain; "
        "charset=unknown-8bit\r\n"
        "Content-Transfer-Encoding: quoted-printable\r\n\r\nB=C3=BCcher =3D a\r\n"},
    {"text",
        "MIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\n"
        "Content-Transfer-Encoding:\r\n 8bit\r\nSubject: x\r\n\r\n\xc3\xbc \r\n.\r\nFrom "
        "me\r\n",
        CONVERT8_DONE,
        "MIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\nSubject: x\r\n"
        "Content-Transfer-Encoding: quoted-printable\r\n\r\n=C3=BC=20\r\n=2E\r\n=46rom "
        "me\r\n"},
    {"binary leaf",
        "MIME-Version: 1.0\r\nContent-Type: image/png\r\nContent-Transfer-Encoding: "
        "8bit\r\n"
        "\r\n\xff\xfe\xfd",
        CONVERT8_DONE,
        "MIME-Version: 1.0\r\nContent-Type: image/png\r\n"
        "Content-Transfer-Encoding: base64\r\n\r\n//79\r\n"},
    {"multipart",
        "MIME-Version: 1.0\r\nContent-Type: multipart/mixed;\r\n\tboundary=\"a b\"\r\n"
        "Content-Transfer-Encoding: 8bit\r\n\r\npre\xc3\xa4"
        "mble\r\n--a b\r\n\r\nplain\r\n"
        "--a b  \r\nContent-Type: text/html\r\nContent-Transfer-Encoding: "
        "8bit\r\n\r\n<\xe4>\r\n"
        "--a b--\r\nepilogue",
        CONVERT8_DONE,
        "MIME-Version: 1.0\r\nContent-Type: multipart/mixed;\r\n\tboundary=\"a b\"\r\n"
        "Content-Transfer-Encoding: 7bit\r\n\r\npre??mble\r\n--a b\r\n\r\nplain\r\n"
        "--a b  \r\nContent-Type: text/html\r\nContent-Transfer-Encoding: "
        "quoted-printable\r\n"
        "\r\n<=E4>\r\n--a b--\r\nepilogue"},
    {"a message in a message",
        "MIME-Version: 1.0\r\nContent-Type: message/rfc822\r\n"
        "Content-Transfer-Encoding: 8bit\r\n\r\nSubject: y\r\n\r\n\xe4\r\n",
        CONVERT8_DONE,
        "MIME-Version: 1.0\r\nContent-Type: message/rfc822\r\n"
        "Content-Transfer-Encoding: 7bit\r\n\r\nSubject: y\r\nMIME-Version: 1.0\r\n"
        "Content-Type: text/plain; charset=unknown-8bit\r\n"
        "Content-Transfer-Encoding: quoted-printable\r\n\r\n=E4\r\n"},
    {"dkim", "DKIM-Signature: v=1\r\n\r\n\xe4\r\n", CONVERT8_REFUSED,
        "a DKIM signature would break"},
    {"signed",
        "MIME-Version: 1.0\r\nContent-Type: multipart/signed; "
        "boundary=x\r\n\r\n--x\r\n\r\n\xe4",
        CONVERT8_REFUSED, "a signature would break"},
    {"8-bit header", "Subject: \xe4\r\n\r\nx\r\n", CONVERT8_REFUSED,
        "octets above 127 in a header"},
    {"lying base64",
        "Content-Type: text/plain\r\nContent-Transfer-Encoding: base64\r\n\r\n\xe4",
        CONVERT8_REFUSED, "8-bit octets in a part that says it is encoded"},
    {"no boundary", "Content-Type: multipart/mixed\r\n\r\n\xe4", CONVERT8_REFUSED,
        "broken multipart"},
    {"two types", "Content-Type: text/plain\r\nContent-Type: text/html\r\n\r\n\xe4",
        CONVERT8_REFUSED, "broken MIME header"},
    {"two boundaries",
        "Content-Type: multipart/mixed; boundary=a; boundary=b\r\n\r\n\xe4",
        CONVERT8_REFUSED, "broken MIME header"},
    {"partial", "Content-Type: message/partial\r\n\r\n\xe4", CONVERT8_REFUSED,
        "a message part that may not be encoded"},
};

static struct body *body_of(struct slice s)
{
    struct body *b = body_new();
    if (s.len)
        body_append(b, s);
    return b;
}

static void expect(const char *name, const char *want, const struct body *got)
{
    struct buf flat;
    buf_init(&flat, 1 << 20);
    for (const struct body_chunk *c = body_chunks(got); c; c = c->next)
        buf_append(&flat, slice_make(c->bytes, c->len));
    if (!slice_eq(buf_slice(&flat), slice_str(want)))
        fail_msg("%s: got <%.*s>", name, SLICE_ARG(buf_slice(&flat)));
    buf_fini(&flat);
}

static void test_cases(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        struct body *in = body_of(slice_str(cases[i].input));
        struct body *out;
        const char *why;
        assert_int_equal(convert8_message(in, &out, &why), cases[i].result);
        if (cases[i].result == CONVERT8_DONE)
            expect(cases[i].name, cases[i].want, out);
        else
            assert_null(out);
        if (cases[i].result == CONVERT8_REFUSED)
            assert_string_equal(why, cases[i].want);
        body_unref(out);
        body_unref(in);
    }
}

/* Whatever is cut off: the result is 7-bit, refused, or was so before. */
static void test_cut(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++)
        for (size_t cut = 0; cut < strlen(cases[i].input); cut++) {
            struct body *in = body_of(slice_make(cases[i].input, cut));
            struct body *out;
            const char *why;
            enum convert8 r = convert8_message(in, &out, &why);
            assert_int_equal(r == CONVERT8_DONE, out != NULL);
            for (const struct body_chunk *c = out ? body_chunks(out) : NULL; c;
                 c = c->next)
                assert_false(has_8bit(slice_make(c->bytes, c->len)));
            body_unref(out);
            body_unref(in);
        }
}

static void test_too_deep(void **state)
{
    (void)state;
    struct body *in = body_new();
    for (int i = 0; i < 100; i++)
        body_append(in, SLICE("Content-Type: message/rfc822\r\n\r\n"));
    body_append(in, SLICE("\r\n\xe4"));
    struct body *out;
    const char *why;
    assert_int_equal(convert8_message(in, &out, &why), CONVERT8_REFUSED);
    assert_string_equal(why, "too many parts, or nested too deep");
    body_unref(in);
}

static void test_qp_lines(void **state)
{
    (void)state;
    char line[400];
    for (size_t len = 1; len < sizeof(line); len++) {
        memset(line, len % 2 ? 'x' : '\xe4', len);
        struct body *out = body_new();
        encode_qp(out, slice_make(line, len));
        struct slice s = slice_make(body_chunks(out)->bytes, body_chunks(out)->len);
        while (s.len) {
            size_t lf = slice_find(s, '\n');
            assert_true((lf < s.len ? lf - 1 : lf) <= 76);
            s = slice_from(s, lf + 1);
        }
        body_unref(out);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cases),
        cmocka_unit_test(test_cut),
        cmocka_unit_test(test_too_deep),
        cmocka_unit_test(test_qp_lines),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
