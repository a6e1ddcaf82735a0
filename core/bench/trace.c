/* SPDX-License-Identifier: Apache-2.0 */
/* Traces of requests: read, made, and turned into texts. */
#include "bench/trace.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/json.h"
#include "base/mem.h"
#include "base/str.h"

#define MAX_TOKENS 10000000u
#define MAX_HASHES 100000000u
#define TOKEN_BYTES 4u

static uint64_t mix(uint64_t x)
{
    x += 0x9e3779b97f4a7c15u;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return x ^ (x >> 31);
}

/* ---- growing arrays */

static bool room(void **p, size_t *cap, size_t n, size_t item)
{
    if (n < *cap)
        return true;
    size_t more = *cap == 0 ? 1024 : *cap * 2;
    void *q = pd_realloc(*p, more * item);
    if (q == NULL)
        return false;
    *p = q;
    *cap = more;
    return true;
}

struct maker {
    struct pd_bench_trace *t;
    size_t rows_cap, hashes_cap;
};

static pd_status add_hash(struct maker *m, uint64_t hash)
{
    if (m->t->n_hashes >= MAX_HASHES)
        return PD_ELIMIT;
    if (!room((void **)&m->t->hashes, &m->hashes_cap, m->t->n_hashes, sizeof *m->t->hashes))
        return PD_ENOMEM;
    m->t->hashes[m->t->n_hashes++] = hash;
    m->t->rows[m->t->n_rows - 1].count++;
    return PD_OK;
}

static pd_status add_row(struct maker *m, pd_time at, uint32_t input, uint32_t output)
{
    if (m->t->n_rows >= PD_BENCH_TRACE_ROWS)
        return PD_ELIMIT;
    if (!room((void **)&m->t->rows, &m->rows_cap, m->t->n_rows, sizeof *m->t->rows))
        return PD_ENOMEM;
    m->t->rows[m->t->n_rows++] = (struct pd_bench_trace_row){ at, input, output, (uint32_t)m->t->n_hashes, 0 };
    return PD_OK;
}

/* ---- files */

static pd_status bad(struct pd_err *err, size_t line, const char *what)
{
    if (err != NULL) {
        err->line = (uint32_t)line;
        snprintf(err->text, sizeof err->text, "%s", what);
    }
    return PD_EINVAL;
}

static pd_status read_hashes(struct maker *m, const struct pd_json_value *list, struct pd_err *err, size_t line)
{
    struct pd_json_iter it;
    struct pd_json_value v;
    pd_status status = PD_OK;
    if (list->type == PD_JSON_NONE)
        return PD_OK;
    if (list->type != PD_JSON_ARRAY || pd_json_iter_init(&it, list) != PD_OK)
        return bad(err, line, "hash_ids is not a list");
    while (status == PD_OK && pd_json_iter_next(&it, NULL, &v)) {
        int64_t id;
        status = pd_json_get_i64(&v, &id) == PD_OK ? add_hash(m, mix((uint64_t)id))
                                                   : bad(err, line, "hash_ids holds something that is no number");
    }
    return status;
}

static pd_status read_line(struct maker *m, struct pd_str text, pd_time *base, struct pd_err *err, size_t line)
{
    static const char *const paths[] = { "timestamp", "input_length", "output_length", "hash_ids" };
    enum { TIMESTAMP, INPUT, OUTPUT, HASHES, PATHS };
    struct pd_json_value v[PATHS];
    struct pd_json_error error;
    double ms;
    uint64_t input, output;
    if (pd_json_scan(text, NULL, paths, PATHS, v, &error) != PD_OK)
        return bad(err, line, error.text);
    if (pd_json_get_double(&v[TIMESTAMP], &ms) != PD_OK || !(ms >= 0 && ms < 1e12))
        return bad(err, line, "timestamp must be a number of milliseconds");
    if (pd_json_get_u64(&v[INPUT], &input) != PD_OK || input < 1 || input > MAX_TOKENS ||
        pd_json_get_u64(&v[OUTPUT], &output) != PD_OK || output > MAX_TOKENS)
        return bad(err, line, "input_length and output_length must be numbers of tokens");
    pd_time at = (pd_time)(ms * 1e6);
    if (m->t->n_rows == 0)
        *base = at;
    if (at < *base || (m->t->n_rows > 0 && at - *base < m->t->rows[m->t->n_rows - 1].at))
        return bad(err, line, "timestamp is smaller than that of the line before");
    pd_status status = add_row(m, at - *base, (uint32_t)input, output < 1 ? 1 : (uint32_t)output);
    return status == PD_OK ? read_hashes(m, &v[HASHES], err, line) : status;
}

pd_status pd_bench_trace_read(struct pd_str text, struct pd_bench_trace *out, struct pd_err *err)
{
    struct maker m = { .t = out };
    struct pd_str line;
    pd_status status = PD_OK;
    pd_time base = 0;
    size_t n = 0;
    memset(out, 0, sizeof *out);
    while (status == PD_OK && pd_str_split(&text, '\n', &line)) {
        n++;
        line = pd_str_trim(line);
        if (line.n > 0)
            status = read_line(&m, line, &base, err, n);
    }
    return status == PD_OK && out->n_rows == 0 ? bad(err, n, "there is no request in it") : status;
}

/* ---- made ones */

enum { SESSIONS = 64, SYSTEMS = 8, SYSTEM_BLOCKS = 2, MAX_BLOCKS = 128 };

static double unit_of(uint64_t *x)
{
    *x = mix(*x);
    return ((double)(*x >> 11) + 0.5) / 9007199254740992.0;
}

pd_status pd_bench_trace_make(uint64_t seed, size_t n, double rate, struct pd_bench_trace *out)
{
    struct session {
        uint64_t number;
        uint32_t blocks;        /* behind the system prompt */
    } sessions[SESSIONS];
    struct maker m = { .t = out };
    pd_status status = PD_OK;
    uint64_t x = mix(seed), next = SESSIONS;
    double at = 0;
    memset(out, 0, sizeof *out);
    for (uint32_t i = 0; i < SESSIONS; i++)
        sessions[i] = (struct session){ i, 1 };
    for (size_t i = 0; i < n && status == PD_OK; i++) {
        struct session *s = &sessions[(size_t)(unit_of(&x) * SESSIONS)];
        uint64_t system = s->number % SYSTEMS;
        uint32_t all = SYSTEM_BLOCKS + s->blocks;
        uint32_t tail = 1 + (uint32_t)(unit_of(&x) * PD_BENCH_TRACE_BLOCK);
        status = add_row(&m, (pd_time)(at * 1e9), (all - 1) * PD_BENCH_TRACE_BLOCK + tail,
                         1 + (uint32_t)(-log(unit_of(&x)) * 200));
        for (uint32_t b = 0; b < all && status == PD_OK; b++) {
            uint64_t of = b < SYSTEM_BLOCKS ? system : (s->number + SYSTEMS) << 32;
            status = add_hash(&m, mix(mix(seed) ^ mix(of + b)));
        }
        s->blocks += 1 + (uint32_t)(unit_of(&x) * 3);
        if (s->blocks > MAX_BLOCKS || unit_of(&x) < 0.05)
            *s = (struct session){ next++, 1 };
        at += -log(unit_of(&x)) / rate;
    }
    return status;
}

void pd_bench_trace_free(struct pd_bench_trace *t)
{
    pd_free(t->rows);
    pd_free(t->hashes);
    memset(t, 0, sizeof *t);
}

/* ---- texts */

pd_status pd_bench_trace_text(const struct pd_bench_trace *t, size_t row, struct pd_buf *out)
{
    static const char *const words[] = { "decode", "prefill", "router", "block", "lease", "token", "engine", "node" };
    const struct pd_bench_trace_row *r = &t->rows[row];
    size_t start = out->n, all = (size_t)r->input * TOKEN_BYTES;
    for (size_t block = 0; out->n - start < all && out->status == PD_OK; block++) {
        /* Blocks without an id are of this row alone. */
        uint64_t x = block < r->count ? t->hashes[r->first + block] : mix(mix(row + 1) + block);
        size_t end = start + (block + 1) * PD_BENCH_TRACE_BLOCK * TOKEN_BYTES;
        end = end < start + all ? end : start + all;
        pd_buf_appendf(out, "%llx", (unsigned long long)x);
        while (out->n < end && out->status == PD_OK) {
            x = x * 6364136223846793005u + 1442695040888963407u;
            pd_buf_append_char(out, ' ');
            pd_buf_append_cstr(out, words[x >> 61]);
        }
        pd_buf_truncate(out, end);
    }
    return out->status;
}
