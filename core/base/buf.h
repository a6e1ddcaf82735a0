/* SPDX-License-Identifier: Apache-2.0 */
/* A growable byte buffer with a limit: appended at the end, consumed at the
 * front.  p and n are its content and may be read directly; any append,
 * reserve or consume invalidates earlier pointers.
 *
 * An append that does not fit changes nothing, returns PD_ELIMIT or PD_ENOMEM
 * and notes the first such failure in status, so that a chain of appends may be
 * checked once at its end.  One thread at a time. */
#ifndef PD_BASE_BUF_H
#define PD_BASE_BUF_H

#include <stdarg.h>
#include <string.h>

#include <pdplane/types.h>

struct pd_buf {
    char *p;                /* first byte of the content */
    size_t n;               /* bytes of content */
    char *base;             /* the allocation */
    size_t cap;             /* its size */
    size_t limit;           /* n never exceeds it */
    pd_status status;       /* first failed append since init or clear */
};

/* An empty buffer that allocates nothing yet; limit in bytes. */
void pd_buf_init(struct pd_buf *b, size_t limit);
void pd_buf_fini(struct pd_buf *b);
/* Empty again, status PD_OK, memory kept. */
void pd_buf_clear(struct pd_buf *b);

pd_status pd_buf_reserve_grow(struct pd_buf *b, size_t more);
/* Room for `more` bytes behind the content: PD_OK, PD_ELIMIT, PD_ENOMEM. */
static inline pd_status pd_buf_reserve(struct pd_buf *b, size_t more)
{
    if (b->base != NULL && more <= b->limit - b->n && more <= b->cap - (size_t)(b->p - b->base) - b->n)
        return PD_OK;
    return pd_buf_reserve_grow(b, more);
}
pd_status pd_buf_append_grow(struct pd_buf *b, const void *p, size_t n);
static inline pd_status pd_buf_append(struct pd_buf *b, const void *p, size_t n)
{
    if (b->base == NULL || n > b->limit - b->n || n > b->cap - (size_t)(b->p - b->base) - b->n)
        return pd_buf_append_grow(b, p, n);
    if (n != 0)
        memcpy(b->p + b->n, p, n);
    b->n += n;
    return PD_OK;
}
static inline pd_status pd_buf_append_str(struct pd_buf *b, struct pd_str s)
{
    return pd_buf_append(b, s.p, s.n);
}
static inline pd_status pd_buf_append_cstr(struct pd_buf *b, const char *s)
{
    return pd_buf_append(b, s, strlen(s));
}
static inline pd_status pd_buf_append_char(struct pd_buf *b, char c)
{
    return pd_buf_append(b, &c, 1);
}
/* Decimal digits, faster than formatted output. */
pd_status pd_buf_append_u64(struct pd_buf *b, uint64_t v);
pd_status pd_buf_appendf(struct pd_buf *b, const char *fmt, ...) PD_PRINTF(2, 3);
pd_status pd_buf_vappendf(struct pd_buf *b, const char *fmt, va_list ap) PD_PRINTF(2, 0);

/* Removes n bytes (at most all) from the front. */
void pd_buf_consume(struct pd_buf *b, size_t n);
/* Cuts the content to its first n bytes; larger n changes nothing. */
void pd_buf_truncate(struct pd_buf *b, size_t n);

/* Free room behind the content after a reserve; write there, then commit what
 * was written (at most the room). */
static inline char *pd_buf_tail(const struct pd_buf *b)
{
    return b->p + b->n;
}

static inline size_t pd_buf_room(const struct pd_buf *b)
{
    size_t room = b->cap - (size_t)(b->p - b->base) - b->n;
    size_t left = b->limit - b->n;
    return room < left ? room : left;
}

void pd_buf_commit(struct pd_buf *b, size_t n);

static inline struct pd_str pd_buf_str(const struct pd_buf *b)
{
    return (struct pd_str){ b->p, b->n };
}

/* The content with a zero byte behind it (not counted); NULL when memory is
 * short.  Borrowed: valid until the next change. */
const char *pd_buf_cstr(struct pd_buf *b);
/* The content as an allocation of its own, zero byte behind it; the buffer is
 * empty afterwards.  Gives: pd_free.  NULL when memory is short. */
char *pd_buf_steal(struct pd_buf *b, size_t *n);

#endif
