/* SPDX-License-Identifier: Apache-2.0 */
/* The words of the control socket, each command a row.  doc/man/pdctl.1 lists
 * the same commands; t/30-ctl.t compares the two. */
#include "ctl/words.h"

#include <stdio.h>

#include "base/near.h"
#include "base/status.h"
#include "base/str.h"

static const struct pd_ctl_word words[PD_CTL_COMMANDS] = {
    [PD_CTL_STATUS] = { "status", "", 0, 0, "what this node is and how it does",
        "Shows name, identity, state and roles of the node, how many requests it took and how they "
        "ended, its engines with their load, and where it listens.",
        "pdctl status" },
    [PD_CTL_NODES] = { "nodes", "", 0, 0, "the nodes that this one knows",
        "One row per node, this one first: state of the link, roles, epoch (new at each start), "
        "address, round trip, when it was last heard, and the load of its engines.",
        "pdctl nodes" },
    [PD_CTL_ENDPOINTS] = { "endpoints", "", 0, 0, "what the scheduler can choose from",
        "One row per endpoint of a router: roles, state, reported load, requests in flight from here, "
        "free KV blocks, blocks in the prefix index, dispatches and failures, and the source that found it.",
        "pdctl endpoints" },
    [PD_CTL_DISCOVERY] = { "discovery", "[ACTION]", 0, 1, "sources, and what they name",
        "One row per source: state, what it names, what of it is used, when it was last current, and how "
        "long its entries stay while it is lost; then one row per entry, with the reason when it is left "
        "out.  With the ACTION refresh the sources are asked to look again at once.",
        "pdctl discovery refresh" },
    [PD_CTL_REQUESTS] = { "requests", "[COUNT] [ORDER]", 0, 2, "live requests, then finished ones",
        "At most COUNT rows (50 when absent): stage or outcome, endpoints, local or remote prefill, "
        "tokens, time to the first token, duration, and the KV that was handed over.  ORDER is newest, "
        "or slowest: those that took longest come first.",
        "pdctl requests 5 slowest" },
    [PD_CTL_EXPLAIN] = { "explain", "ID", 1, 1, "why a request went there, where its time went",
        "Shows the record of one request, how long it was in each stage, and each step of its "
        "scheduling: every profile, the endpoints "
        "that filters dropped, each candidate with its total and the score of each plugin, the pick, and "
        "the decision for local or remote prefill with its reason.  ID is the request's id (response "
        "header x-request-id) or its number.",
        "pdctl explain req-17" },
    [PD_CTL_TRANSFERS] = { "transfers", "[COUNT]", 0, 1, "hand-overs of KV, running and ended",
        "At most COUNT rows (50 when absent): direction, peer, transport, bytes, verdict, and whether "
        "digests were verified.",
        "pdctl transfers" },
    [PD_CTL_LEASES] = { "leases", "[COUNT]", 0, 1, "KV blocks that other nodes may write",
        "At most COUNT rows (50 when absent): holder, blocks, time left, renewals; released leases stay "
        "as long as a late message for them could come.",
        "pdctl leases" },
    [PD_CTL_MODULES] = { "modules", "", 0, 0, "the modules that are loaded",
        "Name, version, ABI and the units that each module provides.",
        "pdctl modules" },
    [PD_CTL_GENERATIONS] = { "generations", "", 0, 0, "the configurations in use",
        "One row per generation, oldest first: its age, the requests that began in it and have not ended, "
        "leases and transfers of its engines, and what it waits for before it ends.  Below: how many "
        "reloads were done and refused, and why the last one was refused.",
        "pdctl generations" },
    [PD_CTL_LOG] = { "log", "LEVEL [NAME]", 1, 2, "set what is logged from now on",
        "LEVEL is error, warn, notice, info, debug or trace.  With NAME only lines of that part and "
        "those below it change; \"router\" covers \"router.http\".  The next start follows the "
        "configuration again.",
        "pdctl log debug router" },
    [PD_CTL_RELOAD] = { "reload", "", 0, 0, "take the changed configuration into use",
        "The file is read and checked, what is new in it is made, and the node goes on with it; what is "
        "running goes on.  When anything is wrong nothing changes, and the answer says what and where.",
        "pdctl reload" },
    [PD_CTL_DRAIN] = { "drain", "", 0, 0, "take no new work, then end",
        "New requests are refused and peers are told; the node ends when what is open is done, or when "
        "the setting `drain` of its configuration has run out.",
        "pdctl drain" },
    [PD_CTL_STOP] = { "stop", "", 0, 0, "end now",
        "Open requests end with an error, everything is given back, and the process ends.",
        "pdctl stop" },
    [PD_CTL_HELP] = { "help", "[COMMAND]", 0, 1, "this list, or more about one command",
        "Without COMMAND lists all commands; with it tells what that command does.",
        "pdctl help explain" },
};

const struct pd_ctl_word *pd_ctl_word(uint32_t index)
{
    return &words[index];
}

uint32_t pd_ctl_word_find(struct pd_str name, struct pd_err *err)
{
    char text[PD_NEAR_MAX];
    struct pd_near near;
    for (uint32_t i = 0; i < PD_CTL_COMMANDS; i++) {
        if (pd_str_is(name, words[i].name))
            return i;
    }
    if (err == NULL)
        return PD_CTL_COMMANDS;
    (void)pd_str_copy(name, text, sizeof text);
    pd_near_init(&near, text);
    for (uint32_t i = 0; i < PD_CTL_COMMANDS; i++)
        pd_near_try(&near, words[i].name);
    const char *best = pd_near_best(&near);
    pd_err_set(err, PD_ENOENT, "unknown command \"%s\"%s%s%s", text, best != NULL ? ", did you mean \"" : "",
               best != NULL ? best : "", best != NULL ? "\"?" : "");
    pd_err_hint(err, "\"help\" lists the commands");
    return PD_CTL_COMMANDS;
}

bool pd_ctl_word_fits(uint32_t index, uint32_t n, struct pd_err *err)
{
    const struct pd_ctl_word *w = &words[index];
    if (n >= w->min_args && n <= w->max_args)
        return true;
    if (err != NULL)
        pd_err_set(err, PD_EINVAL, "usage: %s%s%s", w->name, w->args[0] != '\0' ? " " : "", w->args);
    return false;
}

void pd_ctl_words_list(struct pd_buf *out)
{
    for (uint32_t i = 0; i < PD_CTL_COMMANDS; i++) {
        const struct pd_ctl_word *w = &words[i];
        char usage[64];
        snprintf(usage, sizeof usage, "%s%s%s", w->name, w->args[0] != '\0' ? " " : "", w->args);
        pd_buf_appendf(out, "  %-25s %s\n", usage, w->summary);
    }
}

/* Sentences as lines of at most `width` characters. */
static void fold(struct pd_buf *out, const char *text, size_t width)
{
    struct pd_str rest = pd_str_from(text), word;
    size_t column = 0;
    while (pd_str_split(&rest, ' ', &word)) {
        if (word.n == 0)
            continue;
        if (column > 0 && column + 1 + word.n > width) {
            pd_buf_append_char(out, '\n');
            column = 0;
        }
        if (column > 0)
            pd_buf_append_char(out, ' ');
        pd_buf_append_str(out, word);
        column += word.n + (column > 0);
    }
    pd_buf_append_char(out, '\n');
}

void pd_ctl_word_help(uint32_t index, struct pd_buf *out)
{
    const struct pd_ctl_word *w = &words[index];
    pd_buf_appendf(out, "%s%s%s: %s\n\n", w->name, w->args[0] != '\0' ? " " : "", w->args, w->summary);
    fold(out, w->help, 78);
    pd_buf_appendf(out, "\nexample: %s\n", w->example);
}
