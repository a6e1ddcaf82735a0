/* SPDX-License-Identifier: Apache-2.0 */
/* Makes the bodies of requests. */
#include "main/pdbench_bodies.h"

#include <stdio.h>

#include "base/json.h"
#include "base/mem.h"
#include "base/status.h"
#include "base/str.h"
#include "bench/trace.h"
#include "os/file.h"

#define FILE_MAX (1u << 30)
#define BYTES_MAX (4ull << 30)
#define PROMPT_MAX (65u << 20)

static void put_body(struct pdbench_bodies *b, struct pd_str prompt, uint64_t max_tokens)
{
    struct pd_buf *all = &b->all;
    pd_buf_append_cstr(all, "{\"model\":");
    pd_json_put_cstr(all, b->model);
    pd_buf_append_cstr(all, b->is_completions ? ",\"prompt\":" : ",\"messages\":[{\"role\":\"user\",\"content\":");
    pd_json_put_str(all, prompt);
    pd_buf_appendf(all, "%s,\"max_tokens\":%llu,\"temperature\":0%s}", b->is_completions ? "" : "}]",
                   (unsigned long long)max_tokens, b->is_stream ? ",\"stream\":true" : "");
}

/* A prompt of words; the first ones tell prompts apart, so that no two share a prefix. */
static void prompt_make(struct pd_buf *b, uint64_t index, uint64_t bytes)
{
    static const char *const words[] = { "decode", "prefill", "router", "block", "lease", "token", "engine", "node" };
    uint64_t x = index * 0x9e3779b97f4a7c15u + 1;
    pd_buf_clear(b);
    pd_buf_appendf(b, "%llu:", (unsigned long long)index);
    while (b->n < bytes && b->status == PD_OK) {
        x = x * 6364136223846793005u + 1442695040888963407u;
        pd_buf_appendf(b, " %s", words[x >> 61]);
    }
    pd_buf_truncate(b, bytes);
}

static bool say(const char *what, const char *name)
{
    fprintf(stderr, "pdbench load: %s%s%s\n", what, name != NULL ? " " : "", name != NULL ? name : "");
    return false;
}

/* The buffer moves while it grows, so ends are kept first. */
static bool list_make(struct pdbench_bodies *b, const size_t *ends, size_t n)
{
    if (b->all.status != PD_OK)
        return say(b->all.status == PD_ENOMEM ? "out of memory" : "the prompts are too large", NULL);
    b->list = pd_calloc(n, sizeof *b->list);
    if (b->list == NULL)
        return say("out of memory", NULL);
    for (size_t i = 0, from = 0; i < n; from = ends[i++])
        b->list[i] = pd_str_sub(pd_buf_str(&b->all), from, ends[i] - from);
    b->n = n;
    return true;
}

static bool from_trace(struct pdbench_bodies *b, struct pd_str text)
{
    struct pd_bench_trace trace;
    struct pd_err err = { 0 };
    struct pd_buf prompt;
    size_t *ends = NULL;
    bool is_good = false;
    pd_buf_init(&prompt, PROMPT_MAX);
    pd_status status = pd_bench_trace_read(text, &trace, &err);
    if (status != PD_OK) {
        fprintf(stderr, "pdbench load: %s:%u: %s\n", b->trace, err.line,
                status == PD_EINVAL ? err.text : pd_status_text(status));
    } else if ((ends = pd_calloc(trace.n_rows, sizeof *ends)) == NULL ||
               (b->arrivals = pd_calloc(trace.n_rows, sizeof *b->arrivals)) == NULL) {
        say("out of memory", NULL);
    } else {
        for (size_t i = 0; i < trace.n_rows && b->all.status == PD_OK; i++) {
            pd_buf_clear(&prompt);
            if (pd_bench_trace_text(&trace, i, &prompt) != PD_OK)
                b->all.status = prompt.status;
            else
                put_body(b, pd_buf_str(&prompt), trace.rows[i].output);
            ends[i] = b->all.n;
            b->arrivals[i] = (pd_time)((double)trace.rows[i].at / b->speed);
        }
        is_good = list_make(b, ends, trace.n_rows);
    }
    pd_free(ends);
    pd_buf_fini(&prompt);
    pd_bench_trace_free(&trace);
    return is_good;
}

static bool from_lines(struct pdbench_bodies *b, struct pd_str text)
{
    struct pd_str line, rest = text;
    size_t *ends, n = 0, most = 1;
    for (size_t i = 0; i < text.n; i++)
        most += text.p[i] == '\n';
    if (most > PDBENCH_BODIES_MAX)
        return say("too many lines in", b->prompts);
    ends = pd_calloc(most, sizeof *ends);
    if (ends == NULL)
        return say("out of memory", NULL);
    while (n < most && pd_str_split(&rest, '\n', &line)) {
        line = pd_str_trim(line);
        if (line.n == 0)
            continue;
        if (line.p[0] == '{')
            pd_buf_append_str(&b->all, line);
        else
            put_body(b, line, b->max_tokens);
        ends[n++] = b->all.n;
    }
    bool is_good = n > 0 ? list_make(b, ends, n) : say("there is no prompt in", b->prompts);
    pd_free(ends);
    return is_good;
}

static bool made(struct pdbench_bodies *b)
{
    struct pd_buf prompt;
    size_t *ends = pd_calloc(b->distinct, sizeof *ends);
    if (ends == NULL)
        return say("out of memory", NULL);
    pd_buf_init(&prompt, PROMPT_MAX);
    for (size_t i = 0; i < b->distinct && b->all.status == PD_OK; i++) {
        prompt_make(&prompt, i, b->prompt_bytes);
        put_body(b, pd_buf_str(&prompt), b->max_tokens);
        if (prompt.status != PD_OK)
            b->all.status = prompt.status;
        ends[i] = b->all.n;
    }
    bool is_good = list_make(b, ends, b->distinct);
    pd_buf_fini(&prompt);
    pd_free(ends);
    return is_good;
}

bool pdbench_bodies_make(struct pdbench_bodies *b)
{
    const char *path = b->trace != NULL ? b->trace : b->prompts;
    struct pd_buf text;
    pd_buf_init(&b->all, BYTES_MAX);
    if (path == NULL)
        return made(b);
    pd_buf_init(&text, FILE_MAX);
    pd_status status = pd_file_read(path, FILE_MAX, &text, NULL);
    bool is_good = false;
    if (status != PD_OK)
        fprintf(stderr, "pdbench load: cannot read %s: %s\n", path, pd_status_text(status));
    else
        is_good = b->trace != NULL ? from_trace(b, pd_buf_str(&text)) : from_lines(b, pd_buf_str(&text));
    pd_buf_fini(&text);
    return is_good;
}

void pdbench_bodies_free(struct pdbench_bodies *b)
{
    pd_free(b->list);
    pd_free(b->arrivals);
    pd_buf_fini(&b->all);
}
