/* SPDX-License-Identifier: Apache-2.0 */
/* SipHash-2-4 with 128 bits of output. */
#ifndef REF_HASH_H
#define REF_HASH_H

#include <stddef.h>
#include <stdint.h>

struct ref_hash {
    uint64_t lo, hi;
};

/* Hash of n bytes under a key of 16 bytes. */
struct ref_hash ref_siphash(const uint8_t key[16], const void *data, size_t n);

#endif
