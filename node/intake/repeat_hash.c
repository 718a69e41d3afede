/* SPDX-License-Identifier: Apache-2.0 */
#include "node/intake/repeat_hash.h"

#include <openssl/evp.h>
#include <stdlib.h>

#include "base/alloc.h"

struct repeat_hash {
    EVP_MD_CTX *md;
};

static EVP_MD_CTX *new_md(void)
{
    EVP_MD_CTX *md = EVP_MD_CTX_new();
    /* Fails only without memory, or without SHA-256 in this OpenSSL. */
    INVARIANT(md && EVP_DigestInit_ex(md, EVP_sha256(), NULL) == 1);
    return md;
}

struct repeat_hash *repeat_hash_new(void)
{
    struct repeat_hash *h = mem_zalloc(sizeof(*h));
    h->md = new_md();
    return h;
}

void repeat_hash_free(struct repeat_hash *h)
{
    if (!h)
        return;
    EVP_MD_CTX_free(h->md);
    free(h);
}

static void add(EVP_MD_CTX *md, const void *p, size_t len)
{
    INVARIANT(EVP_DigestUpdate(md, p, len) == 1);
}

/* With its length before it: no two envelopes run together to the same octets. */
static void add_text(EVP_MD_CTX *md, struct slice s)
{
    uint64_t len = s.len;
    add(md, &len, sizeof(len));
    add(md, s.ptr, s.len);
}

void repeat_hash_add(struct repeat_hash *h, struct slice body)
{
    add(h->md, body.ptr, body.len);
}

static void finish(EVP_MD_CTX *md, unsigned char out[32])
{
    unsigned len = 0;
    INVARIANT(EVP_DigestFinal_ex(md, out, &len) == 1 && len == 32);
}

/* Each recipient by itself, the hashes added up: their order does not count. */
static void add_recipients(EVP_MD_CTX *md, struct recipient_list *list)
{
    unsigned char sum[32] = {0}, one[32];
    EVP_MD_CTX *each = EVP_MD_CTX_new();
    INVARIANT(each != NULL);
    for (unsigned i = 0; i < list->count; i++) {
        unsigned carry = 0;
        INVARIANT(EVP_DigestInit_ex(each, EVP_sha256(), NULL) == 1);
        add_text(each, recipient_list_items(list)[i].rcpt.address);
        finish(each, one);
        for (unsigned k = 0; k < sizeof(sum); k++) {
            carry += (unsigned)sum[k] + one[k];
            sum[k] = (unsigned char)carry;
            carry >>= 8;
        }
    }
    EVP_MD_CTX_free(each);
    add(md, sum, sizeof(sum));
}

void repeat_hash_end(struct repeat_hash *h, const struct message *m,
    struct recipient_list *recipients, struct repeat_key *out)
{
    unsigned char sum[32];
    if (m->user.len)
        add_text(h->md, m->user);
    else
        add(h->md, m->client.bytes, sizeof(m->client.bytes));
    add_text(h->md, m->reverse_path);
    add_recipients(h->md, recipients);
    finish(h->md, sum);
    memcpy(out->bytes, sum, sizeof(out->bytes));
}
