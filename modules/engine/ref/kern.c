/* SPDX-License-Identifier: Apache-2.0 */
/* Builds the kernels of kern.inc.h once per vector width and picks one at run
 * time.  Invariant: all sets give the same bits (see kern.h). */
#include "kern.h"

#include "half.h"

#include <float.h>
#include <math.h>
#include <string.h>
#if defined(__x86_64__)
#include <cpuid.h>
#include <immintrin.h>
#endif

#if defined(__FAST_MATH__)
#error "the ref engine needs exact float semantics: build it without -ffast-math"
#endif
#if FLT_EVAL_METHOD != 0 && FLT_EVAL_METHOD != 16 /* 16: as 0, for types from _Float16 on */
#error "the ref engine needs float expressions without excess precision (-msse2 -mfpmath=sse)"
#endif

#if defined(__clang__)
#define UNROLL _Pragma("unroll")
#else
#define UNROLL _Pragma("GCC unroll 16")
#endif

/* W: lanes of a vector in matmul; AW: lanes elsewhere (4 or 8). */
#define W 4
#define AW 4
#define ROWS 2
#define NAME(x) x##_v4
#define TARGET
#include "kern.inc.h"

#if defined(__x86_64__)
#define W 8
#define AW 8
#define ROWS 4
#define NAME(x) x##_v8
#define TARGET __attribute__((target("avx2,f16c")))
#include "kern.inc.h"

#define W 16
#define AW 8
#define ROWS 8
#define NAME(x) x##_v16
#define TARGET __attribute__((target("avx2,f16c,avx512f")))
#include "kern.inc.h"
#endif

#if defined(__x86_64__)
/* Not every compiler's __builtin_cpu_supports knows it. */
static int has_f16c(void)
{
    unsigned a, b, c = 0, d;
    return __get_cpuid(1, &a, &b, &c, &d) && (c & bit_F16C) != 0;
}
#endif

const struct ref_kern *ref_kern_at(unsigned i)
{
    static const struct ref_kern *const set[] = {
        &kern_v4,
#if defined(__x86_64__)
        &kern_v8, &kern_v16,
#endif
    };
    if (i >= sizeof(set) / sizeof(set[0]))
        return NULL;
#if defined(__x86_64__)
    __builtin_cpu_init();
    if ((i >= 1 && !(__builtin_cpu_supports("avx2") && has_f16c())) ||
        (i == 2 && !__builtin_cpu_supports("avx512f")))
        return NULL;
#endif
    return set[i];
}

const struct ref_kern *ref_kern_best(void)
{
    const struct ref_kern *best = ref_kern_at(0), *k;
    for (unsigned i = 1; (k = ref_kern_at(i)) != NULL; i++)
        best = k;
    return best;
}
