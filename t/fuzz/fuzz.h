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

/* Everything that is left, as an allocation of exactly that size: reading past
 * its end is seen.  Gives: free. */
static inline char *fuzz_rest(struct fuzz_in *in, size_t *n)
{
    char *p = malloc(in->n + (in->n == 0));
    FUZZ_CHECK(p != NULL);
    if (in->n > 0)
        memcpy(p, in->p, in->n);
    *n = in->n;
    in->n = 0;
    return p;
}

static inline bool fuzz_same(struct pd_str a, struct pd_str b)
{
    return a.n == b.n && (a.n == 0 || memcmp(a.p, b.p, a.n) == 0);
}

/* Whether a lies inside b; an empty range lies anywhere. */
static inline bool fuzz_inside(struct pd_str a, struct pd_str b)
{
    return a.n == 0 || (a.p >= b.p && a.n <= b.n && (size_t)(a.p - b.p) <= b.n - a.n);
}

#endif
