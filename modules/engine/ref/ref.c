/* SPDX-License-Identifier: Apache-2.0 */
/* The engine module: options, life of an instance, text.  Invariant: an
 * instance's memory goes only after its worker has ended. */
#include "engine_in.h"
#include "utf8.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct pd_option_name dtypes[] = {
    { "f32", REF_F32 }, { "f16", REF_F16 }, { NULL, 0 }
};

static const struct pd_option ref_options[] = {
    PD_OPT_STRING("model", struct ref_conf, model, NULL, .flags = PD_OPT_REQUIRED | PD_OPT_PATH | PD_OPT_NONEMPTY,
                  .help = "GGUF file of a llama-architecture model with f32, f16 or q8_0 weights."),
    PD_OPT_SIZE("kv_memory", struct ref_conf, kv_memory, "64m", .min = 65536, .max = (int64_t)1 << 40,
                .help = "Memory for the KV pool; rounded down to whole blocks."),
    PD_OPT_INT("block_tokens", struct ref_conf, block_tokens, "16", .min = 8, .max = 256, .unit = "tokens",
               .help = "Tokens in one KV block, a multiple of 8."),
    PD_OPT_ENUM("kv_dtype", struct ref_conf, kv_dtype, "f32", dtypes,
                .help = "Type of KV values. f16 halves memory and transfers, but is not bit-identical to f32."),
    PD_OPT_INT("context", struct ref_conf, context, "0", .max = 1 << 20, .unit = "tokens",
               .help = "Longest prompt plus answer; 0 takes what the model allows. The pool limits it, too."),
    PD_OPT_INT("max_running", struct ref_conf, max_running, "16", .min = 1, .max = 1024, .unit = "sequences",
               .help = "Sequences computed in one step."),
    PD_OPT_INT("max_sequences", struct ref_conf, max_sequences, "1024", .min = 1, .max = 65536,
               .unit = "sequences", .help = "Sequences open at a time; more are told to come back."),
    PD_OPT_INT("step_tokens", struct ref_conf, step_tokens, "128", .min = 1, .max = 4096, .unit = "tokens",
               .help = "Most tokens computed in one step. Smaller steps delay running answers less when "
                       "a long prompt arrives, larger ones are a little faster."),
    PD_OPT_INT("threads", struct ref_conf, threads, "1", .min = 1, .max = REF_MAX_THREADS, .unit = "threads",
               .help = "Threads that compute a step. More help when processors are free for them and the model is "
                       "large; they wait actively while a step is computed."),
    PD_OPT_BOOL("prefix_cache", struct ref_conf, prefix_cache, "true",
                .help = "Keep blocks of earlier prompts and answers and use them for equal beginnings."),
    PD_OPT_INT("prefill_tokens_per_s", struct ref_conf, prefill_tokens_per_s, "0", .max = 1000000000,
               .unit = "tokens per second",
               .help = "Slows prompts down to this speed, to try schedulers without a large model; 0 is off."),
    PD_OPT_NUMBER("ms_per_token", struct ref_conf, ms_per_token, "0", .lo = 0, .hi = 10000,
                  .unit = "milliseconds",
                  .help = "Slows answers down to one token per sequence in this time; 0 is off."),
    PD_OPT_END
};

static pd_status check(const void *conf, struct pd_err *err)
{
    const struct ref_conf *c = conf;

    if (c->block_tokens % 8 != 0)
        return ref_err(err, PD_EINVAL, NULL, "block_tokens is %u, not a multiple of 8", c->block_tokens);
    return ref_gguf_probe(c->model, err);
}

static void free_all(void *arg)
{
    struct pd_engine *e = arg;

    if (e->memory.base != NULL)
        pd_host()->memory_free(e->host, &e->memory);
    ref_run_free(e->run);
    eng_sampler_free(e->sampler);
    eng_pool_free(e->pool);
    ref_model_free(e->model);
    ref_vocab_free(e->vocab);
    free(e->rows);
    free(e->members);
    free(e->threads);
    free(e);
}

static pd_status load_file(struct pd_engine *e, struct pd_err *err)
{
    struct ref_gguf *g;
    struct pd_str name;
    const char *base = strrchr(e->conf->model, '/');
    pd_status s = ref_gguf_open(e->conf->model, &g, err);

    if (s != PD_OK)
        return s;
    if ((s = ref_vocab_load(g, &e->vocab, err)) == PD_OK &&
        (s = ref_chat_load(g, e->vocab, &e->chat, err)) == PD_OK &&
        (s = ref_model_load(g, &e->model, err)) == PD_OK &&
        ref_vocab_size(e->vocab) != ref_model_shape(e->model)->vocab)
        s = ref_err(err, PD_EINVAL, e->conf->model, "the vocabulary has %u pieces, the weights are for %u",
                    ref_vocab_size(e->vocab), ref_model_shape(e->model)->vocab);
    if (s == PD_OK && ref_gguf_str(g, "general.name", &name) && name.n > 0)
        snprintf(e->name, sizeof(e->name), "%.*s", PD_STR_ARG(name));
    else
        snprintf(e->name, sizeof(e->name), "%s", base != NULL ? base + 1 : e->conf->model);
    ref_gguf_close(g);
    return s;
}

static void fill_layout(struct pd_engine *e)
{
    const struct ref_shape *s = ref_model_shape(e->model);

    e->layout = (struct pd_layout){
        .size = sizeof(e->layout), .order = PD_KV_BLOCK_LAYER,
        .dtype = e->conf->kv_dtype == REF_F16 ? PD_DTYPE_F16 : PD_DTYPE_F32,
        .layers = s->layers, .kv_heads = s->kv_heads, .head_dim = s->head_dim,
        .block_tokens = e->conf->block_tokens,
        .block_bytes = ref_model_block_bytes(e->model, e->conf->block_tokens, e->conf->kv_dtype),
    };
    memcpy(e->layout.model, ref_model_fingerprint(e->model), sizeof(e->layout.model));
}

static pd_status make_pool(struct pd_engine *e, const char *name, struct pd_err *err)
{
    uint64_t blocks = e->conf->kv_memory / e->layout.block_bytes, tokens;
    uint8_t key[16];
    pd_status s;

    if (blocks < 2 || blocks > UINT32_MAX / 2)
        return ref_err(err, PD_EINVAL, e->conf->model,
                       "kv_memory gives %llu blocks of %llu bytes; at least 2 and fewer than 2^31 are needed",
                       (unsigned long long)blocks, (unsigned long long)e->layout.block_bytes);
    tokens = blocks * e->conf->block_tokens;
    e->context = ref_model_shape(e->model)->context;
    if (e->conf->context > e->context)
        return ref_err(err, PD_EINVAL, e->conf->model, "context is %u, but the model allows %u",
                       e->conf->context, e->context);
    if (e->conf->context > 0)
        e->context = e->conf->context;
    e->context = tokens < e->context ? (uint32_t)tokens : e->context;
    e->memory.size = sizeof(e->memory);
    s = pd_host()->memory_alloc(e->host, name, blocks * e->layout.block_bytes, &e->memory, err);
    if (s != PD_OK) {
        e->memory.base = NULL;
        return s;
    }
    e->kv = (struct ref_kv){ .base = e->memory.base, .block_bytes = e->layout.block_bytes,
                             .blocks = (uint32_t)blocks, .block_tokens = e->conf->block_tokens,
                             .dtype = e->conf->kv_dtype };
    pd_loop_random(e->loop, key, sizeof(key));
    s = eng_pool_create((uint32_t)blocks, e->conf->block_tokens, key, &e->pool);
    return s == PD_OK ? s : ref_err(err, s, e->conf->model, "out of memory");
}

static pd_status make_step(struct pd_engine *e, struct pd_err *err)
{
    struct pd_workq_opts opts = { .size = sizeof(opts), .name = "ref", .threads = e->conf->threads,
                                  .limit = e->conf->threads };
    uint32_t running = e->conf->max_running;
    pd_status s;

    e->max_rows = e->conf->step_tokens > running ? e->conf->step_tokens : running;
    e->rows = calloc(e->max_rows, sizeof(*e->rows));
    e->members = calloc(running, sizeof(*e->members));
    e->threads = calloc(e->conf->threads, sizeof(*e->threads));
    s = e->rows != NULL && e->members != NULL && e->threads != NULL ? PD_OK : PD_ENOMEM;
    if (s == PD_OK)
        s = ref_run_create(e->model, e->max_rows, running, e->kv.block_tokens, e->conf->threads, &e->run);
    if (s == PD_OK)
        ref_run_share(e->run, &e->team);
    if (s == PD_OK)
        s = eng_sampler_create(ref_vocab_size(e->vocab), &e->sampler);
    if (s != PD_OK)
        return ref_err(err, s, e->conf->model, "out of memory");
    ref_step_init(e);
    s = pd_workq_create(e->loop, &opts, &e->workq);
    return s == PD_OK ? s
                      : ref_err(err, s, e->conf->model,
                                "cannot start the compute threads: raise LimitNPROC= or TasksMax=, or lower "
                                "engine.threads");
}

static pd_status create(const struct pd_instance_ctx *ctx, const void *conf, struct pd_engine **out,
                        struct pd_err *err)
{
    struct pd_engine *e = calloc(1, sizeof(*e));
    pd_status s;

    *out = NULL;
    if (e == NULL)
        return ref_err(err, PD_ENOMEM, NULL, "out of memory");
    e->conf = conf;
    e->loop = ctx->loop;
    e->log = ctx->log;
    e->host = ctx->host;
    s = load_file(e, err);
    if (s == PD_OK) {
        fill_layout(e);
        s = make_pool(e, ctx->name, err);
    }
    if (s == PD_OK)
        s = make_step(e, err);
    if (s != PD_OK) {
        free_all(e);
        return s;
    }
    pd_log_notice(e->log, "model \"%s\": %u layers, %u tokens of context, %u blocks of %u tokens, kernels with %s, "
                  "%u threads", e->name, e->layout.layers, e->context, e->kv.blocks, e->kv.block_tokens,
                  ref_kern_best()->name, e->conf->threads);
    *out = e;
    return PD_OK;
}

static void closed(void *arg)
{
    struct pd_engine *e = arg;
    void (*on_closed)(void *) = e->on_closed;
    void *closed_arg = e->closed_arg;

    free_all(e);
    if (on_closed != NULL)
        on_closed(closed_arg);
}

static void destroy(struct pd_engine *e, void (*on_closed)(void *arg), void *arg)
{
    ref_step_stop(e);
    e->on_closed = on_closed;
    e->closed_arg = arg;
    pd_workq_close(e->loop, e->workq, closed, e);
}

static void info(struct pd_engine *e, struct pd_engine_info *out)
{
    struct pd_engine_info i = {
        .size = out->size < sizeof(i) ? out->size : (uint32_t)sizeof(i),
        .flags = PD_ENGINE_EXPORT | PD_ENGINE_IMPORT | PD_ENGINE_EXACT,
        .model = e->name, .layout = e->layout, .context_tokens = e->context,
        .vocab = ref_vocab_size(e->vocab), .blocks = e->kv.blocks, .max_running = e->conf->max_running,
        .region = e->memory.base, .region_bytes = (uint64_t)e->kv.blocks * e->kv.block_bytes,
        .region_fd = e->memory.fd,
    };
    memcpy(out, &i, i.size);
}

static void load(struct pd_engine *e, struct pd_engine_load *out)
{
    uint32_t running = e->n_members > 0 ? e->running : 0;
    struct pd_engine_load l = {
        .size = out->size < sizeof(l) ? out->size : (uint32_t)sizeof(l),
        .running = running < e->queued ? running : e->queued,
        .blocks_total = e->kv.blocks, .blocks_free = eng_pool_available(e->pool),
        .blocks_cached = eng_pool_cached(e->pool), .prompt_tokens = e->prompt_tokens,
        .output_tokens = e->output_tokens, .cached_tokens = e->cached_tokens,
        .preemptions = e->preemptions,
    };
    l.waiting = e->queued - l.running;
    memcpy(out, &l, l.size);
}

/* Moves a finished list into the caller's array. */
static pd_status hand_ids(pd_status s, struct ref_ids *list, int32_t *ids, size_t cap, size_t *n)
{
    *n = list->n;
    if (s == PD_OK && list->n > cap)
        s = PD_ELIMIT;
    for (size_t i = 0; s == PD_OK && i < list->n; i++)
        ids[i] = (int32_t)list->ids[i];
    free(list->ids);
    return s;
}

static pd_status encode(struct pd_engine *e, struct pd_str text, int32_t *ids, size_t cap, size_t *n)
{
    struct ref_ids list = { 0 };

    /* a text that cannot fit is not looked at: the loop waits meanwhile */
    *n = ref_vocab_least(e->vocab, text.n);
    if (*n > cap)
        return PD_ELIMIT;
    if (!eng_utf8_valid(text))
        return PD_EINVAL;
    return hand_ids(ref_vocab_encode(e->vocab, text, REF_ENCODE_BOS, &list), &list, ids, cap, n);
}

static pd_status encode_chat(struct pd_engine *e, const struct pd_message *messages, size_t count,
                             int32_t *ids, size_t cap, size_t *n)
{
    struct ref_chat_message *m;
    struct ref_ids list = { 0 };
    pd_status s;

    *n = 0;
    if (count == 0)
        return PD_EINVAL;
    *n = count;                 /* each message has at least its markers */
    for (size_t i = 0; i < count && *n <= cap; i++)
        *n += ref_vocab_least(e->vocab, messages[i].content.n);
    if (*n > cap)
        return PD_ELIMIT;
    m = calloc(count, sizeof(*m));
    if (m == NULL)
        return PD_ENOMEM;
    s = PD_OK;
    for (size_t i = 0; i < count; i++) {
        m[i] = (struct ref_chat_message){ messages[i].role, messages[i].content };
        if (!eng_utf8_valid(m[i].content))
            s = PD_EINVAL;
    }
    if (s == PD_OK) {
        s = ref_chat_encode(&e->chat, e->vocab, m, count, true, &list);
        if (s == PD_EINVAL)
            s = PD_EDECLINED;   /* there are messages, so it is a role */
    }
    free(m);
    return hand_ids(s, &list, ids, cap, n);
}

static struct pd_str piece(struct pd_engine *e, int32_t id)
{
    return id < 0 ? (struct pd_str){ "", 0 } : ref_vocab_bytes(e->vocab, (uint32_t)id);
}

static uint32_t cached(struct pd_engine *e, const int32_t *tokens, uint32_t n, struct pd_str salt)
{
    uint32_t *ids, found;

    if (!e->conf->prefix_cache || n == 0 || n > e->context)
        return 0;
    ids = malloc(n * sizeof(*ids));
    if (ids == NULL)
        return 0;
    for (uint32_t i = 0; i < n; i++)
        ids[i] = (uint32_t)tokens[i];
    found = eng_pool_lookup(e->pool, eng_pool_root(e->pool, salt), ids, n - 1, NULL);
    free(ids);
    return found * e->kv.block_tokens;
}

static const struct pd_engine_ops ref_ops = {
    .head = PD_OPS(pd_engine_ops, PD_ENGINE_V1),
    .create = create, .destroy = destroy, .info = info, .load = load,
    .encode = encode, .encode_chat = encode_chat, .piece = piece, .cached = cached,
    .seq_open = ref_seq_open, .seq_blocks = ref_seq_blocks, .seq_import = ref_seq_import,
    .seq_run = ref_seq_run, .seq_close = ref_seq_close,
};

static const struct pd_unit ref_units[] = {
    PD_UNIT(.kind = PD_KIND_ENGINE, .name = "ref", .ops = &ref_ops.head, .options = ref_options,
            .conf_size = sizeof(struct ref_conf), .check = check,
            .summary = "Computes small llama-architecture models in this process."),
    PD_UNIT_END
};

PD_MODULE(.name = "ref", .version = "1.0",
          .summary = "Engine in this process for small llama-architecture models in GGUF files.",
          .units = ref_units)
