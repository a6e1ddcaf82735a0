/* SPDX-License-Identifier: Apache-2.0 */
/* Sampler of the ref engine: published vectors of its generator, filters,
 * distribution, independence of everything but seed and position. */
#include "unit.h"

#include "hash.h"
#include "sample.h"

#include <math.h>

enum { V = 50 };

static void philox_vectors(void **state)
{
    static const struct {
        uint32_t c[4], k[2], want[4];
    } kat[] = {
        { { 0, 0, 0, 0 }, { 0, 0 }, { 0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8 } },
        { { 0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff }, { 0xffffffff, 0xffffffff },
          { 0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd } },
        { { 0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344 }, { 0xa4093822, 0x299f31d0 },
          { 0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1 } },
    };
    (void)state;
    for (size_t i = 0; i < sizeof(kat) / sizeof(kat[0]); i++) {
        uint32_t out[4];
        eng_philox(kat[i].c, kat[i].k, out);
        assert_memory_equal(out, kat[i].want, sizeof(out));
    }
}

static void siphash_vectors(void **state)
{
    static const uint8_t empty[16] = { 0xa3, 0x81, 0x7f, 0x04, 0xba, 0x25, 0xa8, 0xe6,
                                       0x6d, 0xf6, 0x72, 0x14, 0xc7, 0x55, 0x02, 0x93 };
    static const uint8_t one[16] = { 0xda, 0x87, 0xc1, 0xd8, 0x6b, 0x99, 0xaf, 0x44,
                                     0x34, 0x76, 0x59, 0x11, 0x9b, 0x22, 0xfc, 0x45 };
    uint8_t key[16], zero = 0;
    struct eng_hash h;
    (void)state;
    for (int i = 0; i < 16; i++)
        key[i] = (uint8_t)i;
    h = eng_siphash(key, "", 0);
    for (int i = 0; i < 16; i++)
        assert_int_equal((i < 8 ? h.lo : h.hi) >> (8 * (i & 7)) & 0xff, empty[i]);
    h = eng_siphash(key, &zero, 1);
    for (int i = 0; i < 16; i++)
        assert_int_equal((i < 8 ? h.lo : h.hi) >> (8 * (i & 7)) & 0xff, one[i]);
}

static void fill(float *lg)
{
    for (int i = 0; i < V; i++)
        lg[i] = (float)((i * 37) % V) / 8.0f;
}

static struct eng_choice choose(struct eng_sampling p, uint64_t pos, const uint32_t *past, size_t n)
{
    struct eng_sampler *s;
    struct eng_choice c;
    float lg[V];
    fill(lg);
    assert_int_equal(eng_sampling_check(&p), PD_OK);
    assert_int_equal(eng_sampler_create(V, &s), PD_OK);
    assert_int_equal(eng_sampler_choose(s, &p, lg, pos, past, n, &c), PD_OK);
    eng_sampler_free(s);
    return c;
}

static void greedy_and_logprobs(void **state)
{
    struct eng_choice c = choose((struct eng_sampling){ .top_p = 1, .logprobs = 6 }, 3, NULL, 0);
    double z = 0, at = 0;
    float lg[V];
    (void)state;
    fill(lg);
    for (int i = 0; i < V; i++)
        z += exp((double)lg[i]);
    for (uint32_t i = 0; i < V; i++)
        if (lg[i] == 49 / 8.0f)
            assert_int_equal(c.token, i);
    assert_true(fabs((double)c.logprob - ((double)lg[c.token] - log(z))) < 1e-6);
    assert_int_equal(c.tops, 5);
    assert_int_equal(c.top[0].token, c.token);
    assert_true(c.top[0].logprob == c.logprob);
    for (uint32_t i = 0; i < 5; i++) {
        assert_true(fabs((double)c.top[i].logprob - ((double)(49 - i) / 8.0 - log(z))) < 1e-6);
        at += exp((double)c.top[i].logprob);
    }
    assert_true(at < 1);
    assert_int_equal(choose((struct eng_sampling){ .top_p = 1, .logprobs = 1 }, 3, NULL, 0).tops, 0);
    assert_true(choose((struct eng_sampling){ .top_p = 1 }, 3, NULL, 0).logprob == 0);
}

/* Counts 20000 draws against the wanted probabilities. */
static void spread(struct eng_sampling p, const double *want)
{
    struct eng_sampler *s;
    struct eng_choice c;
    float lg[V];
    int count[V] = { 0 };
    double chi = 0;
    int cells = 0;
    assert_int_equal(eng_sampler_create(V, &s), PD_OK);
    for (uint64_t i = 0; i < 20000; i++) {
        fill(lg);
        assert_int_equal(eng_sampler_choose(s, &p, lg, i, NULL, 0, &c), PD_OK);
        count[c.token]++;
    }
    for (int i = 0; i < V; i++) {
        if (want[i] == 0) {
            assert_int_equal(count[i], 0);
            continue;
        }
        chi += (count[i] - 20000 * want[i]) * (count[i] - 20000 * want[i]) / (20000 * want[i]);
        cells++;
    }
    assert_true(chi < cells + 5 * sqrt(2.0 * cells) + 5);
    eng_sampler_free(s);
}

static void distribution(void **state)
{
    double p[V], q[V], z = 0, part = 0, most = 0;
    float lg[V];
    (void)state;
    fill(lg);
    for (int i = 0; i < V; i++)
        z += p[i] = exp((double)lg[i] / 0.7);
    for (int i = 0; i < V; i++) {
        p[i] /= z;
        most = p[i] > most ? p[i] : most;
    }
    spread((struct eng_sampling){ .temperature = 0.7f, .top_p = 1, .seed = 5 }, p);
    for (int i = 0; i < V; i++)
        part += q[i] = lg[i] > 46.5f / 8 ? p[i] : 0;
    for (int i = 0; i < V; i++)
        q[i] /= part;
    spread((struct eng_sampling){ .temperature = 0.7f, .top_p = 1, .top_k = 3, .seed = 6 }, q);
    part = 0;
    for (int i = 0; i < V; i++)
        part += q[i] = p[i] >= 0.2 * most ? p[i] : 0;
    for (int i = 0; i < V; i++)
        q[i] /= part;
    spread((struct eng_sampling){ .temperature = 0.7f, .top_p = 1, .min_p = 0.2f, .seed = 7 }, q);
    part = 0;
    memset(q, 0, sizeof(q));
    for (int k = 49; k >= 0 && part < 0.8; k--)
        for (int i = 0; i < V; i++)
            if (lg[i] == (float)k / 8.0f)
                part += q[i] = p[i];
    for (int i = 0; i < V; i++)
        q[i] /= part;
    spread((struct eng_sampling){ .temperature = 0.7f, .top_p = 0.8f, .seed = 8 }, q);
}

static void seed_and_position_only(void **state)
{
    struct eng_sampling p = { .temperature = 1, .top_p = 1, .seed = 42 };
    int differ = 0;
    (void)state;
    for (uint64_t pos = 0; pos < 200; pos++) {
        uint32_t a = choose(p, pos, NULL, 0).token;
        assert_int_equal(a, choose(p, pos, NULL, 0).token);
        p.seed = 43;
        differ += a != choose(p, pos, NULL, 0).token;
        p.seed = 42;
    }
    assert_true(differ > 100);
}

static void penalties(void **state)
{
    struct eng_sampling p = { .top_p = 1, .logprobs = 1 };
    struct eng_choice plain = choose(p, 0, NULL, 0), c;
    uint32_t past[3] = { plain.token, plain.token, 99999 };
    (void)state;
    p.presence_penalty = 0.1f;
    assert_int_equal(choose(p, 0, past, 3).token, plain.token);
    p.frequency_penalty = 0.1f;
    c = choose(p, 0, past, 3);
    assert_int_not_equal(c.token, plain.token);
    assert_true(fabs((double)(plain.logprob - c.logprob) - 0.125) < 1e-6);
}

static void refusals(void **state)
{
    struct eng_sampler *s;
    struct eng_choice c;
    struct eng_sampling p = { .top_p = 1 };
    float lg[V];
    (void)state;
    assert_int_equal(eng_sampler_create(V, &s), PD_OK);
    fill(lg);
    lg[17] = NAN;
    assert_int_equal(eng_sampler_choose(s, &p, lg, 0, NULL, 0, &c), PD_EINTEGRITY);
    lg[17] = INFINITY;
    assert_int_equal(eng_sampler_choose(s, &p, lg, 0, NULL, 0, &c), PD_EINTEGRITY);
    eng_sampler_free(s);
    p.top_p = 0;
    assert_int_equal(eng_sampling_check(&p), PD_EINVAL);
    p = (struct eng_sampling){ .top_p = 1, .temperature = NAN };
    assert_int_equal(eng_sampling_check(&p), PD_EINVAL);
    p = (struct eng_sampling){ .top_p = 1, .logprobs = 22 };
    assert_int_equal(eng_sampling_check(&p), PD_EINVAL);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(philox_vectors), cmocka_unit_test(siphash_vectors),
    cmocka_unit_test(greedy_and_logprobs), cmocka_unit_test(distribution),
    cmocka_unit_test(seed_and_position_only), cmocka_unit_test(penalties), cmocka_unit_test(refusals),
};
PD_UNIT_MAIN(tests)
