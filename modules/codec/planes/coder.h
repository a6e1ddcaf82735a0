/* SPDX-License-Identifier: Apache-2.0 */
/* The encoded form, format 1.  Numbers are little-endian.
 *
 *   0  'P' | 1 | element bytes: 1, 2 or 4 | 0
 *   4  chunks of up to PLANES_CHUNK plain bytes, whole elements; of each, from
 *      the least significant plane to the most:
 *        u32  bytes of the plane as it stands here; bit 31: as it is
 *        the plane, as it is or compressed by zstd
 *   at the end the plain bytes that are no whole element
 *
 * How many chunks there are follows from the number of plain bytes, which the
 * reader has. */
#ifndef PD_PLANES_CODER_H
#define PD_PLANES_CODER_H

#include <pdplane/types.h>

#define PLANES_FORMAT 1u
#define PLANES_CHUNK (256u << 10)
#define PLANES_MAX ((uint64_t)256 << 20)

struct planes_coder;

/* PD_OK, PD_ENOMEM. */
pd_status planes_coder_open(struct planes_coder **out);
void planes_coder_close(struct planes_coder *c);
/* The most that n bytes come to. */
uint64_t planes_bound(uint64_t n);
/* As the operations of codec.h. */
pd_status planes_encode(struct planes_coder *c, uint32_t width, const uint8_t *in, size_t n, uint8_t *out,
                        size_t cap, size_t *len);
pd_status planes_decode(struct planes_coder *c, const uint8_t *in, size_t n, uint8_t *out, size_t bytes);

#endif
