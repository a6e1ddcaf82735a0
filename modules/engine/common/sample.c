/* SPDX-License-Identifier: Apache-2.0 */
/* Sampler.  Invariant: the choice is a function of logits, parameters, past ids
 * and position; there is no state between choices, and all arithmetic has a
 * fixed order. */
#include "sample.h"

#include "fmath.h"

#include <stdlib.h>
#include <string.h>

struct candidate {
    float logit;
    uint32_t id;
    double p;
};

struct eng_sampler {
    uint32_t vocab;
    struct candidate *heap;
    uint32_t *count;            /* of past ids; all zero between choices */
    float *work;                /* logits less penalties */
};

pd_status eng_sampler_create(uint32_t vocab, struct eng_sampler **out)
{
    struct eng_sampler *s = calloc(1, sizeof(*s));

    *out = NULL;
    if (s == NULL)
        return PD_ENOMEM;
    s->vocab = vocab;
    s->heap = calloc(vocab, sizeof(*s->heap));
    s->count = calloc(vocab, sizeof(*s->count));
    s->work = calloc(vocab, sizeof(*s->work));
    if (s->heap == NULL || s->count == NULL || s->work == NULL) {
        eng_sampler_free(s);
        return PD_ENOMEM;
    }
    *out = s;
    return PD_OK;
}

void eng_sampler_free(struct eng_sampler *s)
{
    if (s == NULL)
        return;
    free(s->heap);
    free(s->count);
    free(s->work);
    free(s);
}

pd_status eng_sampling_check(const struct eng_sampling *p)
{
    bool ok = p->temperature >= 0 && p->temperature <= 100 && p->top_p > 0 && p->top_p <= 1 &&
              p->min_p >= 0 && p->min_p <= 1 && p->frequency_penalty >= -2 && p->frequency_penalty <= 2 &&
              p->presence_penalty >= -2 && p->presence_penalty <= 2 && p->logprobs <= ENG_MAX_TOP + 1;
    return ok ? PD_OK : PD_EINVAL;
}

void eng_philox(const uint32_t counter[4], const uint32_t key[2], uint32_t out[4])
{
    uint32_t c[4], k0 = key[0], k1 = key[1];

    memcpy(c, counter, sizeof(c));
    for (int i = 0; i < 10; i++) {
        uint64_t a = (uint64_t)0xD2511F53u * c[0], b = (uint64_t)0xCD9E8D57u * c[2];
        uint32_t n[4] = { (uint32_t)(b >> 32) ^ c[1] ^ k0, (uint32_t)b,
                          (uint32_t)(a >> 32) ^ c[3] ^ k1, (uint32_t)a };
        memcpy(c, n, sizeof(c));
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    memcpy(out, c, sizeof(c));
}

/* A number in [0, 1) with 53 random bits. */
static double draw(uint64_t seed, uint64_t position)
{
    uint32_t c[4] = { (uint32_t)position, (uint32_t)(position >> 32), 0, 0 };
    uint32_t k[2] = { (uint32_t)seed, (uint32_t)(seed >> 32) }, r[4];

    eng_philox(c, k, r);
    return (double)(((uint64_t)r[0] << 32 | r[1]) >> 11) * 0x1p-53;
}

static bool better(const struct candidate *a, const struct candidate *b)
{
    return a->logit > b->logit || (a->logit == b->logit && a->id < b->id);
}

static void sift(struct candidate *h, uint32_t n, uint32_t i)
{
    struct candidate x = h[i];

    for (uint32_t c; (c = 2 * i + 1) < n; i = c) {
        if (c + 1 < n && better(&h[c + 1], &h[c]))
            c++;
        if (!better(&h[c], &x))
            break;
        h[i] = h[c];
    }
    h[i] = x;
}

static void heap_make(struct eng_sampler *s, const float *logits)
{
    for (uint32_t i = 0; i < s->vocab; i++)
        s->heap[i] = (struct candidate){ .logit = logits[i], .id = i };
    for (uint32_t i = s->vocab / 2; i-- > 0;)
        sift(s->heap, s->vocab, i);
}

/* Moves the best of the first n to place n - 1. */
static void heap_pop(struct eng_sampler *s, uint32_t n)
{
    struct candidate x = s->heap[0];

    s->heap[0] = s->heap[n - 1];
    s->heap[n - 1] = x;
    if (n > 1)
        sift(s->heap, n - 1, 0);
}

static uint32_t best_of(const float *logits, uint32_t n)
{
    uint32_t b = 0;
    for (uint32_t i = 1; i < n; i++)
        if (logits[i] > logits[b])
            b = i;
    return b;
}

static bool finite_all(const float *logits, uint32_t n)
{
    bool ok = true;
    for (uint32_t i = 0; i < n; i++)
        ok &= logits[i] - logits[i] == 0;
    return ok;
}

/* Log of the sum of e^logit. */
static double log_sum(const float *logits, uint32_t n)
{
    double m = logits[best_of(logits, n)], z = 0;
    for (uint32_t i = 0; i < n; i++)
        z += eng_exp(logits[i] - m);
    return m + eng_log(z);
}

static void fill_tops(struct eng_sampler *s, const float *logits, uint32_t n, double lse,
                      struct eng_choice *out)
{
    uint32_t left = s->vocab;

    n = n < s->vocab ? n : s->vocab;
    if (n > 0)
        heap_make(s, logits);
    for (out->tops = 0; out->tops < n; out->tops++) {
        heap_pop(s, left--);
        out->top[out->tops].token = s->heap[left].id;
        out->top[out->tops].logprob = (float)((double)s->heap[left].logit - lse);
    }
}

/* Logits less penalties; the given ones when there are none. */
static const float *penalise(struct eng_sampler *s, const struct eng_sampling *p, const float *logits,
                             const uint32_t *past, size_t n)
{
    if ((p->frequency_penalty == 0 && p->presence_penalty == 0) || n == 0)
        return logits;
    memcpy(s->work, logits, s->vocab * sizeof(*logits));
    for (size_t i = 0; i < n; i++)
        if (past[i] < s->vocab)
            s->count[past[i]]++;
    for (size_t i = 0; i < n; i++) {
        uint32_t id = past[i];
        if (id >= s->vocab || s->count[id] == 0)
            continue;
        s->work[id] -= p->frequency_penalty * (float)s->count[id] + p->presence_penalty;
        s->count[id] = 0;
    }
    return s->work;
}

/* Best candidates first, as many as top_k, min_p and top_p leave; returns the total
 * of their weights and in *kept their number.  Candidates stand at the end of the heap. */
static double filter(struct eng_sampler *s, const struct eng_sampling *p, const float *logits,
                     double all, uint32_t *kept)
{
    uint32_t most = p->top_k > 0 && p->top_k < s->vocab ? p->top_k : s->vocab, left = s->vocab;
    double m = 0, sum = 0, base = 0, part = 0;

    heap_make(s, logits);
    *kept = 0;
    while (*kept < most) {
        heap_pop(s, left--);
        struct candidate *c = &s->heap[left];
        if (*kept == 0)
            m = (double)c->logit;
        c->p = eng_exp(((double)c->logit - m) / (double)p->temperature);
        if (c->p < (double)p->min_p)
            break;
        sum += c->p;
        (*kept)++;
        /* without top_k and min_p the total is known and top_p can end the walk early */
        if (most == s->vocab && p->min_p == 0 && sum >= (double)p->top_p * all)
            return sum;
    }
    base = sum;
    for (uint32_t i = 0; i < *kept; i++) {
        part += s->heap[s->vocab - 1 - i].p;
        if (part >= (double)p->top_p * base) {
            *kept = i + 1;
            return part;
        }
    }
    return base;
}

static uint32_t sample(struct eng_sampler *s, const struct eng_sampling *p, const float *logits, double u)
{
    double m = logits[best_of(logits, s->vocab)], sum = 0, part = 0;
    uint32_t kept, last = 0;

    for (uint32_t i = 0; i < s->vocab; i++)
        sum += eng_exp(((double)logits[i] - m) / (double)p->temperature);
    if (p->top_p >= 1 && p->min_p <= 0 && (p->top_k == 0 || p->top_k >= s->vocab)) {
        for (uint32_t i = 0; i < s->vocab; i++) {
            part += eng_exp(((double)logits[i] - m) / (double)p->temperature);
            last = i;
            if (part > u * sum)
                break;
        }
        return last;
    }
    sum = filter(s, p, logits, sum, &kept);
    for (uint32_t i = 0; i < kept; i++) {
        const struct candidate *c = &s->heap[s->vocab - 1 - i];
        part += c->p;
        last = c->id;
        if (part > u * sum)
            break;
    }
    return last;
}

pd_status eng_sampler_choose(struct eng_sampler *s, const struct eng_sampling *p, const float *logits,
                             uint64_t position, const uint32_t *past, size_t n,
                             struct eng_choice *out)
{
    const float *use;
    double lse;

    memset(out, 0, sizeof(*out));
    if (!finite_all(logits, s->vocab))
        return PD_EINTEGRITY;
    use = penalise(s, p, logits, past, n);
    out->token = p->temperature == 0 ? best_of(use, s->vocab)
                                     : sample(s, p, use, draw(p->seed, position));
    if (p->logprobs > 0) {
        lse = log_sum(logits, s->vocab);
        out->logprob = (float)((double)logits[out->token] - lse);
        fill_tops(s, logits, p->logprobs - 1, lse, out);
    }
    return PD_OK;
}
