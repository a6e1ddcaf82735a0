/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PD_BASE_HASH_SECRET_H
#define PD_BASE_HASH_SECRET_H

#include <stdint.h>

/* What blocks are hashed with.  Its values are out of sight of who uses it: a compiler that
 * knows them makes a longer loop of them. */
extern const uint8_t pd_hash_secret[192];

#endif
