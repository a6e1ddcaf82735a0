/* SPDX-License-Identifier: Apache-2.0 */
/* Memory that is freed all at once, for one request.  Grows by chunks up to a
 * limit.  One thread at a time. */
#ifndef PD_BASE_ARENA_H
#define PD_BASE_ARENA_H

#include <pdplane/types.h>

struct pd_arena_chunk;

struct pd_arena {
    struct pd_arena_chunk *chunks;  /* newest first */
    size_t chunk_bytes;
    size_t limit;
    size_t used;                    /* bytes of all chunks */
};

/* Allocates nothing yet.  chunk_bytes: usual size of a chunk; limit: bytes of
 * all chunks together. */
void pd_arena_init(struct pd_arena *a, size_t chunk_bytes, size_t limit);
/* Frees everything. */
void pd_arena_fini(struct pd_arena *a);
/* Frees everything but one chunk, so that the next request allocates nothing. */
void pd_arena_reset(struct pd_arena *a);

/* Aligned for any type; NULL at the limit or when memory is short.  Borrowed
 * until reset or fini; alloc does not clear, calloc does. */
void *pd_arena_alloc(struct pd_arena *a, size_t n);
void *pd_arena_calloc(struct pd_arena *a, size_t count, size_t size);
void *pd_arena_memdup(struct pd_arena *a, const void *p, size_t n);
/* A copy with a zero byte behind it (not counted). */
pd_status pd_arena_str(struct pd_arena *a, struct pd_str s, struct pd_str *out);
char *pd_arena_printf(struct pd_arena *a, const char *fmt, ...) PD_PRINTF(2, 3);

#endif
