/* SPDX-License-Identifier: Apache-2.0 */
#include "queue/record.h"

#include "base/alloc.h"
#include "base/crc32c.h"

_Static_assert(RCPT_SUPPRESSED <= 7, "a state fits the mask in row_head_rcpt_state");

/* --- integers, sums --- */

void put_be32(unsigned char *at, uint32_t value)
{
    value = __builtin_bswap32(value);
    memcpy(at, &value, sizeof(value));
}

void put_be64(unsigned char *at, uint64_t value)
{
    value = __builtin_bswap64(value);
    memcpy(at, &value, sizeof(value));
}

uint32_t get_be32(const unsigned char *at)
{
    uint32_t value;
    memcpy(&value, at, sizeof(value));
    return __builtin_bswap32(value);
}

uint64_t get_be64(const unsigned char *at)
{
    uint64_t value;
    memcpy(&value, at, sizeof(value));
    return __builtin_bswap64(value);
}

_Static_assert(
    __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "put_be32 and its kin swap bytes");

void row_seal(struct slice key, unsigned char *value, size_t len)
{
    put_be32(value + len, crc32c(crc32c(0, key.ptr, key.len), value, len));
}

bool row_open(struct slice key, struct slice value, struct slice *bytes_out)
{
    if (value.len < ROW_CRC_BYTES)
        return false;
    struct slice bytes = slice_head(value, value.len - ROW_CRC_BYTES);
    uint32_t crc = crc32c(crc32c(0, key.ptr, key.len), bytes.ptr, bytes.len);
    if (crc != get_be32((const unsigned char *)value.ptr + bytes.len))
        return false;
    *bytes_out = bytes;
    return true;
}

/* --- raw rows --- */

void rcpt_key(struct unit_id unit, uint16_t index, unsigned char out[RCPT_KEY_BYTES])
{
    unit_id_key(unit, out);
    out[UNIT_ID_BYTES] = (unsigned char)(index >> 8);
    out[UNIT_ID_BYTES + 1] = (unsigned char)index;
}

void body_key(struct msg_id id, uint32_t row, unsigned char out[BODY_KEY_BYTES])
{
    memcpy(out, id.bytes, MSG_ID_BYTES);
    put_be32(out + MSG_ID_BYTES, row);
}

void bref_pack(const struct bref *b, unsigned char out[BREF_BYTES])
{
    put_be32(out, b->units);
    put_be32(out + 4, b->rows);
    put_be64(out + 8, b->size);
    put_be32(out + 16, b->crc);
}

bool bref_unpack(struct slice bytes, struct bref *out)
{
    const unsigned char *at = (const unsigned char *)bytes.ptr;
    if (bytes.len != BREF_BYTES)
        return false;
    *out = (struct bref){
        get_be32(at), get_be32(at + 4), get_be64(at + 8), get_be32(at + 16)};
    return true;
}

void part_pack(const struct part *p, unsigned char out[PART_BYTES])
{
    put_be32(out, p->rows);
    put_be64(out + 4, p->bytes);
}

bool part_unpack(struct slice bytes, struct part *out)
{
    const unsigned char *at = (const unsigned char *)bytes.ptr;
    if (bytes.len != PART_BYTES)
        return false;
    *out = (struct part){get_be32(at), get_be64(at + 4)};
    return true;
}

/* --- packing --- */

/* protobuf-c only reads what it packs, but its field is not const. */
static ProtobufCBinaryData borrow(struct slice s)
{
    union {
        const char *in;
        uint8_t *out;
    } ptr = {.in = s.ptr};
    return (ProtobufCBinaryData){.len = s.len, .data = ptr.out};
}

static struct slice ip_bytes(const struct ipaddr *ip)
{
    size_t len = ip->family == 4 ? 4 : ip->family == 6 ? 16 : 0;
    return slice_make(ip->bytes, len);
}

static void make_rights(struct unit_row *row, const struct row_author *author)
{
    row->holder = (Baton__Disk__Holder)BATON__DISK__HOLDER__INIT;
    row->holder.node = author->node_id;
    row->holder.epoch_at_copy = author->epoch;
    row->holder.status = BATON__DISK__HOLDER_STATUS__HOLDER_HOLD;
    row->holders[0] = &row->holder;
    row->pb.n_holders = 1;
    row->pb.holders = row->holders;
    row->pb.term = 1;
    row->pb.owner_node = author->node_id;
    row->pb.owner_epoch = row->pb.mine_epoch = author->epoch;
    row->pb.state = BATON__DISK__UNIT_STATE__UNIT_LIVE;
    row->pb.decision = BATON__DISK__DECISION__DECISION_COMMIT;
}

void unit_row_make(struct unit_row *row, const struct message *m,
    const struct message_unit *u, const struct row_author *author)
{
    Baton__Disk__Unit *pb = &row->pb;
    *pb = (Baton__Disk__Unit)BATON__DISK__UNIT__INIT;
    pb->open_rcpts = pb->rcpt_count = u->rcpt_count;
    pb->next_due_ms = pb->created_ms = m->created.ms;
    pb->expires_ms = u->expires.ms;
    pb->delay_warning_ms = u->delay_warning_ms;
    pb->domain = borrow(u->domain);
    pb->size = m->size;
    pb->rows = (uint32_t)((m->size + BODY_ROW_BYTES - 1) / BODY_ROW_BYTES);
    pb->body_crc = m->body_crc;
    pb->reverse_path = borrow(m->reverse_path);
    pb->envid = borrow(m->envid);
    pb->ret = m->ret;
    pb->body_type = m->body_type;
    pb->smtputf8 = m->smtputf8;
    pb->origin = m->origin;
    pb->user = borrow(m->user);
    pb->listener = borrow(m->listener);
    pb->client = borrow(ip_bytes(&m->client));
    pb->helo = borrow(m->helo);
    pb->why = borrow(m->why);
    if (repeat_key_given(&m->repeat_key))
        pb->repeat_key =
            borrow(slice_make(m->repeat_key.bytes, sizeof(m->repeat_key.bytes)));
    pb->changed_ms = author->now.ms;
    if (!author->clustered)
        make_rights(row, author);
}

void unit_row_make_again(
    struct unit_row *row, const struct unit_record *u, const struct row_author *author)
{
    unit_row_make(row, u->message, &u->message->units[0], author);
    row->pb.open_rcpts = row->pb.rcpt_count = u->rcpt_count;
    row->pb.next_due_ms = u->next_due.ms;
    row->pb.held = u->held;
    row->pb.hold_reason = borrow(slice_head(u->hold_reason, 500));
}

static void make_recipient(Baton__Disk__Rcpt *row, const struct recipient *r)
{
    *row = (Baton__Disk__Rcpt)BATON__DISK__RCPT__INIT;
    row->address = borrow(r->address);
    row->orcpt = borrow(r->orcpt);
    row->notify = r->notify;
}

void rcpt_row_make_new(
    Baton__Disk__Rcpt *row, const struct recipient *r, const struct message *m)
{
    make_recipient(row, r);
    row->next_due_ms = m->created.ms;
    row->attempt_id = r->doubt;
}

void rcpt_row_make(Baton__Disk__Rcpt *row, const struct rcpt_record *r, struct wall now)
{
    make_recipient(row, &r->rcpt);
    row->state = r->state;
    row->attempts = r->attempts;
    row->next_due_ms = r->next_due.ms;
    row->first_attempt_ms = r->first_attempt.ms;
    row->last_attempt_ms = r->last_attempt.ms;
    row->last_reply = borrow(slice_head(r->last_reply, 500));
    row->last_status = borrow(r->last_status);
    row->last_mx = borrow(r->last_mx);
    row->attempt_id = r->attempt_id;
    row->delay_dsn_sent = r->delay_dsn_sent;
    row->changed_ms = now.ms;
}

/* --- unpacking --- */

static void *take_from_arena(void *arena, size_t size)
{
    return arena_alloc(arena, size);
}

static void leave_in_arena(void *arena, void *memory)
{
    (void)arena;
    (void)memory;
}

static ProtobufCMessage *unpack(
    const ProtobufCMessageDescriptor *type, struct arena *arena, struct slice bytes)
{
    ProtobufCAllocator allocator = {take_from_arena, leave_in_arena, arena};
    return protobuf_c_message_unpack(
        type, &allocator, bytes.len, (const uint8_t *)bytes.ptr);
}

Baton__Disk__Unit *unit_row_unpack(struct arena *arena, struct slice bytes)
{
    return (Baton__Disk__Unit *)unpack(&baton__disk__unit__descriptor, arena, bytes);
}

Baton__Disk__Rcpt *rcpt_row_unpack(struct arena *arena, struct slice bytes)
{
    return (Baton__Disk__Rcpt *)unpack(&baton__disk__rcpt__descriptor, arena, bytes);
}

Baton__Disk__Meta *meta_row_unpack(struct arena *arena, struct slice bytes)
{
    return (Baton__Disk__Meta *)unpack(&baton__disk__meta__descriptor, arena, bytes);
}

Baton__Disk__Quarantined *quar_row_unpack(struct arena *arena, struct slice bytes)
{
    return (Baton__Disk__Quarantined *)unpack(
        &baton__disk__quarantined__descriptor, arena, bytes);
}

static bool read_varint(struct slice *bytes, uint64_t *out)
{
    *out = 0;
    for (unsigned shift = 0, i = 0; i < bytes->len && shift < 64; shift += 7, i++) {
        unsigned char b = (unsigned char)bytes->ptr[i];
        *out |= (uint64_t)(b & 0x7f) << shift;
        if (b < 0x80) {
            *bytes = slice_from(*bytes, i + 1);
            return true;
        }
    }
    return false;
}

/* protobuf-c packs fields in the order of their numbers, so these are in front. */
void row_head_read(struct slice bytes, struct row_head *out)
{
    *out = (struct row_head){0};
    while (bytes.len) {
        unsigned tag = (unsigned char)bytes.ptr[0], field = tag >> 3;
        uint64_t value;
        bytes = slice_from(bytes, 1);
        if (field == 0 || field > 9 || !(tag == field << 3 || tag == (7u << 3 | 2u)))
            return;
        if (!read_varint(&bytes, &value))
            return;
        if (tag == field << 3) {
            out->field[field] = value;
        } else if (value <= bytes.len) {
            out->bytes = slice_head(bytes, (size_t)value);
            bytes = slice_from(bytes, (size_t)value);
        }
    }
}

/* --- what readers get --- */

static struct slice keep(struct arena *arena, ProtobufCBinaryData d)
{
    return arena_dup(arena, slice_make(d.data ? d.data : (const uint8_t *)"", d.len));
}

static void copy_envelope(struct message *m, const Baton__Disk__Unit *u)
{
    m->created.ms = u->created_ms;
    m->reverse_path = keep(m->arena, u->reverse_path);
    m->envid = keep(m->arena, u->envid);
    m->ret = u->ret <= DSN_RET_HDRS ? (enum dsn_ret)u->ret : DSN_RET_UNSET;
    m->body_type = u->body_type == BODY_7BIT ? BODY_7BIT : BODY_8BITMIME;
    m->smtputf8 = u->smtputf8;
    m->origin = u->origin <= ORIGIN_LOCAL ? (enum origin)u->origin : ORIGIN_MX;
    m->user = keep(m->arena, u->user);
    m->listener = keep(m->arena, u->listener);
    m->helo = keep(m->arena, u->helo);
    m->why = keep(m->arena, u->why);
    if (u->repeat_key.len == sizeof(m->repeat_key.bytes))
        memcpy(m->repeat_key.bytes, u->repeat_key.data, u->repeat_key.len);
    m->size = u->size;
    m->body_crc = u->body_crc;
    if (u->client.len == 4 || u->client.len == 16) {
        m->client.family = u->client.len == 4 ? 4 : 6;
        memcpy(m->client.bytes, u->client.data, u->client.len);
    }
}

struct unit_record *unit_record_make(
    struct unit_id id, const Baton__Disk__Unit *u, unsigned rcpt_max)
{
    struct message *m = message_new();
    struct unit_record *out = arena_alloc(m->arena, sizeof(*out));
    m->id = id.msg;
    copy_envelope(m, u);
    m->unit_count = 1;
    m->units = arena_alloc(m->arena, sizeof(*m->units));
    m->units[0] = (struct message_unit){.domain = keep(m->arena, u->domain),
        .unit = id.unit,
        .rcpts = arena_alloc(m->arena, rcpt_max * sizeof(struct recipient)),
        .expires = {u->expires_ms},
        .delay_warning_ms = u->delay_warning_ms};
    *out = (struct unit_record){.arena = m->arena,
        .id = id,
        .message = m,
        .held = u->held,
        .hold_reason = keep(m->arena, u->hold_reason),
        .rcpts = arena_alloc(m->arena, rcpt_max * sizeof(struct rcpt_record)),
        .next_due = {u->next_due_ms},
        .body_rows = u->rows};
    return out;
}

struct rcpt_record rcpt_record_make(
    struct arena *arena, uint16_t index, const Baton__Disk__Rcpt *r)
{
    return (struct rcpt_record){.rcpt = {.address = keep(arena, r->address),
                                    .orcpt = keep(arena, r->orcpt),
                                    .notify = (uint8_t)r->notify,
                                    .index = index},
        .state = (enum rcpt_state)r->state,
        .attempts = (uint16_t)(r->attempts < UINT16_MAX ? r->attempts : UINT16_MAX),
        .next_due = {r->next_due_ms},
        .first_attempt = {r->first_attempt_ms},
        .last_attempt = {r->last_attempt_ms},
        .last_reply = keep(arena, r->last_reply),
        .last_status = keep(arena, r->last_status),
        .last_mx = keep(arena, r->last_mx),
        .attempt_id = r->attempt_id,
        .delay_dsn_sent = r->delay_dsn_sent};
}

bool unit_record_add(struct unit_record *u, uint16_t index, const Baton__Disk__Rcpt *r)
{
    struct message_unit *unit = &u->message->units[0];
    if (r->state > RCPT_SUPPRESSED || r->notify > UINT8_MAX)
        return false;
    struct rcpt_record *rec = &u->rcpts[u->rcpt_count++];
    *rec = rcpt_record_make(u->arena, index, r);
    unit->rcpts[unit->rcpt_count++] = rec->rcpt;
    return true;
}
