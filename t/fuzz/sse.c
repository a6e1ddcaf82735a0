/* SPDX-License-Identifier: Apache-2.0 */
/* Server-sent events: cuts do not matter, and what is framed by us is read back.
 *
 * Input: seed of the cuts, then the stream. */
#include "fuzz.h"

#include "net/sse.h"

enum { LIMIT = 512 };
enum { WHOLE, BYTES, CUTS };

struct run {
    struct pd_buf log;
    struct pd_buf framed;
    uint32_t n;
};

static void put(struct run *r, struct pd_str s)
{
    pd_buf_append(&r->log, &s.n, sizeof s.n);
    pd_buf_append_str(&r->log, s);
}

static void on_event(const struct pd_sse_event *event, void *arg)
{
    struct run *r = arg;
    FUZZ_CHECK(event->data.n <= LIMIT && event->event.n <= LIMIT && event->id.n <= LIMIT);
    put(r, event->event);
    put(r, event->data);
    put(r, event->id);
    (void)pd_sse_is_done(event);
    FUZZ_CHECK(pd_sse_append(&r->framed, event->event, event->data) == PD_OK);
    struct pd_iov iov[3];
    pd_status status = pd_sse_frame(event->data, iov);
    bool breaks = event->data.n > 0 && memchr(event->data.p, '\n', event->data.n) != NULL;
    FUZZ_CHECK(status == (breaks ? PD_EINVAL : PD_OK));
    r->n++;
}

static void run(struct run *r, const char *p, size_t n, int way, uint32_t seed)
{
    struct pd_sse sse;
    if (r->log.limit == 0) {
        pd_buf_init(&r->log, 1 << 24);
        pd_buf_init(&r->framed, 1 << 24);
    }
    pd_buf_clear(&r->log);
    pd_buf_clear(&r->framed);
    r->n = 0;
    pd_sse_init(&sse, LIMIT);
    pd_status status = PD_OK;
    for (size_t off = 0; off < n && status == PD_OK;) {
        size_t step = way == WHOLE ? n : way == BYTES ? 1 : 1 + fuzz_next(&seed) % 29;
        step = step < n - off ? step : n - off;
        char *copy = fuzz_lend(p + off, step);
        status = pd_sse_feed(&sse, copy, step, on_event, r);
        fuzz_back(copy, step);
        off += step;
    }
    FUZZ_CHECK(status == PD_OK || status == PD_ELIMIT);
    FUZZ_CHECK(sse.events == r->n);
    if (status == PD_OK) {
        const uint64_t facts[] = { pd_sse_is_inside(&sse), sse.comments };
        pd_buf_append(&r->log, facts, sizeof facts);
    } else {
        pd_buf_append_cstr(&r->log, "too large\n");
    }
    pd_sse_fini(&sse);
    FUZZ_CHECK(r->log.status == PD_OK && r->framed.status == PD_OK);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_in in = { data, size };
    static struct run whole, other;
    uint32_t seed = fuzz_u8(&in);
    run(&whole, (const char *)in.p, in.n, WHOLE, 0);
    for (int way = BYTES; way <= CUTS; way++) {
        if (way != (seed % 4 == 0 ? BYTES : CUTS) && !fuzz_all_ways())
            continue;
        run(&other, (const char *)in.p, in.n, way, seed);
        if (!fuzz_same(pd_buf_str(&whole.log), pd_buf_str(&other.log))) {
            fprintf(stderr, "whole:\n%.*s\ncut:\n%.*s\n", (int)whole.log.n, whole.log.p, (int)other.log.n,
                    other.log.p);
            FUZZ_CHECK(!"cuts change what comes out");
        }
    }
    /* Framed again, the same events come out (but for ids, which we never send). */
    run(&other, whole.framed.p, whole.framed.n, WHOLE, 0);
    FUZZ_CHECK(other.n == whole.n || other.log.n == 0 || whole.framed.n > LIMIT);
    FUZZ_CHECK(other.n > 0 || whole.n == 0 || whole.framed.n > LIMIT);
    return 0;
}
