/* SPDX-License-Identifier: Apache-2.0 */
/* Lines of the control socket, on a router of the simulator: each
 * gives an answer or a reason, and a JSON answer is JSON.
 *
 * Input: lines. */
#include "fuzz.h"

#include "base/json.h"
#include "conf/report.h"
#include "ctl/priv.h"
#include "loop/sim.h"

static struct pd_ctl *ctl;

static void on_line(void *arg, int32_t level, struct pd_str line)
{
    (void)arg;
    (void)level;
    (void)line;
}

static void nothing(void *arg)
{
    (void)arg;
}

static struct pd_str conf_text(void)
{
    static const char *const folders[] = {
        "role/router", "scheduler/filter/role", "scheduler/filter/health", "scheduler/score/prefix_cache",
        "scheduler/score/load_aware", "scheduler/pick/max_score", "scheduler/decide/pd_threshold",
    };
    static char text[16384];
    const char *build = getenv("PD_BUILDDIR");
    size_t n = (size_t)snprintf(text, sizeof text, "module_path = [ ");
    for (size_t i = 0; i < sizeof folders / sizeof folders[0]; i++)
        n += (size_t)snprintf(text + n, sizeof text - n, "%s\"%s/modules/%s/.libs\"", i > 0 ? ", " : "",
                              build != NULL ? build : FUZZ_BUILDDIR, folders[i]);
    n += (size_t)snprintf(text + n, sizeof text - n, " ];\nload = [ \"router\" ];\n"
                          "listen = ( { address = \"0.0.0.0:8000\"; api = \"openai\"; } );\n");
    FUZZ_CHECK(n < sizeof text);
    return (struct pd_str){ text, n };
}

static void begin(void)
{
    static struct pd_sim *sim;
    static struct pd_sim_opts opts;
    struct pd_loop *loop;
    struct pd_log *log;
    struct pd_mods *mods;
    struct pd_conf *conf = NULL;
    struct pd_conf_report report;
    struct pd_node *node;
    struct pd_err err = { 0 };
    struct pd_str text;
    struct pd_log_config config = { .sink = PD_LOG_CALLBACK, .on_line = on_line, .level = PD_LOG_ERROR };
    struct pd_mods_params params = { .host = pd_host_api_table() };
    text = conf_text();
    FUZZ_CHECK(pd_sim_create(1, &opts, &sim) == PD_OK);
    FUZZ_CHECK(pd_sim_loop_create(sim, "n", "10.0.0.1", &loop) == PD_OK);
    FUZZ_CHECK(pd_log_create(&config, &err, &log) == PD_OK);
    FUZZ_CHECK(pd_mods_create(&params, &mods) == PD_OK);
    pd_conf_report_init(&report);
    pd_status status = pd_node_conf_read("t.conf", &text, NULL, mods, &report, &conf);
    if (status != PD_OK)
        pd_conf_report_print(&report, stderr);
    FUZZ_CHECK(status == PD_OK);
    pd_conf_report_fini(&report);
    struct pd_node_params node_params = { .loop = loop, .log = log, .mods = mods, .conf = conf, .name = "n",
                                          .host_id = "n" };
    status = pd_node_create(&node_params, &node, &err);
    if (status == PD_OK)
        status = pd_node_start(node, &err);
    if (status != PD_OK)
        fprintf(stderr, "%s\n", err.text);
    FUZZ_CHECK(status == PD_OK);
    struct pd_ctl_params ctl_params = { .loop = loop, .log = log, .node = node, .path = "/ctl",
                                        .on_drain = nothing, .on_stop = nothing };
    FUZZ_CHECK(pd_ctl_create(&ctl_params, &ctl, &err) == PD_OK);
    pd_sim_run_until(sim, pd_sim_now(sim) + PD_SEC);
}

static void check_json(struct pd_str text)
{
    const char *root = "";
    struct pd_json_value v;
    FUZZ_CHECK(pd_json_scan(text, NULL, &root, 1, &v, NULL) == PD_OK);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_in in = { data, size };
    if (ctl == NULL)
        begin();
    while (in.n > 0) {
        const uint8_t *end = memchr(in.p, '\n', in.n);
        struct pd_str part = fuzz_take(&in, end != NULL ? (size_t)(end - in.p) : in.n);
        fuzz_take(&in, 1);
        if (part.n > PD_CTL_LINE_MAX)
            continue;
        struct fuzz_in one = { (const uint8_t *)part.p, part.n };
        struct pd_err err = { 0 };
        static struct pd_buf body = { .limit = PD_CTL_BODY_MAX };
        struct pd_str line;
        char *p = fuzz_rest(&one, &line.n);
        line.p = p;
        pd_buf_clear(&body);
        if (pd_ctl_run(ctl, line, &body, &err) != PD_OK)
            FUZZ_CHECK(err.text[0] != '\0' && memchr(err.text, '\0', sizeof err.text) != NULL);
        else if (memmem(line.p, line.n, " --json", 7) != NULL && body.n > 0 && body.p[0] == '{')
            check_json(pd_buf_str(&body));
        fuzz_back(p, line.n);
    }
    return 0;
}
