/* SPDX-License-Identifier: Apache-2.0 */
/* @NAME@: Leaves out bytes that are zero, in runs. */
#include <stdlib.h>
#include <string.h>

#include <pdplane/codec.h>

struct @NAME@_conf {           /* filled from the rows below */
    uint32_t least;
};

struct pd_codec {              /* an instance */
    const struct @NAME@_conf *conf;
};

static const struct pd_option @NAME@_options[] = {
    PD_OPT_INT("least", struct @NAME@_conf, least, "4", .min = 2, .max = 255, .unit = "bytes",
               .help = "Shorter runs of zero stay as they are."),
    PD_OPT_END
};

static pd_status @NAME@_create(const struct pd_instance_ctx *ctx, const void *conf,
                               struct pd_codec **out, struct pd_err *err)
{
    struct pd_codec *p = malloc(sizeof *p);

    (void)ctx;
    if (p == NULL) {
        err->status = PD_ENOMEM;
        return PD_ENOMEM;
    }
    p->conf = conf;             /* stays until destroy has returned */
    *out = p;
    return PD_OK;
}

static void @NAME@_destroy(struct pd_codec *p)
{
    free(p);
}

struct pd_codec_state {         /* what one user needs; here it has nothing of its own */
    const struct @NAME@_conf *conf;
};

static void @NAME@_info(struct pd_codec *p, struct pd_codec_info *out)
{
    struct pd_codec_info info = { .size = sizeof info, .flags = PD_CODEC_LOSSLESS, .format = 1,
                                  .align = 1, .max_bytes = 64 << 20 };

    (void)p;
    *out = info;
}

/* A pair of bytes before at most 255 others. */
static uint64_t @NAME@_bound(struct pd_codec *p, uint64_t n)
{
    (void)p;
    return 2 * n + 2;
}

static pd_status @NAME@_state_open(struct pd_codec *p, struct pd_codec_state **out)
{
    *out = malloc(sizeof **out);
    if (*out == NULL)
        return PD_ENOMEM;
    (*out)->conf = p->conf;
    return PD_OK;
}

static void @NAME@_state_close(struct pd_codec_state *state)
{
    free(state);
}

/* Zeros from at on, at most 255. */
static size_t zeros(const uint8_t *in, size_t n, size_t at)
{
    size_t k = 0;

    while (at + k < n && k < 255 && in[at + k] == 0)
        k++;
    return k;
}

/* Pairs: how many zeros, how many bytes follow; then these. */
static pd_status @NAME@_encode(struct pd_codec_state *state, const struct pd_codec_hint *hint,
                               const void *bytes, size_t n, void *to, size_t cap, size_t *len)
{
    const uint8_t *in = bytes;
    uint8_t *out = to;
    size_t at = 0, used = 0;

    (void)hint;
    if (n == 0 || n > 64 << 20)
        return PD_EINVAL;
    while (at < n) {
        size_t skip = zeros(in, n, at), take = 0;
        while (at + skip + take < n && take < 255 &&
               zeros(in, n, at + skip + take) < state->conf->least)
            take++;
        if (cap - used < 2 + take)
            return PD_ELIMIT;
        out[used] = (uint8_t)skip;
        out[used + 1] = (uint8_t)take;
        memcpy(out + used + 2, in + at + skip, take);
        used += 2 + take;
        at += skip + take;
    }
    *len = used;
    return PD_OK;
}

/* The bytes come from another node: nothing in them may be believed. */
static pd_status @NAME@_decode(struct pd_codec_state *state, const void *bytes, size_t n, void *to,
                               size_t want)
{
    const uint8_t *in = bytes;
    uint8_t *out = to;
    size_t at = 0, used = 0;

    (void)state;
    while (n - at >= 2) {
        size_t skip = in[at], take = in[at + 1];
        if (skip + take == 0 || n - at - 2 < take || want - used < skip + take)
            return PD_EINTEGRITY;
        memset(out + used, 0, skip);
        memcpy(out + used + skip, in + at + 2, take);
        used += skip + take;
        at += 2 + take;
    }
    return at == n && used == want && want > 0 ? PD_OK : PD_EINTEGRITY;
}

static const struct pd_codec_ops @NAME@_ops = {
    .head = PD_OPS(pd_codec_ops, PD_CODEC_V1),
    .create = @NAME@_create, .destroy = @NAME@_destroy, .info = @NAME@_info,
    .bound = @NAME@_bound, .state_open = @NAME@_state_open, .state_close = @NAME@_state_close,
    .encode = @NAME@_encode, .decode = @NAME@_decode,
};

static const struct pd_unit @NAME@_units[] = {
    PD_UNIT(.kind = PD_KIND_CODEC, .name = "@NAME@", .ops = &@NAME@_ops.head,
            .options = @NAME@_options, .conf_size = sizeof(struct @NAME@_conf),
            .summary = "Leaves out bytes that are zero, in runs."),
    PD_UNIT_END
};

PD_MODULE(.name = "@NAME@", .version = "0.1", .summary = "Leaves out bytes that are zero, in runs.",
          .units = @NAME@_units)
