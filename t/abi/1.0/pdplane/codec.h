/* SPDX-License-Identifier: Apache-2.0 */
/* Codec kind: makes KV bytes shorter on their way between two nodes.  Stable.
 *
 * A codec turns a run of bytes into fewer bytes and back.  A transport that was
 * told to use one (`codec` among its options) finds it by name through
 * pd_host()->codec, agrees on it with the other side, and falls back to plain
 * bytes wherever encoding does not pay.
 *
 *     struct pd_codec *codec;
 *     const struct pd_codec_ops *ops = pd_host()->codec(ctx->host, "planes", &codec);
 *     ops->state_open(codec, &state);
 *     if (ops->encode(state, &hint, in, n, out, cap, &len) == PD_OK)
 *         ... len bytes of out; the other side: ops->decode(state, out, len, back, n)
 *
 * Rules
 *   - The same bytes, hint and options always give the same encoded bytes.
 *   - Encoded bytes say all that decoding needs, apart from the number of bytes
 *     they stand for; neither hint nor options are needed again.
 *   - decode takes bytes of a peer: whatever they are, it reads nothing outside
 *     of `in`, writes nothing outside of `out` and ends.
 *   - encode and decode allocate nothing, lock nothing and wait for nothing;
 *     what they need is made by state_open.
 *   - Instances are used from any thread once create has returned; a state by
 *     one thread at a time.  Different states work side by side. */
#ifndef PDPLANE_CODEC_H
#define PDPLANE_CODEC_H

#include <pdplane/layout.h>
#include <pdplane/module.h>

#ifdef __cplusplus
extern "C" {
#endif

#define PD_CODEC_V1 1u

struct pd_codec;       /* an instance; the module's own */
struct pd_codec_state; /* work memory of one user; the module's own */

enum {
    PD_CODEC_LOSSLESS = 1u << 0 /* decode gives back exactly what encode was given */
};

/* What an instance is; constant after create. */
struct pd_codec_info {
    uint32_t size;
    uint32_t flags;            /* PD_CODEC_* */
    uint32_t format;           /* of the encoded bytes, from 1: nodes with another one cannot decode
                                  each other's */
    uint32_t align;            /* of `in` and `out` for best speed, a power of two; any address works */
    uint64_t max_bytes;        /* most bytes that one call encodes, at least 16 MiB */
    uint64_t encode_rate;      /* plain bytes per second and thread to expect, 0 unknown */
    uint64_t decode_rate;
};

/* What the bytes mean, as far as it is known. */
struct pd_codec_hint {
    uint32_t size;
    uint32_t dtype;            /* PD_DTYPE_* of layout.h, 0 unknown */
    uint32_t element_bytes;    /* 1, 2, 4 or 8; 0 unknown.  The first byte begins an element */
    uint32_t reserved;
};

struct pd_codec_ops {
    struct pd_ops_head head;   /* PD_OPS(pd_codec_ops, PD_CODEC_V1) */

    pd_status (*create)(const struct pd_instance_ctx *ctx, const void *conf, struct pd_codec **out,
                        struct pd_err *err);
    /* All states are closed. */
    void (*destroy)(struct pd_codec *codec);
    void (*info)(struct pd_codec *codec, struct pd_codec_info *out);
    /* With so much room encode never answers PD_ELIMIT for n bytes. */
    uint64_t (*bound)(struct pd_codec *codec, uint64_t n);

    /* PD_OK, PD_ENOMEM. */
    pd_status (*state_open)(struct pd_codec *codec, struct pd_codec_state **out);
    void (*state_close)(struct pd_codec_state *state);

    /* Encodes n bytes (1 to max_bytes).  hint may be NULL.  PD_OK and *len, at
     * most cap; PD_ELIMIT when the encoded bytes are more than cap, what is in
     * out is then of no use; PD_EINVAL for another n. */
    pd_status (*encode)(struct pd_codec_state *state, const struct pd_codec_hint *hint, const void *in,
                        size_t n, void *out, size_t cap, size_t *len);
    /* Decodes n bytes, which must stand for exactly `bytes` bytes.  PD_OK;
     * PD_EINTEGRITY when they do not, what is in out is then undefined. */
    pd_status (*decode)(struct pd_codec_state *state, const void *in, size_t n, void *out, size_t bytes);
};

#ifdef __cplusplus
}
#endif
#endif
