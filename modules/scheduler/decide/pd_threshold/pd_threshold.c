/* SPDX-License-Identifier: Apache-2.0 */
/* Local or remote by how much of the prompt is not in the decode node's cache:
 * remote when that is at least `threshold`.  Whether this counts tokens or
 * characters must be said, because a factor of four lies between them.
 *
 * In tokens, and where the router does not know them exactly, the decode node
 * decides: it has the tokenizer and the cache, so its numbers are exact. */
#include <stdio.h>
#include <stdlib.h>

#include <pdplane/scheduler.h>

#define BYTES_PER_TOKEN 4u      /* of the blocks of the prefix index */

enum { UNIT_TOKENS = 1, UNIT_CHARS = 2 };
enum { WHEN_LOCAL = 1, WHEN_REMOTE = 2 };

struct th_conf {
    uint32_t unit;
    uint32_t when_no_index;
    uint64_t threshold;
    uint64_t min_prompt;
};

struct pd_decider {
    struct th_conf conf;
};

static const struct pd_option_name unit_names[] = {
    { "tokens", UNIT_TOKENS }, { "chars", UNIT_CHARS }, { NULL, 0 }
};

static const struct pd_option_name when_names[] = {
    { "local", WHEN_LOCAL }, { "remote", WHEN_REMOTE }, { NULL, 0 }
};

static const struct pd_option th_options[] = {
    PD_OPT_ENUM("unit", struct th_conf, unit, NULL, unit_names, .flags = PD_OPT_REQUIRED,
                .help = "What threshold and min_prompt count: tokens, or characters (bytes) of "
                        "the prompt text."),
    PD_OPT_INT("threshold", struct th_conf, threshold, NULL, .flags = PD_OPT_REQUIRED,
               .max = 1 << 30,
               .help = "Prefill remotely when at least this much of the prompt is not cached on "
                       "the decode node; 0 is always."),
    PD_OPT_INT("min_prompt", struct th_conf, min_prompt, "0", .max = 1 << 30,
               .help = "Prompts shorter than this are never prefilled remotely.  In tokens, an "
                       "estimate of 4 characters per token is used where they are not known."),
    PD_OPT_ALIAS("min_prompt_tokens", "min_prompt"),
    PD_OPT_ENUM("when_no_index", struct th_conf, when_no_index, "local", when_names,
                .help = "What to do when the prefix index knows nothing about the prompt and the "
                        "decode node is not asked."),
    PD_OPT_END
};

static pd_status th_create(const struct pd_instance_ctx *ctx, const void *conf,
                           struct pd_decider **out, struct pd_err *err)
{
    struct pd_decider *decider = malloc(sizeof *decider);

    (void)ctx;
    if (decider == NULL) {
        err->status = PD_ENOMEM;
        return PD_ENOMEM;
    }
    decider->conf = *(const struct th_conf *)conf;
    *out = decider;
    return PD_OK;
}

static void th_destroy(struct pd_decider *decider)
{
    free(decider);
}

static void th_decide(struct pd_decider *decider, const struct pd_sched_request *request,
                      const struct pd_endpoint_view *decode, uint32_t prefill_nodes,
                      struct pd_decision *out)
{
    const struct th_conf *c = &decider->conf;
    bool tokens = c->unit == UNIT_TOKENS;
    const char *unit = tokens ? "tokens" : "characters";
    uint64_t prompt = tokens ? request->prompt_tokens : request->prompt_bytes;
    uint64_t block = (uint64_t)request->block_tokens * (tokens ? 1 : BYTES_PER_TOKEN);
    uint64_t cached = decode->match_blocks * block;

    if (prefill_nodes == 0) {
        out->mode = PD_DECIDE_LOCAL;
        snprintf(out->reason, sizeof out->reason, "no prefill endpoint is up");
        return;
    }
    if (prompt < c->min_prompt) {
        out->mode = PD_DECIDE_LOCAL;
        snprintf(out->reason, sizeof out->reason, "the prompt has %llu %s, less than %llu",
                 (unsigned long long)prompt, unit, (unsigned long long)c->min_prompt);
        return;
    }
    if (c->threshold == 0) {
        out->mode = PD_DECIDE_REMOTE;
        snprintf(out->reason, sizeof out->reason, "the threshold is 0");
        return;
    }
    if (tokens && request->tokens_exact == 0) {
        out->mode = PD_DECIDE_EXACT;
        out->min_tokens = c->threshold;
        snprintf(out->reason, sizeof out->reason,
                 "remote from %llu uncached tokens, counted by the decode node",
                 (unsigned long long)c->threshold);
        return;
    }
    if (request->prompt_blocks == 0) {
        out->mode = c->when_no_index == WHEN_REMOTE ? PD_DECIDE_REMOTE : PD_DECIDE_LOCAL;
        snprintf(out->reason, sizeof out->reason, "the prefix index knows nothing of the prompt");
        return;
    }
    uint64_t uncached = cached < prompt ? prompt - cached : 0;
    out->mode = uncached >= c->threshold ? PD_DECIDE_REMOTE : PD_DECIDE_LOCAL;
    snprintf(out->reason, sizeof out->reason, "%llu %s are not cached, the threshold is %llu",
             (unsigned long long)uncached, unit, (unsigned long long)c->threshold);
}

static const struct pd_decider_ops th_ops = {
    .head = PD_OPS(pd_decider_ops, PD_DECIDER_V1),
    .create = th_create, .destroy = th_destroy, .decide = th_decide,
};

static const char *const th_aliases[] = { "pd-profile-handler", NULL };

static const struct pd_unit th_units[] = {
    PD_UNIT(.kind = PD_KIND_DECIDER, .name = "pd_threshold", .ops = &th_ops.head,
            .options = th_options, .conf_size = sizeof(struct th_conf), .aliases = th_aliases,
            .summary = "Prefills remotely from a number of uncached tokens or characters."),
    PD_UNIT_END
};

PD_MODULE(.name = "pd_threshold", .version = "1.0",
          .summary = "Prefills remotely from a number of uncached tokens or characters.",
          .units = th_units)
