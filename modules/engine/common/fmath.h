/* SPDX-License-Identifier: Apache-2.0 */
/* exp, log, sine and cosine in double by a fixed order of additions,
 * multiplications and divisions, so that every machine and every libm gives the
 * same bits.  Accurate to a few units in the last place. */
#ifndef ENG_FMATH_H
#define ENG_FMATH_H

/* e^x; x is limited to [-700, 700]. */
double eng_exp(double x);
/* Natural logarithm of a normal positive x. */
double eng_log(double x);
/* Sine and cosine of 0 <= x < 2^20. */
void eng_sincos(double x, double *s, double *c);

#endif
