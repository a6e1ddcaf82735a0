/* SPDX-License-Identifier: Apache-2.0 */
/* Wire form of what a decode node reports about a leg: started, hand-over,
 * token, end.  Small messages, one per token, so nothing here allocates once
 * the scratch buffer has grown. */
#include "api/api.h"

#include <string.h>

#include "base/compiler.h"
#include "base/str.h"
#include "base/utf8.h"
#include "base/wire.h"

#define TEXT_MAX (1u << 20)
#define PIECE_MAX 4096u
#define SENTENCE_MAX 256u

/* The error types that may cross; an index crosses instead of the text. */
static const char *const error_types[] = {
    "invalid_request_error", "authentication_error", "permission_error", "not_found_error",
    "rate_limit_error", "timeout_error", "server_error",
};

static const char *const error_codes[] = {
    NULL, "invalid_value", "unsupported_parameter", "context_length_exceeded", "model_not_found",
    "queue_full", "engine_protocol", "kv_integrity", "no_prefill", "no_decode", "draining",
    "overloaded", "deadline_exceeded", "internal",
};

static uint8_t index_of(const char *const *table, size_t n, const char *text, uint8_t otherwise)
{
    for (size_t i = 0; i < n; i++) {
        if (text != NULL && table[i] != NULL && strcmp(table[i], text) == 0)
            return (uint8_t)i;
    }
    return otherwise;
}

pd_status pd_api_scratch_open(struct pd_api *api, size_t bound, struct pd_writer *w)
{
    pd_buf_clear(&api->scratch);
    pd_status status = pd_buf_reserve(&api->scratch, bound);
    if (status == PD_OK)
        pd_writer_init(w, pd_buf_tail(&api->scratch), bound);
    return status;
}

pd_status pd_api_scratch_close(struct pd_api *api, const struct pd_writer *w, struct pd_str *out)
{
    size_t n;
    pd_status status = pd_writer_finish(w, &n);
    if (status != PD_OK)
        return status;
    pd_buf_commit(&api->scratch, n);
    *out = pd_buf_str(&api->scratch);
    return PD_OK;
}

void pd_api_put_str16(struct pd_writer *w, struct pd_str s, size_t max)
{
    if (s.n > max)
        w->failed = true;
    pd_writer_str16(w, s);
}

static void put_float(struct pd_writer *w, float v)
{
    uint32_t bits;
    memcpy(&bits, &v, sizeof bits);
    pd_writer_u32(w, bits);
}

static float get_float(struct pd_reader *r)
{
    uint32_t bits = pd_reader_u32(r);
    float v;
    memcpy(&v, &bits, sizeof v);
    return v;
}

/* A sentence for people is cut rather than refused. */
static void put_sentence(struct pd_writer *w, struct pd_str s)
{
    if (s.n > SENTENCE_MAX)
        s.n = SENTENCE_MAX - pd_utf8_tail(s.p, SENTENCE_MAX);
    pd_writer_str16(w, s);
}

pd_status pd_api_started_encode(struct pd_api *api, const struct pd_leg_started *m,
                                struct pd_str *out)
{
    struct pd_writer w;
    pd_status status = pd_api_scratch_open(api, 64 + m->reason.n + m->prefill.n, &w);
    if (status != PD_OK)
        return status;
    pd_writer_u32(&w, m->prompt_tokens);
    pd_writer_u32(&w, m->cached_tokens);
    pd_writer_u8(&w, m->remote != 0);
    put_sentence(&w, m->reason);
    pd_api_put_str16(&w, m->prefill, PD_API_NAME_MAX);
    return pd_api_scratch_close(api, &w, out);
}

pd_status pd_api_started_decode(struct pd_api *api, struct pd_str bytes, struct pd_leg_started *m)
{
    (void)api;
    struct pd_reader r;
    pd_reader_init(&r, bytes.p, bytes.n);
    memset(m, 0, sizeof *m);
    m->prompt_tokens = pd_reader_u32(&r);
    m->cached_tokens = pd_reader_u32(&r);
    m->remote = pd_reader_u8(&r) != 0;
    m->reason = pd_reader_str16(&r, SENTENCE_MAX);
    m->prefill = pd_reader_str16(&r, PD_API_NAME_MAX);
    return pd_reader_finish(&r);
}

pd_status pd_api_handover_encode(struct pd_api *api, const struct pd_leg_handover *m,
                                 struct pd_str *out)
{
    struct pd_writer w;
    pd_status status = pd_api_scratch_open(api, 128 + m->transport.n + m->prefill.n + m->detail.n,
                                           &w);
    if (status != PD_OK)
        return status;
    pd_writer_u32(&w, m->verdict);
    pd_writer_u32(&w, m->blocks);
    pd_writer_u64(&w, m->bytes);
    pd_writer_u64(&w, m->prefill_ns);
    pd_writer_u64(&w, m->transfer_ns);
    pd_writer_u32(&w, m->tokens);
    pd_writer_u32(&w, m->cached_tokens);
    pd_api_put_str16(&w, m->transport, PD_API_NAME_MAX);
    pd_api_put_str16(&w, m->prefill, PD_API_NAME_MAX);
    put_sentence(&w, m->detail);
    return pd_api_scratch_close(api, &w, out);
}

pd_status pd_api_handover_decode(struct pd_api *api, struct pd_str bytes, struct pd_leg_handover *m)
{
    (void)api;
    struct pd_reader r;
    pd_reader_init(&r, bytes.p, bytes.n);
    memset(m, 0, sizeof *m);
    m->verdict = pd_reader_u32(&r);
    m->blocks = pd_reader_u32(&r);
    m->bytes = pd_reader_u64(&r);
    m->prefill_ns = pd_reader_u64(&r);
    m->transfer_ns = pd_reader_u64(&r);
    m->tokens = pd_reader_u32(&r);
    m->cached_tokens = pd_reader_u32(&r);
    m->transport = pd_reader_str16(&r, PD_API_NAME_MAX);
    m->prefill = pd_reader_str16(&r, PD_API_NAME_MAX);
    m->detail = pd_reader_str16(&r, SENTENCE_MAX);
    return pd_reader_finish(&r);
}

pd_status pd_api_token_encode(struct pd_api *api, const struct pd_leg_token *m, struct pd_str *out)
{
    struct pd_writer w;
    size_t bound = 64 + m->text.n + m->bytes.n;
    if (m->n_top > PD_API_MAX_TOP || m->text.n > TEXT_MAX)
        return PD_EINVAL;
    for (uint32_t i = 0; i < m->n_top; i++)
        bound += 16 + m->top[i].bytes.n;
    pd_status status = pd_api_scratch_open(api, bound, &w);
    if (status != PD_OK)
        return status;
    pd_writer_u32(&w, (uint32_t)m->id);
    pd_writer_u32(&w, m->index);
    pd_writer_str32(&w, m->text);
    pd_api_put_str16(&w, m->bytes, PIECE_MAX);
    pd_writer_u8(&w, m->has_logprob != 0);
    put_float(&w, m->logprob);
    pd_writer_u8(&w, (uint8_t)m->n_top);
    for (uint32_t i = 0; i < m->n_top; i++) {
        pd_writer_u32(&w, (uint32_t)m->top[i].token);
        put_float(&w, m->top[i].logprob);
        pd_api_put_str16(&w, m->top[i].bytes, PIECE_MAX);
    }
    return pd_api_scratch_close(api, &w, out);
}

pd_status pd_api_token_decode(struct pd_api *api, struct pd_str bytes, struct pd_leg_token *m)
{
    struct pd_reader r;
    pd_reader_init(&r, bytes.p, bytes.n);
    memset(m, 0, sizeof *m);
    m->id = (int32_t)pd_reader_u32(&r);
    m->index = pd_reader_u32(&r);
    m->text = pd_reader_str32(&r, TEXT_MAX);
    m->bytes = pd_reader_str16(&r, PIECE_MAX);
    m->has_logprob = pd_reader_u8(&r) != 0;
    m->logprob = get_float(&r);
    m->n_top = pd_reader_u8(&r);
    if (m->n_top > PD_API_MAX_TOP)
        return PD_EPROTO;
    for (uint32_t i = 0; i < m->n_top; i++) {
        api->top[i].token = (int32_t)pd_reader_u32(&r);
        api->top[i].logprob = get_float(&r);
        api->top[i].bytes = pd_reader_str16(&r, PIECE_MAX);
    }
    m->top = api->top;
    return pd_reader_finish(&r);
}

pd_status pd_api_end_encode(struct pd_api *api, const struct pd_leg_end *m, struct pd_str *out)
{
    struct pd_writer w;
    const struct pd_api_error *e = &m->error;
    if (m->text.n > TEXT_MAX)
        return PD_EINVAL;
    pd_status status = pd_api_scratch_open(api, 640 + m->text.n, &w);
    if (status != PD_OK)
        return status;
    pd_writer_u8(&w, (uint8_t)m->reason);
    pd_writer_u32(&w, m->prompt_tokens);
    pd_writer_u32(&w, m->cached_tokens);
    pd_writer_u32(&w, m->output_tokens);
    pd_writer_str32(&w, m->text);
    pd_writer_u16(&w, m->reason == PD_FINISH_ERROR ? (uint16_t)e->http : 0);
    pd_writer_u8(&w, index_of(error_types, PD_ARRAY_LEN(error_types), e->type,
                              (uint8_t)(PD_ARRAY_LEN(error_types) - 1)));
    pd_writer_u8(&w, index_of(error_codes, PD_ARRAY_LEN(error_codes), e->code, 0));
    pd_writer_u32(&w, e->retry_after_ms);
    pd_writer_u8(&w, e->no_retry != 0);
    pd_writer_str16(&w, pd_str_from(e->param));
    pd_writer_str16(&w, pd_str_from(e->message));
    return pd_api_scratch_close(api, &w, out);
}

pd_status pd_api_end_decode(struct pd_api *api, struct pd_str bytes, struct pd_leg_end *m)
{
    (void)api;
    struct pd_reader r;
    struct pd_api_error *e = &m->error;
    pd_reader_init(&r, bytes.p, bytes.n);
    memset(m, 0, sizeof *m);
    e->size = sizeof *e;
    m->reason = pd_reader_u8(&r);
    m->prompt_tokens = pd_reader_u32(&r);
    m->cached_tokens = pd_reader_u32(&r);
    m->output_tokens = pd_reader_u32(&r);
    m->text = pd_reader_str32(&r, TEXT_MAX);
    e->http = pd_reader_u16(&r);
    uint8_t type = pd_reader_u8(&r);
    uint8_t code = pd_reader_u8(&r);
    e->retry_after_ms = pd_reader_u32(&r);
    e->no_retry = pd_reader_u8(&r) != 0;
    struct pd_str param = pd_reader_str16(&r, sizeof e->param - 1);
    struct pd_str message = pd_reader_str16(&r, sizeof e->message - 1);
    if (pd_reader_finish(&r) != PD_OK || type >= PD_ARRAY_LEN(error_types) ||
        code >= PD_ARRAY_LEN(error_codes) || m->reason < PD_FINISH_STOP ||
        m->reason > PD_FINISH_ERROR)
        return PD_EPROTO;
    if (m->reason == PD_FINISH_ERROR && (e->http < 400 || e->http > 599))
        return PD_EPROTO;
    e->type = error_types[type];
    e->code = error_codes[code];
    pd_str_copy(param, e->param, sizeof e->param);
    pd_str_copy(message, e->message, sizeof e->message);
    return PD_OK;
}
