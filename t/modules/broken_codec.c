/* SPDX-License-Identifier: Apache-2.0 */
/* A codec that breaks its contract in the way that its option names;
 * t/12-conform.t expects to see it found.  It stores bytes as they are behind
 * their sum. */
#include <sched.h>
#include <stdlib.h>
#include <string.h>

#include <pdplane/codec.h>

enum { FAULT_NONE, FAULT_LEAK, FAULT_LOSSY, FAULT_BEHIND, FAULT_UNSTABLE, FAULT_GROWTH, FAULT_BOUND, FAULT_TRUST,
       FAULT_SHARED, FAULT_FORMAT, FAULT_ALIGN, FAULT_ALLOC,
       FAULT_GLOBAL /* one table for all instances, which goes with the first of them */ };

struct broken_conf {
    uint32_t fault;
};
struct pd_codec {
    uint32_t fault;
    volatile uint32_t shared;
};
struct pd_codec_state {
    struct pd_codec *codec;
    uint32_t calls;
};

static const struct pd_option_name faults[] = {
    { "none", FAULT_NONE }, { "leak", FAULT_LEAK }, { "lossy", FAULT_LOSSY }, { "behind", FAULT_BEHIND },
    { "unstable", FAULT_UNSTABLE }, { "growth", FAULT_GROWTH }, { "bound", FAULT_BOUND },
    { "trust", FAULT_TRUST }, { "shared", FAULT_SHARED }, { "format", FAULT_FORMAT }, { "align", FAULT_ALIGN },
    { "alloc", FAULT_ALLOC }, { "global", FAULT_GLOBAL }, { NULL, 0 },
};

static uint32_t factor;         /* of the sum; the one table */

static const struct pd_option options[] = {
    PD_OPT_ENUM("fault", struct broken_conf, fault, "none", faults, .help = "What is wrong."),
    PD_OPT_END
};

static void leak(void)
{
    void *volatile lost = malloc(100);
    (void)lost;
}

static pd_status create(const struct pd_instance_ctx *ctx, const void *conf, struct pd_codec **out,
                        struct pd_err *err)
{
    (void)ctx;
    (void)err;
    *out = calloc(1, sizeof **out);
    if (*out == NULL)
        return PD_ENOMEM;
    (*out)->fault = ((const struct broken_conf *)conf)->fault;
    factor = 31;
    if ((*out)->fault == FAULT_LEAK)
        leak();
    return PD_OK;
}

static void destroy(struct pd_codec *c)
{
    if (c->fault == FAULT_GLOBAL)
        factor = 0;
    free(c);
}

static void info(struct pd_codec *c, struct pd_codec_info *out)
{
    struct pd_codec_info i = { .size = sizeof i, .flags = PD_CODEC_LOSSLESS, .align = 1,
                               .format = c->fault == FAULT_FORMAT ? 0 : 1, .max_bytes = 1 << 30 };
    *out = i;
}

static uint64_t bound(struct pd_codec *c, uint64_t n)
{
    return n + (c->fault == FAULT_BOUND ? 2 : 4);
}

static pd_status state_open(struct pd_codec *c, struct pd_codec_state **out)
{
    *out = calloc(1, sizeof **out);
    if (*out == NULL)
        return PD_ENOMEM;
    (*out)->codec = c;
    return PD_OK;
}

static void state_close(struct pd_codec_state *s)
{
    free(s);
}

static uint32_t sum_of(struct pd_codec_state *s, const uint8_t *p, size_t n)
{
    uint32_t sum = 0;
    if (s->codec->fault == FAULT_SHARED) {
        s->codec->shared = 0;
        for (size_t i = 0; i < n; i++) {
            s->codec->shared = s->codec->shared * 31 + p[i];
            if (i % 4096 == 0)
                sched_yield();
        }
        return s->codec->shared;
    }
    for (size_t i = 0; i < n; i++)
        sum = sum * factor + p[i];
    return sum;
}

static pd_status encode(struct pd_codec_state *s, const struct pd_codec_hint *hint, const void *in, size_t n,
                        void *out, size_t cap, size_t *len)
{
    uint32_t fault = s->codec->fault, sum;
    (void)hint;
    if (n == 0)
        return PD_EINVAL;
    if (cap < n + 4) {
        if (fault == FAULT_BEHIND)
            memset((uint8_t *)out + cap, 0, 1);
        return PD_ELIMIT;
    }
    if (fault == FAULT_GROWTH)
        leak();
    if (fault == FAULT_ALLOC) {
        void *volatile scratch = malloc(100);
        free(scratch);
    }
    sum = sum_of(s, in, n) + (fault == FAULT_UNSTABLE ? s->calls++ : 0);
    if (fault == FAULT_ALIGN && ((uintptr_t)in & 1) != 0)
        sum++;
    memcpy(out, &sum, 4);
    memcpy((uint8_t *)out + 4, in, n);
    if (fault == FAULT_LOSSY)
        ((uint8_t *)out)[4 + n / 2] &= 0xfe;
    *len = n + 4;
    return PD_OK;
}

static pd_status decode(struct pd_codec_state *s, const void *in, size_t n, void *out, size_t bytes)
{
    uint32_t sum, fault = s->codec->fault;
    if (n < 4 || (fault != FAULT_TRUST && bytes != n - 4))
        return PD_EINTEGRITY;
    memcpy(&sum, in, 4);
    memcpy(out, (const uint8_t *)in + 4, n - 4);
    if (fault == FAULT_TRUST || fault == FAULT_LOSSY || fault == FAULT_UNSTABLE || fault == FAULT_SHARED)
        return PD_OK;
    return sum == sum_of(s, out, n - 4) ? PD_OK : PD_EINTEGRITY;
}

static const struct pd_codec_ops ops = {
    .head = PD_OPS(pd_codec_ops, PD_CODEC_V1),
    .create = create, .destroy = destroy, .info = info, .bound = bound, .state_open = state_open,
    .state_close = state_close, .encode = encode, .decode = decode,
};

static const struct pd_unit units[] = {
    PD_UNIT(.kind = PD_KIND_CODEC, .name = "broken_codec", .ops = &ops.head, .options = options,
            .conf_size = sizeof(struct broken_conf), .summary = "Stores bytes as they are."),
    PD_UNIT_END
};

PD_MODULE(.name = "broken_codec", .version = "1.0", .summary = "For t/12-conform.t.", .units = units)
