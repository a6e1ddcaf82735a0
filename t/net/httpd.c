/* SPDX-License-Identifier: Apache-2.0 */
/* A small web server over core/net, for checks with other programs: prints
 * "PORT n" and serves until its standard input ends. */
#include "base/str.h"
#include "loop/uv.h"
#include "net/server.h"
#include "net/sse.h"

#include <stdio.h>
#include <string.h>

struct stream {
    struct pd_timer timer;
    struct pd_http_req *req;
    int left;
};

static struct stream one;

static void h_hello(struct pd_http_req *req, void *arg)
{
    struct pd_http_header type = { PD_STR("content-type"), PD_STR("text/plain") };

    (void)arg;
    pd_http_respond(req, 200, &type, 1, PD_STR("hello\n"));
}

static void h_echo(struct pd_http_req *req, void *arg)
{
    (void)arg;
    pd_http_respond(req, 200, NULL, 0, pd_http_req_body(req));
}

static void on_gone(struct pd_http_req *req, pd_status why, void *arg)
{
    (void)req;
    (void)why;
    pd_timer_stop(&((struct stream *)arg)->timer);
    ((struct stream *)arg)->req = NULL;
}

static const struct pd_http_req_events events = { .on_gone = on_gone };

static void on_tick(struct pd_timer *timer, void *arg)
{
    struct stream *s = arg;
    struct pd_iov iov[3];
    char text[32];

    (void)snprintf(text, sizeof(text), s->left > 0 ? "{\"n\":%d}" : "[DONE]", s->left);
    (void)pd_sse_frame(pd_str_from(text), iov);
    (void)pd_http_write(s->req, iov, 3);
    if (s->left-- > 0) {
        pd_timer_start(timer, 5 * PD_MS);
    } else {
        pd_http_end(s->req);
        s->req = NULL;
    }
}

static void h_stream(struct pd_http_req *req, void *arg)
{
    struct pd_http_header type = { PD_STR("content-type"), PD_STR("text/event-stream") };

    (void)arg;
    if (one.req != NULL) {
        pd_http_error(req, 429, NULL, "queue_full", "One stream at a time.", NULL);
        return;
    }
    one.req = req;
    one.left = 5;
    pd_http_req_set_events(req, &events, &one);
    if (pd_http_begin(req, 200, &type, 1, PD_HTTP_UNKNOWN_LENGTH) == PD_OK)
        pd_timer_start(&one.timer, 5 * PD_MS);
}

static void on_input(struct pd_watch *w, uint32_t what, void *arg)
{
    (void)w;
    (void)what;
    pd_loop_stop(arg);
}

static bool add(struct pd_http_server *s, const char *path, uint32_t methods,
                void (*fn)(struct pd_http_req *, void *))
{
    struct pd_http_route route = { .path = path, .methods = methods, .on_request = fn };

    return pd_http_server_route(s, &route) == PD_OK;
}

static void on_closed(void *arg)
{
    pd_loop_stop(arg);
}

int main(void)
{
    struct pd_loop *loop;
    struct pd_http_server *server;
    struct pd_watch *watch;
    struct pd_addr addr;

    if (pd_loop_uv_create(NULL, &loop) != PD_OK ||
        pd_http_server_create(loop, NULL, &server) != PD_OK ||
        pd_addr_parse(loop, PD_STR("127.0.0.1:0"), &addr) != PD_OK ||
        pd_http_server_listen(server, &addr, NULL) != PD_OK ||
        pd_http_server_addr(server, 0, &addr) != PD_OK ||
        pd_watch_open(loop, 0, PD_WATCH_READ, "stdin", on_input, loop, &watch) != PD_OK ||
        !add(server, "/hello", 1u << PD_HTTP_GET, h_hello) ||
        !add(server, "/echo", 1u << PD_HTTP_POST | 1u << PD_HTTP_PUT, h_echo) ||
        !add(server, "/stream", 1u << PD_HTTP_GET, h_stream))
        return 1;
    pd_timer_init(&one.timer, loop, "tick", on_tick, &one);
    printf("PORT %u\n", addr.port);
    fflush(stdout);
    (void)pd_loop_run(loop);
    pd_watch_close(loop, watch);
    pd_http_server_close(server, on_closed, loop);
    (void)pd_loop_run(loop);
    return pd_loop_destroy(loop, NULL, 0) == PD_OK ? 0 : 1;
}
