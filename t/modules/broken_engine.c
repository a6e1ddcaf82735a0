/* SPDX-License-Identifier: Apache-2.0 */
/* An engine of bytes: each byte of a text is a token, the answer counts up.  It
 * breaks its contract in the way that its option names. */
#include <stdlib.h>
#include <string.h>

#include <pdplane/engine.h>
#include <pdplane/loop.h>

enum { BLOCKS = 64, CONTEXT = 256 };
enum { FAULT_NONE, FAULT_IMPORT, FAULT_INSIDE, FAULT_BLOCKS, FAULT_TWICE, FAULT_RANDOM, FAULT_UTF8,
       FAULT_CHAIN, FAULT_ASLEEP, FAULT_QUEUE, FAULT_BUSY };

struct broken_conf {
    uint32_t fault;
};

struct pd_engine {
    struct pd_loop *loop;
    uint32_t fault, used, running, sampled, runs;
    bool is_inside;             /* of on_finish */
    struct pd_task closing;
    struct pd_timer busy;
    void (*on_closed)(void *arg);
    void *arg;
};

struct pd_seq {
    struct pd_engine *e;
    struct pd_seq_events events;
    void *arg;
    uint32_t n_prompt, n_out, max_output, upto, mode;
    struct pd_task step;
};

static const struct pd_option_name faults[] = {
    { "none", FAULT_NONE },   { "import", FAULT_IMPORT }, { "inside", FAULT_INSIDE }, { "blocks", FAULT_BLOCKS },
    { "twice", FAULT_TWICE }, { "random", FAULT_RANDOM }, { "utf8", FAULT_UTF8 },
    { "chain", FAULT_CHAIN }, { "asleep", FAULT_ASLEEP }, { "queue", FAULT_QUEUE },   { "busy", FAULT_BUSY },
    { NULL, 0 },
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
    *out = e;
    return PD_OK;
}

static void closed(struct pd_task *task, void *arg)
{
    struct pd_engine *e = arg;
    void (*on_closed)(void *) = e->on_closed;
    void *closed_arg = e->arg;

    (void)task;
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
    out->flags = PD_ENGINE_EXACT | (e->fault == FAULT_IMPORT ? (uint32_t)PD_ENGINE_IMPORT : 0);
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
            ids[i] = (unsigned char)text.p[i];
    }
    return text.n > cap ? PD_ELIMIT : PD_OK;
}

static struct pd_str piece(struct pd_engine *e, int32_t id)
{
    static const char table[] = " !\"#$%&'()*+,-./0123456789:;<=>?@ABCDEFGHIJKLMNOPQRSTUVWXYZ[\\]^_`"
                                "abcdefghijklmnopqrstuvwxyz{|}~";

    (void)e;
    if (id < ' ' || id > '~')
        return (struct pd_str){ table, 0 };
    return (struct pd_str){ table + (id - ' '), 1 };
}

static void sample(struct pd_seq *s)
{
    struct pd_token t = { .size = sizeof t, .position = s->n_prompt + s->n_out };
    bool random = s->e->fault == FAULT_RANDOM;

    t.id = (int32_t)((random ? s->e->sampled++ : s->n_out) % 200);
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
    if (s->upto == 0) {
        s->upto = s->n_prompt;
        if (s->events.on_kv != NULL)
            s->events.on_kv(s, s->upto, s->arg);
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

static pd_status seq_open(struct pd_engine *e, const struct pd_seq_params *params,
                          const struct pd_seq_events *events, void *arg, struct pd_seq **out,
                          uint32_t *computed)
{
    struct pd_seq *s;

    if (params->n_tokens + 1 > CONTEXT)
        return PD_ELIMIT;
    if (e->fault == FAULT_QUEUE && e->used == BLOCKS)
        return PD_EPEER;
    s = e->used == BLOCKS ? NULL : calloc(1, sizeof *s);
    if (s == NULL)
        return PD_EAGAIN;
    s->e = e;
    if (e->fault == FAULT_BUSY)
        pd_timer_start(&e->busy, 0);
    s->events = *events;
    s->arg = arg;
    s->n_prompt = params->n_tokens;
    s->max_output = params->max_output;
    pd_task_init(&s->step, "broken step", step, s);
    e->used++;
    *out = s;
    *computed = 0;
    return PD_OK;
}

static pd_status seq_run(struct pd_seq *s, uint32_t mode, uint32_t upto, const struct pd_token *first)
{
    (void)upto;
    (void)first;
    s->mode = mode;
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
    if (s->e->fault != FAULT_BLOCKS || s->mode == 0)
        s->e->used--;
    free(s);
}

static const struct pd_engine_ops ops = {
    .head = PD_OPS(pd_engine_ops, PD_ENGINE_V1),
    .create = create, .destroy = destroy, .info = info, .load = load, .encode = encode, .piece = piece,
    .seq_open = seq_open, .seq_run = seq_run, .seq_close = seq_close,
};

static const struct pd_unit units[] = {
    PD_UNIT(.kind = PD_KIND_ENGINE, .name = "broken_engine", .ops = &ops.head, .options = options,
            .conf_size = sizeof(struct broken_conf), .summary = "Broken on purpose."),
    PD_UNIT_END
};

PD_MODULE(.name = "broken_engine", .version = "1.0", .summary = "Test module.", .units = units)
