/* SPDX-License-Identifier: Apache-2.0 */
/* One run: nodes from configuration texts, clients, faults as planned, then
 * everything healed; the laws are asked all along and at the end.
 *
 *   L1    an answer that is not marked as failed is the right one, and what a
 *         failed stream had shown is the beginning of the right one
 *   L2    a request ends by its deadline and a second
 *   L3    no [DONE] after an error, no 200 for a failed answer, no success
 *         without finish_reason
 *   L4    faults of prefill nodes alone are not seen by clients
 *   L11   the books balance
 *   live  healed, everything ends and new requests succeed in 30 s
 *   leak  nothing is left: blocks, leases, transfers, calls, records, handles */
#include "fuzz.h"

#include <unistd.h>

#include "base/buf.h"
#include "base/mem.h"
#include "base/status.h"
#include "conf/report.h"

#define SLACK PD_SEC
#define LIVE_NS (30 * PD_SEC)

enum node_state { ABSENT, RUNNING, DRAINING, CLOSING };

struct world;

struct node {
    struct world *w;
    const struct fuzz_node *plan;
    enum node_state state;
    char ip[24];
    struct pd_whatif_host h;
    bool is_stopped;
};

struct request {
    struct world *w;
    const struct fuzz_case *k;
    struct pd_http_call *call;
    pd_time began;
    pd_time ended;              /* 0: not yet */
    uint32_t status;
    pd_status error;
    bool is_tainted;            /* the router or the way to it failed meanwhile */
    bool is_lost;               /* its router went and could not tell this client */
    bool is_aborted;
    bool must_succeed;
    pd_time pause;              /* wanted; 0: none or done */
    pd_time paused;             /* what it paused for */
    bool is_paused;
    char *body;
    size_t n, cap;
};

struct world {
    const struct fuzz_plan *plan;
    struct fuzz_cases *cases;
    const struct fuzz_env *env;
    struct fuzz_result *out;
    struct pd_sim *sim;
    pd_time start;
    struct node nodes[FUZZ_NODES];
    struct pd_loop *client_loop;
    struct pd_http_client *client;
    struct request reqs[FUZZ_REQS + 64];
    uint32_t n_reqs;
    uint32_t client_cuts;       /* partitions between clients and router now */
    bool is_short;              /* an allocation fails somewhere */
    bool client_closed;
};

static void fail(struct world *w, const char *law, const char *fmt, ...) PD_PRINTF(3, 4);
static void fail(struct world *w, const char *law, const char *fmt, ...)
{
    va_list ap;
    if (w->out->law[0] != '\0')
        return; /* the first one counts */
    snprintf(w->out->law, sizeof w->out->law, "%s", law);
    int n = snprintf(w->out->text, sizeof w->out->text, "at %.3f ms: ",
                     (double)(pd_sim_now(w->sim) - w->start) / 1e6);
    va_start(ap, fmt);
    vsnprintf(w->out->text + n, sizeof w->out->text - (size_t)n, fmt, ap);
    va_end(ap);
    if (w->client_loop != NULL)
        pd_sim_note(w->client_loop, "law %s: %s", law, w->out->text);
}

/* ---- nodes --------------------------------------------------------------------- */

static void module_path(struct pd_buf *b)
{
    static const char *const folders[] = {
        "role/router", "role/prefill", "role/decode", "engine/ref", "transport/tcp",
        "scheduler/filter/role", "scheduler/filter/health", "scheduler/score/prefix_cache",
        "scheduler/score/load_aware", "scheduler/pick/max_score", "scheduler/decide/pd_threshold",
    };
    const char *build = getenv("PD_BUILDDIR");
    pd_buf_append_cstr(b, "module_path = [ ");
    for (size_t i = 0; i < sizeof folders / sizeof folders[0]; i++)
        pd_buf_appendf(b, "%s\"%s/modules/%s/.libs\"", i > 0 ? ", " : "", build != NULL ? build : ".",
                       folders[i]);
    pd_buf_append_cstr(b, " ];\n");
}

static void conf_text(const struct world *w, const struct node *n, struct pd_buf *b)
{
    const struct fuzz_plan *p = w->plan;
    const struct fuzz_node *m = n->plan;
    bool router = (m->roles & PD_ROLE_ROUTER) != 0, prefill = (m->roles & PD_ROLE_PREFILL) != 0,
         decode = (m->roles & PD_ROLE_DECODE) != 0;
    module_path(b);
    pd_buf_appendf(b, "load = [ \"tcp\"%s%s%s%s ];\n", router ? ", \"router\", \"pd_threshold\"" : "",
                   prefill ? ", \"prefill\"" : "", decode ? ", \"decode\"" : "",
                   prefill || decode ? ", \"ref\"" : "");
    if (m->keeps_uuid)
        pd_buf_appendf(b, "node = { state = \"%s/%s\"; };\n", w->env->folder, m->host);
    pd_buf_append_cstr(b, "listen = ( { address = \"0.0.0.0:7000\"; api = \"peer\"; }");
    if (router)
        pd_buf_append_cstr(b, ", { address = \"0.0.0.0:8000\"; api = \"openai\"; }");
    pd_buf_append_cstr(b, " );\n");
    if (router && p->n_nodes > 1) {
        pd_buf_append_cstr(b, "peers = (");
        for (uint32_t i = 1; i < p->n_nodes; i++)
            pd_buf_appendf(b, "%s{ address = \"%s:7000\"; }", i > 1 ? ", " : " ", w->nodes[i].ip);
        pd_buf_append_cstr(b, " );\n");
    }
    pd_buf_appendf(b, "kv = { lease = \"%llums\"; inflight = \"%uk\"; };\n",
                   (unsigned long long)(p->lease / PD_MS), (unsigned)p->inflight_k);
    if (p->no_checksum)
        pd_buf_append_cstr(b, "transport = { tcp = { checksum = false; }; };\n");
    if (p->heartbeat != 0)
        pd_buf_appendf(b, "link = { heartbeat = \"%llums\"; suspect = \"%llums\"; dead = \"%llums\"; };\n",
                       (unsigned long long)(p->heartbeat / PD_MS),
                       (unsigned long long)(p->heartbeat * 3 / PD_MS),
                       (unsigned long long)(p->heartbeat * 4 / PD_MS));
    pd_buf_append_cstr(b, "role = {");
    if (router)
        pd_buf_appendf(b, " router = { deadline = \"%llums\"; };", (unsigned long long)(p->deadline / PD_MS));
    if (decode)
        pd_buf_appendf(b, " decode = { prefill_timeout = \"%llums\"; handover = \"%s\"; queue = %u; };",
                       (unsigned long long)(p->prefill_timeout / PD_MS), m->n_minus_1 ? "n-1" : "full",
                       (unsigned)m->queue);
    if (prefill)
        pd_buf_appendf(b, " prefill = { queue = %u; };", (unsigned)m->queue);
    pd_buf_append_cstr(b, " };\n");
    if (router)
        pd_buf_appendf(b, "scheduler = { decider = { module = \"pd_threshold\"; unit = \"tokens\"; "
                       "threshold = %u; }; };\n", (unsigned)p->threshold);
    if (prefill || decode)
        pd_buf_appendf(b, "engine = ( { name = \"tiny\"; type = \"ref\"; model = \"%s\"; kv_memory = \"%uk\"; "
                       "step_tokens = %u; max_running = %u; prefill_tokens_per_s = %u; ms_per_token = %.1f; "
                       "max_sequences = %u; block_tokens = %u; prefix_cache = %s; roles = [ %s%s%s ]; } );\n", w->env->model,
                       (unsigned)(m->blocks * m->block_tokens / 4), (unsigned)m->step_tokens, (unsigned)m->max_running,
                       (unsigned)m->prefill_tps, m->ms10_per_token / 10.0,
                       (unsigned)m->sequences, (unsigned)m->block_tokens, m->prefix_cache ? "true" : "false",
                       prefill ? "\"prefill\"" : "", prefill && decode ? ", " : "",
                       decode ? "\"decode\"" : "");
}

static void on_line(void *arg, int32_t level, struct pd_str line)
{
    struct node *n = arg;
    if (level <= PD_LOG_ERROR && !n->w->is_short)
        fail(n->w, "log", "%s: %.*s", n->plan->host, PD_STR_ARG(line));
    if (n->h.loop != NULL)
        pd_sim_note(n->h.loop, "%.*s", PD_STR_ARG(line));
}

static void node_start(struct world *w, struct node *n)
{
    struct pd_conf_report report;
    struct pd_conf *conf = NULL;
    struct pd_buf text;
    struct pd_err err;
    memset(&err, 0, sizeof err);
    pd_mem_fault_set(0);
    n->state = RUNNING;
    struct pd_whatif_host_opts opts = { .name = n->plan->host, .ip = n->ip, .on_line = on_line, .arg = n,
                                        .level = w->env->is_debug ? PD_LOG_DEBUG : PD_LOG_WARN };
    pd_status status = pd_whatif_host_open(w->sim, &opts, &n->h, &err);
    if (n->h.loop == NULL) {
        fail(w, "start", "%s: no loop", n->plan->host);
        n->state = ABSENT;
        return;
    }
    pd_buf_init(&text, 1 << 16);
    conf_text(w, n, &text);
    pd_conf_report_init(&report);
    if (status == PD_OK) {
        struct pd_str bytes = pd_buf_str(&text);
        status = pd_node_conf_read("sim.conf", &bytes, NULL, n->h.mods, &report, &conf);
        if (status != PD_OK)
            pd_conf_report_print(&report, stderr);
    }
    pd_conf_report_fini(&report);
    if (status == PD_OK)
        status = pd_whatif_host_start(&n->h, conf, 0, &err);
    pd_buf_fini(&text);
    if (status != PD_OK)
        fail(w, "start", "%s does not start: %s", n->plan->host, err.text);
}

static const struct {
    const char *name, *metric;
} seen[FUZZ_SEEN_N] = {
    { "hand-overs", "pdplane_decode_handovers_valid_total" },
    { "failed hand-overs", "pdplane_decode_handovers_failed_total" },
    { "fallbacks", "pdplane_decode_fallbacks_total" },
    { "local prompts", "pdplane_decode_local_total" },
    { "retries", "pdplane_router_retries_total" },
    { "clients gone", "pdplane_router_client_gone_total" },
    { "expired leases", "pdplane_kv_lease_expired_total" },
    { "preemptions", NULL },
    { "cached tokens", NULL },
};

const char *fuzz_seen_name(uint32_t i)
{
    return seen[i].name;
}

/* Takes down what a node counted, before it goes. */
static void node_count(struct node *n)
{
    uint64_t *to = n->w->out->seen;
    for (uint32_t i = 0; i < FUZZ_SEEN_N; i++) {
        double v = 0;
        if (seen[i].metric != NULL && pd_metrics_read(n->h.node->metrics, seen[i].metric, NULL, &v) == PD_OK)
            to[i] += (uint64_t)v;
    }
    for (uint32_t i = 0; i < n->h.node->n_engines; i++) {
        struct pd_engine_load load = { .size = sizeof load };
        n->h.node->engines[i]->e.ops->load(n->h.node->engines[i]->e.engine, &load);
        to[FUZZ_SEEN_PREEMPTED] += load.preemptions;
        to[FUZZ_SEEN_CACHED] += load.cached_tokens;
    }
}

static void node_crash(struct node *n, bool tell)
{
    if (n->state != CLOSING)
        node_count(n);
    /* A process that dies frees nothing; this one ends soon, too. */
    n->w->out->is_whole = false;
    pd_whatif_host_crash(&n->h, tell);
    n->state = ABSENT;
    n->is_stopped = false;
}

static void node_end(struct node *n)
{
    n->state = CLOSING;
    node_count(n);
    pd_whatif_host_end(&n->h);
}

static void on_drained(void *arg)
{
    struct node *n = arg;
    if (n->state == DRAINING)
        node_end(n);
}

/* Frees what a closed node leaves; its loop must be empty. */
static void node_reap(struct world *w, struct node *n)
{
    char names[256] = "";
    if (pd_whatif_host_free(&n->h, names, sizeof names) != PD_OK)
        fail(w, "leak", "%s ended and left open: %s", n->plan->host, names);
    n->state = ABSENT;
}

static void reap_all(struct world *w)
{
    for (uint32_t i = 0; i < w->plan->n_nodes; i++) {
        if (w->nodes[i].state == CLOSING && w->nodes[i].h.is_closed)
            node_reap(w, &w->nodes[i]);
    }
}

/* ---- clients -------------------------------------------------------------------- */

static void on_head(struct pd_http_call *call, const struct pd_http_head *head, void *arg)
{
    struct request *q = arg;
    (void)call;
    q->status = head->status;
}

static void resume(void *arg)
{
    struct request *q = arg;
    q->is_paused = false;
    if (q->call != NULL)
        pd_http_call_resume(q->call);
}

static void on_body(struct pd_http_call *call, struct pd_str piece, void *arg)
{
    struct request *q = arg;
    if (q->n + piece.n + 1 > q->cap) {
        q->cap = (q->n + piece.n + 1) * 2;
        q->body = realloc(q->body, q->cap);
        if (q->body == NULL)
            abort();
    }
    memcpy(q->body + q->n, piece.p, piece.n);
    q->n += piece.n;
    q->body[q->n] = '\0';
    pd_time pause = q->pause;
    q->pause = 0;
    if (pause != 0 && pd_sim_at(q->w->sim, pd_sim_now(q->w->sim) + pause, resume, q) == PD_OK) {
        q->is_paused = true;
        q->paused = pause;
        pd_http_call_pause(call);
    }
}

static uint32_t number_of(const struct request *q)
{
    return (uint32_t)(q - q->w->reqs);
}

/* A short queue may send some away even when nothing fails; one of several
 * choices also after another one has begun. */
static bool was_shed(const struct request *q)
{
    return q->status == 429 || (q->k->legs > 1 && q->body != NULL && strstr(q->body, "\"queue_full\"") != NULL);
}

/* The laws that an answer obeys, whatever happened. */
static void judge(struct request *q)
{
    struct world *w = q->w;
    bool has_error, has_done, has_finish, is_good;
    size_t n;
    char *text = fuzz_normal(q->body != NULL ? q->body : "", q->n, q->k->stream && q->status == 200, &has_error,
                             &has_done, &has_finish, &n);
    uint32_t me = number_of(q);
    is_good = q->error == PD_OK && q->status == 200 && !has_error;
    if (has_error && has_done)
        fail(w, "L3", "request %u has an error and [DONE]", me);
    else if (q->error == PD_OK && q->status == 200 && has_error && !q->k->stream)
        fail(w, "L3", "request %u failed with status 200", me);
    else if (has_done && !has_finish)
        fail(w, "L3", "request %u has [DONE] without finish_reason", me);
    else if (q->error == PD_OK && q->status != 200 && !has_error)
        fail(w, "L3", "request %u has status %u without an error object: %.200s", me, q->status,
             q->body != NULL ? q->body : "");
    else if (is_good && q->k->stream && !has_done)
        fail(w, "L3", "request %u ends whole without [DONE] and without error", me);
    else if (is_good && q->k->expect != NULL &&
             (n != q->k->expect_n || memcmp(text, q->k->expect, n) != 0)) {
        size_t at = 0;
        while (at < n && at < q->k->expect_n && text[at] == q->k->expect[at])
            at++;
        at = at > 40 ? at - 40 : 0;
        fail(w, "L1", "request %u is wrong from byte %zu of %zu (right: %zu):\n  got   %.300s\n  right %.300s",
             me, at, n, q->k->expect_n, text + at, at < q->k->expect_n ? q->k->expect + at : "");
    } else if (!is_good && q->status == 200 && q->k->stream && q->k->legs == 1 && q->k->expect != NULL &&
               (n > q->k->expect_n || memcmp(text, q->k->expect, n) != 0)) {
        fail(w, "L1", "request %u failed after it had shown something wrong", me);
    }
    if (!is_good && q->must_succeed && !q->is_tainted && !(was_shed(q) && !w->plan->only_prefill && !w->plan->only_one))
        fail(w, "L4", "request %u failed though it must not: status %u, %s: %.300s", me, q->status,
             pd_status_text(q->error), q->body == NULL ? "" : q->body + (q->n > 250 ? q->n - 250 : 0));
    if (is_good)
        w->out->ok++;
    else
        w->out->failed++;
    free(text);
}

static void request_over(struct request *q)
{
    struct world *w = q->w;
    q->call = NULL;
    q->ended = pd_sim_now(w->sim);
    /* One that does not read may not have been told. */
    if (!q->is_tainted && !q->is_paused && q->ended - q->began > w->plan->deadline + SLACK + q->paused)
        fail(w, "L2", "request %u took %.3f s", number_of(q), (double)(q->ended - q->began) / 1e9);
    judge(q);
}

static void on_end(struct pd_http_call *call, void *arg)
{
    (void)call;
    request_over(arg);
}

static void on_error(struct pd_http_call *call, enum pd_http_fail why, pd_status status, void *arg)
{
    struct request *q = arg;
    (void)call;
    (void)why;
    q->error = status != PD_OK ? status : PD_EIO;
    if (!q->is_tainted && !(q->status == 200 && q->k->stream))
        fail(q->w, "L2", "request %u ended without an answer (%s, %s), but its router was well", number_of(q),
             pd_http_fail_name(why), pd_status_text(status));
    request_over(q);
}

static const struct pd_http_call_events client_events = {
    .on_head = on_head, .on_body = on_body, .on_end = on_end, .on_error = on_error
};

static struct request *request_send(struct world *w, uint32_t which, bool fresh, bool must,
                                    pd_time pause)
{
    struct request *q = &w->reqs[w->n_reqs];
    struct node *router = &w->nodes[0];
    char address[64];
    if (w->n_reqs == sizeof w->reqs / sizeof w->reqs[0])
        return NULL;
    w->n_reqs++;
    memset(q, 0, sizeof *q);
    q->w = w;
    q->k = &w->cases->list[which];
    q->began = pd_sim_now(w->sim);
    q->is_tainted = router->state != RUNNING || router->is_stopped || w->client_cuts > 0 || w->is_short;
    q->must_succeed = must;
    q->pause = pause;
    snprintf(address, sizeof address, "%s:%u", router->ip, FUZZ_ROUTER_PORT);
    struct pd_iov iov = { (void *)(uintptr_t)q->k->body, strlen(q->k->body) };
    struct pd_http_header type = { PD_STR("content-type"), PD_STR("application/json") };
    struct pd_http_call_opts opts = {
        .size = sizeof opts, .host = { address, strlen(address) }, .method = PD_HTTP_POST,
        .target = { q->k->path, strlen(q->k->path) }, .headers = &type, .n_headers = 1, .body = &iov,
        .n_body = 1, .is_replayable = 1, .fresh = fresh, .first_byte_ns = w->plan->deadline + 5 * PD_SEC,
        .idle_ns = w->plan->deadline + 5 * PD_SEC,
    };
    if (pd_addr_parse(w->client_loop, opts.host, &opts.addr) != PD_OK ||
        pd_http_call_start(w->client, &opts, &client_events, q, &q->call) != PD_OK) {
        q->ended = q->began;
        if (!w->is_short)
            fail(w, "start", "request %u cannot be sent", number_of(q));
    }
    return q;
}

static void request_abort(struct request *q)
{
    if (q->call == NULL)
        return;
    pd_http_call_cancel(q->call);
    q->call = NULL;
    q->is_aborted = true;
    q->ended = pd_sim_now(q->w->sim);
    q->w->out->aborted++;
}

/* The router, or the way to it, fails: what is under way may be cut. */
static void taint(struct world *w, bool is_lost)
{
    for (uint32_t i = 0; i < w->n_reqs; i++) {
        if (w->reqs[i].ended != 0)
            continue;
        w->reqs[i].is_tainted = true;
        w->reqs[i].is_lost |= is_lost;
    }
}

static bool all_over(void *arg)
{
    struct world *w = arg;
    for (uint32_t i = 0; i < w->n_reqs; i++) {
        if (w->reqs[i].ended == 0)
            return false;
    }
    return true;
}

/* ---- faults ----------------------------------------------------------------------- */

static const char *host_of(const struct world *w, uint32_t i)
{
    return i == FUZZ_ALL ? NULL : i == FUZZ_CLIENTS ? "client" : w->plan->nodes[i].host;
}

static bool hits_clients(const struct world *w, const struct fuzz_fault *f)
{
    return f->b == FUZZ_CLIENTS || ((w->plan->nodes[f->a].roles & PD_ROLE_ROUTER) != 0 && f->kind < FUZZ_CUT);
}

static void fault_begin(struct world *w, const struct fuzz_fault *f)
{
    struct node *n = &w->nodes[f->a];
    const char *a = host_of(w, f->a), *b = host_of(w, f->b);
    struct pd_sim_link slow = w->plan->sim.link;
    w->out->faults++;
    if (hits_clients(w, f))
        taint(w, f->kind == FUZZ_VANISH || w->client_cuts > 0 || w->nodes[0].state != RUNNING);
    switch (f->kind) {
    case FUZZ_CRASH:
    case FUZZ_VANISH:
        if (n->state != ABSENT && !(n->state == CLOSING && n->h.is_closed))
            node_crash(n, f->kind == FUZZ_CRASH);
        break;
    case FUZZ_STOP:
        if (n->state == RUNNING) {
            n->is_stopped = true;
            pd_sim_stop(n->h.loop, true);
        }
        break;
    case FUZZ_END:
        if (n->state == RUNNING && !n->is_stopped)
            node_end(n);
        break;
    case FUZZ_DRAIN:
        if (n->state == RUNNING && !n->is_stopped) {
            n->state = DRAINING;
            pd_node_drain(n->h.node, on_drained, n);
        }
        break;
    case FUZZ_CUT:
        pd_sim_partition(w->sim, b, a, true);
        /* fall through */
    case FUZZ_CUT_ONE_WAY:
        pd_sim_partition(w->sim, a, b, true);
        w->client_cuts += f->b == FUZZ_CLIENTS;
        break;
    case FUZZ_RESET:
        pd_sim_reset(w->sim, a, b);
        break;
    case FUZZ_HALF_OPEN:
        pd_sim_half_open(w->sim, a, b);
        break;
    case FUZZ_MEMORY:
        w->is_short = true;
        taint(w, false);
        pd_mem_fault_set(f->n);
        break;
    case FUZZ_FLIP:
        pd_sim_flip(w->sim, a, b, f->n);
        if (f->n % 2 == 0)
            pd_sim_flip(w->sim, b, a, f->n);
        break;
    default:
        slow.latency_ns += f->n * 10 * PD_MS;
        slow.bytes_per_s = 20000 * f->n;
        pd_sim_link_set(w->sim, a, b, &slow);
        pd_sim_link_set(w->sim, b, a, &slow);
        break;
    }
}

/* Stopped nodes go on, those that are gone come back. */
static void node_restore(struct world *w, struct node *n)
{
    if (n->is_stopped) {
        n->is_stopped = false;
        pd_sim_stop(n->h.loop, false);
    }
    if (n->state == DRAINING)
        node_end(n);
    if (n->state == CLOSING && !n->h.is_closed)
        return; /* later */
    reap_all(w);
    if (n->state == ABSENT)
        node_start(w, n);
}

static void fault_end(struct world *w, const struct fuzz_fault *f)
{
    struct node *n = &w->nodes[f->a];
    const char *a = host_of(w, f->a), *b = host_of(w, f->b);
    switch (f->kind) {
    case FUZZ_CRASH:
    case FUZZ_VANISH:
    case FUZZ_STOP:
    case FUZZ_END:
    case FUZZ_DRAIN:
        if (hits_clients(w, f))
            taint(w, f->kind == FUZZ_VANISH || w->client_cuts > 0);
        node_restore(w, n);
        break;
    case FUZZ_CUT:
        pd_sim_partition(w->sim, b, a, false);
        /* fall through */
    case FUZZ_CUT_ONE_WAY:
        pd_sim_partition(w->sim, a, b, false);
        w->client_cuts -= f->b == FUZZ_CLIENTS && w->client_cuts > 0;
        break;
    case FUZZ_SLOW:
        pd_sim_link_set(w->sim, a, b, &w->plan->sim.link);
        pd_sim_link_set(w->sim, b, a, &w->plan->sim.link);
        break;
    default:
        break;
    }
}

static void heal(struct world *w)
{
    pd_sim_heal(w->sim);
    w->client_cuts = 0;
    w->is_short = false;
    pd_mem_fault_set(0);
    pd_sim_link_set(w->sim, NULL, NULL, &w->plan->sim.link);
    for (uint32_t i = 0; i < w->plan->n_nodes; i++)
        node_restore(w, &w->nodes[i]);
    /* those that were closing */
    for (int k = 0; k < 60; k++) {
        bool all = true;
        for (uint32_t i = 0; i < w->plan->n_nodes; i++) {
            if (w->nodes[i].state != RUNNING) {
                pd_sim_run_until(w->sim, pd_sim_now(w->sim) + 500 * PD_MS);
                node_restore(w, &w->nodes[i]);
            }
            all &= w->nodes[i].state == RUNNING;
        }
        if (all)
            return;
    }
    fail(w, "live", "a node that was told to end did not in 30 s");
}

static void books(struct world *w)
{
    for (uint32_t i = 0; i < w->plan->n_nodes; i++) {
        if (w->nodes[i].state == RUNNING && !pd_reqs_balanced(w->nodes[i].h.node->reqs))
            fail(w, "L11", "the books of %s do not balance", w->plan->nodes[i].host);
    }
}

/* ---- phases ------------------------------------------------------------------------- */

struct event {
    pd_time at;
    uint32_t kind;              /* 0 request, 1 abort, 2 fault, 3 its end */
    uint32_t index;
};

static int event_compare(const void *x, const void *y)
{
    const struct event *a = x, *b = y;
    if (a->at != b->at)
        return a->at < b->at ? -1 : 1;
    if (a->kind != b->kind)
        return a->kind < b->kind ? -1 : 1;
    return a->index < b->index ? -1 : 1;
}

static uint32_t events_make(const struct fuzz_plan *p, struct event *e)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < p->n_reqs; i++) {
        if (p->reqs[i].is_off)
            continue;
        e[n++] = (struct event){ p->reqs[i].at, 0, i };
        if (p->reqs[i].abort_after != 0)
            e[n++] = (struct event){ p->reqs[i].at + p->reqs[i].abort_after, 1, i };
    }
    for (uint32_t i = 0; i < p->n_faults; i++) {
        if (p->faults[i].is_off)
            continue;
        e[n++] = (struct event){ p->faults[i].at, 2, i };
        if (p->faults[i].len != PD_TIME_NEVER)
            e[n++] = (struct event){ p->faults[i].at + p->faults[i].len, 3, i };
    }
    qsort(e, n, sizeof *e, event_compare);
    return n;
}

static void phase_faults(struct world *w)
{
    struct event list[2 * FUZZ_REQS + 2 * FUZZ_FAULTS];
    struct request *sent[FUZZ_REQS] = { NULL };
    const struct fuzz_plan *p = w->plan;
    uint32_t n = events_make(p, list);
    for (uint32_t i = 0; i < n && list[i].at < p->heal_at && w->out->law[0] == '\0'; i++) {
        const struct event *e = &list[i];
        pd_sim_run_until(w->sim, w->start + e->at);
        reap_all(w);
        books(w);
        if (e->kind == 0)
            sent[e->index] = request_send(w, p->reqs[e->index].which, p->reqs[e->index].fresh,
                                          p->only_prefill || p->only_one, p->reqs[e->index].pause);
        else if (e->kind == 1 && sent[e->index] != NULL)
            request_abort(sent[e->index]);
        else if (e->kind == 2)
            fault_begin(w, &p->faults[e->index]);
        else if (e->kind == 3)
            fault_end(w, &p->faults[e->index]);
    }
    pd_sim_run_until(w->sim, w->start + p->heal_at);
}

/* Healed: the old ends, new ones succeed. */
static void phase_live(struct world *w)
{
    pd_time end = pd_sim_now(w->sim) + LIVE_NS;
    struct fuzz_rng r = { w->plan->seed ^ 1 };
    bool works = false;
    while (!works && pd_sim_now(w->sim) < end && w->out->law[0] == '\0') {
        struct request *q = request_send(w, (uint32_t)(fuzz_next(&r) % w->cases->n), true, false, 0);
        if (q == NULL)
            break;
        while (q->ended == 0 && pd_sim_now(w->sim) < end)
            pd_sim_run_until(w->sim, pd_sim_now(w->sim) + 100 * PD_MS);
        works = q->ended != 0 && q->error == PD_OK && q->status == 200 && strstr(q->body, "\"error\":{") == NULL;
        pd_sim_run_until(w->sim, pd_sim_now(w->sim) + PD_SEC);
    }
    if (!works)
        fail(w, "live", "no new request succeeded within 30 s");
    pd_sim_run_cond(w->sim, end, all_over, w);
    for (uint32_t i = 0; i < w->n_reqs; i++) {
        if (w->reqs[i].is_lost)
            request_abort(&w->reqs[i]);
        if (w->reqs[i].ended == 0)
            fail(w, "live", "request %u has not ended 30 s after all was healed", i);
    }
    if (w->out->law[0] != '\0')
        return;
    if (pd_sim_now(w->sim) < end)
        pd_sim_run_until(w->sim, end);
    for (int i = 0; i < 4; i++)
        request_send(w, (uint32_t)(fuzz_next(&r) % w->cases->n), true, true, 0);
    pd_sim_run_cond(w->sim, pd_sim_now(w->sim) + LIVE_NS, all_over, w);
    if (!all_over(w))
        fail(w, "live", "requests of the healed cluster did not end in 30 s");
}

static double metric(const struct node *n, const char *name)
{
    double v = 0;
    pd_metrics_read(n->h.node->metrics, name, NULL, &v);
    return v;
}

static void node_leaks(struct world *w, const struct node *n)
{
    const char *host = n->plan->host;
    struct pd_req_counts counts;
    struct pd_peer_info info = { .size = sizeof info };
    const struct pd_peer_api *peer = pd_peer_table();
    pd_reqs_counts(n->h.node->reqs, &counts);
    if (counts.outcome[PD_REQ_LIVE] != 0)
        fail(w, "leak", "%s has %llu live requests", host, (unsigned long long)counts.outcome[PD_REQ_LIVE]);
    if (!pd_reqs_balanced(n->h.node->reqs))
        fail(w, "L11", "the books of %s do not balance", host);
    if (metric(n, "pdplane_kv_leases") > 0)
        fail(w, "leak", "%s has %.0f leases", host, metric(n, "pdplane_kv_leases"));
    if (metric(n, "pdplane_kv_transfer_inflight") > 0)
        fail(w, "leak", "%s has %.0f transfers", host, metric(n, "pdplane_kv_transfer_inflight"));
    for (uint32_t i = 0; i < n->h.node->n_engines; i++) {
        struct pd_engine_load load = { .size = sizeof load };
        n->h.node->engines[i]->e.ops->load(n->h.node->engines[i]->e.engine, &load);
        if (load.blocks_free != load.blocks_total || load.running + load.waiting != 0)
            fail(w, "leak", "%s has %u of %u blocks free, %u sequences run, %u wait", host, load.blocks_free,
                 load.blocks_total, load.running, load.waiting);
    }
    for (pd_peer_ref ref = peer->next(n->h.node->peers, 0); ref != 0; ref = peer->next(n->h.node->peers, ref)) {
        if (peer->info(n->h.node->peers, ref, &info) == PD_OK && info.calls != 0)
            fail(w, "leak", "%s has %u open calls with %s", host, info.calls, info.desc->name);
    }
}

/* Without faults whatever a client left is free a second after it left. */
static void phase_calm(struct world *w)
{
    for (uint32_t i = 0; i < w->plan->n_faults; i++) {
        if (!w->plan->faults[i].is_off)
            return;
    }
    pd_sim_run_cond(w->sim, pd_sim_now(w->sim) + LIVE_NS, all_over, w);
    pd_sim_run_until(w->sim, pd_sim_now(w->sim) + PD_SEC);
    for (uint32_t i = 0; i < w->plan->n_nodes && all_over(w) && w->out->law[0] == '\0'; i++)
        node_leaks(w, &w->nodes[i]);
}

static void client_closed(void *arg)
{
    ((struct world *)arg)->client_closed = true;
}

static bool all_closed(void *arg)
{
    struct world *w = arg;
    for (uint32_t i = 0; i < w->plan->n_nodes; i++) {
        if (w->nodes[i].state == CLOSING && !w->nodes[i].h.is_closed)
            return false;
    }
    return w->client_closed;
}

static void phase_end(struct world *w)
{
    char names[256] = "";
    pd_sim_run_until(w->sim, pd_sim_now(w->sim) + 2 * PD_SEC);
    for (uint32_t i = 0; i < w->plan->n_nodes && w->out->law[0] == '\0'; i++)
        node_leaks(w, &w->nodes[i]);
    pd_http_client_close(w->client, client_closed, w);
    for (uint32_t i = 0; i < w->plan->n_nodes; i++) {
        if (w->nodes[i].state == RUNNING)
            node_end(&w->nodes[i]);
    }
    pd_sim_run_cond(w->sim, pd_sim_now(w->sim) + 60 * PD_SEC, all_closed, w);
    if (!all_closed(w)) {
        fail(w, "leak", "a node did not end in 60 s");
        return;
    }
    pd_sim_run_until(w->sim, pd_sim_now(w->sim) + PD_MS);
    reap_all(w);
    if (pd_loop_destroy(w->client_loop, names, sizeof names) != PD_OK)
        fail(w, "leak", "the client left open: %s", names);
}

/* ---- a run ------------------------------------------------------------------------------ */

static void on_trace(void *arg, const char *line)
{
    fprintf(arg, "%s\n", line);
}

static bool world_start(struct world *w)
{
    struct pd_sim_opts opts = w->plan->sim;
    if (w->env->trace != NULL) {
        opts.on_log = on_trace;
        opts.arg = w->env->trace;
    }
    if (pd_sim_create(w->plan->seed, &opts, &w->sim) != PD_OK)
        return false;
    w->start = pd_sim_now(w->sim);
    for (uint32_t i = 0; i < w->plan->n_nodes; i++) {
        char path[512];
        w->nodes[i].w = w;
        w->nodes[i].plan = &w->plan->nodes[i];
        snprintf(w->nodes[i].ip, sizeof w->nodes[i].ip, "10.0.0.%u", (unsigned)i + 1);
        snprintf(path, sizeof path, "%s/%s/node.id", w->env->folder, w->plan->nodes[i].host);
        unlink(path);
    }
    if (pd_sim_loop_create(w->sim, "client", "10.9.9.9", &w->client_loop) != PD_OK ||
        pd_http_client_create(w->client_loop, NULL, &w->client) != PD_OK)
        return false;
    for (uint32_t i = 0; i < w->plan->n_nodes && w->out->law[0] == '\0'; i++)
        node_start(w, &w->nodes[i]);
    pd_sim_run_until(w->sim, pd_sim_now(w->sim) + 5 * PD_SEC);
    w->start = pd_sim_now(w->sim);
    return w->out->law[0] == '\0';
}

void fuzz_run(const struct fuzz_plan *p, struct fuzz_cases *cases, const struct fuzz_env *env,
              struct fuzz_result *out)
{
    struct world *w = calloc(1, sizeof *w);
    memset(out, 0, sizeof *out);
    out->is_whole = true;
    if (w == NULL)
        abort();
    w->plan = p;
    w->cases = cases;
    w->env = env;
    w->out = out;
    if (!world_start(w)) {
        if (out->law[0] == '\0')
            fail(w, "start", "the simulation does not start");
        return;
    }
    phase_faults(w);
    if (out->law[0] == '\0')
        heal(w);
    if (out->law[0] == '\0')
        phase_calm(w);
    if (out->law[0] == '\0')
        phase_live(w);
    if (out->law[0] == '\0')
        phase_end(w);
    out->hash = pd_sim_hash(w->sim);
    out->virtual_ns = pd_sim_now(w->sim);
    for (uint32_t i = 0; i < w->n_reqs; i++)
        free(w->reqs[i].body);
    if (out->law[0] == '\0') {
        if (pd_sim_destroy(w->sim) != PD_OK)
            fail(w, "leak", "the simulation has loops left");
        free(w);
    }
    /* After a failure the process that ran this seed ends; nothing is freed. */
}

bool fuzz_expect(struct fuzz_cases *cases, const struct fuzz_env *env, struct fuzz_result *out)
{
    struct fuzz_plan p;
    struct world *w = calloc(1, sizeof *w);
    memset(&p, 0, sizeof p);
    memset(out, 0, sizeof *out);
    if (w == NULL)
        abort();
    p.n_nodes = 1;
    p.nodes[0] = (struct fuzz_node){ .host = "one", .roles = PD_ROLE_ROUTER | PD_ROLE_DECODE, .blocks = 1000, .block_tokens = 16,
                                     .step_tokens = 128, .max_running = 4, .queue = 256,
                                     .sequences = 1024 };
    p.inflight_k = 32768;
    p.deadline = 300 * PD_SEC;
    p.lease = p.prefill_timeout = 5 * PD_SEC;
    w->plan = &p;
    w->cases = cases;
    w->env = env;
    w->out = out;
    if (!world_start(w))
        return false;
    for (uint32_t i = 0; i < cases->n && out->law[0] == '\0'; i++) {
        struct fuzz_case *k = &cases->list[i];
        bool has_error, has_done, has_finish;
        struct request *q = request_send(w, i, true, true, 0);
        pd_sim_run_cond(w->sim, pd_sim_now(w->sim) + 60 * PD_SEC, all_over, w);
        if (q->ended == 0 || out->law[0] != '\0')
            break;
        k->expect = fuzz_normal(q->body, q->n, k->stream, &has_error, &has_done, &has_finish, &k->expect_n);
        free(q->body);
        w->n_reqs = 0;
    }
    if (out->law[0] == '\0' && cases->list[cases->n - 1].expect == NULL)
        fail(w, "start", "a request of the reference run did not end");
    if (out->law[0] == '\0')
        phase_end(w);
    if (out->law[0] == '\0' && pd_sim_destroy(w->sim) != PD_OK)
        fail(w, "leak", "the simulation has loops left");
    bool is_good = out->law[0] == '\0';
    free(w);
    return is_good;
}
