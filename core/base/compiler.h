/* SPDX-License-Identifier: Apache-2.0 */
/* Small helpers around the compiler, and the assertion of the house. */
#ifndef PD_BASE_COMPILER_H
#define PD_BASE_COMPILER_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define pd_likely(x) __builtin_expect(!!(x), 1)
#define pd_unlikely(x) __builtin_expect(!!(x), 0)

#define PD_NORETURN __attribute__((noreturn))
#define PD_MUST_CHECK __attribute__((warn_unused_result))
#define PD_UNUSED __attribute__((unused))
#define PD_NOINLINE __attribute__((noinline))
#define PD_ALWAYS_INLINE inline __attribute__((always_inline))

#define PD_ARRAY_LEN(a) (sizeof(a) / sizeof((a)[0]))
#define PD_MIN(a, b) ((a) < (b) ? (a) : (b))
#define PD_MAX(a, b) ((a) > (b) ? (a) : (b))

/* Zeroes n bytes, in pieces that compilers write out as stores; for more they take a
 * string instruction, whose start takes long. */
static PD_ALWAYS_INLINE void pd_zero(void *p, size_t n)
{
    char *at = (char *)p;

    for (; n >= 64; n -= 64, at += 64)
        memset(at, 0, 64);
    memset(at, 0, n);
}

/* The struct that has `ptr` as its member. */
#define pd_container_of(ptr, type, member)                                     \
    ((type *)(void *)((char *)(ptr) - offsetof(type, member)))

/* Moves a pointer out of a variable and leaves NULL behind. */
#define PD_TAKE(pp)                                                            \
    __extension__({                                                            \
        __typeof__(*(pp)) pd_taken = *(pp);                                    \
        *(pp) = NULL;                                                          \
        pd_taken;                                                              \
    })

/* For impossible states, on in all builds; never for input of users or peers.
 * Prints expression, file and line to standard error and aborts. */
#define pd_assert(expr)                                                        \
    do {                                                                       \
        if (pd_unlikely(!(expr)))                                              \
            pd_assert_failed(#expr, __FILE__, __LINE__);                       \
    } while (0)

/* What pd_assert calls; does not return.  Any thread. */
PD_NORETURN void pd_assert_failed(const char *expr, const char *file, int line);

#endif
