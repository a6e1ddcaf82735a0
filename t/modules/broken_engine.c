/* SPDX-License-Identifier: Apache-2.0 */
/* An engine of bytes: each byte of a text is a token, the KV of a token is its
 * byte, and the answer counts up from the sum of the prompt's KV.  It breaks its
 * contract in the way that its option names; as mute_engine it claims an
 * operation that it lacks. */
#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include <pdplane/engine.h>
#include <pdplane/loop.h>

enum { BLOCKS = 64, CONTEXT = 256, BLOCK_TOKENS = 16, BLOCK_BYTES = 2 * BLOCK_TOKENS };
enum {
    FAULT_NONE, FAULT_INSIDE, FAULT_BLOCKS, FAULT_TWICE, FAULT_RANDOM, FAULT_UTF8, FAULT_CHAIN,
    FAULT_ASLEEP, FAULT_QUEUE, FAULT_BUSY,
    FAULT_LOWER,                /* texts lose their capitals */
    FAULT_BUFFER,               /* pieces are made in one buffer */
    FAULT_NEVER,                /* what can never fit is to be tried again */
    FAULT_BORDER,               /* what was computed in parts lacks a token at the border */
    FAULT_COPY,                 /* computes from a copy of the blocks */
    FAULT_SHARED,               /* a sequence's blocks are all the same */
    FAULT_LEAK,
    FAULT_GLOBAL                /* one state for all instances, which goes with the first of them */
};

struct broken_conf {
    uint32_t fault;
};

struct pd_engine {
    struct pd_loop *loop;
    uint32_t fault, used, running, sampled, runs;
    uint32_t parted;            /* how much of a prompt was computed without the rest */
    bool is_inside;             /* of on_finish */
    bool is_taken[BLOCKS];
    uint8_t region[BLOCKS * BLOCK_BYTES], copy[BLOCKS * BLOCK_BYTES];
    struct pd_task closing;
    struct pd_timer busy;
    void (*on_closed)(void *arg);
    void *arg;
};

struct pd_seq {
    struct pd_engine *e;
    struct pd_seq_events events;
    void *arg;
    uint32_t n_prompt, n_out, max_output, computed, end, mode, n_blocks;
    uint32_t blocks[CONTEXT / BLOCK_TOKENS];
    uint8_t prompt[CONTEXT];
    struct pd_token first;
    bool has_first, is_prefilled;
    struct pd_task step;
};

static const struct pd_engine *the_one;

static const struct pd_option_name faults[] = {
    { "none", FAULT_NONE },     { "inside", FAULT_INSIDE }, { "blocks", FAULT_BLOCKS }, { "twice", FAULT_TWICE },
    { "random", FAULT_RANDOM }, { "utf8", FAULT_UTF8 },     { "chain", FAULT_CHAIN },   { "asleep", FAULT_ASLEEP },
    { "queue", FAULT_QUEUE },   { "busy", FAULT_BUSY },     { "lower", FAULT_LOWER },   { "buffer", FAULT_BUFFER },
    { "never", FAULT_NEVER },   { "border", FAULT_BORDER }, { "copy", FAULT_COPY },     { "shared", FAULT_SHARED },
    { "leak", FAULT_LEAK },     { "global", FAULT_GLOBAL }, { NULL, 0 },
};

static const struct pd_option options[] = {
    PD_OPT_ENUM("fault", struct broken_conf, fault, "none", faults, .help = "What is wrong."),
    PD_OPT_END
};

static void spin(struct pd_timer *timer, void *arg)
{
    (void)arg;
    pd_timer_start(timer, 0);
}

static pd_status create(const struct pd_instance_ctx *ctx, const void *conf, struct pd_engine **out,
                        struct pd_err *err)
{
    struct pd_engine *e = calloc(1, sizeof *e);

    (void)err;
    if (e == NULL)
        return PD_ENOMEM;
    e->loop = ctx->loop;
    e->fault = ((const struct broken_conf *)conf)->fault;
    pd_timer_init(&e->busy, e->loop, "broken busy", spin, e);
    if (e->fault == FAULT_LEAK) {
        void *volatile lost = malloc(100);
        (void)lost;
    }
    the_one = e;
    *out = e;
    return PD_OK;
}

static void closed(struct pd_task *task, void *arg)
{
    struct pd_engine *e = arg;
    void (*on_closed)(void *) = e->on_closed;
    void *closed_arg = e->arg;

    (void)task;
    the_one = NULL;
    free(e);
    if (on_closed != NULL)
        on_closed(closed_arg);
}

static void destroy(struct pd_engine *e, void (*on_closed)(void *arg), void *arg)
{
    e->on_closed = on_closed;
    e->arg = arg;
    pd_timer_stop(&e->busy);
    pd_task_init(&e->closing, "broken close", closed, e);
    pd_loop_post(e->loop, &e->closing);
}

static void info(struct pd_engine *e, struct pd_engine_info *out)
{
    out->flags = PD_ENGINE_EXACT | PD_ENGINE_EXPORT | PD_ENGINE_IMPORT;
    out->layout = (struct pd_layout){ .size = sizeof out->layout, .order = PD_KV_BLOCK_LAYER, .dtype = PD_DTYPE_F8_E4M3,
                                      .layers = 1, .kv_heads = 1, .head_dim = 1, .block_tokens = BLOCK_TOKENS,
                                      .block_bytes = BLOCK_BYTES };
    out->region = e->region;
    out->region_bytes = sizeof e->region;
    out->region_fd = -1;
    out->model = "bytes";
    out->context_tokens = CONTEXT;
    out->vocab = 256;
    out->blocks = BLOCKS;
    out->max_running = BLOCKS;
}

static void load(struct pd_engine *e, struct pd_engine_load *out)
{
    out->blocks_total = BLOCKS;
    out->blocks_free = BLOCKS - e->used;
    out->running = e->running;
}

/* Good enough for the texts of the tests: ASCII is good, the rest is not. */
static pd_status encode(struct pd_engine *e, struct pd_str text, int32_t *ids, size_t cap, size_t *n)
{
    *n = text.n;
    for (size_t i = 0; i < text.n; i++) {
        if ((unsigned char)text.p[i] >= 0x80 && e->fault != FAULT_UTF8)
            return PD_EINVAL;
        if (i < cap)
            ids[i] = e->fault == FAULT_LOWER ? tolower((unsigned char)text.p[i]) : (unsigned char)text.p[i];
    }
    return text.n > cap ? PD_ELIMIT : PD_OK;
}

static struct pd_str piece(struct pd_engine *e, int32_t id)
{
    static const char table[] = " !\"#$%&'()*+,-./0123456789:;<=>?@ABCDEFGHIJKLMNOPQRSTUVWXYZ[\\]^_`"
                                "abcdefghijklmnopqrstuvwxyz{|}~";

    static char buffer[1];

    if (id < ' ' || id > '~')
        return (struct pd_str){ table, 0 };
    if (e->fault == FAULT_BUFFER) {
        buffer[0] = (char)id;
        return (struct pd_str){ buffer, 1 };
    }
    return (struct pd_str){ table + (id - ' '), 1 };
}

/* Where the K of the token at this position is; its V is half a block behind. */
static uint8_t *kv_at(const struct pd_seq *s, uint8_t *region, uint32_t position)
{
    return region + s->blocks[position / BLOCK_TOKENS] * BLOCK_BYTES + position % BLOCK_TOKENS;
}

static void prefill(struct pd_seq *s, uint32_t upto)
{
    for (uint32_t p = s->computed; p < upto; p++) {
        kv_at(s, s->e->region, p)[0] = kv_at(s, s->e->copy, p)[0] = s->prompt[p];
        kv_at(s, s->e->region, p)[BLOCK_TOKENS] = s->prompt[p];
    }
    s->computed = upto;
}

static void sample(struct pd_seq *s)
{
    struct pd_token t = { .size = sizeof t, .position = s->n_prompt + s->n_out };
    uint8_t *region = s->e->fault == FAULT_COPY ? s->e->copy : s->e->region;
    uint32_t sum = 0;

    for (uint32_t p = 0; p < s->n_prompt; p++)
        sum += *kv_at(s, region, p);
    t.id = (int32_t)((s->e->fault == FAULT_RANDOM ? s->e->sampled++ : sum + s->n_out) % 200);
    if (s->has_first)
        t.id = s->first.id;
    s->has_first = false;
    s->n_out++;
    s->events.on_token(s, &t, s->arg);
}

/* One event in each turn; the caller may close the sequence in any of them. */
static void step(struct pd_task *task, void *arg)
{
    struct pd_seq *s = arg;
    uint32_t want = s->mode == PD_RUN_PREFILL ? 1 : s->mode == PD_RUN_PREFILL_ONLY ? 0 : s->max_output;

    (void)task;
    pd_loop_post(s->e->loop, &s->step);
    if (!s->is_prefilled) {
        bool is_new = s->computed < s->end;
        s->is_prefilled = true;
        prefill(s, s->end);
        if (s->mode == PD_RUN_PREFILL_ONLY)
            s->e->parted = s->end;
        if (is_new && s->events.on_kv != NULL)
            s->events.on_kv(s, s->end, s->arg);
    } else if (s->n_out < want) {
        sample(s);
    } else {
        struct pd_engine *e = s->e;
        pd_task_cancel(e->loop, &s->step);
        e->running--;
        s->mode = 0;
        if (e->fault == FAULT_TWICE)
            s->events.on_finish(s, PD_FINISH_LENGTH, PD_OK, s->arg);
        e->is_inside = true;
        s->events.on_finish(s, PD_FINISH_LENGTH, PD_OK, s->arg);
        e->is_inside = false;
    }
}

static void blocks_take(struct pd_seq *s, uint32_t need)
{
    for (uint32_t b = 0; b < BLOCKS && s->n_blocks < need; b++) {
        if (s->e->is_taken[b])
            continue;
        s->e->is_taken[b] = true;
        memset(s->e->region + b * BLOCK_BYTES, 0, BLOCK_BYTES);
        memset(s->e->copy + b * BLOCK_BYTES, 0, BLOCK_BYTES);
        s->blocks[s->n_blocks++] = b;
    }
    s->e->used += need;
}

static pd_status seq_open(struct pd_engine *e, const struct pd_seq_params *params,
                          const struct pd_seq_events *events, void *arg, struct pd_seq **out,
                          uint32_t *computed)
{
    uint32_t need = (params->n_tokens + BLOCK_TOKENS - 1) / BLOCK_TOKENS;
    struct pd_seq *s;

    if (params->n_tokens + 1 > CONTEXT)
        return e->fault == FAULT_NEVER ? PD_EAGAIN : PD_ELIMIT;
    if (e->fault == FAULT_QUEUE && e->used == BLOCKS)
        return PD_EPEER;
    if (e->fault == FAULT_GLOBAL && the_one == NULL)
        return PD_ESTALE;
    s = BLOCKS - e->used < need ? NULL : calloc(1, sizeof *s);
    if (s == NULL)
        return PD_EAGAIN;
    s->e = e;
    blocks_take(s, need);
    for (uint32_t p = 0; p < params->n_tokens; p++)
        s->prompt[p] = (uint8_t)params->tokens[p];
    if (e->fault == FAULT_BORDER && e->parted > 1 && e->parted < params->n_tokens) {
        prefill(s, e->parted - 1);      /* found again */
        s->computed = e->parted;
    }
    if (e->fault == FAULT_BUSY)
        pd_timer_start(&e->busy, 0);
    s->events = *events;
    s->arg = arg;
    s->n_prompt = params->n_tokens;
    s->max_output = params->max_output;
    pd_task_init(&s->step, "broken step", step, s);
    *out = s;
    *computed = s->computed;
    return PD_OK;
}

static pd_status seq_blocks(struct pd_seq *s, uint32_t first, uint32_t count, uint32_t *index, uint64_t *generation)
{
    if (first > s->n_blocks || count > s->n_blocks - first)
        return PD_EINVAL;
    for (uint32_t i = 0; i < count; i++) {
        if (index != NULL)
            index[i] = s->blocks[s->e->fault == FAULT_SHARED ? first : first + i];
        if (generation != NULL)
            generation[i] = 1;
    }
    return PD_OK;
}

static pd_status seq_import(struct pd_seq *s, uint32_t upto)
{
    if (upto > s->n_prompt)
        return PD_EINVAL;
    s->computed = upto;
    return PD_OK;
}

static pd_status seq_run(struct pd_seq *s, uint32_t mode, uint32_t upto, const struct pd_token *first)
{
    s->mode = mode;
    s->end = mode == PD_RUN_PREFILL_ONLY ? upto : s->n_prompt;
    if (first != NULL) {
        s->first = *first;
        s->has_first = true;
    }
    s->e->running++;
    if (s->e->fault == FAULT_INSIDE && mode != PD_RUN_PREFILL_ONLY)
        sample(s);
    s->e->runs++;
    if ((s->e->fault == FAULT_CHAIN && s->e->is_inside) || (s->e->fault == FAULT_ASLEEP && s->e->runs % 20 == 0))
        return PD_OK;
    pd_loop_post(s->e->loop, &s->step);
    return PD_OK;
}

static void seq_close(struct pd_seq *s)
{
    pd_task_cancel(s->e->loop, &s->step);
    if (s->mode != 0)
        s->e->running--;
    for (uint32_t i = 0; i < s->n_blocks && (s->e->fault != FAULT_BLOCKS || s->mode == 0); i++) {
        s->e->is_taken[s->blocks[i]] = false;
        s->e->used--;
    }
    free(s);
}

static const struct pd_engine_ops ops = {
    .head = PD_OPS(pd_engine_ops, PD_ENGINE_V1),
    .create = create, .destroy = destroy, .info = info, .load = load, .encode = encode, .piece = piece,
    .seq_open = seq_open, .seq_blocks = seq_blocks, .seq_import = seq_import, .seq_run = seq_run,
    .seq_close = seq_close,
};
/* Claims to import and cannot. */
static const struct pd_engine_ops mute_ops = {
    .head = PD_OPS(pd_engine_ops, PD_ENGINE_V1),
    .create = create, .destroy = destroy, .info = info, .load = load, .encode = encode, .piece = piece,
    .seq_open = seq_open, .seq_blocks = seq_blocks, .seq_run = seq_run, .seq_close = seq_close,
};

static const struct pd_unit units[] = {
    PD_UNIT(.kind = PD_KIND_ENGINE, .name = "broken_engine", .ops = &ops.head, .options = options,
            .conf_size = sizeof(struct broken_conf), .summary = "Broken on purpose."),
    PD_UNIT(.kind = PD_KIND_ENGINE, .name = "mute_engine", .ops = &mute_ops.head, .options = options,
            .conf_size = sizeof(struct broken_conf), .summary = "Broken on purpose."),
    PD_UNIT_END
};

PD_MODULE(.name = "broken_engine", .version = "1.0", .summary = "Test module.", .units = units)
