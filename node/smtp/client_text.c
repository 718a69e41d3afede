/* SPDX-License-Identifier: Apache-2.0 */
#include "node/smtp/client_internal.h"

#include "base/alloc.h"

static const struct {
    const char *name;
    const char *phrase;
} phases[SMTP_PHASE_COUNT] = {
    [SMTP_PHASE_GREETING] = {"greeting", "while waiting for the greeting"},
    [SMTP_PHASE_EHLO] = {"ehlo", "in reply to EHLO"},
    [SMTP_PHASE_HELO] = {"helo", "in reply to HELO"},
    [SMTP_PHASE_STARTTLS] = {"starttls", "in reply to STARTTLS"},
    [SMTP_PHASE_TLS] = {"tls", "during the TLS handshake"},
    [SMTP_PHASE_AUTH] = {"auth", "in reply to AUTH"},
    [SMTP_PHASE_IDLE] = {"idle", "between two messages"},
    [SMTP_PHASE_RSET] = {"rset", "in reply to RSET"},
    [SMTP_PHASE_MAIL] = {"mail", "in reply to MAIL FROM"},
    [SMTP_PHASE_RCPT] = {"rcpt", "in reply to RCPT TO"},
    [SMTP_PHASE_DATA] = {"data", "in reply to DATA"},
    [SMTP_PHASE_BODY] = {"body", "while sending the message"},
    [SMTP_PHASE_DOT] = {"dot", "after the end of the message was sent"},
    [SMTP_PHASE_QUIT] = {"quit", "in reply to QUIT"},
    [SMTP_PHASE_CLOSED] = {"closed", "after the connection was closed"},
};

const char *smtp_phase_name(enum smtp_phase phase)
{
    INVARIANT(phase < SMTP_PHASE_COUNT);
    return phases[phase].name;
}

const char *smtp_phase_phrase(enum smtp_phase phase)
{
    INVARIANT(phase < SMTP_PHASE_COUNT);
    return phases[phase].phrase;
}

/* Status for replies that bring none of their own (or one of a foreign class). Only what
 * the code says for sure: 550 to RCPT is an address problem, but not which. `phase`
 * CLOSED stands for any. The first row that fits is taken. */
static const struct {
    uint16_t code;
    enum smtp_phase phase;
    const char *rest; /* behind the class digit */
} statuses[] = {
    {421, SMTP_PHASE_CLOSED, ".3.2"},
    {450, SMTP_PHASE_RCPT, ".2.0"},
    {452, SMTP_PHASE_RCPT, ".5.3"},
    {452, SMTP_PHASE_CLOSED, ".3.1"},
    {454, SMTP_PHASE_STARTTLS, ".7.0"},
    {454, SMTP_PHASE_AUTH, ".7.0"},
    {500, SMTP_PHASE_CLOSED, ".5.2"},
    {501, SMTP_PHASE_CLOSED, ".5.4"},
    {502, SMTP_PHASE_CLOSED, ".5.1"},
    {503, SMTP_PHASE_CLOSED, ".5.1"},
    {504, SMTP_PHASE_CLOSED, ".5.4"},
    {521, SMTP_PHASE_CLOSED, ".3.2"},
    {530, SMTP_PHASE_CLOSED, ".7.0"},
    {535, SMTP_PHASE_CLOSED, ".7.8"},
    {550, SMTP_PHASE_RCPT, ".1.0"},
    {551, SMTP_PHASE_RCPT, ".1.6"},
    {552, SMTP_PHASE_RCPT, ".5.3"},
    {552, SMTP_PHASE_CLOSED, ".3.4"},
    {553, SMTP_PHASE_MAIL, ".1.7"},
    {553, SMTP_PHASE_RCPT, ".1.3"},
    {555, SMTP_PHASE_CLOSED, ".5.4"},
    {556, SMTP_PHASE_RCPT, ".1.10"},
};

const char *smtp_status_for(uint16_t code, enum smtp_phase phase)
{
    for (size_t i = 0; i < sizeof(statuses) / sizeof(*statuses); i++)
        if (statuses[i].code == code &&
            (statuses[i].phase == phase || statuses[i].phase == SMTP_PHASE_CLOSED))
            return statuses[i].rest;
    return ".0.0";
}

/* Words with which servers say that it is our address they do not like. A phrase counts
 * only as whole words, so that "unblocked" or a host called "xblocklist" says nothing. */
static const char *const blame[] = {
    "spamhaus",
    "spamcop",
    "barracudacentral",
    "sorbs.net",
    "abuseat.org",
    "uceprotect",
    "dnsbl",
    "rbl",
    "blocklist",
    "blocklisted",
    "block list",
    "blacklist",
    "blacklisted",
    "black list",
    "denylist",
    "denylisted",
    "client host",
    "your ip",
    "your host",
    "your server",
    "your network",
    "your mail server",
    "sending ip",
    "source ip",
    "connecting ip",
    "client ip",
    "ip reputation",
    "poor reputation",
    "bad reputation",
    "low reputation",
    "ptr record",
    "reverse dns",
    "rdns",
    "reverse hostname",
    "dynamic ip",
    "too many connections",
    "connection rate",
    "banned sending",
    "s3140",
    "s3150",
    "tss04",
};

static bool is_word_octet(char c)
{
    return ascii_is_alnum(c) || (unsigned char)c >= 0x80;
}

/* `phrase` stands at the start of `text`, and as whole words. */
static bool has_phrase(struct slice text, struct slice phrase)
{
    return slice_starts_nocase(text, phrase) &&
           (text.len == phrase.len || !is_word_octet(text.ptr[phrase.len]));
}

static bool blame_at(struct slice text)
{
    for (size_t b = 0; b < sizeof(blame) / sizeof(*blame); b++)
        if (ascii_lower(text.ptr[0]) == blame[b][0] &&
            has_phrase(text, slice_str(blame[b])))
            return true;
    return false;
}

bool smtp_reply_blames_address(struct slice text)
{
    bool in_word = false;
    for (size_t at = 0; at < text.len; at++) {
        bool word = is_word_octet(text.ptr[at]);
        if (word && !in_word && blame_at(slice_from(text, at)))
            return true;
        in_word = word;
    }
    return false;
}
