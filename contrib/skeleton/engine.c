/* SPDX-License-Identifier: Apache-2.0 */
/* @NAME@: computes nothing: each byte of a text is a token, the answer counts up. */
#include <stdlib.h>
#include <string.h>

#include <pdplane/engine.h>
#include <pdplane/loop.h>

enum { BLOCKS = 64 };           /* one for each sequence */

struct @NAME@_conf {           /* filled from the rows below */
    uint32_t context;
};

struct pd_engine {
    const struct @NAME@_conf *conf;
    struct pd_loop *loop;
    uint32_t used, running;     /* blocks, sequences */
    struct pd_task closing;
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

static const struct pd_option @NAME@_options[] = {
    PD_OPT_INT("context", struct @NAME@_conf, context, "256", .min = 16, .max = 1 << 20, .unit = "tokens",
               .help = "Longest prompt and answer together."),
    PD_OPT_END
};

static pd_status create(const struct pd_instance_ctx *ctx, const void *conf, struct pd_engine **out,
                        struct pd_err *err)
{
    struct pd_engine *e = calloc(1, sizeof *e);

    if (e == NULL) {
        err->status = PD_ENOMEM;
        return PD_ENOMEM;
    }
    e->loop = ctx->loop;
    e->conf = conf;
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
    pd_task_init(&e->closing, "@NAME@ close", closed, e);
    pd_loop_post(e->loop, &e->closing);
}

static void info(struct pd_engine *e, struct pd_engine_info *out)
{
    out->flags = PD_ENGINE_EXACT;   /* EXPORT and IMPORT: when KV can be read and written */
    out->model = "bytes";
    out->context_tokens = e->conf->context;
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

/* ASCII is good, the rest is not. */
static pd_status encode(struct pd_engine *e, struct pd_str text, int32_t *ids, size_t cap, size_t *n)
{
    (void)e;
    *n = text.n;
    for (size_t i = 0; i < text.n; i++) {
        if ((unsigned char)text.p[i] >= 0x80)
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

    t.id = (int32_t)(s->n_out % 200);
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
        pd_task_cancel(s->e->loop, &s->step);
        s->e->running--;
        s->mode = 0;
        s->events.on_finish(s, PD_FINISH_LENGTH, PD_OK, s->arg);
    }
}

static pd_status seq_open(struct pd_engine *e, const struct pd_seq_params *params,
                          const struct pd_seq_events *events, void *arg, struct pd_seq **out,
                          uint32_t *computed)
{
    struct pd_seq *s;

    if (params->n_tokens + 1 > e->conf->context)
        return PD_ELIMIT;
    s = e->used == BLOCKS ? NULL : calloc(1, sizeof *s);
    if (s == NULL)
        return PD_EAGAIN;
    s->e = e;
    s->events = *events;
    s->arg = arg;
    s->n_prompt = params->n_tokens;
    s->max_output = params->max_output;
    pd_task_init(&s->step, "@NAME@ step", step, s);
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
    pd_loop_post(s->e->loop, &s->step);
    return PD_OK;
}

static void seq_close(struct pd_seq *s)
{
    pd_task_cancel(s->e->loop, &s->step);
    if (s->mode != 0)
        s->e->running--;
    s->e->used--;
    free(s);
}

static const struct pd_engine_ops ops = {
    .head = PD_OPS(pd_engine_ops, PD_ENGINE_V1),
    .create = create, .destroy = destroy, .info = info, .load = load, .encode = encode, .piece = piece,
    .seq_open = seq_open, .seq_run = seq_run, .seq_close = seq_close,
};

static const struct pd_unit units[] = {
    PD_UNIT(.kind = PD_KIND_ENGINE, .name = "@NAME@", .ops = &ops.head,
            .options = @NAME@_options, .conf_size = sizeof(struct @NAME@_conf),
            .summary = "Counts up instead of computing."),
    PD_UNIT_END
};

PD_MODULE(.name = "@NAME@", .version = "0.1", .summary = "Counts up instead of computing.",
          .units = units)
