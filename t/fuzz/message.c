/* SPDX-License-Identifier: Apache-2.0 */
/* Messages between roles: what is decoded can be encoded, and that decodes to
 * the same bytes again.
 *
 * Input: which message, then its bytes. */
#include "fuzz.h"

#include "api/api.h"

static char first[1 << 22];
static size_t first_n;

static void keep(struct pd_str s)
{
    FUZZ_CHECK(s.n <= sizeof first);
    memcpy(first, s.p, s.n);
    first_n = s.n;
}

static bool is_kept(struct pd_str s)
{
    return fuzz_same(s, (struct pd_str){ first, first_n });
}

static void leg(struct pd_api *api, struct pd_str bytes)
{
    struct pd_api_message *m, *again;
    struct pd_str out;
    if (pd_api_leg_decode(api, bytes, &m) != PD_OK)
        return;
    FUZZ_CHECK(pd_api_leg_encode(api, m->leg, &out) == PD_OK);
    keep(out);
    FUZZ_CHECK(pd_api_leg_decode(api, (struct pd_str){ first, first_n }, &again) == PD_OK);
    FUZZ_CHECK(pd_api_leg_encode(api, again->leg, &out) == PD_OK && is_kept(out) && is_kept(bytes));
    pd_api_message_free(api, again);
    pd_api_message_free(api, m);
}

static void order(struct pd_api *api, struct pd_str bytes)
{
    struct pd_api_message *m;
    struct pd_str out;
    if (pd_api_order_decode(api, bytes, &m) != PD_OK)
        return;
    const struct pd_leg_order *o = m->order;
    FUZZ_CHECK(o->from < o->upto && o->upto <= o->n_tokens && o->n_output < o->n_tokens);
    for (uint32_t i = 0; i < o->n_tokens; i++)
        FUZZ_CHECK(o->tokens[i] >= 0);
    FUZZ_CHECK(pd_api_order_encode(api, o, &out) == PD_OK && fuzz_same(out, bytes));
    pd_api_message_free(api, m);
}

#define EVENT(name)                                                                                \
    static void name(struct pd_api *api, struct pd_str bytes)                                      \
    {                                                                                              \
        struct pd_leg_##name m, again;                                                             \
        struct pd_str out;                                                                         \
        memset(&m, 0x5a, sizeof m);                                                                \
        memset(&again, 0xa5, sizeof again);                                                        \
        if (pd_api_##name##_decode(api, bytes, &m) != PD_OK)                                       \
            return;                                                                                \
        FUZZ_CHECK(pd_api_##name##_encode(api, &m, &out) == PD_OK);                                \
        keep(out);                                                                                 \
        FUZZ_CHECK(pd_api_##name##_decode(api, (struct pd_str){ first, first_n }, &again) == PD_OK); \
        FUZZ_CHECK(pd_api_##name##_encode(api, &again, &out) == PD_OK && is_kept(out));            \
    }
EVENT(started)
EVENT(handover)
EVENT(token)
EVENT(end)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static void (*const kinds[])(struct pd_api *, struct pd_str) = { leg, order, started, handover, token, end };
    struct fuzz_in in = { data, size };
    struct pd_api *api;
    uint8_t kind = fuzz_u8(&in);
    size_t n;
    char *p = fuzz_rest(&in, &n);
    FUZZ_CHECK(pd_api_create(&api) == PD_OK);
    kinds[kind % 6](api, (struct pd_str){ p, n });
    pd_api_destroy(api);
    fuzz_back(p, n);
    return 0;
}
