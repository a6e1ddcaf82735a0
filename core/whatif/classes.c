/* SPDX-License-Identifier: Apache-2.0 */
#include "whatif/classes.h"

#include <fnmatch.h>

#include "base/buf.h"
#include "base/str.h"

#define TEXT_MAX 65536u

static const struct pd_option class_rows[] = {
    PD_OPT_STRING("endpoints", struct pd_whatif_class, endpoints, "*", .flags = PD_OPT_NONEMPTY,
                  .help = "Names of the endpoints that are like this, with * and ?.  The first class that fits "
                          "an endpoint counts."),
    PD_OPT_NUMBER("prefill_tokens_per_s", struct pd_whatif_class, prefill_tokens_per_s, "8000.0", .lo = 1,
                  .hi = 1e9, .unit = "tokens",
                  .help = "How many tokens of prompts a server computes in a second.  Measure it with one long "
                          "prompt: its tokens by the time to the first token."),
    PD_OPT_DURATION("step", struct pd_whatif_class, step, "15ms", .max = 60 * (int64_t)PD_SEC,
                    .help = "What each step takes, however many sequences run: the time between two tokens of "
                            "a request that is alone."),
    PD_OPT_DURATION("per_sequence", struct pd_whatif_class, per_sequence, "150us", .max = 60 * (int64_t)PD_SEC,
                    .help = "What each sequence that gets a token adds to a step: how much the time between "
                            "tokens grows with the batch."),
    PD_OPT_INT("slots", struct pd_whatif_class, slots, "128", .min = 1, .max = 65536, .unit = "sequences",
               .help = "How many sequences run at a time; others wait in the server."),
    PD_OPT_INT("step_tokens", struct pd_whatif_class, step_tokens, "8192", .min = 1, .max = 1 << 24,
               .unit = "tokens", .help = "How many tokens one step has at most, prompts and answers together."),
    PD_OPT_INT("kv_tokens", struct pd_whatif_class, kv_tokens, "400000", .min = 16, .max = 1 << 28,
               .unit = "tokens",
               .help = "How many tokens the memory holds: those of running sequences, each with its whole answer, "
                       "and with what is left the prefixes of earlier prompts."),
    PD_OPT_INT("block_tokens", struct pd_whatif_class, block_tokens, "16", .min = 1, .max = 65536,
               .unit = "tokens", .help = "Tokens of one block of that memory; prefixes are kept in whole blocks."),
    PD_OPT_BOOL("prefix_cache", struct pd_whatif_class, prefix_cache, "true",
                .help = "Whether prefixes of earlier prompts are not computed again."),
    PD_OPT_NUMBER("transfer_tokens_per_s", struct pd_whatif_class, transfer_tokens_per_s, "200000.0", .lo = 1,
                  .hi = 1e12, .unit = "tokens",
                  .help = "How fast the KV of a prompt comes from the server that computed it: the bandwidth of the "
                          "pair by the bytes that one token has."),
    PD_OPT_DURATION("transfer_latency", struct pd_whatif_class, transfer_latency, "5ms", .max = 60 * (int64_t)PD_SEC,
                    .help = "What each transfer takes besides."),
    PD_OPT_INT("stream_interval", struct pd_whatif_class, stream_interval, "1", .min = 1, .max = 1024,
               .unit = "tokens",
               .help = "Tokens of one event of a stream; the first token comes alone.  More make a run faster, and "
                       "times between tokens are then between events."),
    PD_OPT_PLACE(struct pd_whatif_class, place),
    PD_OPT_END
};

static const struct pd_option classes_rows[] = {
    PD_OPT_GROUP_LIST("servers", struct pd_whatif_classes, classes, class_rows, struct pd_whatif_class,
                      .flags = PD_OPT_NONEMPTY | PD_OPT_REQUIRED, .max = 256, .help = "Classes of servers."),
    PD_OPT_END
};

const struct pd_option *pd_whatif_class_rows(void)
{
    return class_rows;
}

const struct pd_option *pd_whatif_classes_rows(void)
{
    return classes_rows;
}

static pd_status fill(pd_status status, struct pd_conf *conf, struct pd_conf_report *report, struct pd_conf **out)
{
    if (status == PD_OK)
        status = pd_conf_fill(conf, classes_rows, sizeof(struct pd_whatif_classes), NULL, report);
    if (status == PD_OK && !pd_conf_report_ok(report))
        status = PD_EINVAL;
    if (status == PD_OK)
        *out = conf;
    else
        pd_conf_put(conf);
    return status;
}

pd_status pd_whatif_classes_read(const char *path, const struct pd_str *text, struct pd_conf_report *report,
                                 struct pd_conf **out)
{
    struct pd_conf *conf = NULL;
    struct pd_buf whole;
    if (text == NULL) {
        pd_status opened = pd_conf_open(path, NULL, report, &conf);
        return fill(opened, conf, report, out);
    }
    pd_buf_init(&whole, TEXT_MAX);
    pd_buf_appendf(&whole, "servers = ( { %.*s%s } );\n", PD_STR_ARG(*text),
                   text->n > 0 && !pd_str_ends_with(pd_str_trim(*text), PD_STR(";")) ? ";" : "");
    pd_status status = whole.status;
    if (status == PD_OK)
        status = pd_conf_open_text(path, pd_buf_str(&whole), NULL, report, &conf);
    else
        pd_conf_error(report, path, 0, "the text is too long");
    pd_buf_fini(&whole);
    return fill(status, conf, report, out);
}

pd_status pd_whatif_class_default(struct pd_conf_report *report, struct pd_conf **out)
{
    struct pd_str none = PD_STR("");
    return pd_whatif_classes_read("defaults", &none, report, out);
}

const struct pd_whatif_class *pd_whatif_class_find(const struct pd_whatif_classes *p, const char *endpoint)
{
    for (uint64_t i = 0; i < p->classes.count; i++) {
        const struct pd_whatif_class *c = PD_CONF_ITEM(&p->classes, struct pd_whatif_class, i);
        if (fnmatch(c->endpoints, endpoint, 0) == 0)
            return c;
    }
    return NULL;
}
