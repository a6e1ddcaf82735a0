/* SPDX-License-Identifier: Apache-2.0 */
/* Little-endian numbers in byte buffers, with a reader and a writer that check
 * every bound.  Both remember failure: after the first one, reads give zero
 * and writes do nothing, so a frame is checked once at its end.  Pure. */
#ifndef PD_BASE_WIRE_H
#define PD_BASE_WIRE_H

#include <string.h>

#include <pdplane/types.h>

#define PD_WIRE_NUMBER(bits)                                                   \
    static inline uint##bits##_t pd_wire_get_u##bits(const void *p)            \
    {                                                                          \
        const uint8_t *b = (const uint8_t *)p;                                 \
        uint64_t v = 0;                                                        \
        for (unsigned i = 0; i < bits / 8; i++)                                \
            v |= (uint64_t)b[i] << (8 * i);                                    \
        return (uint##bits##_t)v;                                              \
    }                                                                          \
    static inline void pd_wire_put_u##bits(void *p, uint##bits##_t v)          \
    {                                                                          \
        uint8_t *b = (uint8_t *)p;                                             \
        for (unsigned i = 0; i < bits / 8; i++)                                \
            b[i] = (uint8_t)((uint64_t)v >> (8 * i));                          \
    }

PD_WIRE_NUMBER(8)
PD_WIRE_NUMBER(16)
PD_WIRE_NUMBER(32)
PD_WIRE_NUMBER(64)
#undef PD_WIRE_NUMBER

struct pd_reader {
    const uint8_t *p;       /* next byte */
    const uint8_t *end;
    bool failed;
};

struct pd_writer {
    uint8_t *p;             /* start of the caller's buffer */
    size_t n;               /* bytes written */
    size_t cap;
    bool failed;
};

static inline void pd_reader_init(struct pd_reader *r, const void *p, size_t n)
{
    r->p = (const uint8_t *)p;
    r->end = n == 0 ? r->p : r->p + n;
    r->failed = false;
}

static inline size_t pd_reader_left(const struct pd_reader *r)
{
    return (size_t)(r->end - r->p);
}

/* n bytes and steps over them; NULL when there are fewer. */
static inline const void *pd_reader_take(struct pd_reader *r, size_t n)
{
    const uint8_t *p = r->p;
    if (r->failed || pd_reader_left(r) < n) {
        r->failed = true;
        return NULL;
    }
    r->p = n == 0 ? p : p + n;
    return p;
}

#define PD_READER_NUMBER(bits)                                                 \
    static inline uint##bits##_t pd_reader_u##bits(struct pd_reader *r)        \
    {                                                                          \
        const void *p = pd_reader_take(r, bits / 8);                           \
        return p == NULL ? (uint##bits##_t)0 : pd_wire_get_u##bits(p);         \
    }

PD_READER_NUMBER(8)
PD_READER_NUMBER(16)
PD_READER_NUMBER(32)
PD_READER_NUMBER(64)
#undef PD_READER_NUMBER

static inline int64_t pd_reader_i64(struct pd_reader *r)
{
    return (int64_t)pd_reader_u64(r);
}

static inline double pd_reader_double(struct pd_reader *r)
{
    uint64_t bits = pd_reader_u64(r);
    double v;
    memcpy(&v, &bits, sizeof v);
    return v;
}

/* n bytes as a string that borrows from the buffer; empty after a failure. */
static inline struct pd_str pd_reader_bytes(struct pd_reader *r, size_t n)
{
    const void *p = pd_reader_take(r, n);
    return p == NULL ? (struct pd_str){ "", 0 } : (struct pd_str){ (const char *)p, n };
}

/* A length of 16 or 32 bits, then that many bytes; longer than max fails. */
static inline struct pd_str pd_reader_str16(struct pd_reader *r, size_t max)
{
    size_t n = pd_reader_u16(r);
    if (n > max)
        r->failed = true;
    return pd_reader_bytes(r, n);
}

static inline struct pd_str pd_reader_str32(struct pd_reader *r, size_t max)
{
    size_t n = pd_reader_u32(r);
    if (n > max)
        r->failed = true;
    return pd_reader_bytes(r, n);
}

static inline struct pd_uuid pd_reader_uuid(struct pd_reader *r)
{
    struct pd_uuid u;
    const void *p = pd_reader_take(r, sizeof u.b);
    memset(&u, 0, sizeof u);
    if (p != NULL)
        memcpy(u.b, p, sizeof u.b);
    return u;
}

/* PD_OK when nothing failed and nothing is left, else PD_EPROTO. */
static inline pd_status pd_reader_finish(const struct pd_reader *r)
{
    return r->failed || r->p != r->end ? PD_EPROTO : PD_OK;
}

static inline void pd_writer_init(struct pd_writer *w, void *p, size_t cap)
{
    w->p = (uint8_t *)p;
    w->n = 0;
    w->cap = cap;
    w->failed = false;
}

/* Room for n bytes, counted as written; NULL when there is less. */
static inline void *pd_writer_take(struct pd_writer *w, size_t n)
{
    if (w->failed || w->cap - w->n < n) {
        w->failed = true;
        return NULL;
    }
    void *p = w->p + w->n;
    w->n += n;
    return p;
}

#define PD_WRITER_NUMBER(bits)                                                 \
    static inline void pd_writer_u##bits(struct pd_writer *w, uint##bits##_t v) \
    {                                                                          \
        void *p = pd_writer_take(w, bits / 8);                                 \
        if (p != NULL)                                                         \
            pd_wire_put_u##bits(p, v);                                         \
    }

PD_WRITER_NUMBER(8)
PD_WRITER_NUMBER(16)
PD_WRITER_NUMBER(32)
PD_WRITER_NUMBER(64)
#undef PD_WRITER_NUMBER

static inline void pd_writer_i64(struct pd_writer *w, int64_t v)
{
    pd_writer_u64(w, (uint64_t)v);
}

static inline void pd_writer_double(struct pd_writer *w, double v)
{
    uint64_t bits;
    memcpy(&bits, &v, sizeof bits);
    pd_writer_u64(w, bits);
}

static inline void pd_writer_bytes(struct pd_writer *w, const void *from, size_t n)
{
    void *p = pd_writer_take(w, n);
    if (p != NULL && n != 0)
        memcpy(p, from, n);
}

/* Length of 16 or 32 bits, then the bytes; fails when the length is larger. */
static inline void pd_writer_str16(struct pd_writer *w, struct pd_str s)
{
    if (s.n > UINT16_MAX)
        w->failed = true;
    pd_writer_u16(w, (uint16_t)s.n);
    pd_writer_bytes(w, s.p, s.n);
}

static inline void pd_writer_str32(struct pd_writer *w, struct pd_str s)
{
    if (s.n > UINT32_MAX)
        w->failed = true;
    pd_writer_u32(w, (uint32_t)s.n);
    pd_writer_bytes(w, s.p, s.n);
}

static inline void pd_writer_uuid(struct pd_writer *w, const struct pd_uuid *u)
{
    pd_writer_bytes(w, u->b, sizeof u->b);
}

/* PD_OK with the length in *n, or PD_ELIMIT when something did not fit. */
static inline pd_status pd_writer_finish(const struct pd_writer *w, size_t *n)
{
    if (w->failed)
        return PD_ELIMIT;
    *n = w->n;
    return PD_OK;
}

#endif
