/* SPDX-License-Identifier: Apache-2.0 */
/* What the fuzz targets share: the entry point's prototype, a check that ends
 * the process, and a cursor over the input.  A target is one file with one
 * LLVMFuzzerTestOneInput; it is linked with libFuzzer (--enable-fuzz) or with
 * replay.c.  The same input must always do the same. */
#ifndef PD_T_FUZZ_H
#define PD_T_FUZZ_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <pdplane/types.h>

#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define FUZZ_ASAN 1
#endif
#endif
#if defined(FUZZ_ASAN) || defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#else
#define ASAN_POISON_MEMORY_REGION(p, n) ((void)(p), (void)(n))
#define ASAN_UNPOISON_MEMORY_REGION(p, n) ((void)(p), (void)(n))
#endif

/* Set by replay.c: every way of each check, not only the one that the input
 * chooses. */
extern bool fuzz_thorough __attribute__((weak));

static inline bool fuzz_all_ways(void)
{
    return &fuzz_thorough != NULL && fuzz_thorough;
}
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* An invariant of the parser. */
#define FUZZ_CHECK(what)                                                       \
    do {                                                                       \
        if (!(what)) {                                                         \
            fprintf(stderr, "%s:%d: broken: %s\n", __FILE__, __LINE__, #what); \
            abort();                                                           \
        }                                                                      \
    } while (0)

/* Takes the input from its front; behind the end everything is zero. */
struct fuzz_in {
    const uint8_t *p;
    size_t n;
};

static inline uint8_t fuzz_u8(struct fuzz_in *in)
{
    if (in->n == 0)
        return 0;
    in->n--;
    return *in->p++;
}

static inline uint16_t fuzz_u16(struct fuzz_in *in)
{
    uint16_t v = fuzz_u8(in);
    return (uint16_t)(v | fuzz_u8(in) << 8);
}

/* Up to n bytes. */
static inline struct pd_str fuzz_take(struct fuzz_in *in, size_t n)
{
    n = n < in->n ? n : in->n;
    struct pd_str s = { (const char *)in->p, n };
    in->p += n;
    in->n -= n;
    return s;
}

/* A copy of n bytes that may be read until fuzz_back(): with the address
 * sanitizer every byte around it, and all of it afterwards, is poisoned, which
 * shows what malloc would show and costs less.  One at a time. */
#define FUZZ_ROOM 65536
static struct {
    _Alignas(16) char bytes[16 + FUZZ_ROOM + 16];
    bool ready;
} fuzz_room;

static inline char *fuzz_lend(const void *from, size_t n)
{
    char *p = fuzz_room.bytes + 16;
    if (n > FUZZ_ROOM) {
        p = malloc(n);
        FUZZ_CHECK(p != NULL);
    } else if (!fuzz_room.ready) {
        ASAN_POISON_MEMORY_REGION(fuzz_room.bytes, sizeof fuzz_room.bytes);
        fuzz_room.ready = true;
    }
    if (n <= FUZZ_ROOM)
        ASAN_UNPOISON_MEMORY_REGION(p, n);
    if (n > 0)
        memcpy(p, from, n);
    return p;
}

static inline void fuzz_back(char *p, size_t n)
{
    if (n > FUZZ_ROOM)
        free(p);
    else
        ASAN_POISON_MEMORY_REGION(p, n);
}

/* Everything that is left, lent. */
static inline char *fuzz_rest(struct fuzz_in *in, size_t *n)
{
    char *p = fuzz_lend(in->p, in->n);
    *n = in->n;
    in->n = 0;
    return p;
}

static inline bool fuzz_same(struct pd_str a, struct pd_str b)
{
    return a.n == b.n && (a.n == 0 || memcmp(a.p, b.p, a.n) == 0);
}

/* The next of a row of numbers that depends on nothing but *state. */
static inline uint32_t fuzz_next(uint32_t *state)
{
    *state = *state * 1664525u + 1013904223u;
    return *state >> 24;
}

/* Whether a lies inside b; an empty range lies anywhere. */
static inline bool fuzz_inside(struct pd_str a, struct pd_str b)
{
    return a.n == 0 || (a.p >= b.p && a.n <= b.n && (size_t)(a.p - b.p) <= b.n - a.n);
}

#endif
