/* SPDX-License-Identifier: Apache-2.0 */
/* The engine module: options, life of an instance.  Invariant: an instance's
 * memory goes only after its worker has ended. */
#include "engine_in.h"

#include "file.h"
#include "lib.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct pd_option_name dtypes[] = {
    { "f16", PD_DTYPE_F16 }, { "bf16", PD_DTYPE_BF16 }, { "f32", PD_DTYPE_F32 }, { NULL, 0 }
};

static const struct pd_option llama_options[] = {
    PD_OPT_STRING("model", struct ll_conf, model, NULL, .flags = PD_OPT_REQUIRED | PD_OPT_PATH | PD_OPT_NONEMPTY,
                  .help = "GGUF file of a model that llama.cpp computes; of a model in parts the first."),
    PD_OPT_INT("context", struct ll_conf, context, "0", .max = 1 << 24, .unit = "tokens",
               .help = "Longest prompt plus answer; 0 takes what the model allows, at most 8192. The cells and "
                       "the pool limit it, too."),
    PD_OPT_INT("cells", struct ll_conf, cells, "0", .max = 1 << 26, .unit = "tokens",
               .help = "Tokens whose KV llama.cpp holds for all sequences that are computed together; 0 is "
                       "twice the context. When they run out, a sequence waits."),
    PD_OPT_SIZE("kv_memory", struct ll_conf, kv_memory, "0", .min = 0, .max = (int64_t)1 << 40,
                .help = "Memory for the KV pool, from and into which KV is handed over and where prefixes stay; "
                        "rounded down to whole blocks. 0 gives it room for as many tokens as there are cells."),
    PD_OPT_INT("block_tokens", struct ll_conf, block_tokens, "16", .min = 8, .max = 256, .unit = "tokens",
               .help = "Tokens in one KV block, a multiple of 8."),
    PD_OPT_ENUM("kv_dtype", struct ll_conf, kv_dtype, "f16", dtypes,
                .help = "Type of KV values, in the cells and in the pool."),
    PD_OPT_INT("max_running", struct ll_conf, max_running, "8", .min = 1, .max = LL_MAX_SLOTS,
               .unit = "sequences", .help = "Sequences computed in one step."),
    PD_OPT_INT("max_sequences", struct ll_conf, max_sequences, "1024", .min = 1, .max = 65536,
               .unit = "sequences", .help = "Sequences open at a time; more are told to come back."),
    PD_OPT_INT("step_tokens", struct ll_conf, step_tokens, "256", .min = 1, .max = 4096, .unit = "tokens",
               .help = "Most tokens computed in one step. Smaller steps delay running answers less when "
                       "a long prompt arrives, larger ones are faster."),
    PD_OPT_INT("threads", struct ll_conf, threads, "1", .min = 1, .max = LL_MAX_THREADS, .unit = "threads",
               .help = "Threads of llama.cpp that compute a step. More than there are free processors make it "
                       "slower, since they wait actively for each other."),
    PD_OPT_INT("gpu_layers", struct ll_conf, gpu_layers, "0", .max = 100000, .unit = "layers",
               .help = "Layers computed on the GPU, where llama.cpp has a backend for it; 0 is none."),
    PD_OPT_BOOL("flash_attention", struct ll_conf, flash_attention, "true",
                .help = "Use llama.cpp's flash attention. Nodes that hand KV over must agree on it."),
    PD_OPT_BOOL("prefix_cache", struct ll_conf, prefix_cache, "true",
                .help = "Keep blocks of earlier prompts and answers and use them for equal beginnings."),
    PD_OPT_STRING("chat_template", struct ll_conf, chat_template, "",
                  .help = "Name of a chat template that llama.cpp has built in, say \"chatml\" or \"llama3\"; "
                          "empty is the model's own, if llama.cpp recognises it."),
    PD_OPT_STRING("backends", struct ll_conf, backends, "", .flags = PD_OPT_PATH,
                  .help = "Folder with ggml backends, which are loaded once in a process; empty is what is built "
                          "into libggml, and where nothing is, the folder that it looks in by itself."),
    PD_OPT_END
};

static pd_status check(const void *conf, struct pd_err *err)
{
    const struct ll_conf *c = conf;

    if (c->block_tokens % 8 != 0)
        return ll_err(err, PD_EINVAL, NULL, "block_tokens is %u, not a multiple of 8", c->block_tokens);
    return ll_file_probe(c->model, err);
}

static void free_all(void *arg)
{
    struct pd_engine *e = arg;

    ll_lib_messages(e->log);
    if (e->memory.base != NULL)
        pd_host()->memory_free(e->host, &e->memory);
    ll_kv_close(e);
    ll_context_close(e);
    eng_sampler_free(e->sampler);
    eng_pool_free(e->pool);
    free(e->members);
    free(e);
    ll_lib_messages(NULL);
}

/* Layers of equal shape, made by these weights with this library and attention. */
static pd_status fill_layout(struct pd_engine *e, struct pd_err *err)
{
    static const uint8_t key[16] = "pdplane llama kv";
    struct {
        struct eng_hash file;
        char version[48];
    } id;
    struct eng_hash h;
    pd_status s;

    e->layout = (struct pd_layout){
        .size = sizeof(e->layout), .order = PD_KV_BLOCK_LAYER, .dtype = e->conf->kv_dtype,
        .layers = e->kv.shape.layers, .kv_heads = e->kv.kv_heads, .head_dim = e->kv.head_dim,
        .block_tokens = e->conf->block_tokens,
        .block_bytes = ll_blob_token_bytes(&e->kv.shape) * e->conf->block_tokens,
    };
    memset(&id, 0, sizeof(id));
    s = ll_file_fingerprint(e->conf->model, &id.file, err);
    if (s != PD_OK)
        return s;
    snprintf(id.version, sizeof(id.version), "%s %s", llama_version(), e->conf->flash_attention ? "flash" : "plain");
    h = eng_siphash(key, &id, sizeof(id));
    for (int i = 0; i < 8; i++) {
        e->layout.model[i] = (uint8_t)(h.lo >> (8 * i));
        e->layout.model[8 + i] = (uint8_t)(h.hi >> (8 * i));
    }
    return PD_OK;
}

/* Without KV that can be stored there are no bytes behind the blocks: they only
 * count the tokens of prompts. */
static pd_status make_pool(struct pd_engine *e, const char *name, struct pd_err *err)
{
    uint32_t bt = e->conf->block_tokens;
    uint64_t blocks = e->n_cells / bt;
    uint8_t key[16];
    pd_status s;

    if (e->kv.usable && e->conf->kv_memory > 0)
        blocks = e->conf->kv_memory / e->layout.block_bytes;
    if (blocks < 2 || blocks > UINT32_MAX / 2)
        return ll_err(err, PD_EINVAL, e->conf->model,
                      "the pool would have %llu blocks; at least 2 and fewer than 2^31 are needed: engine.kv_memory",
                      (unsigned long long)blocks);
    e->n_blocks = (uint32_t)blocks;
    e->context = blocks * bt < e->context ? (uint32_t)(blocks * bt) : e->context;
    if (e->kv.usable) {
        e->memory.size = sizeof(e->memory);
        s = pd_host()->memory_alloc(e->host, name, blocks * e->layout.block_bytes, &e->memory, err);
        if (s != PD_OK) {
            e->memory.base = NULL;
            return s;
        }
        e->place = (struct ll_place){ .base = e->memory.base, .block_bytes = e->layout.block_bytes,
                                      .block_tokens = bt };
    }
    pd_loop_random(e->loop, key, sizeof(key));
    s = eng_pool_create(e->n_blocks, bt, key, &e->pool);
    return s == PD_OK ? s : ll_err(err, s, NULL, "out of memory");
}

static pd_status make_step(struct pd_engine *e, struct pd_err *err)
{
    struct pd_workq_opts opts = { .size = sizeof(opts), .name = "llama", .threads = 1, .limit = 1 };
    pd_status s;

    e->cells_free = e->n_cells;
    e->members = calloc(e->conf->max_running, sizeof(*e->members));
    s = e->members != NULL ? eng_sampler_create(e->text.size, &e->sampler) : PD_ENOMEM;
    if (s != PD_OK)
        return ll_err(err, s, NULL, "out of memory");
    ll_step_init(e);
    s = pd_workq_create(e->loop, &opts, &e->workq);
    return s == PD_OK ? s : ll_err(err, s, NULL, "cannot start the compute thread: raise LimitNPROC= or TasksMax=");
}

static void tell(const struct pd_engine *e)
{
    pd_log_notice(e->log, "model \"%s\": %u layers, %u tokens of context, %u cells, %u blocks of %u tokens, "
                  "libllama %s, %u threads", e->name, (uint32_t)llama_model_n_layer(e->model), e->context, e->n_cells,
                  e->n_blocks, e->conf->block_tokens, llama_version(), e->conf->threads);
    if (!e->kv.usable)
        pd_log_warn(e->log, "model \"%s\": its KV cannot be taken out of libllama in parts, so it is neither handed "
                    "over nor kept as a prefix", e->name);
    if (e->text.chat == NULL)
        pd_log_notice(e->log, "model \"%s\" has no chat template that libllama knows, so chats are refused; "
                      "engine.chat_template names one", e->name);
}

static pd_status create(const struct pd_instance_ctx *ctx, const void *conf, struct pd_engine **out,
                        struct pd_err *err)
{
    struct pd_engine *e = calloc(1, sizeof(*e));
    pd_status s;

    *out = NULL;
    if (e == NULL)
        return ll_err(err, PD_ENOMEM, NULL, "out of memory");
    e->conf = conf;
    e->loop = ctx->loop;
    e->log = ctx->log;
    e->host = ctx->host;
    ll_lib_messages(e->log);
    ll_lib_backends(e->conf->backends);
    s = ll_file_probe(e->conf->model, err);
    ll_lib_messages(e->log);
    if (s == PD_OK)
        s = ll_context_open(e, err);
    if (s == PD_OK)
        s = ll_kv_open(e, err);
    if (s == PD_OK && e->kv.usable)
        s = fill_layout(e, err);
    if (s == PD_OK)
        s = make_pool(e, ctx->name, err);
    if (s == PD_OK)
        s = make_step(e, err);
    if (s != PD_OK) {
        free_all(e);
        return s;
    }
    ll_lib_messages(NULL);
    tell(e);
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
    ll_step_stop(e);
    e->on_closed = on_closed;
    e->closed_arg = arg;
    pd_workq_close(e->loop, e->workq, closed, e);
}

static void info(struct pd_engine *e, struct pd_engine_info *out)
{
    struct pd_engine_info i = {
        .size = out->size < sizeof(i) ? out->size : (uint32_t)sizeof(i),
        .flags = e->kv.usable ? PD_ENGINE_EXPORT | PD_ENGINE_IMPORT : 0,
        .model = e->name, .layout = e->layout, .context_tokens = e->context, .vocab = e->text.size,
        .blocks = e->n_blocks, .max_running = e->conf->max_running, .region = e->memory.base,
        .region_bytes = e->n_blocks * e->layout.block_bytes, .region_fd = e->kv.usable ? e->memory.fd : -1,
    };
    memcpy(out, &i, i.size);
}

static void load(struct pd_engine *e, struct pd_engine_load *out)
{
    struct pd_engine_load l = {
        .size = out->size < sizeof(l) ? out->size : (uint32_t)sizeof(l),
        .running = e->running, .waiting = e->queued - e->running,
        .blocks_total = e->n_blocks, .blocks_free = eng_pool_available(e->pool),
        .blocks_cached = eng_pool_cached(e->pool), .prompt_tokens = e->prompt_tokens,
        .output_tokens = e->output_tokens, .cached_tokens = e->cached_tokens, .preemptions = e->preemptions,
    };
    memcpy(out, &l, l.size);
}

static pd_status encode(struct pd_engine *e, struct pd_str text, int32_t *ids, size_t cap, size_t *n)
{
    return ll_text_encode(&e->text, text, ids, cap, n);
}

static pd_status encode_chat(struct pd_engine *e, const struct pd_message *messages, size_t count, int32_t *ids,
                             size_t cap, size_t *n)
{
    return ll_text_encode_chat(&e->text, messages, count, ids, cap, n);
}

static struct pd_str piece(struct pd_engine *e, int32_t id)
{
    return ll_text_piece(&e->text, id);
}

static uint32_t cached(struct pd_engine *e, const int32_t *tokens, uint32_t n, struct pd_str salt)
{
    uint32_t *ids, found;

    if (!e->conf->prefix_cache || !e->kv.usable || n == 0 || n > e->context)
        return 0;
    ids = malloc(n * sizeof(*ids));
    if (ids == NULL)
        return 0;
    for (uint32_t i = 0; i < n; i++)
        ids[i] = (uint32_t)tokens[i];
    found = eng_pool_lookup(e->pool, eng_pool_root(e->pool, salt), ids, n - 1, NULL);
    free(ids);
    return found * e->conf->block_tokens;
}

static const struct pd_engine_ops llama_ops = {
    .head = PD_OPS(pd_engine_ops, PD_ENGINE_V1),
    .create = create, .destroy = destroy, .info = info, .load = load,
    .encode = encode, .encode_chat = encode_chat, .piece = piece, .cached = cached,
    .seq_open = ll_seq_open, .seq_blocks = ll_seq_blocks, .seq_import = ll_seq_import,
    .seq_run = ll_seq_run, .seq_close = ll_seq_close,
};

static const struct pd_unit llama_units[] = {
    PD_UNIT(.kind = PD_KIND_ENGINE, .name = "llama", .ops = &llama_ops.head, .options = llama_options,
            .conf_size = sizeof(struct ll_conf), .check = check,
            .summary = "Computes models with llama.cpp in this process."),
    PD_UNIT_END
};

PD_MODULE(.name = "llama", .version = "1.0",
          .summary = "Engine in this process: llama.cpp, through libllama.",
          .units = llama_units, .load = ll_lib_load)
