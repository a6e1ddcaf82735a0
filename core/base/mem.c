/* SPDX-License-Identifier: Apache-2.0 */
/* Allocation through one door, so that tests can make any single allocation
 * fail.  The counters are the only mutable data of the base that belongs to the
 * process: the allocator below them belongs to it too. */
#include "base/mem.h"

#include "base/compiler.h"
#include "base/str.h"

#include <stdlib.h>
#include <string.h>
#ifdef __GLIBC__
#include <malloc.h>
#endif

#define OWN_BLOCK (2 << 20)

static uint64_t asked;      /* allocations so far */
static uint64_t fail_at;    /* the one that fails, 0: none */

/* Counts one allocation; whether it may happen. */
static bool admit(void)
{
    uint64_t now = __atomic_add_fetch(&asked, 1, __ATOMIC_RELAXED);
    return pd_likely(now != __atomic_load_n(&fail_at, __ATOMIC_RELAXED));
}

void *pd_alloc(size_t n)
{
    return admit() ? malloc(n == 0 ? 1 : n) : NULL;
}

void *pd_calloc(size_t count, size_t size)
{
    size_t n;
    if (__builtin_mul_overflow(count, size, &n))
        return NULL;
    return admit() ? calloc(1, n == 0 ? 1 : n) : NULL;
}

void *pd_realloc(void *p, size_t n)
{
    return admit() ? realloc(p, n == 0 ? 1 : n) : NULL;
}

void *pd_realloc_array(void *p, size_t count, size_t size)
{
    size_t n;
    if (__builtin_mul_overflow(count, size, &n))
        return NULL;
    return pd_realloc(p, n);
}

void *pd_alloc_aligned(size_t align, size_t n)
{
    void *p = NULL;
    if (align < sizeof(void *))
        align = sizeof(void *);
    if (!admit() || posix_memalign(&p, align, n == 0 ? 1 : n) != 0)
        return NULL;
    return p;
}

void pd_free(void *p)
{
    free(p);
}

char *pd_strdup(const char *s)
{
    return pd_str_dup(pd_str_from(s));
}

char *pd_str_dup(struct pd_str s)
{
    if (s.n == SIZE_MAX)
        return NULL;
    char *copy = (char *)pd_alloc(s.n + 1);
    if (copy != NULL) {
        if (s.n != 0)
            memcpy(copy, s.p, s.n);
        copy[s.n] = '\0';
    }
    return copy;
}

void *pd_memdup(const void *p, size_t n)
{
    void *copy = pd_alloc(n);
    if (copy != NULL && n != 0)
        memcpy(copy, p, n);
    return copy;
}

/* PD_FAULT is a list such as "alloc:12,write:3"; other parts are not ours. */
/* glibc raises its threshold for blocks of their own to the size of each one that is
 * freed, up to 32 MiB, unless it is set. */
void pd_mem_init(void)
{
#ifdef M_MMAP_THRESHOLD
    (void)mallopt(M_MMAP_THRESHOLD, OWN_BLOCK);
#endif
}

pd_status pd_mem_fault_init(void)
{
    struct pd_str rest = pd_str_from(getenv("PD_FAULT"));
    struct pd_str part;
    while (pd_str_split(&rest, ',', &part)) {
        uint64_t n;
        if (!pd_str_starts_with(part, PD_STR("alloc:")) || pd_str_is(part, "alloc:*"))
            continue;
        if (pd_str_parse_u64(pd_str_sub(part, 6, SIZE_MAX), &n) != PD_OK)
            return PD_EINVAL;
        pd_mem_fault_set(n);
    }
    return PD_OK;
}

void pd_mem_fault_set(uint64_t n)
{
    uint64_t at = n == 0 ? 0 : __atomic_load_n(&asked, __ATOMIC_RELAXED) + n;
    __atomic_store_n(&fail_at, at, __ATOMIC_RELAXED);
}

uint64_t pd_mem_count(void)
{
    return __atomic_load_n(&asked, __ATOMIC_RELAXED);
}

uint64_t pd_mem_bytes(void)
{
#if defined(__GLIBC__) && __GLIBC_PREREQ(2, 33)
    struct mallinfo2 m = mallinfo2();
    return m.uordblks + m.hblkhd;
#else
    return 0;
#endif
}
