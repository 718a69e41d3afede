/* SPDX-License-Identifier: Apache-2.0 */
#include "dnsbl/wire.h"

#include <stdio.h>

#define HEADER_BYTES 12
#define NAME_WIRE_MAX 255
#define LABEL_MAX 63
#define CHAIN_MAX 16
#define RECORDS_MAX 100
#define RRS_MAX 1000 /* in one section; more is nobody's honest answer */
#define CLASS_IN 1
#define TTL_MAX 604800

/* One resource record, its owner and rdata still in the packet. */
struct rr {
    size_t owner_at;
    uint16_t type;
    uint16_t class;
    uint32_t ttl;
    size_t rdata_at;
    size_t rdata_len;
};

struct reader {
    struct slice packet;
    size_t at;
};

static bool is_plain(unsigned char c)
{
    return ascii_is_alnum((char)c) || c == '-' || c == '_' || c == '/' || c == '*';
}

bool dns_name_check(struct slice text, char out[256])
{
    char name[256];
    size_t label = 0;
    if (text.len == 1 && text.ptr[0] == '.') {
        out[0] = '\0';
        return true;
    }
    if (text.len && text.ptr[text.len - 1] == '.')
        text.len--;
    if (text.len == 0 || text.len > 253)
        return false;
    for (size_t i = 0; i < text.len; i++) {
        char c = text.ptr[i];
        if (c == '.' ? label == 0 : !is_plain((unsigned char)c) || c == '*')
            return false;
        label = c == '.' ? 0 : label + 1;
        if (label > LABEL_MAX)
            return false;
        name[i] = ascii_lower(c);
    }
    if (label == 0)
        return false;
    name[text.len] = '\0';
    memcpy(out, name, text.len + 1);
    return true;
}

bool dns_host_check(const char *name)
{
    char copy[256];
    struct slice text = slice_str(name);
    return text.len && slice_find(text, '/') == text.len && dns_name_check(text, copy) &&
           copy[0] != '\0';
}

void dns_reverse_name(struct ipaddr ip, char out[256])
{
    static const char hex[] = "0123456789abcdef";
    if (ip.family == 4) {
        snprintf(out, 256, "%u.%u.%u.%u.in-addr.arpa", ip.bytes[3], ip.bytes[2],
            ip.bytes[1], ip.bytes[0]);
        return;
    }
    char *p = out;
    for (int i = 15; i >= 0; i--) {
        *p++ = hex[ip.bytes[i] & 15];
        *p++ = '.';
        *p++ = hex[ip.bytes[i] >> 4];
        *p++ = '.';
    }
    memcpy(p, "ip6.arpa", sizeof("ip6.arpa"));
}

static size_t put_byte(char *out, size_t n, unsigned char c)
{
    if (is_plain(c)) {
        out[n] = ascii_lower((char)c);
        return n + 1;
    }
    out[n] = '\\';
    out[n + 1] = (char)('0' + c / 100);
    out[n + 2] = (char)('0' + c / 10 % 10);
    out[n + 3] = (char)('0' + c % 10);
    return n + 4;
}

bool dns_wire_name(struct slice packet, size_t *at, char out[DNS_NAME_TEXT_MAX])
{
    const unsigned char *p = (const unsigned char *)packet.ptr;
    size_t pos = *at, behind = 0, wire = 1, n = 0;
    size_t limit = pos; /* a pointer must lead before everything read so far */
    for (;;) {
        if (pos >= packet.len)
            return false;
        unsigned char len = p[pos];
        if ((len & 0xc0) == 0xc0) {
            if (packet.len - pos < 2)
                return false;
            size_t target = (size_t)(len & 0x3f) << 8 | p[pos + 1];
            if (!behind)
                behind = pos + 2;
            if (target >= limit)
                return false;
            pos = limit = target;
            continue;
        }
        if (len & 0xc0)
            return false; /* label types that never came to be */
        if (len == 0)
            break;
        wire += (size_t)len + 1;
        if (wire > NAME_WIRE_MAX || packet.len - pos - 1 < len)
            return false;
        if (n)
            out[n++] = '.';
        for (size_t i = 0; i < len; i++)
            n = put_byte(out, n, p[pos + 1 + i]);
        pos += (size_t)len + 1;
    }
    out[n] = '\0';
    *at = behind ? behind : pos + 1;
    return true;
}

/* Over a name without making text of it; pointers are not followed. */
static bool skip_name(struct reader *r)
{
    const unsigned char *p = (const unsigned char *)r->packet.ptr;
    size_t start = r->at;
    while (r->at < r->packet.len && r->at - start < NAME_WIRE_MAX) {
        unsigned char len = p[r->at];
        if ((len & 0xc0) == 0xc0) {
            r->at += 2;
            return r->at <= r->packet.len;
        }
        if (len & 0xc0)
            return false;
        r->at += (size_t)len + 1;
        if (len == 0)
            return r->at <= r->packet.len;
    }
    return false;
}

static uint32_t get_uint(struct slice bytes, size_t at, unsigned width)
{
    uint32_t value = 0;
    for (unsigned i = 0; i < width; i++)
        value = value << 8 | (unsigned char)bytes.ptr[at + i];
    return value;
}

static bool next_rr(struct reader *r, struct rr *out)
{
    out->owner_at = r->at;
    if (!skip_name(r) || r->packet.len - r->at < 10)
        return false;
    out->type = (uint16_t)get_uint(r->packet, r->at, 2);
    out->class = (uint16_t)get_uint(r->packet, r->at + 2, 2);
    out->ttl = get_uint(r->packet, r->at + 4, 4);
    out->rdata_len = get_uint(r->packet, r->at + 8, 2);
    out->rdata_at = r->at + 10;
    if (r->packet.len - out->rdata_at < out->rdata_len)
        return false;
    if (out->ttl > INT32_MAX)
        out->ttl = 0; /* RFC 2181 8 */
    if (out->ttl > TTL_MAX)
        out->ttl = TTL_MAX;
    r->at = out->rdata_at + out->rdata_len;
    return true;
}

static bool owner_is(struct slice packet, const struct rr *rr, const char *name)
{
    char owner[DNS_NAME_TEXT_MAX];
    size_t at = rr->owner_at;
    return rr->class == CLASS_IN && dns_wire_name(packet, &at, owner) &&
           strcmp(owner, name) == 0;
}

/* A name that must fill the rdata from `skip` to its end. */
static bool rdata_name(
    struct slice packet, const struct rr *rr, size_t skip, char out[DNS_NAME_TEXT_MAX])
{
    size_t at = rr->rdata_at + skip;
    /* The end of the rdata bounds the name's own bytes; pointers lead backwards anyway.
     */
    struct slice bounded = slice_head(packet, rr->rdata_at + rr->rdata_len);
    return rr->rdata_len > skip && dns_wire_name(bounded, &at, out) && at == bounded.len;
}

static bool read_address(struct slice rdata, unsigned width, struct ipaddr *out)
{
    if (rdata.len != width)
        return false;
    *out = (struct ipaddr){.family = width == 4 ? 4 : 6};
    memcpy(out->bytes, rdata.ptr, width);
    return true;
}

static bool read_txt(struct slice rdata, struct arena *arena, struct slice *out)
{
    char *text = arena_alloc(arena, rdata.len + 1);
    size_t n = 0, at = 0;
    if (rdata.len == 0)
        return false;
    while (at < rdata.len) {
        size_t len = (unsigned char)rdata.ptr[at++];
        if (rdata.len - at < len)
            return false;
        memcpy(text + n, rdata.ptr + at, len);
        n += len;
        at += len;
    }
    *out = slice_make(text, n);
    return true;
}

/* As a zone file has it: "mname rname serial refresh retry expire minimum". */
static bool read_soa(
    struct slice packet, const struct rr *rr, struct arena *arena, struct dns_record *out)
{
    char mname[DNS_NAME_TEXT_MAX], rname[DNS_NAME_TEXT_MAX];
    struct slice bounded = slice_head(packet, rr->rdata_at + rr->rdata_len);
    size_t at = rr->rdata_at;
    if (!dns_wire_name(bounded, &at, mname) || !dns_wire_name(bounded, &at, rname) ||
        bounded.len - at != 20)
        return false;
    out->name = arena_strdup(arena, slice_str(mname));
    out->data = arena_printf(arena, "%s. %s. %u %u %u %u %u", mname, rname,
        get_uint(packet, at, 4), get_uint(packet, at + 4, 4), get_uint(packet, at + 8, 4),
        get_uint(packet, at + 12, 4), get_uint(packet, at + 16, 4));
    return true;
}

static bool read_name(struct slice packet, const struct rr *rr, size_t skip,
    struct arena *arena, struct dns_record *out)
{
    char name[DNS_NAME_TEXT_MAX];
    if (!rdata_name(packet, rr, skip, name))
        return false;
    out->name = arena_strdup(arena, slice_str(name));
    return true;
}

static bool read_record(
    struct slice packet, const struct rr *rr, struct arena *arena, struct dns_record *out)
{
    struct slice rdata = slice_make(packet.ptr + rr->rdata_at, rr->rdata_len);
    *out = (struct dns_record){.name = "", .data = slice_make("", 0)};
    switch ((enum dns_type)rr->type) {
    case DNS_A:
        return read_address(rdata, 4, &out->ip);
    case DNS_AAAA:
        return read_address(rdata, 16, &out->ip);
    case DNS_MX:
        if (rdata.len < 3)
            return false;
        out->preference = (uint16_t)get_uint(rdata, 0, 2);
        return read_name(packet, rr, 2, arena, out);
    case DNS_NS:
    case DNS_CNAME:
    case DNS_PTR:
        return read_name(packet, rr, 0, arena, out);
    case DNS_TXT:
        return read_txt(rdata, arena, &out->data);
    case DNS_SOA:
        return read_soa(packet, rr, arena, out);
    case DNS_TLSA:
        if (rdata.len < 4)
            return false;
        out->data = arena_dup(arena, rdata);
        return true;
    }
    return false;
}

/* RFC 2308 5: the smaller of the SOA's own TTL and its minimum field. */
static bool negative_ttl(struct slice packet, const struct rr *rr, uint32_t *out)
{
    if (rr->type != DNS_SOA || rr->class != CLASS_IN || rr->rdata_len < 22)
        return false;
    uint32_t minimum = get_uint(packet, rr->rdata_at + rr->rdata_len - 4, 4);
    *out = rr->ttl < minimum ? rr->ttl : minimum;
    return true;
}

/* What the walk over the sections needs. */
struct walk {
    struct slice packet;
    size_t answers_at;
    unsigned answer_count;
    unsigned authority_count;
    enum dns_type type;
    struct arena *arena;
    struct dns_answer *out;
};

static void lower_ttl(struct dns_answer *a, uint32_t ttl)
{
    if (ttl < a->ttl)
        a->ttl = ttl;
}

static void fail(struct dns_answer *a, const char *why)
{
    a->result = ERR_DNS_SERVFAIL;
    a->why = why;
    a->count = 0;
    a->ttl = 0;
}

/* The CNAME at `name`, if it has one and that was not what was asked for. */
static bool follow(struct walk *w, char name[DNS_NAME_TEXT_MAX])
{
    struct reader r = {w->packet, w->answers_at};
    struct rr rr;
    if (w->type == DNS_CNAME)
        return false;
    for (unsigned i = 0; i < w->answer_count && next_rr(&r, &rr); i++) {
        if (rr.type != DNS_CNAME || !owner_is(w->packet, &rr, name))
            continue;
        lower_ttl(w->out, rr.ttl);
        return rdata_name(w->packet, &rr, 0, name);
    }
    return false;
}

static unsigned count_type(const struct walk *w)
{
    struct reader r = {w->packet, w->answers_at};
    struct rr rr;
    unsigned n = 0;
    for (unsigned i = 0; i < w->answer_count && next_rr(&r, &rr); i++)
        n += rr.type == (uint16_t)w->type;
    return n < RECORDS_MAX ? n : RECORDS_MAX;
}

static void gather(struct walk *w, const char *name)
{
    unsigned room = count_type(w), malformed = 0;
    struct dns_record *records = arena_alloc(w->arena, room * sizeof(*records));
    struct reader r = {w->packet, w->answers_at};
    struct rr rr;
    for (unsigned i = 0; i < w->answer_count && w->out->count < room; i++) {
        if (!next_rr(&r, &rr))
            break;
        if (rr.type != (uint16_t)w->type || !owner_is(w->packet, &rr, name))
            continue;
        if (read_record(w->packet, &rr, w->arena, &records[w->out->count])) {
            w->out->count++;
            lower_ttl(w->out, rr.ttl);
        } else {
            malformed++;
        }
    }
    w->out->records = records;
    if (malformed && w->out->count == 0)
        fail(w->out, "the records are malformed");
}

/* No records: the authority section says for how long that holds. */
static void gather_negative(struct walk *w)
{
    struct reader r = {w->packet, w->answers_at};
    struct rr rr;
    uint32_t ttl;
    for (unsigned i = 0; i < w->answer_count; i++)
        if (!next_rr(&r, &rr))
            return;
    for (unsigned i = 0; i < w->authority_count && next_rr(&r, &rr); i++)
        if (negative_ttl(w->packet, &rr, &ttl)) {
            lower_ttl(w->out, ttl);
            return;
        }
    w->out->ttl = 0;
}

static bool whole(const struct walk *w)
{
    struct reader r = {w->packet, w->answers_at};
    struct rr rr;
    if (w->answer_count > RRS_MAX || w->authority_count > RRS_MAX)
        return false;
    for (unsigned i = 0; i < w->answer_count + w->authority_count; i++)
        if (!next_rr(&r, &rr))
            return false;
    return true;
}

static bool begin(struct walk *w)
{
    struct reader r = {w->packet, HEADER_BYTES};
    if (w->packet.len < HEADER_BYTES)
        return false;
    unsigned questions = get_uint(w->packet, 4, 2);
    w->answer_count = get_uint(w->packet, 6, 2);
    w->authority_count = get_uint(w->packet, 8, 2);
    if (questions > 1)
        return false;
    if (questions == 1) {
        if (!skip_name(&r) || w->packet.len - r.at < 4)
            return false;
        r.at += 4;
    }
    w->answers_at = r.at;
    return whole(w);
}

void dns_wire_answer(struct slice packet, const char *name, enum dns_type type,
    struct arena *arena, struct dns_answer *out)
{
    struct walk w = {.packet = packet, .type = type, .arena = arena, .out = out};
    char owner[DNS_NAME_TEXT_MAX];
    out->count = 0;
    out->records = NULL;
    out->ttl = TTL_MAX;
    out->canonical = name;
    if (!begin(&w)) {
        fail(out, "the answer is malformed");
        return;
    }
    unsigned rcode = get_uint(packet, 2, 2) & 15;
    if (rcode != 0 && rcode != 3) {
        fail(out, "");
        return;
    }
    snprintf(owner, sizeof(owner), "%s", name);
    for (unsigned i = 0; follow(&w, owner); i++)
        if (i >= CHAIN_MAX) {
            fail(out, "the chain of CNAMEs does not end");
            return;
        }
    out->canonical = arena_strdup(arena, slice_str(owner));
    out->result = rcode == 3 ? ERR_DNS_NXDOMAIN : ERR_OK;
    if (rcode == 0)
        gather(&w, owner);
    if (out->count == 0 && out->result != ERR_DNS_SERVFAIL)
        gather_negative(&w);
}
