/* SPDX-License-Identifier: Apache-2.0 */
#include "whatif/work.h"

#include <math.h>
#include <string.h>

#include "base/hash.h"
#include "base/json.h"
#include "base/mem.h"

#define TOKENS_MAX 1000000u
#define BURSTY_VARIATION 4.0        /* squared coefficient of variation */

const char *const pd_whatif_arrivals[] = { "poisson", "constant", "bursty", NULL };
const char *const pd_whatif_lengths[] = { "fixed", "exponential", NULL };

/* ---- chance: one number after the other from a seed, the same on each machine ---------- */

static double unit_of(uint64_t *x)
{
    *x = pd_hash_u64(*x, 0);
    return ((double)(*x >> 11) + 0.5) / 9007199254740992.0;
}

/* Mean 1. */
static double exponential(uint64_t *x)
{
    return -log(unit_of(x));
}

/* Mean 1: two exponential times of which one is short and likely, the other long. */
static double bursty(uint64_t *x)
{
    double p = (1 + sqrt((BURSTY_VARIATION - 1) / (BURSTY_VARIATION + 1))) / 2;
    double rate = unit_of(x) < p ? 2 * p : 2 * (1 - p);
    return exponential(x) / rate;
}

static double gap_of(const struct pd_whatif_work_opts *o, uint64_t *x)
{
    switch (o->arrival) {
    case PD_WHATIF_CONSTANT: return 1;
    case PD_WHATIF_BURSTY: return bursty(x);
    default: return exponential(x);
    }
}

static uint32_t length_of(const struct pd_whatif_work_opts *o, uint64_t mean, uint64_t *x)
{
    double n = (double)mean;
    if (o->lengths == PD_WHATIF_EXPONENTIAL)
        n = ceil(n * exponential(x));
    return n < 1 ? 1 : n > TOKENS_MAX ? TOKENS_MAX : (uint32_t)n;
}

/* ---- traffic -------------------------------------------------------------------------------- */

static pd_status arrivals_take(struct pd_whatif_work *w, double speed)
{
    w->arrivals = pd_calloc(w->trace.n_rows, sizeof *w->arrivals);
    if (w->arrivals == NULL)
        return PD_ENOMEM;
    for (size_t i = 0; i < w->trace.n_rows; i++)
        w->arrivals[i] = (pd_time)((double)w->trace.rows[i].at / speed);
    return PD_OK;
}

/* One list of block hashes for each group, shared by the rows of it. */
static pd_status groups_make(const struct pd_whatif_work_opts *o, struct pd_bench_trace *t, uint32_t blocks)
{
    uint64_t x = pd_hash_u64(o->seed, 2);
    t->n_hashes = (size_t)(blocks * o->groups);
    t->hashes = pd_calloc(t->n_hashes + 1, sizeof *t->hashes);
    if (t->hashes == NULL)
        return PD_ENOMEM;
    for (size_t i = 0; i < t->n_hashes; i++)
        t->hashes[i] = x = pd_hash_u64(x, 0);
    return PD_OK;
}

static pd_status rows_make(const struct pd_whatif_work_opts *o, struct pd_bench_trace *t)
{
    uint32_t blocks = (uint32_t)(o->shared / PD_BENCH_TRACE_BLOCK);
    uint64_t arrivals = pd_hash_u64(o->seed, 1), x = pd_hash_u64(o->seed, 3);
    double at = 0;
    if (o->requests > PD_BENCH_TRACE_ROWS || (uint64_t)blocks * o->groups > UINT32_MAX / 2)
        return PD_ELIMIT;
    pd_status status = groups_make(o, t, blocks);
    t->rows = pd_calloc(o->requests, sizeof *t->rows);
    if (status != PD_OK || t->rows == NULL)
        return PD_ENOMEM;
    t->n_rows = o->requests;
    for (size_t i = 0; i < t->n_rows; i++) {
        struct pd_bench_trace_row *r = &t->rows[i];
        uint64_t group = (uint64_t)(unit_of(&x) * (double)o->groups);
        at += gap_of(o, &arrivals) / o->rate;
        *r = (struct pd_bench_trace_row){ .at = (pd_time)(at * 1e9), .first = (uint32_t)(group * blocks),
                                          .count = blocks };
        r->input = blocks * PD_BENCH_TRACE_BLOCK + length_of(o, o->input, &x);
        r->output = length_of(o, o->output, &x);
    }
    return PD_OK;
}

pd_status pd_whatif_work_make(const struct pd_whatif_work_opts *o, struct pd_whatif_work *out)
{
    memset(out, 0, sizeof *out);
    if (o->rate <= 0 || o->requests == 0 || o->groups == 0 || o->input == 0 || o->output == 0)
        return PD_EINVAL;
    pd_status status = o->is_sessions ? pd_bench_trace_make(o->seed, o->requests, o->rate, &out->trace)
                                      : rows_make(o, &out->trace);
    return status == PD_OK ? arrivals_take(out, 1) : status;
}

pd_status pd_whatif_work_read(struct pd_str text, double speed, struct pd_whatif_work *out, struct pd_err *err)
{
    memset(out, 0, sizeof *out);
    pd_status status = pd_bench_trace_read(text, &out->trace, err);
    return status == PD_OK ? arrivals_take(out, speed) : status;
}

void pd_whatif_work_free(struct pd_whatif_work *w)
{
    pd_bench_trace_free(&w->trace);
    pd_free(w->arrivals);
    memset(w, 0, sizeof *w);
}

pd_status pd_whatif_work_body(const struct pd_whatif_work *w, uint64_t index, struct pd_buf *out)
{
    pd_buf_append_cstr(out, "{\"model\":");
    pd_json_put_cstr(out, w->model);
    pd_buf_append_cstr(out, ",\"prompt\":\"");
    /* Words and digits: nothing in it needs an escape. */
    (void)pd_bench_trace_text(&w->trace, index, out);
    return pd_buf_appendf(out, "\",\"max_tokens\":%u,\"temperature\":0%s}", w->trace.rows[index].output,
                          w->is_whole ? "" : ",\"stream\":true");
}
