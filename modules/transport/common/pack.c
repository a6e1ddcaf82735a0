/* SPDX-License-Identifier: Apache-2.0 */
/* Payloads of WRITE and DATA frames in the form of a codec.  Both sides name
 * theirs in the greeting; when the names and formats are the same, a frame may
 * be encoded: it has the flag PD_XP_ENCODED, and its payload is the number of
 * plain bytes (u32) and what the codec made of them.  A frame that does not get
 * shorter goes plain, and after some of these in a row the codec is asked less
 * often.
 *
 * Encoding and decoding work on one run of bytes; scattered segments are
 * gathered first, or filled afterwards, through a buffer of the instance. */
#include "link.h"

#include <stdlib.h>
#include <string.h>

#define HEAD 4u                 /* the number of plain bytes */
#define LEAST 1024u             /* shorter frames are not worth it */
#define SKIP_MAX 6u             /* up to 64 frames go plain behind each that did not shrink */

static struct pd_counter *counter(const struct pd_instance_ctx *ctx, const char *name, const char *help)
{
    return ctx->metrics == NULL ? NULL : pd_metrics_simple_counter(ctx->metrics, name, help);
}

pd_status pd_xp_pack_open(struct pd_transport *tp, const struct pd_instance_ctx *ctx, struct pd_err *err)
{
    struct pd_xp_pack *p = &tp->pack;
    const char *name = tp->conf.codec;
    pd_status st;

    if (name == NULL)
        return PD_OK;
    p->ops = ctx->host == NULL ? NULL : pd_host()->codec(ctx->host, name, &p->codec);
    if (p->ops == NULL) {
        pd_xp_fail(err, PD_ENOENT, "there is no codec \"%s\": add the module to load", name);
        return PD_ENOENT;
    }
    p->info.size = sizeof(p->info);
    p->ops->info(p->codec, &p->info);
    if ((p->info.flags & PD_CODEC_LOSSLESS) == 0 || p->info.max_bytes < tp->conf.frame_bytes ||
        strlen(name) >= sizeof(p->name)) {
        pd_xp_fail(err, PD_EINVAL, "the codec \"%s\" cannot be used: it %s", name,
                   strlen(name) >= sizeof(p->name) ? "has too long a name"
                   : p->info.max_bytes < tp->conf.frame_bytes ? "takes less than a frame at a time"
                                                              : "does not give back the same bytes");
        p->ops = NULL;
        return PD_EINVAL;
    }
    memcpy(p->name, name, strlen(name));
    st = p->ops->state_open(p->codec, &p->state);
    if (st == PD_OK && (p->plain = malloc(tp->conf.frame_bytes)) == NULL) {
        p->ops->state_close(p->state);
        st = PD_ENOMEM;
    }
    if (st != PD_OK) {
        p->ops = NULL;
        pd_xp_fail(err, st, "no memory for the codec \"%s\"", name);
        return st;
    }
    p->shrunk_from = counter(ctx, "pdplane_transport_codec_plain_bytes_total",
                             "Bytes of frames that went encoded, as they were before.");
    p->shrunk_to = counter(ctx, "pdplane_transport_codec_encoded_bytes_total",
                           "Bytes of frames that went encoded, as they were sent.");
    p->skipped = counter(ctx, "pdplane_transport_codec_skipped_bytes_total",
                         "Bytes that a codec was set for and that went plain, because encoding did not "
                         "make them shorter.");
    p->decoded = counter(ctx, "pdplane_transport_codec_decoded_bytes_total",
                         "Plain bytes of frames that came encoded.");
    p->failed = counter(ctx, "pdplane_transport_codec_failures_total",
                        "Frames that came encoded and could not be decoded.");
    return PD_OK;
}

void pd_xp_pack_close(struct pd_transport *tp)
{
    if (tp->pack.ops != NULL)
        tp->pack.ops->state_close(tp->pack.state);
    free(tp->pack.plain);
    tp->pack.ops = NULL;
    tp->pack.plain = NULL;
}

void pd_xp_pack_offer(const struct pd_transport *tp, struct pd_xp_hello *hello)
{
    if (tp->pack.ops == NULL)
        return;
    memcpy(hello->codec, tp->pack.name, sizeof(hello->codec));
    hello->codec_format = tp->pack.info.format;
}

bool pd_xp_pack_agrees(const struct pd_transport *tp, const struct pd_xp_hello *hello)
{
    bool same;

    if (tp->pack.ops == NULL)
        return false;
    same = memcmp(hello->codec, tp->pack.name, sizeof(hello->codec)) == 0 &&
           hello->codec_format == tp->pack.info.format;
    if (!same)
        pd_log_info(tp->log, "a peer does not have the codec \"%s\" in format %u: bytes go plain",
                    tp->pack.name, tp->pack.info.format);
    return same;
}

static void put32(uint8_t *p, uint32_t v)
{
    for (int i = 0; i < 4; i++)
        p[i] = (uint8_t)(v >> 8 * i);
}

static uint32_t get32(const uint8_t *p)
{
    return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

/* Copies between the range [from, from + len) of segs and one run of bytes. */
static void copy(const struct pd_xp_segs *segs, uint64_t from, uint64_t len, uint8_t *run, bool gather)
{
    struct pd_iov iov[PD_XP_IOV];

    while (len > 0) {
        uint64_t covered;
        size_t n = pd_xp_segs_iov(segs, from, len, iov, PD_XP_IOV, &covered);
        for (size_t i = 0; i < n; i++) {
            memcpy(gather ? run : iov[i].base, gather ? iov[i].base : run, iov[i].len);
            run += iov[i].len;
        }
        from += covered;
        len -= covered;
    }
}

/* The range itself when it is one run, else the instance's buffer. */
static uint8_t *run_of(struct pd_transport *tp, const struct pd_xp_segs *segs, uint64_t from, uint64_t len)
{
    struct pd_iov iov[1];
    uint64_t covered;

    pd_xp_segs_iov(segs, from, len, iov, 1, &covered);
    return covered == len ? iov[0].base : tp->pack.plain;
}

static void note_miss(struct pd_xp_lane *lane, uint32_t len)
{
    if (lane->pack_misses < SKIP_MAX)
        lane->pack_misses++;
    lane->pack_skip = 1u << lane->pack_misses;
    pd_counter_add(lane->tp->pack.skipped, len);
}

uint32_t pd_xp_pack_encode(struct pd_xp_lane *lane, const struct pd_transport_memory *memory,
                           const struct pd_xp_segs *segs, uint64_t from, uint32_t len)
{
    struct pd_transport *tp = lane->tp;
    struct pd_codec_hint hint = { .size = sizeof(hint), .dtype = memory->dtype,
                                  .element_bytes = memory->element_bytes };
    size_t cap = len - len / 32, got = 0;
    uint8_t *run;

    if (!lane->packs || len < LEAST)
        return 0;
    if (lane->pack_skip > 0) {
        lane->pack_skip--;
        pd_counter_add(tp->pack.skipped, len);
        return 0;
    }
    if (lane->pack_out == NULL && (lane->pack_out = malloc(tp->conf.frame_bytes)) == NULL)
        return 0;
    run = run_of(tp, segs, from, len);
    if (run == tp->pack.plain)
        copy(segs, from, len, run, true);
    lane->out.cost += len;
    if (tp->pack.ops->encode(tp->pack.state, &hint, run, len, lane->pack_out + HEAD, cap - HEAD, &got) !=
        PD_OK) {
        note_miss(lane, len);
        return 0;
    }
    lane->pack_misses = 0;
    put32(lane->pack_out, len);
    pd_counter_add(tp->pack.shrunk_from, len);
    pd_counter_add(tp->pack.shrunk_to, HEAD + got);
    return (uint32_t)(HEAD + got);
}

bool pd_xp_pack_allows(const struct pd_xp_lane *lane, const struct pd_xp_head *h)
{
    return lane->packs && (h->type == PD_XP_WRITE || h->type == PD_XP_DATA) && h->length > HEAD &&
           h->length <= lane->tp->conf.frame_bytes;
}

pd_status pd_xp_pack_begins(struct pd_xp_lane *lane)
{
    if (lane->pack_in == NULL && (lane->pack_in = malloc(lane->tp->conf.frame_bytes)) == NULL)
        return PD_ENOMEM;
    lane->in.sink = PD_XP_SINK_PACK;
    return PD_OK;
}

uint32_t pd_xp_pack_plain(const struct pd_xp_lane *lane)
{
    uint32_t len = get32(lane->pack_in);

    return len <= lane->tp->conf.frame_bytes ? len : 0;
}

pd_status pd_xp_pack_decode(struct pd_xp_lane *lane, const struct pd_xp_segs *segs, uint64_t to)
{
    struct pd_transport *tp = lane->tp;
    uint32_t len = pd_xp_pack_plain(lane);
    uint8_t *run = run_of(tp, segs, to, len);

    lane->in.cost += len;
    if (tp->pack.ops->decode(tp->pack.state, lane->pack_in + HEAD, lane->in.head.length - HEAD, run, len) !=
        PD_OK) {
        tp->stats.corrupt++;
        pd_counter_inc(tp->pack.failed);
        return PD_EINTEGRITY;
    }
    if (run == tp->pack.plain)
        copy(segs, to, len, run, false);
    pd_counter_add(tp->pack.decoded, len);
    return PD_OK;
}
