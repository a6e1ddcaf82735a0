/* SPDX-License-Identifier: Apache-2.0 */
/* See sim_nodes.h. */
#include "unit.h"

#include "sim_nodes.h"

#include "base/mem.h"
#include "conf/report.h"

static const char *const folders[] = {
    "role/router", "role/prefill", "role/decode", "engine/ref", "engine/openai", "engine/sglang", "transport/tcp",
    "scheduler/filter/role", "scheduler/filter/health", "scheduler/score/prefix_cache",
    "scheduler/score/load_aware", "scheduler/pick/max_score", "scheduler/decide/pd_threshold",
    "discovery/dns", "discovery/file", "discovery/static", "metric/prometheus",
};

/* Engines and sources that the text does not load are left out: a path has few places. */
static bool is_wanted(const char *folder, const char *text)
{
    char name[64];
    snprintf(name, sizeof name, "\"%s\"", strrchr(folder, '/') + 1);
    return (strncmp(folder, "engine/", 7) != 0 && strncmp(folder, "discovery/", 10) != 0) ||
           strstr(text, name) != NULL;
}

static void module_path(char *out, size_t size, const char *text)
{
    const char *build = getenv("PD_BUILDDIR");
    size_t at = (size_t)snprintf(out, size, "module_path = [ ");
    uint32_t n = 0;
    for (size_t i = 0; i < sizeof folders / sizeof folders[0]; i++) {
        if (is_wanted(folders[i], text))
            at += (size_t)snprintf(out + at, size - at, "%s\"%s/modules/%s/.libs\"", n++ > 0 ? ", " : "",
                                   build != NULL ? build : ".", folders[i]);
    }
    snprintf(out + at, size - at, " ];\n");
}

static void on_trace(void *arg, const char *line)
{
    struct sim_cluster *c = arg;
    fprintf(c->trace, "%s\n", line);
    fflush(c->trace);
}

void sim_cluster_init(struct sim_cluster *c, uint64_t seed, const struct pd_sim_opts *opts)
{
    struct pd_sim_opts o = { 0 };
    memset(c, 0, sizeof *c);
    if (opts != NULL)
        o = *opts;
    if (getenv("PD_SIM_TRACE") != NULL) {
        c->trace = fopen(getenv("PD_SIM_TRACE"), "a");
        assert_non_null(c->trace);
        o.on_log = on_trace;
        o.arg = c;
    }
    assert_int_equal(pd_sim_create(seed, &o, &c->sim), PD_OK);
}

static void on_line(void *arg, int32_t level, struct pd_str line)
{
    struct sim_node *n = arg;
    (void)level;
    pd_sim_note(n->loop, "%.*s", PD_STR_ARG(line));
}

struct pd_conf *sim_conf_read(struct sim_node *n, const char *text)
{
    static char whole[32768], path[8192];
    struct pd_conf_report report;
    struct pd_conf *conf = NULL;
    module_path(path, sizeof path, text);
    snprintf(whole, sizeof whole, "%s%s", path, text);
    struct pd_str bytes = { whole, strlen(whole) };
    pd_conf_report_init(&report);
    if (pd_node_conf_read("test.conf", &bytes, NULL, n->mods, &report, &conf) != PD_OK) {
        pd_conf_report_print(&report, stderr);
        conf = NULL;
    }
    pd_conf_report_fini(&report);
    return conf;
}

pd_status sim_node_reload(struct sim_node *n, const char *text, struct pd_err *err)
{
    struct pd_conf *conf = sim_conf_read(n, text);
    assert_non_null(conf);
    memset(err, 0, sizeof *err);
    pd_status status = pd_node_reload(n->node, conf, err);
    pd_conf_put(conf);
    return status;
}

pd_status sim_node_try(struct sim_cluster *c, const char *host, const char *text, void (*arm)(void *arg),
                       void *arg, struct sim_node **out, struct pd_err *err)
{
    struct sim_node *n = NULL;
    char ip[32];
    memset(err, 0, sizeof *err);
    for (uint32_t i = 0; i < c->n; i++) {
        if (strcmp(c->nodes[i].host, host) == 0)
            n = &c->nodes[i];
    }
    if (n == NULL) {
        assert_true(c->n < SIM_NODES_MAX);
        n = &c->nodes[c->n++];
    }
    memset(n, 0, sizeof *n);
    n->cluster = c;
    n->host = host;
    snprintf(ip, sizeof ip, "10.0.0.%u", (unsigned)(n - c->nodes) + 1);
    assert_int_equal(pd_sim_loop_create(c->sim, host, ip, &n->loop), PD_OK);
    struct pd_log_config log = { .sink = PD_LOG_CALLBACK, .on_line = on_line, .on_line_arg = n,
                                 .level = c->is_quiet ? PD_LOG_ERROR : PD_LOG_DEBUG, .hide_time = true };
    assert_int_equal(pd_log_create(&log, err, &n->log), PD_OK);
    struct pd_mods_params mods = { .host = pd_host_api_table() };
    assert_int_equal(pd_mods_create(&mods, &n->mods), PD_OK);
    n->conf = sim_conf_read(n, text);
    assert_non_null(n->conf);
    struct pd_node_params params = { .loop = n->loop, .log = n->log, .mods = n->mods, .conf = n->conf,
                                     .name = host, .host_id = host };
    if (arm != NULL)
        arm(arg);
    pd_status status = pd_node_create(&params, &n->node, err);
    if (status == PD_OK)
        status = pd_node_start(n->node, err);
    n->is_closed = n->node == NULL;
    *out = n;
    return status;
}

struct sim_node *sim_node_start(struct sim_cluster *c, const char *host, const char *text)
{
    struct sim_node *n;
    struct pd_err err;
    pd_status status = sim_node_try(c, host, text, NULL, NULL, &n, &err);
    if (status != PD_OK)
        fprintf(stderr, "%s: %s\n", host, err.text);
    assert_int_equal(status, PD_OK);
    return n;
}

static void on_closed(void *arg)
{
    struct sim_node *n = arg;
    n->node = NULL;
    n->is_closed = true;
}

/* A process that dies frees nothing either; what it held is left to the system,
 * here to the end of the test.  Noted, so that it is not taken for a leak. */
static void *left[512];
static uint32_t n_left;

void sim_node_crash(struct sim_node *n, bool tell_peers)
{
    assert_true(n_left + 2 <= sizeof left / sizeof left[0]);
    left[n_left++] = n->node;
    left[n_left++] = n->loop;
    pd_sim_crash(n->loop, tell_peers);
    n->loop = NULL;
    n->node = NULL;
    n->is_closed = true;
}

static bool all_closed(void *arg)
{
    struct sim_cluster *c = arg;
    if (c->watch != NULL)
        c->watch(c);
    for (uint32_t i = 0; i < c->n; i++) {
        if (!c->nodes[i].is_closed)
            return false;
    }
    return true;
}

void sim_cluster_fini(struct sim_cluster *c)
{
    char names[512] = "";
    for (uint32_t i = 0; i < c->n; i++) {
        if (!c->nodes[i].is_closed)
            pd_node_destroy(c->nodes[i].node, on_closed, &c->nodes[i]);
    }
    pd_sim_run_cond(c->sim, pd_sim_now(c->sim) + 60 * PD_SEC, all_closed, c);
    for (uint32_t i = 0; i < c->n; i++) {
        struct sim_node *n = &c->nodes[i];
        assert_true(n->is_closed);
        pd_conf_put(n->conf);
        pd_mods_destroy(n->mods);
        if (n->loop != NULL) {
            pd_log_destroy(n->log);
            pd_status status = pd_loop_destroy(n->loop, names, sizeof names);
            if (status != PD_OK)
                fprintf(stderr, "%s leaves open: %s\n", n->host, names);
            assert_int_equal(status, PD_OK);
        }
    }
    assert_int_equal(pd_sim_destroy(c->sim), PD_OK);
    if (c->trace != NULL)
        fclose(c->trace);
}

/* ---- the client -------------------------------------------------------------------- */

static void on_head(struct pd_http_call *call, const struct pd_http_head *head, void *arg)
{
    struct sim_answer *a = arg;
    (void)call;
    a->status = head->status;
}

static void on_body(struct pd_http_call *call, struct pd_str piece, void *arg)
{
    struct sim_answer *a = arg;
    (void)call;
    assert_true(a->n + piece.n < sizeof a->body);
    memcpy(a->body + a->n, piece.p, piece.n);
    a->n += piece.n;
    a->body[a->n] = '\0';
}

static void on_end(struct pd_http_call *call, void *arg)
{
    struct sim_answer *a = arg;
    (void)call;
    a->is_over = true;
}

static void on_error(struct pd_http_call *call, enum pd_http_fail fail, pd_status why, void *arg)
{
    struct sim_answer *a = arg;
    (void)call;
    (void)fail;
    a->error = why;
    a->is_over = true;
}

static const struct pd_http_call_events client_events = {
    .on_head = on_head, .on_body = on_body, .on_end = on_end, .on_error = on_error
};

struct waiting {
    struct sim_cluster *cluster;
    struct sim_answer *answers;
    uint32_t n;
};

static bool all_over(void *arg)
{
    struct waiting *w = arg;
    if (w->cluster->watch != NULL)
        w->cluster->watch(w->cluster);
    for (uint32_t i = 0; i < w->n; i++) {
        if (!w->answers[i].is_over)
            return false;
    }
    return true;
}

static void client_closed(void *arg)
{
    *(bool *)arg = true;
}

static bool is_true(void *arg)
{
    return *(bool *)arg;
}

void sim_post_many(struct sim_cluster *c, const char *ip, uint16_t port, const char *path,
                   const char *const *bodies, uint32_t n, pd_time limit, struct sim_answer *out)
{
    struct pd_loop *loop;
    struct pd_http_client *client;
    struct waiting w = { c, out, n };
    char address[64];
    bool closed = false;
    assert_int_equal(pd_sim_loop_create(c->sim, "client", "10.9.9.9", &loop), PD_OK);
    assert_int_equal(pd_http_client_create(loop, NULL, &client), PD_OK);
    snprintf(address, sizeof address, "%s:%u", ip, (unsigned)port);
    for (uint32_t i = 0; i < n; i++) {
        struct pd_http_call *call;
        bool is_get = bodies[i] == NULL;
        struct pd_iov iov = { (void *)(uintptr_t)bodies[i], is_get ? 0 : strlen(bodies[i]) };
        struct pd_http_header type = { PD_STR("content-type"), PD_STR("application/json") };
        struct pd_http_call_opts opts = { .size = sizeof opts, .host = { address, strlen(address) },
                                          .method = is_get ? PD_HTTP_GET : PD_HTTP_POST, .target = { path, strlen(path) },
                                          .headers = &type, .n_headers = is_get ? 0 : 1, .body = &iov,
                                          .n_body = is_get ? 0 : 1,
                                          .first_byte_ns = limit, .idle_ns = limit };
        memset(&out[i], 0, sizeof out[i]);
        assert_int_equal(pd_addr_parse(loop, opts.host, &opts.addr), PD_OK);
        assert_int_equal(pd_http_call_start(client, &opts, &client_events, &out[i], &call), PD_OK);
    }
    pd_sim_run_cond(c->sim, pd_sim_now(c->sim) + limit, all_over, &w);
    pd_http_client_close(client, client_closed, &closed);
    pd_sim_run_cond(c->sim, pd_sim_now(c->sim) + 5 * PD_SEC, is_true, &closed);
    assert_true(closed);
    pd_sim_run_until(c->sim, pd_sim_now(c->sim) + PD_MS);
    assert_int_equal(pd_loop_destroy(loop, NULL, 0), PD_OK);
}

void sim_get(struct sim_cluster *c, const char *ip, uint16_t port, const char *path, pd_time limit,
             struct sim_answer *out)
{
    const char *none = NULL;
    sim_post_many(c, ip, port, path, &none, 1, limit, out);
}

void sim_post(struct sim_cluster *c, const char *ip, uint16_t port, const char *path, const char *body,
              pd_time limit, struct sim_answer *out)
{
    sim_post_many(c, ip, port, path, &body, 1, limit, out);
}
