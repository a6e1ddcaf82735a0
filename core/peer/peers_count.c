/* SPDX-License-Identifier: Apache-2.0 */
/* What a node counts of its peers and links, for itself and as metrics. */
#include "peer/priv.h"

void pd_peers_count(struct pd_peers *peers, enum pd_peers_counter which, uint64_t n)
{
    peers->count[which] += n;
    pd_counter_add(peers->metric[which], n);
}

void pd_peers_count_goodbye(struct pd_peers *peers, bool sent, uint32_t reason)
{
    peers->goodbyes[sent][reason]++;
    pd_counter_inc(peers->metric_goodbyes[sent][reason]);
}

void pd_peers_make_metrics(struct pd_peers *peers)
{
    static const struct {
        const char *name;
        const char *help;
    } rows[PD_COUNTS] = {
        [PD_COUNT_CALLS_OPENED] = { "pdplane_peer_calls_opened_total",
                                    "Calls opened to services of peers." },
        [PD_COUNT_CALLS_SERVED] = { "pdplane_peer_calls_served_total",
                                    "Calls of peers given to a service." },
        [PD_COUNT_CALLS_REFUSED] = { "pdplane_peer_calls_refused_total",
                                     "Calls of peers refused: no such service, or a limit." },
        [PD_COUNT_CALLS_CANCELED] = { "pdplane_peer_calls_canceled_total",
                                      "Calls canceled by this node." },
        [PD_COUNT_LATE] = { "pdplane_peer_late_frames_total",
                            "Frames that came for calls already over." },
        [PD_COUNT_LIMIT] = { "pdplane_peer_limit_total",
                             "Links, peers, calls or messages refused at a limit." },
        [PD_COUNT_AUTH] = { "pdplane_peer_auth_failures_total",
                            "Peers that did not prove the shared secret." },
        [PD_COUNT_BYTES_IN] = { "pdplane_peer_received_bytes_total",
                                "Bytes received on peer links." },
        [PD_COUNT_BYTES_OUT] = { "pdplane_peer_sent_bytes_total", "Bytes sent on peer links." },
        [PD_COUNT_CONNECTS] = { "pdplane_peer_connects_total", "Connections made to peers." },
        [PD_COUNT_SUSPECTS] = { "pdplane_peer_suspects_total",
                                "Times a peer was silent for too long." },
        [PD_COUNT_DOWNS] = { "pdplane_peer_downs_total", "Times a link to a peer was lost." },
    };
    static const char *const labels[] = { "direction", "reason" };
    static const struct pd_metric_desc goodbye = {
        .size = sizeof goodbye, .name = "pdplane_peer_goodbyes_total",
        .help = "Links ended, by who said so and why.", .labels = labels, .n_labels = 2,
    };
    struct pd_metrics *m = peers->conf.metrics;
    struct pd_metric_family *family = NULL;
    if (m == NULL)
        return;
    for (int i = 0; i < PD_COUNTS; i++)
        peers->metric[i] = pd_metrics_simple_counter(m, rows[i].name, rows[i].help);
    peers->metric_up = pd_metrics_simple_gauge(m, "pdplane_peers_up",
                                               "Peers with a link, self not counted.");
    if (pd_metrics_family(m, PD_METRIC_COUNTER, &goodbye, NULL, &family) != PD_OK)
        return;
    for (int sent = 0; sent < 2; sent++)
        for (uint32_t r = 0; r < PD_GOODBYES; r++) {
            const char *values[] = { sent ? "sent" : "received", pd_goodbye_label(r) };
            peers->metric_goodbyes[sent][r] = pd_metrics_counter(m, family, values);
        }
}
