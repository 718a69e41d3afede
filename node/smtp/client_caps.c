/* SPDX-License-Identifier: Apache-2.0 */
#include "node/smtp/client_internal.h"

/* The next word of a line; *line moves behind it. Empty at the end. */
static struct slice next_word(struct slice *line)
{
    while (line->len && (line->ptr[0] == ' ' || line->ptr[0] == '\t'))
        *line = slice_from(*line, 1);
    struct slice word = slice_head(*line, slice_find(*line, ' '));
    *line = slice_from(*line, word.len);
    return word;
}

static void caps_size(struct smtp_caps *caps, struct slice args)
{
    uint64_t max;
    caps->flags |= SMTP_CAP_SIZE;
    if (slice_u64(next_word(&args), UINT64_MAX, &max))
        caps->size_max = max;
}

static void caps_auth(struct smtp_caps *caps, struct slice args)
{
    for (struct slice word = next_word(&args); word.len; word = next_word(&args)) {
        if (slice_eq_nocase(word, SLICE("PLAIN")))
            caps->flags |= SMTP_CAP_AUTH_PLAIN;
        else if (slice_eq_nocase(word, SLICE("LOGIN")))
            caps->flags |= SMTP_CAP_AUTH_LOGIN;
    }
}

/* RFC 9422: "LIMITS RCPTMAX=20 MAILMAX=5". Nonsense (0, not a number) limits nothing. */
static void caps_limits(struct smtp_caps *caps, struct slice args)
{
    for (struct slice word = next_word(&args); word.len; word = next_word(&args)) {
        size_t eq = slice_find(word, '=');
        struct slice name = slice_head(word, eq);
        uint64_t value;
        if (!slice_u64(slice_from(word, eq + 1), 1000000, &value))
            continue;
        if (slice_eq_nocase(name, SLICE("RCPTMAX")))
            caps->rcpt_max = (uint32_t)value;
        else if (slice_eq_nocase(name, SLICE("MAILMAX")))
            caps->mail_max = (uint32_t)value;
    }
}

static const struct {
    struct slice keyword;
    uint32_t flag;
    void (*args)(struct smtp_caps *caps, struct slice args);
} keywords[] = {
    {SLICE_INIT("PIPELINING"), SMTP_CAP_PIPELINING, NULL},
    {SLICE_INIT("SIZE"), SMTP_CAP_SIZE, caps_size},
    {SLICE_INIT("8BITMIME"), SMTP_CAP_8BITMIME, NULL},
    {SLICE_INIT("SMTPUTF8"), SMTP_CAP_SMTPUTF8, NULL},
    {SLICE_INIT("ENHANCEDSTATUSCODES"), SMTP_CAP_ENHANCED, NULL},
    {SLICE_INIT("CHUNKING"), SMTP_CAP_CHUNKING, NULL},
    {SLICE_INIT("DSN"), SMTP_CAP_DSN, NULL},
    {SLICE_INIT("STARTTLS"), SMTP_CAP_STARTTLS, NULL},
    {SLICE_INIT("AUTH"), 0, caps_auth},
    {SLICE_INIT("LIMITS"), 0, caps_limits},
};

static void caps_line(struct smtp_caps *caps, struct slice line)
{
    struct slice word = next_word(&line);
    /* Old servers write "AUTH=PLAIN LOGIN". */
    if (slice_starts_nocase(word, SLICE("AUTH="))) {
        caps_auth(caps, slice_from(word, 5));
        word = slice_head(word, 4);
    }
    for (size_t i = 0; i < sizeof(keywords) / sizeof(*keywords); i++) {
        if (!slice_eq_nocase(word, keywords[i].keyword))
            continue;
        caps->flags |= keywords[i].flag;
        if (keywords[i].args)
            keywords[i].args(caps, line);
        return;
    }
}

void smtp_caps_parse(struct smtp_caps *caps, const struct smtp_reply *r)
{
    *caps = (struct smtp_caps){.flags = SMTP_CAP_EHLO};
    struct slice rest = r->text;
    struct slice line;
    /* The first line is the server's name and small talk. */
    smtp_reply_next_line(&rest, &line);
    while (smtp_reply_next_line(&rest, &line))
        caps_line(caps, line);
}
