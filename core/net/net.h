/* SPDX-License-Identifier: Apache-2.0 */
/* The servers and the client of one node, as roles reach them through
 * <pdplane/net.h>. */
#ifndef PD_NET_NET_H
#define PD_NET_NET_H

#include "net/client.h"
#include "net/server.h"
#include "net/tls.h"

/* The node owns the objects; any of them may be NULL. */
struct pd_net {
    struct pd_http_server *openai;
    struct pd_http_server *admin;
    struct pd_http_client *client;
    struct pd_tls *peer_out;    /* for what modules connect to other nodes; NULL: plain */
    struct pd_tls *peer_in;
};

const struct pd_net_api *pd_net_functions(void);

#endif
