/* SPDX-License-Identifier: Apache-2.0 */
/* CRC-32C (Castagnoli), as in RFC 3720.  Any thread. */
#ifndef PD_BASE_CRC32C_H
#define PD_BASE_CRC32C_H

#include <pdplane/types.h>

/* Continues crc (0 at the start) over n more bytes. */
uint32_t pd_crc32c(uint32_t crc, const void *p, size_t n);
/* The same without special instructions; for tests. */
uint32_t pd_crc32c_portable(uint32_t crc, const void *p, size_t n);
/* Whether pd_crc32c uses instructions of the processor. */
bool pd_crc32c_is_hardware(void);
/* The CRC of A followed by B, from crc of A, crc of B and the length of B. */
uint32_t pd_crc32c_combine(uint32_t crc_a, uint32_t crc_b, uint64_t len_b);

#endif
