/* SPDX-License-Identifier: Apache-2.0 */
/* Which refusals speak of our address; and that every phase has its words. The texts are
 * those of real servers. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>

#include <stdlib.h>

#include "node/smtp/client.h"
#include "proto/esmtp_params.h"
#include "queue/message.h"

static const struct {
    const char *text;
    bool blames;
} cases[] = {
    {"554 5.7.1 Service unavailable; Client host [192.0.2.1] blocked using "
     "zen.spamhaus.org",
        true},
    {"550 5.7.1 Service unavailable, Client host [192.0.2.1] blocked using Spamhaus. To "
     "request removal from this list see https://www.spamhaus.org/query/ip/192.0.2.1 "
     "(AS3130)",
        true},
    {"550 5.7.606 Access denied, banned sending IP [192.0.2.1]", true},
    {"550 5.7.1 Unfortunately, messages from [192.0.2.1] weren't sent. Please contact "
     "your "
     "Internet service provider since part of their network is on our block list "
     "(S3140).",
        true},
    {"421 4.7.0 [TSS04] Messages from 192.0.2.1 temporarily deferred due to user "
     "complaints",
        true},
    {"554 Your IP (192.0.2.1) is in a black list", true},
    {"550 5.7.25 The IP address sending this message does not have a PTR record setup",
        true},
    {"421 4.7.28 Our system has detected an unusual rate. Your IP has low reputation",
        true},
    {"554-mx.example.net 554 Bad DNS PTR resource record.", false},
    {"451 4.7.1 Too many connections, slow down", true},
    {"550 5.1.8 Sender address rejected: Domain not found", false},
    {"550 5.7.1 This message was blocked because its content looks like spam", false},
    {"553 sorry, your envelope sender is in my badmailfrom list", false},
    {"552 5.3.4 Message size exceeds fixed limit", false},
    {"450 4.2.0 Greylisted, see http://postgrey.example.org/", false},
    {"550 no mailbox called xrbl here, nor rblx", false},
    {"550 \xc3\xa9rbl", false},
    {"", false},
};

static void test_blame(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++)
        if (smtp_reply_blames_address(slice_str(cases[i].text)) != cases[i].blames)
            fail_msg("%s", cases[i].text);
}

static void test_words(void **state)
{
    (void)state;
    for (int p = 0; p < SMTP_PHASE_COUNT; p++) {
        assert_non_null(smtp_phase_name((enum smtp_phase)p));
        assert_true(strlen(smtp_phase_phrase((enum smtp_phase)p)) > 8);
    }
}

/* The same numbers in the queue, on the wire and here, so that nobody has to translate.
 */
static void test_numbers(void **state)
{
    (void)state;
    assert_int_equal(SMTP_RET_UNSET, DSN_RET_UNSET);
    assert_int_equal(SMTP_RET_FULL, DSN_RET_FULL);
    assert_int_equal(SMTP_RET_HDRS, DSN_RET_HDRS);
    assert_int_equal(ESMTP_NOTIFY_NEVER, NOTIFY_NEVER);
    assert_int_equal(ESMTP_NOTIFY_SUCCESS, NOTIFY_SUCCESS);
    assert_int_equal(ESMTP_NOTIFY_FAILURE, NOTIFY_FAILURE);
    assert_int_equal(ESMTP_NOTIFY_DELAY, NOTIFY_DELAY);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_blame),
        cmocka_unit_test(test_words),
        cmocka_unit_test(test_numbers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
