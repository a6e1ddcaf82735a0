/* SPDX-License-Identifier: Apache-2.0 */
/* The arena: a stack of chunks, filled from the newest.  What exceeds a quarter
 * of a chunk gets a chunk of its own behind the newest, so that the newest's
 * free end is not given up. */
#include "base/arena.h"

#include "base/compiler.h"
#include "base/mem.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

struct pd_arena_chunk {
    struct pd_arena_chunk *next;
    size_t size;                /* bytes of data */
    size_t used;
    _Alignas(max_align_t) char data[];
};

#define ALIGN _Alignof(max_align_t)

void pd_arena_init(struct pd_arena *a, size_t chunk_bytes, size_t limit)
{
    a->chunks = NULL;
    a->chunk_bytes = PD_MAX(chunk_bytes, (size_t)256);
    a->limit = limit;
    a->used = 0;
}

void pd_arena_fini(struct pd_arena *a)
{
    while (a->chunks != NULL) {
        struct pd_arena_chunk *chunk = a->chunks;
        a->chunks = chunk->next;
        pd_free(chunk);
    }
    a->used = 0;
}

void pd_arena_reset(struct pd_arena *a)
{
    struct pd_arena_chunk *keep = NULL;
    while (a->chunks != NULL) {
        struct pd_arena_chunk *chunk = a->chunks;
        a->chunks = chunk->next;
        if (keep == NULL && chunk->size == a->chunk_bytes)
            keep = chunk;
        else
            pd_free(chunk);
    }
    a->used = 0;
    if (keep != NULL) {
        keep->next = NULL;
        keep->used = 0;
        a->chunks = keep;
        a->used = keep->size;
    }
}

static struct pd_arena_chunk *add_chunk(struct pd_arena *a, size_t size)
{
    if (size > a->limit - a->used)
        return NULL;
    struct pd_arena_chunk *chunk = (struct pd_arena_chunk *)pd_alloc(sizeof *chunk + size);
    if (chunk == NULL)
        return NULL;
    chunk->size = size;
    chunk->used = 0;
    a->used += size;
    return chunk;
}

void *pd_arena_alloc(struct pd_arena *a, size_t n)
{
    if (n > a->limit)
        return NULL;
    n = n == 0 ? ALIGN : (n + ALIGN - 1) & ~(size_t)(ALIGN - 1);
    struct pd_arena_chunk *chunk = a->chunks;
    if (chunk == NULL || chunk->size - chunk->used < n) {
        bool is_big = n > a->chunk_bytes / 4;
        /* Near the limit a chunk may be as small as what is asked for. */
        size_t size = is_big || a->chunk_bytes > a->limit - a->used ? n : a->chunk_bytes;
        struct pd_arena_chunk *more = add_chunk(a, size);
        if (more == NULL)
            return NULL;
        if (is_big && chunk != NULL) {
            more->next = chunk->next;
            chunk->next = more;
        } else {
            more->next = chunk;
            a->chunks = more;
        }
        chunk = more;
    }
    void *p = chunk->data + chunk->used;
    chunk->used += n;
    return p;
}

void *pd_arena_calloc(struct pd_arena *a, size_t count, size_t size)
{
    size_t n;
    if (__builtin_mul_overflow(count, size, &n))
        return NULL;
    void *p = pd_arena_alloc(a, n);
    if (p != NULL)
        memset(p, 0, n);
    return p;
}

void *pd_arena_memdup(struct pd_arena *a, const void *p, size_t n)
{
    void *copy = pd_arena_alloc(a, n);
    if (copy != NULL && n != 0)
        memcpy(copy, p, n);
    return copy;
}

pd_status pd_arena_str(struct pd_arena *a, struct pd_str s, struct pd_str *out)
{
    char *copy = s.n == SIZE_MAX ? NULL : (char *)pd_arena_alloc(a, s.n + 1);
    if (copy == NULL)
        return PD_ENOMEM;
    if (s.n != 0)
        memcpy(copy, s.p, s.n);
    copy[s.n] = '\0';
    *out = (struct pd_str){ copy, s.n };
    return PD_OK;
}

char *pd_arena_printf(struct pd_arena *a, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(NULL, 0, fmt, ap);
    va_end(ap);
    char *out = n < 0 ? NULL : (char *)pd_arena_alloc(a, (size_t)n + 1);
    if (out != NULL) {
        va_start(ap, fmt);
        vsnprintf(out, (size_t)n + 1, fmt, ap);
        va_end(ap);
    }
    return out;
}
