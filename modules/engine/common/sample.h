/* SPDX-License-Identifier: Apache-2.0 */
/* Choice of the next token.  The random number of a choice depends on seed and
 * position only, so a sequence can move to another node, be recomputed or be
 * resumed and goes on with the same tokens. */
#ifndef ENG_SAMPLE_H
#define ENG_SAMPLE_H

#include <pdplane/types.h>

enum { ENG_MAX_TOP = 20 };

struct eng_sampling {
    float temperature;          /* 0: greedy, lowest id on a tie */
    float top_p;                /* (0, 1], 1 off */
    float min_p;                /* [0, 1], 0 off: least share of the best token's probability */
    uint32_t top_k;             /* 0 off */
    float frequency_penalty, presence_penalty;  /* subtracted from logits, 0 off */
    uint64_t seed;
    uint32_t logprobs;          /* 0: none; n + 1: the chosen token's and the n best, n <= 20 */
};

struct eng_choice {
    uint32_t token;
    uint32_t tops;
    float logprob;              /* of the chosen token, over the whole vocabulary, before all
                                   filters, penalties and temperature; 0 if not asked for */
    struct {
        uint32_t token;
        float logprob;
    } top[ENG_MAX_TOP];         /* best first, lowest id on a tie */
};

struct eng_sampler;             /* scratch memory, one choice at a time */

pd_status eng_sampler_create(uint32_t vocab, struct eng_sampler **out);
void eng_sampler_free(struct eng_sampler *s);

/* PD_OK if all parameters are in range, else PD_EINVAL. */
pd_status eng_sampling_check(const struct eng_sampling *p);

/* Chooses a token.  position is that of the new token in its sequence; past are the
 * ids generated so far (for penalties, borrowed).  Order: penalties, temperature,
 * top_k, min_p, top_p, draw.  Returns PD_OK, or
 * PD_EINTEGRITY when logits are not finite, which means damaged KV or weights. */
pd_status eng_sampler_choose(struct eng_sampler *s, const struct eng_sampling *p, const float *logits,
                             uint64_t position, const uint32_t *past, size_t n,
                             struct eng_choice *out);

/* Philox4x32-10. */
void eng_philox(const uint32_t counter[4], const uint32_t key[2], uint32_t out[4]);

#endif
