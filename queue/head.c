/* SPDX-License-Identifier: Apache-2.0 */
#include "queue/head.h"

#include "base/alloc.h"
#include "queue/record.h"

/* Bumped when the form changes; a peer that speaks another one is not understood. */
#define FORM_VERSION 1u

/* Texts: what SMTP allows is shorter (RFC 5321 4.5.3.1, RFC 3461 4), what the disk keeps
 * is at most this. */
#define ADDRESS_MAX 512u
#define DOMAIN_MAX 255u
#define TEXT_MAX 1024u
#define REPLY_MAX 500u
#define STATUS_MAX 32u
#define UNIT_BYTES_MAX 8192u
#define RCPT_BYTES_MAX 4096u
/* Milliseconds: what an id's time may hold, and so all that can be meant. */
#define TIME_MAX (INT64_C(1) << 48)

/* --- what may travel --- */

static bool is_clean(ProtobufCBinaryData d, size_t max)
{
    if (d.len > max)
        return false;
    for (size_t i = 0; i < d.len; i++)
        if (d.data[i] < 0x20 || d.data[i] == 0x7f)
            return false;
    return true;
}

static bool is_time(int64_t ms)
{
    return ms >= 0 && ms < TIME_MAX;
}

static bool unit_texts_fit(const Baton__Disk__Unit *u)
{
    return u->domain.len > 0 && is_clean(u->domain, DOMAIN_MAX) &&
           is_clean(u->reverse_path, ADDRESS_MAX) && is_clean(u->helo, TEXT_MAX) &&
           is_clean(u->user, TEXT_MAX) && is_clean(u->listener, TEXT_MAX) &&
           u->envid.len <= TEXT_MAX && u->why.len <= TEXT_MAX &&
           u->hold_reason.len <= REPLY_MAX;
}

static bool unit_fits(const Baton__Disk__Unit *u)
{
    uint64_t rows = (u->size + BODY_ROW_BYTES - 1) / BODY_ROW_BYTES;
    bool has_client = u->client.len == 4 || u->client.len == 16;
    return unit_texts_fit(u) && u->size <= UINT32_MAX && u->rows == rows &&
           is_time(u->next_due_ms) && is_time(u->expires_ms) && is_time(u->created_ms) &&
           is_time(u->delay_warning_ms) && u->ret <= DSN_RET_HDRS &&
           u->body_type <= BODY_8BITMIME && u->origin <= ORIGIN_LOCAL &&
           (has_client || u->client.len == 0);
}

static bool rcpt_fits(const Baton__Disk__Rcpt *r)
{
    const unsigned notify_all =
        NOTIFY_NEVER | NOTIFY_SUCCESS | NOTIFY_FAILURE | NOTIFY_DELAY;
    return r->address.len > 0 && is_clean(r->address, ADDRESS_MAX) &&
           r->orcpt.len <= TEXT_MAX && r->last_reply.len <= REPLY_MAX &&
           is_clean(r->last_status, STATUS_MAX) && is_clean(r->last_mx, DOMAIN_MAX) &&
           r->state <= RCPT_SUPPRESSED && r->attempts <= UINT16_MAX &&
           r->notify <= notify_all && is_time(r->next_due_ms) &&
           is_time(r->first_attempt_ms) && is_time(r->last_attempt_ms);
}

/* --- packing --- */

static bool put(struct buf *out, const void *bytes, size_t len)
{
    return buf_append(out, slice_make(bytes, len));
}

static bool put_u16(struct buf *out, unsigned value)
{
    unsigned char at[2] = {(unsigned char)(value >> 8), (unsigned char)value};
    return put(out, at, sizeof(at));
}

/* A time that cannot be meant must not keep the mail here. */
static int64_t sane(int64_t ms)
{
    return ms < 0 ? 0 : ms < TIME_MAX ? ms : TIME_MAX - 1;
}

static bool put_pb(struct buf *out, const ProtobufCMessage *pb, size_t max)
{
    unsigned char raw[UNIT_BYTES_MAX];
    size_t len = protobuf_c_message_get_packed_size(pb);
    if (len > max)
        return false;
    protobuf_c_message_pack(pb, raw);
    return put_u16(out, (unsigned)len) && put(out, raw, len);
}

static bool put_rcpts(struct buf *out, const struct rcpt_record *r, unsigned count)
{
    Baton__Disk__Rcpt row;
    if (count > UNIT_RCPTS_MAX || !put_u16(out, count))
        return false;
    for (unsigned i = 0; i < count; i++) {
        rcpt_row_make(&row, &r[i], (struct wall){0});
        row.next_due_ms = sane(row.next_due_ms);
        row.first_attempt_ms = sane(row.first_attempt_ms);
        row.last_attempt_ms = sane(row.last_attempt_ms);
        if (r[i].rcpt.index >= UNIT_RCPTS_MAX ||
            (i > 0 && r[i].rcpt.index <= r[i - 1].rcpt.index) || !rcpt_fits(&row) ||
            !put_u16(out, r[i].rcpt.index) || !put_pb(out, &row.base, RCPT_BYTES_MAX))
            return false;
    }
    return true;
}

/* Not all of it fitted: `out` is as it was. */
static bool undo(struct buf *out, size_t len, bool failed)
{
    out->tail = out->head + len;
    out->failed = failed;
    return false;
}

static bool put_unit(struct buf *out, const struct unit_record *u)
{
    static const struct row_author nobody = {.clustered = true};
    unsigned char key[1 + UNIT_ID_BYTES] = {FORM_VERSION};
    struct unit_row row;
    unit_row_make_again(&row, u, &nobody);
    row.pb.open_rcpts = row.pb.rcpt_count = 0; /* the recipients say it */
    row.pb.next_due_ms = sane(row.pb.next_due_ms);
    row.pb.expires_ms = sane(row.pb.expires_ms);
    row.pb.created_ms = sane(row.pb.created_ms);
    row.pb.delay_warning_ms = sane(row.pb.delay_warning_ms);
    unit_id_key(u->id, key + 1);
    return u->id.unit < MESSAGE_UNITS_MAX && u->rcpt_count > 0 && unit_fits(&row.pb) &&
           put(out, key, sizeof(key)) && put_pb(out, &row.pb.base, UNIT_BYTES_MAX) &&
           put_rcpts(out, u->rcpts, u->rcpt_count);
}

bool unit_head_pack(const struct unit_record *u, struct buf *out)
{
    size_t len = buf_len(out);
    bool failed = out->failed;
    return put_unit(out, u) || undo(out, len, failed);
}

bool rcpt_records_pack(const struct rcpt_record *r, unsigned count, struct buf *out)
{
    size_t len = buf_len(out);
    bool failed = out->failed;
    return (count > 0 && put_u16(out, FORM_VERSION) && put_rcpts(out, r, count)) ||
           undo(out, len, failed);
}

/* --- parsing --- */

static bool take(struct slice *from, size_t len, struct slice *out)
{
    if (from->len < len)
        return false;
    *out = slice_head(*from, len);
    *from = slice_from(*from, len);
    return true;
}

static bool take_u16(struct slice *from, unsigned *out)
{
    struct slice raw;
    if (!take(from, 2, &raw))
        return false;
    *out = (unsigned)((unsigned char)raw.ptr[0] << 8 | (unsigned char)raw.ptr[1]);
    return true;
}

static bool take_piece(struct slice *from, size_t max, struct slice *out)
{
    unsigned len;
    return take_u16(from, &len) && len <= max && take(from, len, out);
}

static bool take_rcpt_count(struct slice *from, unsigned *out)
{
    return take_u16(from, out) && *out > 0 && *out <= UNIT_RCPTS_MAX;
}

/* The next recipient, whose index must be `*next_index` or more. */
static Baton__Disk__Rcpt *take_rcpt(
    struct slice *from, struct arena *a, unsigned *next_index, uint16_t *index_out)
{
    struct slice bytes;
    unsigned index;
    if (!take_u16(from, &index) || index < *next_index || index >= UNIT_RCPTS_MAX ||
        !take_piece(from, RCPT_BYTES_MAX, &bytes))
        return NULL;
    *next_index = index + 1;
    *index_out = (uint16_t)index;
    Baton__Disk__Rcpt *r = rcpt_row_unpack(a, bytes);
    return r && rcpt_fits(r) ? r : NULL;
}

static bool add_rcpts(struct slice from, unsigned count, struct unit_record *u)
{
    unsigned next_index = 0;
    for (unsigned i = 0; i < count; i++) {
        uint16_t index;
        struct arena *a = arena_new(1024);
        const Baton__Disk__Rcpt *r = take_rcpt(&from, a, &next_index, &index);
        bool ok = r && unit_record_add(u, index, r);
        arena_free(a);
        if (!ok)
            return false;
    }
    return from.len == 0;
}

static struct unit_record *parse_unit(struct slice bytes, struct arena *a)
{
    struct slice id, unit;
    unsigned count;
    if (!take(&bytes, 1 + UNIT_ID_BYTES, &id) || id.ptr[0] != FORM_VERSION ||
        !take_piece(&bytes, UNIT_BYTES_MAX, &unit) || !take_rcpt_count(&bytes, &count))
        return NULL;
    struct unit_id key = unit_id_from_key((const unsigned char *)id.ptr + 1);
    const Baton__Disk__Unit *pb = unit_row_unpack(a, unit);
    if (!pb || key.unit >= MESSAGE_UNITS_MAX || !unit_fits(pb))
        return NULL;
    struct unit_record *u = unit_record_make(key, pb, count);
    if (add_rcpts(bytes, count, u))
        return u;
    unit_record_free(u);
    return NULL;
}

struct unit_record *unit_head_parse(struct slice bytes)
{
    if (bytes.len > UNIT_HEAD_MAX)
        return NULL;
    struct arena *a = arena_new(4096);
    struct unit_record *u = parse_unit(bytes, a);
    arena_free(a);
    return u;
}

bool rcpt_records_parse(
    struct slice bytes, struct arena *a, struct rcpt_record **out, unsigned *count_out)
{
    unsigned version, next_index = 0;
    *out = NULL;
    *count_out = 0;
    if (bytes.len > RCPT_RECORDS_MAX || !take_u16(&bytes, &version) ||
        version != FORM_VERSION || !take_rcpt_count(&bytes, count_out))
        return false;
    *out = arena_alloc(a, *count_out * sizeof(**out));
    for (unsigned i = 0; i < *count_out; i++) {
        uint16_t index;
        struct arena *once = arena_new(1024);
        const Baton__Disk__Rcpt *r = take_rcpt(&bytes, once, &next_index, &index);
        if (r)
            (*out)[i] = rcpt_record_make(a, index, r);
        arena_free(once);
        if (!r)
            return false;
    }
    return bytes.len == 0;
}
