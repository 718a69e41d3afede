/* SPDX-License-Identifier: Apache-2.0 */
/* Every case is fed whole, octet by octet, and in two pieces cut at every place: the
 * result must not depend on it. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>

#include "base/buf.h"
#include "node/mail/submission.h"

#define DATE "Date: Sun, 22 Nov 2026 15:43:38 +0000 (UTC)\r\n"
#define ID "Message-ID: <01kaq4a5xg0000000000000001@mx1.example.net>\r\n"

static const struct {
    const char *name, *input, *want;
} cases[] = {
    {"nothing to do", "Date: x\r\nMessage-Id: y\r\n\r\nbody\r\n",
        "Date: x\r\nMessage-Id: y\r\n\r\nbody\r\n"},
    {"both missing", "From: a@b\r\n\r\nbody\r\n", "From: a@b\r\n" DATE ID "\r\nbody\r\n"},
    {"date missing", "Message-ID: y\r\n\r\n", "Message-ID: y\r\n" DATE "\r\n"},
    {"id missing", "date : x\r\n\r\n", "date : x\r\n" ID "\r\n"},
    {"bcc",
        "Date: x\r\nBcc: a@b,\r\n c@d\r\n\te@f\r\nMessage-ID: y\r\n\r\nBcc: stays\r\n",
        "Date: x\r\nMessage-ID: y\r\n\r\nBcc: stays\r\n"},
    {"return-path and resent-bcc",
        "return-path: <x>\r\nResent-Bcc: a\r\nResent-To: b\r\nRESENT-BCC : c\r\n"
        "Date: x\r\nMessage-ID: y\r\n\r\n",
        "Resent-To: b\r\nDate: x\r\nMessage-ID: y\r\n\r\n"},
    {"bcc last", "Date: x\r\nMessage-ID: y\r\nBcc: a\r\n b\r\n\r\nbody",
        "Date: x\r\nMessage-ID: y\r\n\r\nbody"},
    {"names that only look alike",
        "Bccx: a\r\nX-Bcc: b\r\nDate: x\r\nMessage-ID: y\r\n\r\n",
        "Bccx: a\r\nX-Bcc: b\r\nDate: x\r\nMessage-ID: y\r\n\r\n"},
    {"resent-date is not date", "Resent-Date: x\r\nResent-Message-ID: y\r\n\r\n",
        "Resent-Date: x\r\nResent-Message-ID: y\r\n" DATE ID "\r\n"},
    {"folded value kept",
        "Subject: a\r\n b\r\n\tc\r\nDate: x\r\nMessage-ID:\r\n y\r\n\r\n",
        "Subject: a\r\n b\r\n\tc\r\nDate: x\r\nMessage-ID:\r\n y\r\n\r\n"},
    {"no header at all", "Hello Bob,\r\nhow are you?\r\n",
        DATE ID "\r\nHello Bob,\r\nhow are you?\r\n"},
    {"body at once", "\r\nbody\r\n", DATE ID "\r\nbody\r\n"},
    {"header without end", "From: a@b\r\n", "From: a@b\r\n" DATE ID "\r\n"},
    {"cut in a value", "From: a@b", "From: a@b\r\n" DATE ID "\r\n"},
    {"cut in a dropped value", "Bcc: a@b", DATE ID "\r\n"},
    {"cut in a name", "From: a@b\r\nSubj", "From: a@b\r\n" DATE ID "\r\nSubj"},
    {"a line that is no field", "From: a@b\r\nnot a field\r\n\r\nx\r\n",
        "From: a@b\r\n" DATE ID "\r\nnot a field\r\n\r\nx\r\n"},
    {"colon first", ": x\r\n\r\n", DATE ID "\r\n: x\r\n\r\n"},
    {"blank first", " x\r\nBcc: a\r\n\r\n", DATE ID "\r\n x\r\nBcc: a\r\n\r\n"},
    {"bare lf", "From: a@b\nBcc: c\n\nbody\n", "From: a@b\n" DATE ID "\nbody\n"},
    {"cr alone", "From: a@b\r\n\rx\r\n", "From: a@b\r\n" DATE ID "\r\n\rx\r\n"},
    {"empty", "", DATE ID "\r\n"},
    {"8-bit in a name", "S\xc3\xbc: x\r\n\r\n", DATE ID "\r\nS\xc3\xbc: x\r\n\r\n"},
};

static void expect(const char *name, struct slice want, const struct body *got)
{
    struct buf flat;
    buf_init(&flat, 65536);
    for (const struct body_chunk *c = body_chunks(got); c; c = c->next)
        buf_append(&flat, slice_make(c->bytes, c->len));
    if (!slice_eq(buf_slice(&flat), want))
        fail_msg("%s: got <%.*s>", name, SLICE_ARG(buf_slice(&flat)));
    buf_fini(&flat);
}

static void run(
    const char *name, struct slice in, struct slice want, size_t cut, size_t step)
{
    struct submission s;
    struct msg_id id;
    struct body *out = body_new();
    msg_id_parse(SLICE("01kaq4a5xg0000000000000001"), &id);
    submission_init(
        &s, out, SLICE("mx1.example.net"), id, (struct wall){INT64_C(1795362218123)});
    submission_feed(&s, slice_head(in, cut));
    for (size_t at = cut; at < in.len; at += step)
        submission_feed(&s, slice_head(slice_from(in, at), step));
    submission_end(&s);
    expect(name, want, out);
    body_unref(out);
}

static void test_cases(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        struct slice in = slice_str(cases[i].input);
        run(cases[i].name, in, slice_str(cases[i].want), 0, 1);
        for (size_t cut = 0; cut <= in.len; cut++)
            run(cases[i].name, in, slice_str(cases[i].want), cut, SIZE_MAX / 2);
    }
}

/* A name longer than any line may be is no name; memory stays bounded. */
static void test_long_name(void **state)
{
    (void)state;
    static char long_name[3000];
    static char want[4000];
    memset(long_name, 'a', sizeof(long_name));
    size_t head = (size_t)snprintf(want, sizeof(want), DATE ID "\r\n");
    memcpy(want + head, long_name, sizeof(long_name));
    run("long name", slice_make(long_name, sizeof(long_name)),
        slice_make(want, head + sizeof(long_name)), 0, 7);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cases),
        cmocka_unit_test(test_long_name),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
