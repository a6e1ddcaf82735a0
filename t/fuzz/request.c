/* SPDX-License-Identifier: Apache-2.0 */
/* Requests of clients: what is accepted stays within the limits, can be sent
 * on, and the sent text is a request of the same meaning.
 *
 * Input: kind, then the body. */
#include "fuzz.h"

#include "api/api.h"

static const struct pd_api_limits limits = { .size = sizeof limits, .max_choices = 8, .max_prompts = 64,
                                             .max_messages = 4096, .max_output = 1 << 20 };

static void check(const struct pd_api_request *r)
{
    FUZZ_CHECK(r->n_choices >= 1 && r->n_choices <= limits.max_choices);
    FUZZ_CHECK(r->n_prompts >= 1 && r->n_prompts <= limits.max_prompts);
    FUZZ_CHECK(r->n_messages <= limits.max_messages && r->n_legs == r->n_prompts * r->n_choices);
    FUZZ_CHECK(r->n_stops <= PD_API_MAX_STOPS && r->max_output <= limits.max_output);
    FUZZ_CHECK(r->sampling.logprobs <= PD_API_MAX_TOP);
    FUZZ_CHECK(r->sampling.temperature >= 0 && r->sampling.temperature <= 100);
    FUZZ_CHECK(r->sampling.top_p >= 0 && r->sampling.top_p <= 1);
    for (uint32_t i = 0; i < r->n_stops; i++)
        FUZZ_CHECK(r->stops[i].n <= PD_API_STOP_MAX);
}

/* Every leg of it can be sent to a decode node. */
static void legs(struct pd_api *api, const struct pd_api_request *r)
{
    for (uint32_t i = 0; i < r->n_prompts; i++) {
        struct pd_leg leg = { .size = sizeof leg, .kind = r->kind, .request_id = PD_STR("r"), .model = r->model,
                              .engine = PD_STR("e"), .cache_salt = r->cache_salt, .sampling = r->sampling,
                              .max_output = r->max_output, .priority = r->priority, .n_stops = r->n_stops,
                              .n_messages = r->n_messages, .messages = r->messages, .decide = 1 };
        struct pd_api_message *back;
        struct pd_str bytes;
        for (uint32_t k = 0; k < r->n_stops; k++)
            leg.stops[k] = r->stops[k];
        if (r->kind == PD_API_COMPLETIONS)
            leg.prompt = r->prompts[i];
        FUZZ_CHECK(pd_api_leg_encode(api, &leg, &bytes) == PD_OK);
        FUZZ_CHECK(pd_api_leg_decode(api, bytes, &back) == PD_OK);
        FUZZ_CHECK(back->leg->n_messages == leg.n_messages && back->leg->n_stops == leg.n_stops);
        pd_api_message_free(api, back);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_in in = { data, size };
    struct pd_api *api;
    struct pd_api_request *r, *again;
    struct pd_api_error error = { .size = sizeof error };
    struct pd_str sent, ids[8];
    uint8_t mode = fuzz_u8(&in);
    uint32_t kind = mode & 1 ? PD_API_CHAT : PD_API_COMPLETIONS, count = 0;
    struct pd_str body;
    char *p = fuzz_rest(&in, &body.n);
    body.p = p;
    FUZZ_CHECK(pd_api_create(&api) == PD_OK);
    if (mode & 2) {
        pd_status status = pd_api_models_read(api, body, ids, 8, &count);
        for (uint32_t i = 0; status == PD_OK && i < count && i < 8; i++)
            FUZZ_CHECK(ids[i].p != NULL);
    } else if (pd_api_request_parse(api, kind, body, &limits, &r, &error) != PD_OK) {
        FUZZ_CHECK(error.http >= 400 && error.http < 600 && error.type != NULL && error.message[0] != '\0');
        FUZZ_CHECK(pd_api_error_write(api, &error, &sent) == PD_OK);
    } else {
        FUZZ_CHECK(pd_api_request_texts(api, r) == PD_OK);
        check(r);
        if (r->unsupported.http == 0)
            legs(api, r);
        FUZZ_CHECK(pd_api_request_forward(api, r, PD_STR("other \"name\""), true, &sent) == PD_OK);
        char *copy = malloc(sent.n + 1);
        FUZZ_CHECK(copy != NULL);
        memcpy(copy, sent.p, sent.n);
        sent.p = copy;
        pd_status status = pd_api_request_parse(api, kind, sent, &limits, &again, &error);
        FUZZ_CHECK(status == PD_OK);
        FUZZ_CHECK(fuzz_same(again->model, PD_STR("other \"name\"")));
        FUZZ_CHECK(again->n_legs == r->n_legs && again->stream == r->stream && again->n_stops == r->n_stops);
        FUZZ_CHECK(fuzz_same(again->prompt_json, r->prompt_json));
        pd_api_request_free(api, again);
        free(copy);
        pd_api_request_free(api, r);
    }
    pd_api_destroy(api);
    fuzz_back(p, body.n);
    return 0;
}
