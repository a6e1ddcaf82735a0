/* SPDX-License-Identifier: Apache-2.0 */
/* Layouts: what they must fulfil, their canonical bytes, their fingerprint and
 * which of them may exchange KV.  Pure; any thread. */
#ifndef PD_KV_LAYOUT_H
#define PD_KV_LAYOUT_H

#include "base/hash.h"

#include <pdplane/layout.h>

#define PD_KV_LAYOUT_BYTES 48
#define PD_KV_MAX_BLOCK_TOKENS 65536u

/* Bytes of one element; 0 when dtype is not known. */
uint32_t pd_kv_dtype_bytes(uint32_t dtype);
/* PD_OK, or PD_EINVAL with err (may be NULL) filled: a member is out of range
 * or block_bytes is not what the others say. */
pd_status pd_kv_layout_check(const struct pd_layout *l, struct pd_err *err);
/* Bytes of one token in one layer, K or V; and over all layers, K and V.  The
 * layout has been checked. */
uint64_t pd_kv_layout_row_bytes(const struct pd_layout *l);
uint64_t pd_kv_layout_token_bytes(const struct pd_layout *l);
/* The canonical bytes, little-endian, the same on every machine. */
void pd_kv_layout_encode(const struct pd_layout *l, uint8_t out[PD_KV_LAYOUT_BYTES]);
/* PD_OK with a checked layout, or PD_EPROTO. */
pd_status pd_kv_layout_decode(const uint8_t in[PD_KV_LAYOUT_BYTES], struct pd_layout *out);
/* XXH3-128 of the canonical bytes. */
struct pd_hash128 pd_kv_layout_fingerprint(const struct pd_layout *l);
/* Same model, dtype, layers, heads and head size; order and block size may
 * differ.  PD_OK, or PD_EINVAL with err filled. */
pd_status pd_kv_layout_compatible(const struct pd_layout *a, const struct pd_layout *b,
                                  struct pd_err *err);

#endif
