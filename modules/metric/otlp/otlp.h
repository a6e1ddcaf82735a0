/* SPDX-License-Identifier: Apache-2.0 */
/* What the parts of the module share. */
#ifndef PD_OTLP_H
#define PD_OTLP_H

#include <pdplane/exporter.h>
#include <pdplane/host.h>
#include <pdplane/log.h>
#include <pdplane/loop.h>
#include <pdplane/metric.h>
#include <pdplane/net.h>

struct otlp_conf {
    const char *url;
    const char *service;
    const char *token;          /* NULL: none */
    pd_time interval;
    pd_time timeout;
    pd_time give_up;
    uint32_t batch;
    uint64_t memory;
};

struct otlp_url {
    char host[256];             /* name or address, without brackets */
    char authority[280];
    char target[512];
    uint16_t port;
};

/* Reads "http://HOST[:PORT][/PATH]"; without a path /v1/metrics.  PD_OK, or err
 * says what is wrong. */
pd_status otlp_url_parse(const char *text, struct otlp_url *out, struct pd_err *err);

/* One request's body. */
struct otlp_body {
    struct otlp_body *next;
    char *p;
    size_t n, cap;
    uint32_t points;
    bool failed;                /* memory was short, or the limit is reached */
};

/* What to write into each body. */
struct otlp_source {
    struct pd_metrics *metrics;
    const char *service;
    const char *instance;       /* the node's uuid as text */
    const char *version;
    uint64_t begin, now;        /* ns since 1970 */
    uint32_t batch;
    uint64_t memory;
};

/* Reads the registry into a list of bodies; *dropped are points for which there
 * was no room.  NULL: there is nothing.  Gives: otlp_bodies_free. */
struct otlp_body *otlp_encode(const struct otlp_source *source, uint64_t *dropped);
void otlp_bodies_free(struct otlp_body *list);

struct pd_exporter {
    const struct otlp_conf *conf;
    struct pd_loop *loop;
    struct pd_log *log;
    struct pd_metrics *metrics;
    struct pd_host *host;
    const struct pd_net_api *api;
    struct pd_net *net;
    struct otlp_url url;
    char instance[40];
    char authorization[600];    /* empty: none */
    uint64_t begin;             /* ns since 1970 */

    struct pd_timer tick;       /* the next interval */
    struct pd_timer retry;
    struct pd_resolve resolve;
    bool is_resolving, is_failing;
    struct otlp_body *bodies;   /* not yet sent, the first perhaps under way */
    struct pd_http_call *call;
    pd_time collected;
    pd_time pause;              /* before the next try */
    uint32_t status;            /* of the answer */
    pd_time retry_after;
    char answer[4096];
    size_t answer_n;
    struct pd_task end;
    void (*on_closed)(void *arg);
    void *on_closed_arg;

    struct pd_counter *requests, *failures, *sent, *dropped, *rejected, *late;
};

/* push.c */
void otlp_push_init(struct pd_exporter *e);
void otlp_push_begin(struct pd_exporter *e);
void otlp_push_end(struct pd_exporter *e);

#endif
