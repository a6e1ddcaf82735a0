/* SPDX-License-Identifier: Apache-2.0 */
/* An adapter that breaks its contract in the way that its option names. */
#include <stdlib.h>
#include <string.h>

#include <pdplane/adapter.h>

enum {
    FAULT_NONE, FAULT_TARGET, FAULT_HEADER, FAULT_VALUE, FAULT_UNKNOWN, FAULT_PAIR, FAULT_EACH, FAULT_DOTS,
    FAULT_INNER,                /* a member inside of one that is none */
    FAULT_NEVER,                /* a whole answer is asked for, and nothing tells that it is one */
    FAULT_TWICE,                /* a member of a leg is changed twice */
    FAULT_GROWTH, FAULT_LEAK,
    FAULT_GLOBAL                /* one state for all instances, which goes with the first of them */
};

struct broken_conf {
    uint32_t fault;
};

struct pd_adapter {
    uint32_t fault;
};

static const struct pd_option_name faults[] = {
    { "none", FAULT_NONE },   { "target", FAULT_TARGET },   { "header", FAULT_HEADER },
    { "value", FAULT_VALUE }, { "unknown", FAULT_UNKNOWN }, { "twice", FAULT_TWICE },
    { "pair", FAULT_PAIR },   { "each", FAULT_EACH },       { "growth", FAULT_GROWTH },
    { "leak", FAULT_LEAK },   { "global", FAULT_GLOBAL },   { "dots", FAULT_DOTS },
    { "inner", FAULT_INNER }, { "never", FAULT_NEVER },
    { NULL, 0 },
};

static const char *path;

static void leak(void)
{
    void *volatile lost = malloc(100);
    (void)lost;
}

static const struct pd_option options[] = {
    PD_OPT_ENUM("fault", struct broken_conf, fault, "none", faults, .help = "What is wrong."),
    PD_OPT_END
};

static pd_status create(const struct pd_instance_ctx *ctx, const void *conf, struct pd_adapter **out,
                        struct pd_err *err)
{
    (void)ctx;
    (void)err;
    *out = calloc(1, sizeof **out);
    if (*out == NULL)
        return PD_ENOMEM;
    (*out)->fault = ((const struct broken_conf *)conf)->fault;
    path = "/v1/chat/completions";
    if ((*out)->fault == FAULT_LEAK)
        leak();
    return PD_OK;
}

static void destroy(struct pd_adapter *a)
{
    if (a->fault == FAULT_GLOBAL)
        path = "/gone";
    free(a);
}

static pd_status http(struct pd_adapter *a, uint32_t what, struct pd_adapter_http *out)
{
    if (what > PD_ADAPTER_PROBE && a->fault != FAULT_UNKNOWN)
        return PD_ENOSYS;
    if (a->fault == FAULT_GROWTH)
        leak();
    out->target = a->fault == FAULT_TARGET ? PD_STR("v1/chat/completions") : (struct pd_str){ path, strlen(path) };
    out->n_headers = 1;
    out->headers[0].name = a->fault == FAULT_HEADER ? PD_STR("X-Key") : PD_STR("x-key");
    out->headers[0].value = a->fault == FAULT_VALUE ? PD_STR("a\r\nevil: 1") : PD_STR("a");
    return PD_OK;
}

/* One of a pair has no answer to take from, and nothing to repeat where no value is. */
static pd_status split(struct pd_adapter *a, struct pd_adapter_split *out)
{
    out->protocol = PD_STR("broken");
    out->flags = PD_ADAPTER_PAIR;
    out->n_prefill = out->n_decode = 1;
    out->prefill[0] = (struct pd_adapter_edit){ .op = PD_ADAPTER_SET_ROOM, .flags = PD_ADAPTER_EACH,
                                                .member = PD_STR("room"), .text = PD_STR("") };
    out->decode[0] = out->prefill[0];
    if (a->fault == FAULT_PAIR) {
        out->take = PD_STR("room");
        out->decode[0].op = PD_ADAPTER_SET_TAKEN;
        out->decode[0].flags = 0;
    }
    if (a->fault == FAULT_EACH)
        out->prefill[0].op = PD_ADAPTER_REMOVE;
    if (a->fault == FAULT_INNER)
        out->prefill[out->n_prefill++] = (struct pd_adapter_edit){
            .op = PD_ADAPTER_SET, .member = PD_STR("room.door"), .text = PD_STR("1") };
    if (a->fault == FAULT_NEVER)
        out->prefill[0].flags |= PD_ADAPTER_IF_MORE;
    if (a->fault == FAULT_TWICE)
        out->prefill[out->n_prefill++] = out->prefill[0];
    return PD_OK;
}

static pd_status expects(struct pd_adapter *a, uint32_t roles, struct pd_adapter_expects *out)
{
    (void)roles;
    out->n = 1;
    out->items[0].member = a->fault == FAULT_DOTS ? PD_STR("mode.name") : PD_STR("mode");
    out->items[0].value = PD_STR("x");
    return PD_OK;
}

static const struct pd_adapter_ops ops = {
    .head = PD_OPS(pd_adapter_ops, PD_ADAPTER_V1), .create = create, .destroy = destroy, .http = http,
    .split = split, .expects = expects,
};

static const struct pd_unit units[] = {
    PD_UNIT(.kind = PD_KIND_ADAPTER, .name = "broken_adapter", .ops = &ops.head, .options = options,
            .conf_size = sizeof(struct broken_conf), .summary = "Broken on purpose."),
    PD_UNIT_END
};

PD_MODULE(.name = "broken_adapter", .version = "1.0", .summary = "Test module.", .units = units)
