/* SPDX-License-Identifier: Apache-2.0 */
/* Adapters that are sound but for how they present themselves, each unit in a way
 * of its own, and one whose check does what a check must not. */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <pdplane/adapter.h>

struct pd_adapter {
    uint32_t unused;
};

static pd_status create(const struct pd_instance_ctx *ctx, const void *conf, struct pd_adapter **out,
                        struct pd_err *err)
{
    (void)ctx;
    (void)conf;
    (void)err;
    *out = calloc(1, sizeof **out);
    return *out == NULL ? PD_ENOMEM : PD_OK;
}

static void destroy(struct pd_adapter *a)
{
    free(a);
}

static pd_status http(struct pd_adapter *a, uint32_t what, struct pd_adapter_http *out)
{
    (void)a;
    if (what > PD_ADAPTER_PROBE)
        return PD_ENOSYS;
    out->target = PD_STR("/v1/models");
    return PD_OK;
}

static const struct pd_adapter_ops ops = {
    .head = PD_OPS(pd_adapter_ops, PD_ADAPTER_V1), .create = create, .destroy = destroy, .http = http,
};

/* ---- rows */

struct conf {
    uint32_t word;
    uint32_t fault;
    uint64_t limit;
};

static const struct pd_option_name words[] = { { "slow", 0 }, { "fast", 1 }, { "slow", 2 }, { NULL, 0 } };

static const struct pd_option help_rows[] = {
    PD_OPT_SIZE("limit", struct conf, limit, "1m", .help = "how much"),
    PD_OPT_END
};
static const struct pd_option words_rows[] = {
    PD_OPT_ENUM("word", struct conf, word, "slow", words, .help = "How it goes."),
    PD_OPT_END
};
static const struct pd_option flags_rows[] = {
    PD_OPT_SIZE("limit", struct conf, limit, "1m", .flags = 1u << 20, .help = "How much."),
    PD_OPT_END
};

/* ---- check */

enum { FAULT_NONE, FAULT_LEAK, FAULT_FDS, FAULT_CHANGE, FAULT_REFUSE };

static const struct pd_option_name faults[] = {
    { "none", FAULT_NONE },     { "leak", FAULT_LEAK },     { "fds", FAULT_FDS },
    { "change", FAULT_CHANGE }, { "refuse", FAULT_REFUSE }, { NULL, 0 },
};
static const struct pd_option check_rows[] = {
    PD_OPT_ENUM("fault", struct conf, fault, "none", faults, .help = "What is wrong."),
    PD_OPT_SIZE("limit", struct conf, limit, "0", .help = "How much. 0 takes 1m."),
    PD_OPT_END
};

/* Opens what it wants to look at and keeps it, or writes down what it found. */
static pd_status check(const void *conf, struct pd_err *err)
{
    struct conf c;
    void *changed;

    memcpy(&c, conf, sizeof c);
    memcpy(&changed, &conf, sizeof changed);
    if (c.fault == FAULT_LEAK) {
        void *volatile lost = malloc(100);
        (void)lost;
    }
    if (c.fault == FAULT_FDS && dup(STDIN_FILENO) < 0)
        return PD_ELIMIT;
    c.limit = 1 << 20;
    if (c.fault == FAULT_CHANGE)
        memcpy(changed, &c, sizeof c);
    if (c.fault == FAULT_REFUSE) {
        strcpy(err->text, "limit is too small");
        return PD_EINVAL;
    }
    return PD_OK;
}

static const struct pd_unit units[] = {
    PD_UNIT(.kind = PD_KIND_ADAPTER, .name = "broken_summary", .ops = &ops.head, .summary = "broken on purpose"),
    PD_UNIT(.kind = PD_KIND_ADAPTER, .name = "broken_help", .ops = &ops.head, .options = help_rows,
            .conf_size = sizeof(struct conf), .summary = "Broken on purpose."),
    PD_UNIT(.kind = PD_KIND_ADAPTER, .name = "broken_words", .ops = &ops.head, .options = words_rows,
            .conf_size = sizeof(struct conf), .summary = "Broken on purpose."),
    PD_UNIT(.kind = PD_KIND_ADAPTER, .name = "broken_flags", .ops = &ops.head, .options = flags_rows,
            .conf_size = sizeof(struct conf), .summary = "Broken on purpose."),
    PD_UNIT(.kind = PD_KIND_ADAPTER, .name = "broken_check", .ops = &ops.head, .options = check_rows,
            .conf_size = sizeof(struct conf), .check = check, .summary = "Broken on purpose."),
    PD_UNIT_END
};

PD_MODULE(.name = "broken_unit", .version = "1.0", .summary = "For t/12-conform.t.", .units = units)
