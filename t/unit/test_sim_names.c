/* SPDX-License-Identifier: Apache-2.0 */
/* A router in the simulator over a server that its configuration names by a host name:
 * the server moves to another address, or the name has several.  Seed 5. */
#include "unit.h"

#include "base/str.h"
#include "net/server.h"
#include "sim_nodes.h"

static const char conf[] =
    "load = [ \"router\", \"openai\" ];\n"
    "listen = ( { address = \"0.0.0.0:8000\"; api = \"openai\"; } );\n"
    "endpoints = ( { name = \"e\"; type = \"openai\"; url = \"http://engine.svc:9000\"; } );\n"
    "role = { router = { probe_interval = \"1s\"; wait = \"0s\"; }; };\n";

static const char body[] = "{\"model\":\"m\",\"messages\":[{\"role\":\"user\",\"content\":\"a\"}]}";

struct server {
    struct pd_loop *loop;
    struct pd_http_server *http;
    const char *says;
    bool is_closed;
};

static struct pd_http_header json = { { "content-type", 12 }, { "application/json", 16 } };

static void on_models(struct pd_http_req *req, void *arg)
{
    (void)arg;
    pd_http_respond(req, 200, &json, 1, PD_STR("{\"object\":\"list\",\"data\":[{\"id\":\"m\",\"object\":\"model\"}]}"));
}

static void on_chat(struct pd_http_req *req, void *arg)
{
    struct server *s = arg;
    pd_http_respond(req, 200, &json, 1, pd_str_from(s->says));
}

static void server_start(struct sim_cluster *c, struct server *s, const char *name, const char *ip, const char *says)
{
    const struct pd_http_route routes[] = {
        { .path = "/v1/models", .methods = 1u << PD_HTTP_GET, .on_request = on_models, .arg = s },
        { .path = "/v1/chat/completions", .methods = 1u << PD_HTTP_POST, .on_request = on_chat, .arg = s },
    };
    struct pd_addr addr;
    *s = (struct server){ .says = says };
    assert_int_equal(pd_sim_loop_create(c->sim, name, ip, &s->loop), PD_OK);
    assert_int_equal(pd_http_server_create(s->loop, NULL, &s->http), PD_OK);
    pd_sim_addr(s->loop, 9000, &addr);
    assert_int_equal(pd_http_server_listen(s->http, &addr, NULL), PD_OK);
    for (size_t i = 0; i < sizeof routes / sizeof routes[0]; i++)
        assert_int_equal(pd_http_server_route(s->http, &routes[i]), PD_OK);
}

static void on_closed(void *arg)
{
    *(bool *)arg = true;
}

static bool is_true(void *arg)
{
    return *(bool *)arg;
}

static void server_stop(struct sim_cluster *c, struct server *s)
{
    pd_http_server_close(s->http, on_closed, &s->is_closed);
    assert_true(pd_sim_run_cond(c->sim, pd_sim_now(c->sim) + 10 * PD_SEC, is_true, &s->is_closed));
    pd_sim_run_until(c->sim, pd_sim_now(c->sim) + PD_MS);
    assert_int_equal(pd_loop_destroy(s->loop, NULL, 0), PD_OK);
}

static void wait(struct sim_cluster *c, pd_time ns)
{
    pd_sim_run_until(c->sim, pd_sim_now(c->sim) + ns);
}

/* What a client gets: which server answered, or the status. */
static const char *ask(struct sim_cluster *c)
{
    static struct sim_answer a;
    static char status[16];
    sim_post(c, "10.0.0.1", 8000, "/v1/chat/completions", body, 30 * PD_SEC, &a);
    assert_true(a.is_over);
    if (a.status == 200)
        return strstr(a.body, "one") != NULL ? "one" : "two";
    snprintf(status, sizeof status, "%u", (unsigned)a.status);
    return status;
}

static const char one[] = "{\"choices\":[{\"index\":0,\"message\":{\"content\":\"one\"}}]}";
static const char two[] = "{\"choices\":[{\"index\":0,\"message\":{\"content\":\"two\"}}]}";

static void test_moves(void **state)
{
    struct sim_cluster c;
    struct server a, b;
    (void)state;
    sim_cluster_init(&c, 5, NULL);
    c.is_quiet = true;
    server_start(&c, &a, "a", "10.1.0.1", one);
    server_start(&c, &b, "b", "10.1.0.2", two);
    assert_int_equal(pd_sim_name_add(c.sim, "engine.svc", "10.1.0.1"), PD_OK);
    sim_node_start(&c, "router", conf);
    wait(&c, 3 * PD_SEC);
    assert_string_equal(ask(&c), "one");
    server_stop(&c, &a);
    wait(&c, 5 * PD_SEC);
    assert_string_equal(ask(&c), "503");
    /* No name for a while, then another address. */
    assert_int_equal(pd_sim_name_remove(c.sim, "engine.svc", NULL), PD_OK);
    wait(&c, 5 * PD_SEC);
    assert_string_equal(ask(&c), "503");
    assert_int_equal(pd_sim_name_add(c.sim, "engine.svc", "10.1.0.2"), PD_OK);
    wait(&c, 5 * PD_SEC);
    assert_string_equal(ask(&c), "two");
    server_stop(&c, &b);
    sim_cluster_fini(&c);
}

static void test_two_addresses(void **state)
{
    struct sim_cluster c;
    struct server a, b;
    (void)state;
    sim_cluster_init(&c, 5, NULL);
    c.is_quiet = true;
    server_start(&c, &a, "a", "10.1.0.1", one);
    server_start(&c, &b, "b", "10.1.0.2", two);
    assert_int_equal(pd_sim_name_add(c.sim, "engine.svc", "10.1.0.1"), PD_OK);
    assert_int_equal(pd_sim_name_add(c.sim, "engine.svc", "10.1.0.2"), PD_OK);
    sim_node_start(&c, "router", conf);
    wait(&c, 3 * PD_SEC);
    const char *first = ask(&c);
    bool is_one = strcmp(first, "one") == 0;
    assert_true(is_one || strcmp(first, "two") == 0);
    /* It stays with one that answers. */
    wait(&c, 10 * PD_SEC);
    assert_string_equal(ask(&c), is_one ? "one" : "two");
    server_stop(&c, is_one ? &a : &b);
    wait(&c, 8 * PD_SEC);
    assert_string_equal(ask(&c), is_one ? "two" : "one");
    server_stop(&c, is_one ? &b : &a);
    sim_cluster_fini(&c);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_moves), cmocka_unit_test(test_two_addresses) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
