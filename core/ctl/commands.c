/* SPDX-License-Identifier: Apache-2.0 */
/* What each command does.  A handler writes its answer into a buffer and comes
 * back; none waits for anything. */
#include <stdio.h>

#include "base/compiler.h"
#include "base/status.h"
#include "base/str.h"
#include "ctl/priv.h"
#include "node/report.h"

typedef pd_status handler(struct pd_ctl_call *call, struct pd_view *v, struct pd_err *err);

/* The optional COUNT of a list. */
static pd_status count_arg(const struct pd_ctl_call *call, uint32_t *out, struct pd_err *err)
{
    uint64_t n = PD_REPORT_ROWS;
    if (call->n > 1 && (pd_str_parse_u64(call->words[1], &n) != PD_OK || n < 1 || n > PD_REPORT_ROWS_MAX))
        return pd_err_set(err, PD_EINVAL, "COUNT is a number from 1 to %u", PD_REPORT_ROWS_MAX);
    *out = (uint32_t)n;
    return PD_OK;
}

static void control_report(const struct pd_ctl *ctl, struct pd_view *v)
{
    const struct pd_ctl_stats *s = &ctl->stats;
    const struct {
        const char *key;
        uint64_t value;
    } rows[] = { { "open", s->open }, { "accepted", s->accepted }, { "refused", s->refused },
                 { "commands", s->commands }, { "errors", s->errors }, { "too_long", s->too_long },
                 { "timeouts", s->timeouts } };
    pd_view_object(v, "control", NULL);
    for (size_t i = 0; i < PD_ARRAY_LEN(rows); i++) {
        pd_view_field(v, rows[i].key, NULL);
        pd_view_count(v, rows[i].value);
    }
    pd_view_end(v);
}

static pd_status do_status(struct pd_ctl_call *call, struct pd_view *v, struct pd_err *err)
{
    (void)err;
    pd_report_status(call->ctl->params.node, v);
    pd_report_engines(call->ctl->params.node, v);
    pd_report_listen(call->ctl->params.node, v);
    control_report(call->ctl, v);
    return PD_OK;
}

static pd_status do_nodes(struct pd_ctl_call *call, struct pd_view *v, struct pd_err *err)
{
    (void)err;
    pd_report_nodes(call->ctl->params.node, v);
    return PD_OK;
}

static pd_status do_endpoints(struct pd_ctl_call *call, struct pd_view *v, struct pd_err *err)
{
    (void)err;
    pd_report_endpoints(call->ctl->params.node, v);
    return PD_OK;
}

static pd_status do_discovery(struct pd_ctl_call *call, struct pd_view *v, struct pd_err *err)
{
    struct pd_node *node = call->ctl->params.node;
    if (call->n > 1) {
        if (!pd_str_is(call->words[1], "refresh"))
            return pd_err_set(err, PD_EINVAL, "ACTION is refresh");
        if (pd_node_sources(node) != NULL)
            pd_sources_refresh(pd_node_sources(node));
    }
    pd_report_sources(node, v);
    pd_report_entries(node, v);
    return PD_OK;
}

static pd_status do_modules(struct pd_ctl_call *call, struct pd_view *v, struct pd_err *err)
{
    (void)err;
    pd_report_modules(call->ctl->params.node, v);
    return PD_OK;
}

static pd_status out_of_memory(pd_status status, struct pd_err *err)
{
    return status == PD_OK ? PD_OK : pd_err_set(err, status, "%s", pd_status_text(status));
}

static pd_status do_requests(struct pd_ctl_call *call, struct pd_view *v, struct pd_err *err)
{
    uint32_t max = 0;
    enum pd_report_order order = PD_REPORT_NEWEST;
    bool is_slowest = call->n > 1 && pd_str_is(call->words[call->n - 1], "slowest");
    /* Either may stand alone. */
    if (is_slowest || (call->n > 1 && pd_str_is(call->words[call->n - 1], "newest"))) {
        order = is_slowest ? PD_REPORT_SLOWEST : PD_REPORT_NEWEST;
        call->n--;
    }
    if (call->n > 2)
        return pd_err_set(err, PD_EINVAL, "ORDER is newest or slowest");
    pd_status status = count_arg(call, &max, err);
    if (status != PD_OK)
        return status;
    return out_of_memory(pd_report_requests(call->ctl->params.node, v, max, order), err);
}

static pd_status do_transfers(struct pd_ctl_call *call, struct pd_view *v, struct pd_err *err)
{
    uint32_t max = 0;
    pd_status status = count_arg(call, &max, err);
    if (status != PD_OK)
        return status;
    return out_of_memory(pd_report_transfers(call->ctl->params.node, v, max), err);
}

static pd_status do_leases(struct pd_ctl_call *call, struct pd_view *v, struct pd_err *err)
{
    uint32_t max = 0;
    pd_status status = count_arg(call, &max, err);
    if (status != PD_OK)
        return status;
    return out_of_memory(pd_report_leases(call->ctl->params.node, v, max), err);
}

static pd_status do_explain(struct pd_ctl_call *call, struct pd_view *v, struct pd_err *err)
{
    pd_status status = pd_report_explain(call->ctl->params.node, v, call->words[1]);
    if (status == PD_ENOENT)
        pd_err_set(err, status, "no request \"%.*s\" is remembered here; \"requests\" lists those that are",
                   PD_STR_ARG(call->words[1]));
    return status;
}

/* An answer of one sentence, and a member for programs. */
static void say(struct pd_view *v, const char *key, const char *value, const char *text)
{
    if (v->is_json)
        pd_json_add_cstr(&v->json, key, value);
    else
        pd_view_line(v, "%s", text);
}

static pd_status do_log(struct pd_ctl_call *call, struct pd_view *v, struct pd_err *err)
{
    char name[64] = "", text[128];
    int32_t level;
    struct pd_log *log = call->ctl->params.log;
    if (pd_log_level_parse(call->words[1], &level) != PD_OK)
        return pd_err_set(err, PD_EINVAL, "LEVEL is error, warn, notice, info, debug or trace");
    if (call->n > 2 && pd_str_copy(call->words[2], name, sizeof name) != PD_OK)
        return pd_err_set(err, PD_EINVAL, "NAME is too long");
    pd_status status = pd_log_set_level(log, name, level);
    if (status != PD_OK)
        return pd_err_set(err, status, "the level cannot be set: %s", pd_status_text(status));
    pd_log_notice(log, "log level %s%s%s, by the control socket", pd_log_level_name(level),
                  name[0] != '\0' ? " for " : "", name);
    snprintf(text, sizeof text, "log level is %s%s%s now", pd_log_level_name(level),
             name[0] != '\0' ? " for " : "", name);
    say(v, "level", pd_log_level_name(level), text);
    if (v->is_json)
        pd_json_add_cstr(&v->json, "name", name);
    return PD_OK;
}

static pd_status do_generations(struct pd_ctl_call *call, struct pd_view *v, struct pd_err *err)
{
    (void)err;
    pd_report_generations(call->ctl->params.node, v);
    return PD_OK;
}

static pd_status do_reload(struct pd_ctl_call *call, struct pd_view *v, struct pd_err *err)
{
    const struct pd_ctl_params *p = &call->ctl->params;
    struct pd_err why = { 0 };
    char place[300] = "", text[64];
    pd_status status = p->on_reload == NULL ? pd_err_set(&why, PD_ENOSYS, "this node cannot reload")
                                            : p->on_reload(p->arg, &why);
    if (why.file[0] != '\0' && why.line != 0)
        snprintf(place, sizeof place, "%s:%u: ", why.file, why.line);
    else if (why.file[0] != '\0')
        snprintf(place, sizeof place, "%s: ", why.file);
    if (status != PD_OK)
        return pd_err_set(err, status, "%.220s%s%s%s", place, why.text, why.hint[0] != '\0' ? "; " : "",
                          why.hint);
    snprintf(text, sizeof text, "generation %llu is in use", (unsigned long long)p->node->generation->number);
    say(v, "state", "reloaded", text);
    if (v->is_json)
        pd_json_add_u64(&v->json, "generation", p->node->generation->number);
    return PD_OK;
}

static pd_status do_drain(struct pd_ctl_call *call, struct pd_view *v, struct pd_err *err)
{
    (void)err;
    call->ctl->want_drain = true;
    pd_loop_defer(call->ctl->params.loop, &call->ctl->act_task);
    say(v, "state", "draining", "draining; the node ends when its work is done");
    return PD_OK;
}

static pd_status do_stop(struct pd_ctl_call *call, struct pd_view *v, struct pd_err *err)
{
    (void)err;
    call->ctl->want_stop = true;
    pd_loop_defer(call->ctl->params.loop, &call->ctl->act_task);
    say(v, "state", "stopping", "stopping");
    return PD_OK;
}

static void help_json(struct pd_view *v)
{
    pd_json_begin_array(&v->json, "commands");
    for (uint32_t i = 0; i < PD_CTL_COMMANDS; i++) {
        const struct pd_ctl_word *w = pd_ctl_word(i);
        pd_json_begin_object(&v->json, NULL);
        pd_json_add_cstr(&v->json, "name", w->name);
        pd_json_add_cstr(&v->json, "args", w->args);
        pd_json_add_cstr(&v->json, "summary", w->summary);
        pd_json_add_cstr(&v->json, "help", w->help);
        pd_json_add_cstr(&v->json, "example", w->example);
        pd_json_end(&v->json);
    }
    pd_json_end(&v->json);
}

static pd_status do_help(struct pd_ctl_call *call, struct pd_view *v, struct pd_err *err)
{
    uint32_t index = PD_CTL_COMMANDS;
    if (call->n > 1 && (index = pd_ctl_word_find(call->words[1], err)) == PD_CTL_COMMANDS)
        return PD_ENOENT;
    if (v->is_json)
        help_json(v);
    else if (index != PD_CTL_COMMANDS)
        pd_ctl_word_help(index, v->out);
    else
        pd_ctl_words_list(v->out);
    return PD_OK;
}

static handler *const handlers[PD_CTL_COMMANDS] = {
    [PD_CTL_STATUS] = do_status,       [PD_CTL_NODES] = do_nodes,
    [PD_CTL_ENDPOINTS] = do_endpoints, [PD_CTL_REQUESTS] = do_requests,
    [PD_CTL_DISCOVERY] = do_discovery,
    [PD_CTL_EXPLAIN] = do_explain,     [PD_CTL_TRANSFERS] = do_transfers,
    [PD_CTL_LEASES] = do_leases,       [PD_CTL_MODULES] = do_modules,
    [PD_CTL_GENERATIONS] = do_generations,
    [PD_CTL_LOG] = do_log,             [PD_CTL_RELOAD] = do_reload,
    [PD_CTL_DRAIN] = do_drain,         [PD_CTL_STOP] = do_stop,
    [PD_CTL_HELP] = do_help,
};

/* Words are separated by blanks and tabs; --json may stand anywhere behind the
 * command. */
static pd_status split(struct pd_ctl_call *call, struct pd_str line, struct pd_err *err)
{
    size_t i = 0;
    while (i < line.n) {
        size_t from = i;
        while (i < line.n && line.p[i] != ' ' && line.p[i] != '\t')
            i++;
        struct pd_str word = { line.p + from, i - from };
        i++;
        if (word.n == 0)
            continue;
        if (call->n > 0 && pd_str_is(word, "--json")) {
            call->is_json = true;
            continue;
        }
        if (call->n == PD_CTL_WORDS_MAX)
            return pd_err_set(err, PD_ELIMIT, "a command has at most %u words", PD_CTL_WORDS_MAX);
        call->words[call->n++] = word;
    }
    return call->n > 0 ? PD_OK : pd_err_set(err, PD_EINVAL, "no command; \"help\" lists them");
}

pd_status pd_ctl_run(struct pd_ctl *ctl, struct pd_str line, struct pd_buf *body, struct pd_err *err)
{
    struct pd_ctl_call call = { .ctl = ctl };
    struct pd_view v;
    pd_status status = split(&call, line, err);
    if (status != PD_OK)
        return status;
    uint32_t index = pd_ctl_word_find(call.words[0], err);
    if (index == PD_CTL_COMMANDS)
        return PD_ENOENT;
    if (!pd_ctl_word_fits(index, call.n - 1, err))
        return PD_EINVAL;
    pd_view_init(&v, call.is_json ? PD_VIEW_JSON : PD_VIEW_TEXT, body);
    status = handlers[index](&call, &v, err);
    pd_status written = pd_view_fini(&v);
    if (status == PD_OK && written != PD_OK)
        status = pd_err_set(err, written, "the answer is too long, ask for fewer rows");
    return status;
}
