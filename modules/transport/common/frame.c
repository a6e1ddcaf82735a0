/* SPDX-License-Identifier: Apache-2.0 */
/* Encoding and decoding, nothing else.  Every decoder takes hostile bytes; what
 * it lets through still has to be checked against windows and limits. */
#include "frame.h"

#include <string.h>

#define HEAD_MAGIC 0x5850u      /* "PX" */
#define HEAD_VERSION 1u
#define ADDRESS_MAGIC 0x41585044u /* "DPXA" */
#define ADDRESS_TLS 1u
#define GRANT_MAGIC 0x47585044u /* "DPXG" */
#define BLOB_VERSION 1u

static void put16(uint8_t *p, uint16_t v)
{
    p[0] = (uint8_t)v;
    p[1] = (uint8_t)(v >> 8);
}

static void put32(uint8_t *p, uint32_t v)
{
    put16(p, (uint16_t)v);
    put16(p + 2, (uint16_t)(v >> 16));
}

static void put64(uint8_t *p, uint64_t v)
{
    put32(p, (uint32_t)v);
    put32(p + 4, (uint32_t)(v >> 32));
}

static uint16_t get16(const uint8_t *p)
{
    return (uint16_t)(p[0] | p[1] << 8);
}

static uint32_t get32(const uint8_t *p)
{
    return (uint32_t)get16(p) | (uint32_t)get16(p + 2) << 16;
}

static uint64_t get64(const uint8_t *p)
{
    return (uint64_t)get32(p) | (uint64_t)get32(p + 4) << 32;
}

static void put_node(uint8_t *p, const struct pd_node_id *id)
{
    memcpy(p, id->uuid.b, 16);
    put64(p + 16, id->epoch);
}

static void get_node(const uint8_t *p, struct pd_node_id *id)
{
    memcpy(id->uuid.b, p, 16);
    id->epoch = get64(p + 16);
}

static uint32_t head_crc(const struct pd_xp_crc *c, const uint8_t *buf)
{
    uint32_t crc = pd_xp_crc(c, 0, buf, 44);
    return pd_xp_crc(c, crc, buf + 48, PD_XP_TOKEN_BYTES);
}

void pd_xp_head_encode(const struct pd_xp_crc *c, const struct pd_xp_head *h, uint8_t *buf)
{
    put16(buf, HEAD_MAGIC);
    buf[2] = HEAD_VERSION;
    buf[3] = h->type;
    put16(buf + 4, h->flags);
    put16(buf + 6, h->seq);
    put64(buf + 8, h->xid);
    put64(buf + 16, h->generation);
    put64(buf + 24, h->offset);
    put32(buf + 32, h->length);
    put32(buf + 36, h->crc);
    put32(buf + 40, h->id);
    memcpy(buf + 48, h->token, PD_XP_TOKEN_BYTES);
    put32(buf + 44, head_crc(c, buf));
}

pd_status pd_xp_head_decode(const struct pd_xp_crc *c, const uint8_t *buf, struct pd_xp_head *h)
{
    if (get16(buf) != HEAD_MAGIC || buf[2] != HEAD_VERSION)
        return PD_EPROTO;
    if (get32(buf + 44) != head_crc(c, buf))
        return PD_EINTEGRITY;
    if (buf[3] == 0 || buf[3] >= PD_XP_TYPES)
        return PD_EPROTO;
    h->type = buf[3];
    h->flags = get16(buf + 4);
    h->seq = get16(buf + 6);
    h->xid = get64(buf + 8);
    h->generation = get64(buf + 16);
    h->offset = get64(buf + 24);
    h->length = get32(buf + 32);
    h->crc = get32(buf + 36);
    h->id = get32(buf + 40);
    memcpy(h->token, buf + 48, PD_XP_TOKEN_BYTES);
    return PD_OK;
}

void pd_xp_hello_encode(const struct pd_xp_hello *h, uint8_t *buf)
{
    memset(buf, 0, PD_XP_HELLO_BYTES);
    put_node(buf, &h->from);
    put_node(buf + 24, &h->to);
    memcpy(buf + 48, h->key, PD_XP_TOKEN_BYTES);
    put64(buf + 64, h->link);
    put32(buf + 72, h->frame_bytes);
    put32(buf + 76, h->keepalive_ms);
    put16(buf + 80, h->lane);
    put16(buf + 82, h->lanes);
    put16(buf + 84, h->kind);
    put32(buf + 88, h->codec_format);
    memcpy(buf + 96, h->codec, PD_XP_CODEC_BYTES);
}

void pd_xp_hello_decode(const uint8_t *buf, struct pd_xp_hello *h)
{
    get_node(buf, &h->from);
    get_node(buf + 24, &h->to);
    memcpy(h->key, buf + 48, PD_XP_TOKEN_BYTES);
    h->link = get64(buf + 64);
    h->frame_bytes = get32(buf + 72);
    h->keepalive_ms = get32(buf + 76);
    h->lane = get16(buf + 80);
    h->lanes = get16(buf + 82);
    h->kind = get16(buf + 84);
    h->codec_format = get32(buf + 88);
    memcpy(h->codec, buf + 96, PD_XP_CODEC_BYTES);
}

pd_status pd_xp_address_encode(const struct pd_xp_address *a, void *buf, size_t cap, size_t *len)
{
    size_t path = strlen(a->path);
    uint8_t *p = buf;

    *len = PD_XP_ADDRESS_BYTES + path;
    if (cap < *len)
        return PD_ELIMIT;
    put32(p, ADDRESS_MAGIC);
    p[4] = BLOB_VERSION;
    p[5] = (uint8_t)a->kind;
    put16(p + 6, a->family);
    put16(p + 8, a->port);
    put16(p + 10, (uint16_t)path);
    memcpy(p + 12, a->ip, 16);
    memcpy(p + 28, a->key, PD_XP_TOKEN_BYTES);
    put32(p + 44, a->tls ? ADDRESS_TLS : 0);
    memcpy(p + PD_XP_ADDRESS_BYTES, a->path, path);
    return PD_OK;
}

pd_status pd_xp_address_decode(const void *buf, size_t len, struct pd_xp_address *a)
{
    const uint8_t *p = buf;
    size_t path;

    if (len < PD_XP_ADDRESS_BYTES || get32(p) != ADDRESS_MAGIC || p[4] != BLOB_VERSION)
        return PD_EPROTO;
    path = get16(p + 10);
    if ((get32(p + 44) & ~ADDRESS_TLS) != 0 || path > PD_XP_PATH_MAX || len != PD_XP_ADDRESS_BYTES + path ||
        memchr(p + PD_XP_ADDRESS_BYTES, 0, path) != NULL)
        return PD_EPROTO;
    memset(a, 0, sizeof(*a));
    a->kind = p[5];
    a->family = get16(p + 6);
    a->port = get16(p + 8);
    memcpy(a->ip, p + 12, 16);
    memcpy(a->key, p + 28, PD_XP_TOKEN_BYTES);
    a->tls = (get32(p + 44) & ADDRESS_TLS) != 0;
    memcpy(a->path, p + PD_XP_ADDRESS_BYTES, path);
    return PD_OK;
}

void pd_xp_grant_encode(const struct pd_xp_grant *g, uint8_t *buf)
{
    put32(buf, GRANT_MAGIC);
    buf[4] = BLOB_VERSION;
    buf[5] = (uint8_t)g->kind;
    put16(buf + 6, g->access);
    put_node(buf + 8, &g->owner);
    put_node(buf + 32, &g->peer);
    put64(buf + 56, g->xid);
    put64(buf + 64, g->generation);
    put64(buf + 72, g->bytes);
    memcpy(buf + 80, g->token, PD_XP_TOKEN_BYTES);
}

pd_status pd_xp_grant_decode(const void *blob, size_t len, struct pd_xp_grant *g)
{
    const uint8_t *buf = blob;

    if (len != PD_XP_WINDOW_BLOB_BYTES || get32(buf) != GRANT_MAGIC || buf[4] != BLOB_VERSION)
        return PD_EPROTO;
    g->kind = buf[5];
    g->access = get16(buf + 6);
    get_node(buf + 8, &g->owner);
    get_node(buf + 32, &g->peer);
    g->xid = get64(buf + 56);
    g->generation = get64(buf + 64);
    g->bytes = get64(buf + 72);
    memcpy(g->token, buf + 80, PD_XP_TOKEN_BYTES);
    if (g->bytes == 0)
        return PD_EPROTO;
    return PD_OK;
}

bool pd_xp_token_equal(const uint8_t *a, const uint8_t *b)
{
    uint8_t diff = 0;

    for (uint32_t i = 0; i < PD_XP_TOKEN_BYTES; i++)
        diff |= (uint8_t)(a[i] ^ b[i]);
    return diff == 0;
}

bool pd_xp_node_equal(const struct pd_node_id *a, const struct pd_node_id *b)
{
    return a->epoch == b->epoch && memcmp(a->uuid.b, b->uuid.b, sizeof(a->uuid.b)) == 0;
}
