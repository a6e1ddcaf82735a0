/* SPDX-License-Identifier: Apache-2.0 */
/* Identities of nodes as text.  Pure; any thread. */
#ifndef PD_BASE_UUID_H
#define PD_BASE_UUID_H

#include <string.h>

#include <pdplane/types.h>

#define PD_UUID_TEXT 37

/* "xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx" in lower case; returns out. */
const char *pd_uuid_format(const struct pd_uuid *u, char out[PD_UUID_TEXT]);
/* PD_OK or PD_EINVAL; both cases of letters are read. */
pd_status pd_uuid_parse(struct pd_str s, struct pd_uuid *out);
/* A version 4 UUID from 16 random bytes. */
void pd_uuid_v4(const uint8_t random[16], struct pd_uuid *out);

static inline bool pd_uuid_eq(const struct pd_uuid *a, const struct pd_uuid *b)
{
    return memcmp(a->b, b->b, sizeof a->b) == 0;
}

bool pd_uuid_is_zero(const struct pd_uuid *u);

static inline bool pd_node_id_eq(const struct pd_node_id *a, const struct pd_node_id *b)
{
    return a->epoch == b->epoch && pd_uuid_eq(&a->uuid, &b->uuid);
}

#endif
