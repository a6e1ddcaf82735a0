/* SPDX-License-Identifier: Apache-2.0 */
/* The table behind <pdplane/net.h>: the server's and the client's functions,
 * with the choice of the server by api. */
#include "net/net.h"

static struct pd_http_server *server_of(struct pd_net *net, uint32_t api)
{
    return api == PD_NET_OPENAI ? net->openai : api == PD_NET_ADMIN ? net->admin : NULL;
}

static pd_status net_route(struct pd_net *net, uint32_t api, const struct pd_http_route *route)
{
    struct pd_http_server *server = server_of(net, api);
    return server == NULL ? PD_EINVAL : pd_http_server_route(server, route);
}

static pd_status net_unroute(struct pd_net *net, uint32_t api, const char *path)
{
    struct pd_http_server *server = server_of(net, api);
    return server == NULL ? PD_EINVAL : pd_http_server_unroute(server, path);
}

static pd_status net_call_start(struct pd_net *net, const struct pd_http_call_opts *opts,
                                const struct pd_http_call_events *ev, void *arg,
                                struct pd_http_call **out)
{
    return net->client == NULL ? PD_EINVAL : pd_http_call_start(net->client, opts, ev, arg, out);
}

static pd_status net_way_open(struct pd_net *net, const struct pd_http_call_opts *opts,
                              struct pd_http_way **out)
{
    return net->client == NULL ? PD_EINVAL : pd_http_way_open(net->client, opts, out);
}

static struct pd_tls *net_peer_tls(struct pd_net *net, bool is_server)
{
    return is_server ? net->peer_in : net->peer_out;
}

static pd_status net_tls_create(struct pd_loop *loop, struct pd_log *log, const char *what, const char *ca,
                                const char *name, struct pd_tls **out, struct pd_err *err)
{
    struct pd_tls_conf conf = { .what = what, .ca = ca, .name = name };
    return pd_tls_create(loop, log, &conf, out, err);
}

static bool net_lighten(struct pd_http_req *req, struct pd_http_call *call)
{
    if (!pd_http_call_lighten(call))
        return false;
    pd_http_req_lighten(req);
    return true;
}

const struct pd_net_api *pd_net_functions(void)
{
    static const struct pd_net_api table = {
        .size = sizeof table,
        .version = PD_NET_VERSION,
        .route = net_route,
        .unroute = net_unroute,
        .req_method = pd_http_req_method,
        .req_path = pd_http_req_path,
        .req_header = pd_http_req_header,
        .req_body = pd_http_req_body,
        .req_id = pd_http_req_id,
        .req_start = pd_http_req_start,
        .req_set_events = pd_http_req_set_events,
        .req_set_deadline = pd_http_req_set_deadline,
        .respond = pd_http_respond,
        .begin = pd_http_begin,
        .write = pd_http_write_str,
        .end = pd_http_end,
        .abort = pd_http_abort,
        .close_after = pd_http_close_after,
        .has_begun = pd_http_has_begun,
        .error = pd_http_error_full,
        .call_start = net_call_start,
        .call_cancel = pd_http_call_cancel,
        .call_pause = pd_http_call_pause,
        .call_resume = pd_http_call_resume,
        .req_label = pd_http_req_label,
        .req_body_release = pd_http_req_body_release,
        .call_is_sent = pd_http_call_is_sent,
        .flush = pd_http_flush,
        .req_hint = pd_http_req_hint,
        .peer_tls = net_peer_tls,
        .tls_accept = pd_tls_accept,
        .tls_connect = pd_tls_connect,
        .tls_node = pd_tls_stream_node,
        .tls_create = net_tls_create,
        .tls_destroy = pd_tls_destroy,
        .own_flush = pd_http_own_flush,
        .lighten = net_lighten,
        .call_leave = pd_http_call_leave,
        .way_open = net_way_open,
        .way_close = pd_http_way_close,
        .way_call = pd_http_way_call,
        .begin_with = pd_http_begin_with,
        .pass = pd_http_pass,
        .req_id_given = pd_http_req_id_given,
    };
    return &table;
}
