/* SPDX-License-Identifier: Apache-2.0 */
/* SipHash-2-4 with 128 bits of output. */
#ifndef ENG_HASH_H
#define ENG_HASH_H

#include <stddef.h>
#include <stdint.h>

struct eng_hash {
    uint64_t lo, hi;
};

/* Hash of n bytes under a key of 16 bytes. */
struct eng_hash eng_siphash(const uint8_t key[16], const void *data, size_t n);

#endif
