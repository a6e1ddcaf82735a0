/* SPDX-License-Identifier: Apache-2.0 */
/* A source of this module, for the files that it is made of: kube.c, follow.c, request.c.
 * All on the loop of the node. */
#ifndef PD_DISCOVERY_KUBE_FOLLOW_H
#define PD_DISCOVERY_KUBE_FOLLOW_H

#include <pdplane/loop.h>
#include <pdplane/net.h>

#include "kube.h"

#define KUBE_TOKEN_MAX 16384u
#define KUBE_VERSION_MAX 128u
#define KUBE_CONTINUE_MAX 4096u
#define KUBE_BACKOFF_MIN (200 * PD_MS)

enum { KUBE_IDLE, KUBE_RESOLVING, KUBE_LISTING, KUBE_WATCHING };

struct pd_discovery {
    const struct kube_conf *conf;
    struct pd_loop *loop;
    struct pd_log *log;
    const struct pd_net_api *net;
    struct pd_net *nets;
    const struct pd_json_api *json;
    struct pd_discovery_sink *sink;
    char space[KUBE_NAME_MAX + 1];
    char host[256], authority[300];
    char api[320];
    uint16_t port;
    struct pd_tls *tls;
    struct pd_addr addr;
    struct pd_resolve resolve;
    uint32_t state;
    struct pd_http_call *call;
    uint32_t status;                    /* of the answer */
    char *body;                         /* of a list, or the part of a change that came */
    size_t body_n, body_cap;
    char version[KUBE_VERSION_MAX];     /* to watch from; "": list first */
    char next[KUBE_CONTINUE_MAX];       /* page */
    struct kube_objects objects;
    struct pd_timer timer;              /* the next try */
    struct pd_timer settle;
    pd_time backoff;
    pd_time listed_at;
    char authorization[KUBE_TOKEN_MAX + 8];
    struct pd_task close_task;
    void (*on_closed)(void *arg);
    void *arg;
};

/* ---- follow.c */
extern const struct pd_http_call_events kube_call_events;
/* Tells the sink what is wrong; the next try comes later than the last one. */
void kube_trouble(struct pd_discovery *d, const char *fmt, ...) PD_PRINTF(2, 3);
/* Ends the call in its middle. */
void kube_hang_up(struct pd_discovery *d);
void kube_body_clear(struct pd_discovery *d);
/* Forgets the version: all is listed, at once. */
void kube_list_again(struct pd_discovery *d);
/* The timer of the next try, and that of changes that are to be told. */
void kube_on_timer(struct pd_timer *timer, void *arg);
void kube_on_settle(struct pd_timer *timer, void *arg);

/* ---- request.c */
/* A small file in memory of the kubelet; n bytes, or -1. */
ssize_t kube_small_file(const char *path, char *to, size_t size);
/* Asks for what the state says: a page, or a watch. */
void kube_call_start(struct pd_discovery *d);

#endif
