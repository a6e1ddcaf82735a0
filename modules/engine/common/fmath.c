/* SPDX-License-Identifier: Apache-2.0 */
/* Elementary functions with a fixed order of operations.  Invariant: nothing
 * here but IEEE additions, multiplications, divisions and integer operations,
 * and never contracted, so that results are the same bits everywhere. */
#include "fmath.h"

#include <float.h>
#include <stdint.h>
#include <string.h>

#if defined(__FAST_MATH__)
#error "choices of tokens need exact float semantics: build them without -ffast-math"
#endif
#if FLT_EVAL_METHOD != 0 && FLT_EVAL_METHOD != 16 /* 16: as 0, for types from _Float16 on */
#error "choices of tokens need float expressions without excess precision (-msse2 -mfpmath=sse)"
#endif

double eng_exp(double x)
{
    static const double log2e = 1.44269504088896338700e+00;
    static const double ln2_hi = 6.93147180369123816490e-01, ln2_lo = 1.90821492927058770002e-10;
    static const double shift = 6755399441055744.0;     /* 1.5 * 2^52: rounds to an integer */
    double n, r, p, scale;
    uint64_t bits;

    x = x < -700 ? -700 : x > 700 ? 700 : x;
    n = x * log2e + shift - shift;
    r = x - n * ln2_hi - n * ln2_lo;
    p = 1;
    for (int i = 14; i >= 1; i--)
        p = p * r / i + 1;
    bits = (uint64_t)((int64_t)n + 1023) << 52;
    memcpy(&scale, &bits, sizeof(scale));
    return p * scale;
}

double eng_log(double x)
{
    static const double ln2_hi = 6.93147180369123816490e-01, ln2_lo = 1.90821492927058770002e-10;
    uint64_t bits;
    double m, s, s2, p = 0;
    int e;

    memcpy(&bits, &x, sizeof(bits));
    e = (int)(bits >> 52 & 0x7ff) - 1023;
    bits = (bits & 0xfffffffffffffu) | (uint64_t)1023 << 52;
    memcpy(&m, &bits, sizeof(m));
    if (m > 1.4142135623730951) {
        m *= 0.5;
        e++;
    }
    s = (m - 1) / (m + 1);
    s2 = s * s;
    for (int i = 23; i >= 1; i -= 2)
        p = p * s2 + 1.0 / i;
    return e * ln2_hi + (2 * s * p + e * ln2_lo);
}

void eng_sincos(double x, double *s, double *c)
{
    static const double two_over_pi = 6.36619772367581382433e-01;
    static const double pio2_hi = 1.57079632673412561417e+00, pio2_lo = 6.07710050650619224932e-11;
    int64_t n = (int64_t)(x * two_over_pi + 0.5);
    double r = x - (double)n * pio2_hi - (double)n * pio2_lo, r2 = r * r, ps = 1, pc = 1;

    for (int i = 16; i >= 2; i -= 2)
        ps = 1 - ps * r2 / (i * (i + 1));
    for (int i = 16; i >= 2; i -= 2)
        pc = 1 - pc * r2 / (i * (i - 1));
    ps *= r;
    *s = (n & 1) != 0 ? pc : ps;
    *c = (n & 1) != 0 ? ps : pc;
    if ((n & 2) != 0)
        *s = -*s;
    if (((n + 1) & 2) != 0)
        *c = -*c;
}
