/* SPDX-License-Identifier: Apache-2.0 */
/* Speed of llama.cpp through its C API:  speed_llama MODEL THREADS [BACKENDS].
 * Compiled by the script `speed` against the libllama that it is given; with
 * its own choice of settings, except that both engines keep KV as f16. */
#include "speed.h"

#include <ggml-backend.h>
#include <llama.h>
#include <stdlib.h>

enum { STEP_TOKENS = 512, CONTEXT = 4096 };

static struct llama_context *ctx;
static const struct llama_vocab *vocab;

static void quiet(enum ggml_log_level level, const char *text, void *arg)
{
    (void)arg;
    if (level == GGML_LOG_LEVEL_ERROR)
        fputs(text, stderr);
}

/* The likeliest token, as `ref` chooses it at temperature 0. */
static int32_t choose(void)
{
    const float *l = llama_get_logits_ith(ctx, -1);
    int32_t best = 0;
    for (int32_t i = 1; i < llama_vocab_n_tokens(vocab); i++)
        if (l[i] > l[best])
            best = i;
    return best;
}

static int32_t prompt_run(uint32_t n)
{
    int32_t *tokens = calloc(n, sizeof *tokens);
    int32_t token = -1;
    if (tokens == NULL)
        return -1;
    speed_tokens(tokens, n);
    llama_memory_clear(llama_get_memory(ctx), false);
    for (uint32_t at = 0; at < n; at += STEP_TOKENS) {
        uint32_t step = n - at < STEP_TOKENS ? n - at : STEP_TOKENS;
        if (llama_decode(ctx, llama_batch_get_one(tokens + at, (int32_t)step)) != 0)
            goto out;
    }
    token = choose();
out:
    free(tokens);
    return token;
}

static bool prefill(uint32_t n, struct speed_time *from, struct speed_time *to)
{
    *from = speed_now();
    bool is_good = prompt_run(n) >= 0;
    *to = speed_now();
    return is_good;
}

static bool decode(uint32_t prompt, uint32_t n, struct speed_time *from, struct speed_time *to)
{
    int32_t token = prompt_run(prompt);
    *from = speed_now();
    for (uint32_t i = 0; i < n && token >= 0; i++)
        token = llama_decode(ctx, llama_batch_get_one(&token, 1)) == 0 ? choose() : -1;
    *to = speed_now();
    return token >= 0;
}

int main(int argc, char **argv)
{
    if (argc != 3 && argc != 4) {
        fputs("usage: speed_llama MODEL THREADS [BACKENDS]\n", stderr);
        return 2;
    }
    llama_log_set(quiet, NULL);
    if (argc == 4)
        ggml_backend_load_all_from_path(argv[3]);
    struct llama_model_params mp = llama_model_default_params();
    struct llama_model *model = llama_model_load_from_file(argv[1], mp);
    struct llama_context_params cp = llama_context_default_params();
    cp.n_ctx = CONTEXT;
    cp.n_batch = cp.n_ubatch = STEP_TOKENS;
    cp.n_threads = cp.n_threads_batch = atoi(argv[2]);
    cp.type_k = cp.type_v = GGML_TYPE_F16;
    if (model == NULL || (ctx = llama_init_from_model(model, cp)) == NULL) {
        fprintf(stderr, "speed_llama: cannot load %s\n", argv[1]);
        return 1;
    }
    vocab = llama_model_get_vocab(model);
    return speed_serve(prefill, decode);
}
