/* SPDX-License-Identifier: Apache-2.0 */
/* The byte buffer.  Content is base[p - base, +n); it moves to the front of the
 * allocation only when room behind it is short, so consuming costs nothing. */
#include "base/buf.h"

#include "base/compiler.h"
#include "base/mem.h"

#include <stdio.h>
#include <string.h>

#define FIRST_BYTES 256

void pd_buf_init(struct pd_buf *b, size_t limit)
{
    memset(b, 0, sizeof *b);
    b->limit = limit;
}

void pd_buf_fini(struct pd_buf *b)
{
    pd_free(b->base);
    pd_buf_init(b, b->limit);
}

void pd_buf_clear(struct pd_buf *b)
{
    b->p = b->base;
    b->n = 0;
    b->status = PD_OK;
}

static pd_status fail(struct pd_buf *b, pd_status status)
{
    if (b->status == PD_OK)
        b->status = status;
    return status;
}

/* Room for `more` bytes, within the allocation only: cap may exceed limit by
 * the zero byte of pd_buf_cstr. */
static pd_status make_room(struct pd_buf *b, size_t more)
{
    size_t front = (size_t)(b->p - b->base);
    if (b->cap - front - b->n >= more && b->base != NULL)
        return PD_OK;
    size_t need = b->n + more;
    if (b->n != 0 && need <= b->cap && front >= b->n) {
        memmove(b->base, b->p, b->n);
        b->p = b->base;
        return PD_OK;
    }
    size_t cap = PD_MAX(b->cap, (size_t)FIRST_BYTES);
    while (cap < need && cap <= SIZE_MAX / 2)
        cap *= 2;
    if (cap > b->limit)
        cap = PD_MAX(b->limit, need);
    if (cap < need)
        cap = need;
    if (front != 0) {
        char *base = (char *)pd_alloc(cap);
        if (base == NULL)
            return PD_ENOMEM;
        if (b->n != 0)
            memcpy(base, b->p, b->n);
        pd_free(b->base);
        b->base = base;
    } else {
        char *base = (char *)pd_realloc(b->base, cap);
        if (base == NULL)
            return PD_ENOMEM;
        b->base = base;
    }
    b->p = b->base;
    b->cap = cap;
    return PD_OK;
}

pd_status pd_buf_reserve_grow(struct pd_buf *b, size_t more)
{
    if (more > b->limit - b->n)
        return fail(b, PD_ELIMIT);
    pd_status status = make_room(b, more);
    return status == PD_OK ? PD_OK : fail(b, status);
}

pd_status pd_buf_append_grow(struct pd_buf *b, const void *p, size_t n)
{
    pd_status status = pd_buf_reserve(b, n);
    if (status == PD_OK && n != 0) {
        memcpy(b->p + b->n, p, n);
        b->n += n;
    }
    return status;
}

pd_status pd_buf_append_u64(struct pd_buf *b, uint64_t v)
{
    static const char pairs[] = "00010203040506070809101112131415161718192021222324252627282930313233343536373839"
                                "40414243444546474849505152535455565758596061626364656667686970717273747576777879"
                                "8081828384858687888990919293949596979899";
    char digits[20];
    size_t at = sizeof digits;
    for (; v >= 100; v /= 100) {
        at -= 2;
        memcpy(digits + at, pairs + 2 * (v % 100), 2);
    }
    if (v >= 10) {
        at -= 2;
        memcpy(digits + at, pairs + 2 * v, 2);
    } else {
        digits[--at] = (char)('0' + v);
    }
    return pd_buf_append(b, digits + at, sizeof digits - at);
}

pd_status pd_buf_vappendf(struct pd_buf *b, const char *fmt, va_list ap)
{
    char text[256];
    va_list again;
    va_copy(again, ap);
    int n = vsnprintf(text, sizeof text, fmt, ap);
    pd_status status;
    if (n < 0) {
        status = fail(b, PD_EINVAL);
    } else if ((size_t)n < sizeof text) {
        status = pd_buf_append(b, text, (size_t)n);
    } else if ((size_t)n > b->limit - b->n) {
        status = fail(b, PD_ELIMIT);
    } else {
        /* vsnprintf wants a place for its zero byte, which is not content. */
        status = make_room(b, (size_t)n + 1);
        if (status == PD_OK) {
            vsnprintf(b->p + b->n, (size_t)n + 1, fmt, again);
            b->n += (size_t)n;
        } else {
            fail(b, status);
        }
    }
    va_end(again);
    return status;
}

pd_status pd_buf_appendf(struct pd_buf *b, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    pd_status status = pd_buf_vappendf(b, fmt, ap);
    va_end(ap);
    return status;
}

void pd_buf_consume(struct pd_buf *b, size_t n)
{
    if (n >= b->n) {
        b->p = b->base;
        b->n = 0;
    } else {
        b->p += n;
        b->n -= n;
    }
}

void pd_buf_truncate(struct pd_buf *b, size_t n)
{
    if (n < b->n)
        b->n = n;
    if (b->n == 0)
        b->p = b->base;
}

void pd_buf_commit(struct pd_buf *b, size_t n)
{
    pd_assert(n <= pd_buf_room(b));
    b->n += n;
}

const char *pd_buf_cstr(struct pd_buf *b)
{
    if (make_room(b, 1) != PD_OK)
        return NULL;
    b->p[b->n] = '\0';
    return b->p;
}

char *pd_buf_steal(struct pd_buf *b, size_t *n)
{
    if (pd_buf_cstr(b) == NULL)
        return NULL;
    if (b->p != b->base)
        memmove(b->base, b->p, b->n + 1);
    if (n != NULL)
        *n = b->n;
    char *out = b->base;
    pd_buf_init(b, b->limit);
    return out;
}
