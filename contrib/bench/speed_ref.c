/* SPDX-License-Identifier: Apache-2.0 */
/* Speed of the ref engine through its ops table, on a real loop, without a node
 * around it:  speed_ref MODEL THREADS.  See speed.h. */
#include "speed.h"

#include <pdplane/engine.h>
#include <pdplane/host.h>
#include <pdplane/loop.h>

#include <stdlib.h>

#include "loop/uv.h"

#include "engine_in.h"

extern const struct pd_module pd_module;

enum { STEP_TOKENS = 512 };

static struct pd_loop *loop;
static const struct pd_engine_ops *ops;
static struct pd_engine *engine;
static bool is_over;
static uint32_t n_tokens;
static pd_status how;
static struct speed_time first_at, end_at;

static pd_status memory_alloc(struct pd_host *host, const char *name, uint64_t bytes, struct pd_host_memory *out,
                              struct pd_err *err)
{
    (void)host;
    (void)name;
    (void)err;
    out->fd = -1;
    out->bytes = bytes;
    out->base = aligned_alloc(4096, (bytes + 4095) / 4096 * 4096);
    return out->base != NULL ? PD_OK : PD_ENOMEM;
}

static void memory_free(struct pd_host *host, struct pd_host_memory *m)
{
    (void)host;
    free(m->base);
}

static const struct pd_host_api host_api = {
    .size = sizeof host_api, .abi_major = PD_ABI_MAJOR, .abi_minor = PD_ABI_MINOR, .version = "speed",
    .memory_alloc = memory_alloc, .memory_free = memory_free,
};

static void on_token(struct pd_seq *seq, const struct pd_token *token, void *arg)
{
    (void)seq;
    (void)token;
    (void)arg;
    if (n_tokens++ == 0)
        first_at = speed_now();
}

static void on_finish(struct pd_seq *seq, uint32_t reason, pd_status status, void *arg)
{
    (void)seq;
    (void)reason;
    (void)arg;
    is_over = true;
    how = status;
}

/* Runs one sequence; false when it failed. */
static bool sequence(uint32_t prompt, uint32_t output)
{
    static const struct pd_seq_events events = { .size = sizeof events, .on_token = on_token, .on_finish = on_finish };
    int32_t *tokens = calloc(prompt, sizeof *tokens);
    struct pd_seq_params p = { .size = sizeof p, .n_tokens = prompt, .tokens = tokens, .max_output = output,
                               .ignore_eos = 1, .sampling = { .size = sizeof p.sampling, .top_p = 1 } };
    struct pd_seq *seq;
    uint32_t cached;
    if (tokens == NULL)
        return false;
    speed_tokens(tokens, prompt);
    is_over = false;
    n_tokens = 0;
    pd_status s = ops->seq_open(engine, &p, &events, NULL, &seq, &cached);
    if (s == PD_OK)
        s = ops->seq_run(seq, PD_RUN_DECODE, 0, NULL);
    while (s == PD_OK && !is_over)
        s = pd_loop_uv_turn(loop, PD_SEC);
    end_at = speed_now();
    if (s == PD_OK)
        ops->seq_close(seq);
    free(tokens);
    return s == PD_OK && how == PD_OK && n_tokens == output;
}

static bool prefill(uint32_t n, struct speed_time *from, struct speed_time *to)
{
    *from = speed_now();
    bool is_good = sequence(n, 1);
    *to = end_at;
    return is_good;
}

static bool decode(uint32_t prompt, uint32_t n, struct speed_time *from, struct speed_time *to)
{
    bool is_good = sequence(prompt, n + 1);
    *from = first_at;
    *to = end_at;
    return is_good;
}

int main(int argc, char **argv)
{
    struct pd_err err = { 0 };
    if (argc != 3 || pd_loop_uv_create(NULL, &loop) != PD_OK) {
        fputs("usage: speed_ref MODEL THREADS\n", stderr);
        return 2;
    }
    struct ref_conf conf = { .model = argv[1], .kv_memory = 1u << 30, .block_tokens = 16, .kv_dtype = REF_F16,
                             .max_running = 4, .max_sequences = 16, .step_tokens = STEP_TOKENS,
                             .threads = (uint32_t)atoi(argv[2]) };
    struct pd_instance_ctx ctx = { .size = sizeof ctx, .name = "speed", .loop = loop };
    *pd_module.host = &host_api;
    ops = (const struct pd_engine_ops *)(const void *)pd_module.units[0].ops;
    if (ops->create(&ctx, &conf, &engine, &err) != PD_OK) {
        fprintf(stderr, "speed_ref: %s: %s\n", err.file, err.text);
        return 1;
    }
    return speed_serve(prefill, decode);
}
