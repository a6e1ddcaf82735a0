/* SPDX-License-Identifier: Apache-2.0 */
/* CRC-32C for frames.  Tables live in the caller's object, so that a module has
 * no writable data of its own. */
#ifndef PD_XP_CRC_H
#define PD_XP_CRC_H

#include <pdplane/types.h>

struct pd_xp_crc {
    bool hardware;
    uint32_t table[8][256];     /* eight bytes at a time, without instructions */
    uint32_t shift_long[4][256];
    uint32_t shift_short[4][256];
};

/* Fills the tables and looks what the processor can do. */
void pd_xp_crc_init(struct pd_xp_crc *c);
/* Continues crc (0 at the start) over n more bytes. */
uint32_t pd_xp_crc(const struct pd_xp_crc *c, uint32_t crc, const void *p, size_t n);
/* The same without special instructions; for tests. */
uint32_t pd_xp_crc_portable(const struct pd_xp_crc *c, uint32_t crc, const void *p, size_t n);

#endif
