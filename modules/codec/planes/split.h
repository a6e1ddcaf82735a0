/* SPDX-License-Identifier: Apache-2.0 */
/* Elements to byte planes and back: plane p holds byte p of each element,
 * after the element was rotated left by one bit, which moves the sign out of
 * the byte of the exponent.  Little-endian. */
#ifndef PD_PLANES_SPLIT_H
#define PD_PLANES_SPLIT_H

#include <stddef.h>
#include <stdint.h>

/* n elements of `width` bytes (1, 2 or 4) at in; plane p at out + p * n. */
void planes_split(uint32_t width, const uint8_t *in, size_t n, uint8_t *out);
/* The other way; in[p] is plane p. */
void planes_merge(uint32_t width, const uint8_t *const *in, size_t n, uint8_t *out);

#endif
