/* SPDX-License-Identifier: Apache-2.0 */
/* KV to measure codecs with: made, or read from a file. */
#ifndef PD_MAIN_PDBENCH_KV_H
#define PD_MAIN_PDBENCH_KV_H

#include <pdplane/layout.h>

/* PD_DTYPE_* of a name such as "bf16"; 0: there is none. */
uint32_t pdbench_kv_dtype(struct pd_str name);
const char *pdbench_kv_dtype_name(uint32_t dtype);
/* Of one element. */
uint32_t pdbench_kv_width(uint32_t dtype);
const char *pdbench_kv_order_name(uint32_t order);

/* Fills `bytes` bytes with elements as they lie in a pool: layers of heads of
 * channels; each channel of K and V has a size and a middle of its own, some
 * channels of K are far larger than the others, and neighbouring tokens differ
 * by noise. */
void pdbench_kv_make(void *to, uint64_t bytes, uint32_t dtype, uint32_t order);

/* Of decoded elements against the ones that were encoded: the largest
 * difference as a part of the largest value, and the mean one (root of squares)
 * as a part of the mean value. */
struct pdbench_kv_error {
    double largest, mean;
};
struct pdbench_kv_error pdbench_kv_compare(const void *want, const void *got, uint64_t bytes, uint32_t dtype);

#endif
