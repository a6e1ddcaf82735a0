/* SPDX-License-Identifier: Apache-2.0 */
/* The counters of servers and clients as metrics.  They are plain numbers where
 * they are counted; a copy is taken before each exposition, so that requests
 * cost nothing for it. */
#ifndef PD_NET_NET_METRIC_H
#define PD_NET_NET_METRIC_H

#include "net/client.h"
#include "net/server.h"

#include <pdplane/metric.h>

struct pd_net_metrics;

/* Makes the families and children; listener is the value of the label of that
 * name ("openai").  server and client are borrowed, either may be NULL.  Gives:
 * pd_net_metrics_destroy.  PD_OK, or what the registry gave.  Loop thread. */
pd_status pd_net_metrics_create(struct pd_metrics *m, const char *listener,
                                const struct pd_http_server *server,
                                const struct pd_http_client *client,
                                struct pd_net_metrics **out);
/* Copies the numbers; call it on the loop's thread before an exposition. */
void pd_net_metrics_update(struct pd_net_metrics *nm);
/* Takes nm; NULL is allowed.  The children stay in the registry. */
void pd_net_metrics_destroy(struct pd_net_metrics *nm);

#endif
