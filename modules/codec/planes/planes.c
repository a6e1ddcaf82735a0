/* SPDX-License-Identifier: Apache-2.0 */
/* Lossless codec for KV: the module proper, its options and its ops. */
#include <stdlib.h>
#include <string.h>

#include <pdplane/codec.h>

#include "coder.h"

struct planes_conf {
    int64_t element;
};

struct pd_codec {
    const struct planes_conf *conf;
};

static const struct pd_option planes_options[] = {
    PD_OPT_INT("element", struct planes_conf, element, "2", .min = 1, .max = 4, .unit = "bytes",
               .help = "Size of an element (1, 2 or 4) where nobody says what the bytes are."),
    PD_OPT_END
};

static bool is_width(int64_t n)
{
    return n == 1 || n == 2 || n == 4;
}

static pd_status planes_check(const void *conf, struct pd_err *err)
{
    const struct planes_conf *c = conf;

    if (is_width(c->element))
        return PD_OK;
    err->status = PD_EINVAL;
    strcpy(err->text, "element is 1, 2 or 4");
    return PD_EINVAL;
}

static pd_status planes_create(const struct pd_instance_ctx *ctx, const void *conf, struct pd_codec **out,
                               struct pd_err *err)
{
    struct pd_codec *codec = malloc(sizeof(*codec));

    (void)ctx;
    if (codec == NULL) {
        err->status = PD_ENOMEM;
        return PD_ENOMEM;
    }
    codec->conf = conf;
    *out = codec;
    return PD_OK;
}

static void planes_destroy(struct pd_codec *codec)
{
    free(codec);
}

static void planes_info(struct pd_codec *codec, struct pd_codec_info *out)
{
    struct pd_codec_info info = { .size = sizeof(info), .flags = PD_CODEC_LOSSLESS, .format = PLANES_FORMAT,
                                  .align = 16, .max_bytes = PLANES_MAX };

    (void)codec;
    *out = info;
}

static uint64_t planes_bound_op(struct pd_codec *codec, uint64_t n)
{
    (void)codec;
    return planes_bound(n);
}

/* What the user of a codec holds. */
struct pd_codec_state {
    const struct planes_conf *conf;
    struct planes_coder *coder;
};

static pd_status planes_state_open(struct pd_codec *codec, struct pd_codec_state **out)
{
    struct pd_codec_state *state = malloc(sizeof(*state));

    if (state == NULL)
        return PD_ENOMEM;
    state->conf = codec->conf;
    if (planes_coder_open(&state->coder) != PD_OK) {
        free(state);
        return PD_ENOMEM;
    }
    *out = state;
    return PD_OK;
}

static void planes_state_close(struct pd_codec_state *state)
{
    planes_coder_close(state->coder);
    free(state);
}

static pd_status planes_encode_op(struct pd_codec_state *state, const struct pd_codec_hint *hint,
                                  const void *in, size_t n, void *out, size_t cap, size_t *len)
{
    uint32_t width = (uint32_t)state->conf->element;

    if (hint != NULL && is_width(hint->element_bytes))
        width = hint->element_bytes;
    return planes_encode(state->coder, width, in, n, out, cap, len);
}

static pd_status planes_decode_op(struct pd_codec_state *state, const void *in, size_t n, void *out,
                                  size_t bytes)
{
    return planes_decode(state->coder, in, n, out, bytes);
}

static const struct pd_codec_ops planes_ops = {
    .head = PD_OPS(pd_codec_ops, PD_CODEC_V1),
    .create = planes_create, .destroy = planes_destroy, .info = planes_info, .bound = planes_bound_op,
    .state_open = planes_state_open, .state_close = planes_state_close,
    .encode = planes_encode_op, .decode = planes_decode_op,
};

static const struct pd_unit planes_units[] = {
    PD_UNIT(.kind = PD_KIND_CODEC, .name = "planes", .ops = &planes_ops.head, .options = planes_options,
            .conf_size = sizeof(struct planes_conf),
            .summary = "Shortens KV of 16 and 32 bit numbers without loss, by byte planes and zstd.",
            .check = planes_check),
    PD_UNIT_END
};

PD_MODULE(.name = "planes", .version = "1.0", .summary = "Lossless codec for KV.", .units = planes_units)
