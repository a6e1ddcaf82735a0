/* SPDX-License-Identifier: Apache-2.0 */
/* Model and context of an instance. */
#include "engine_in.h"

#include "lib.h"

#include <stdio.h>
#include <string.h>

enum { UBATCH_MOST = 512, CONTEXT_MOST = 8192 };

static bool wants_abort(void *arg)
{
    struct pd_engine *e = arg;

    return __atomic_load_n(&e->abort, __ATOMIC_RELAXED) != 0;
}

static pd_status load_model(struct pd_engine *e, struct pd_err *err)
{
    struct llama_model_params params = llama_model_default_params();
    const char *base = strrchr(e->conf->model, '/');

    params.n_gpu_layers = (int32_t)e->conf->gpu_layers;
    e->model = llama_model_load_from_file(e->conf->model, params);
    if (e->model == NULL)
        return ll_err_lib(err, PD_EINVAL, e->conf->model, "libllama cannot load the model");
    if (llama_model_has_encoder(e->model) || !llama_model_has_decoder(e->model))
        return ll_err(err, PD_EINVAL, e->conf->model, "is not a model that continues text");
    if (llama_model_meta_val_str(e->model, "general.name", e->name, sizeof(e->name)) <= 0)
        snprintf(e->name, sizeof(e->name), "%s", base != NULL ? base + 1 : e->conf->model);
    return PD_OK;
}

/* Longest sequence, and cells for all of them. */
static pd_status choose_sizes(struct pd_engine *e, struct pd_err *err)
{
    int32_t trained = llama_model_n_ctx_train(e->model);
    uint32_t most = trained > 0 ? (uint32_t)trained : CONTEXT_MOST;

    if (e->conf->context > most)
        return ll_err(err, PD_EINVAL, e->conf->model, "context is %u, but the model allows %u", e->conf->context, most);
    e->context = e->conf->context > 0 ? e->conf->context : most < CONTEXT_MOST ? most : CONTEXT_MOST;
    e->n_cells = e->conf->cells > 0 ? e->conf->cells : e->conf->max_running > 1 ? 2 * e->context : e->context;
    return PD_OK;
}

static enum ggml_type type_of(uint32_t dtype)
{
    return dtype == PD_DTYPE_F32 ? GGML_TYPE_F32 : dtype == PD_DTYPE_BF16 ? GGML_TYPE_BF16 : GGML_TYPE_F16;
}

static pd_status make_context(struct pd_engine *e, struct pd_err *err)
{
    struct llama_context_params p = llama_context_default_params();

    e->max_rows = e->conf->step_tokens > e->conf->max_running ? e->conf->step_tokens : e->conf->max_running;
    p.n_ctx = e->n_cells;
    p.n_seq_max = p.n_outputs_max = e->conf->max_running + 1;
    p.n_batch = e->max_rows > p.n_seq_max ? e->max_rows : p.n_seq_max;
    p.n_ubatch = p.n_batch < UBATCH_MOST ? p.n_batch : UBATCH_MOST;
    p.n_threads = p.n_threads_batch = (int32_t)e->conf->threads;
    p.flash_attn_type = e->conf->flash_attention ? LLAMA_FLASH_ATTN_TYPE_ENABLED : LLAMA_FLASH_ATTN_TYPE_DISABLED;
    p.type_k = p.type_v = type_of(e->conf->kv_dtype);
    p.kv_unified = true;
    p.no_perf = true;
    p.abort_callback = wants_abort;
    p.abort_callback_data = e;
    e->ctx = llama_init_from_model(e->model, p);
    if (e->ctx == NULL)
        return ll_err_lib(err, PD_ENOMEM, e->conf->model,
                          "libllama cannot make a context; smaller engine.cells or engine.context need less memory");
    e->n_cells = llama_n_ctx(e->ctx);
    e->context = e->context < e->n_cells ? e->context : e->n_cells;
    e->batch = llama_batch_init((int32_t)p.n_batch, 0, 1);
    return e->batch.token != NULL ? PD_OK : ll_err(err, PD_ENOMEM, NULL, "out of memory");
}

pd_status ll_context_open(struct pd_engine *e, struct pd_err *err)
{
    pd_status s = load_model(e, err);

    if (s == PD_OK)
        s = ll_text_open(&e->text, e->model, e->conf->chat_template, e->conf->model, err);
    if (s == PD_OK)
        s = choose_sizes(e, err);
    if (s == PD_OK)
        s = make_context(e, err);
    return s;
}

void ll_context_close(struct pd_engine *e)
{
    if (e->batch.token != NULL)
        llama_batch_free(e->batch);
    if (e->ctx != NULL)
        llama_free(e->ctx);
    ll_text_close(&e->text);
    if (e->model != NULL)
        llama_model_free(e->model);
}
