/* SPDX-License-Identifier: Apache-2.0 */
/* What nodes tell each other about themselves, as bytes: preamble, hello,
 * heartbeat, goodbye.  Readers take hostile input; writers cannot fail when the
 * buffer has PD_FRAME_MAX_PAYLOAD bytes.  Pure. */
#ifndef PD_PEER_HELLO_H
#define PD_PEER_HELLO_H

#include <pdplane/peer.h>

#define PD_HELLO_VERSION_MIN 1u
#define PD_HELLO_VERSION_MAX 1u
#define PD_HELLO_NONCE 32
#define PD_HELLO_MAC 32
#define PD_HELLO_WINDOW_MIN 16384u
#define PD_HELLO_WINDOW_MAX 0x10000000u
#define PD_HELLO_PREAMBLE 48    /* bytes of a preamble payload */

struct pd_preamble {
    uint16_t version_min;
    uint16_t version_max;
    uint32_t auth;              /* 1: the sender demands and gives proofs of the secret */
    uint32_t window;            /* bytes that the sender takes per call before it grants more */
    uint32_t max_message;       /* longest message that the sender takes */
    uint8_t nonce[PD_HELLO_NONCE];
};

struct pd_heartbeat {
    uint64_t sent;              /* sender's clock; comes back as `echo` */
    uint64_t echo;              /* `sent` of the last heartbeat received, 0: none */
    uint64_t held;              /* ns between receiving that one and sending this */
    uint32_t draining;
    uint32_t n_loads;
    struct pd_engine_load loads[PD_PEER_MAX_ENGINES];
};

void pd_preamble_write(const struct pd_preamble *p, uint8_t out[PD_HELLO_PREAMBLE]);
pd_status pd_preamble_read(const void *p, size_t n, struct pd_preamble *out);
/* The highest version that both speak, 0: none. */
uint16_t pd_preamble_agree(const struct pd_preamble *a, const struct pd_preamble *b);

/* PD_OK with *n, PD_EINVAL when the description breaks a limit, PD_ELIMIT when
 * cap is too small. */
pd_status pd_desc_write(const struct pd_peer_desc *desc, bool draining, void *out, size_t cap,
                        size_t *n);
/* Gives: pd_free; engines and transports lie in the same allocation.  PD_OK,
 * PD_EPROTO, PD_ENOMEM. */
pd_status pd_desc_read(const void *p, size_t n, struct pd_peer_desc **out, bool *draining);
/* A copy as one allocation; gives: pd_free, NULL when memory is short. */
struct pd_peer_desc *pd_desc_copy(const struct pd_peer_desc *desc);
/* PD_OK, or PD_EINVAL with err filled: a name is empty, used twice or has
 * control characters, a count is too large. */
pd_status pd_desc_check(const struct pd_peer_desc *desc, struct pd_err *err);

size_t pd_heartbeat_write(const struct pd_heartbeat *h, uint8_t *out, size_t cap);
pd_status pd_heartbeat_read(const void *p, size_t n, struct pd_heartbeat *out);

#endif
