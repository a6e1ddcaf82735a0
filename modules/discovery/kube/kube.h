/* SPDX-License-Identifier: Apache-2.0 */
/* Private to the module: objects of the API server as servers or nodes. */
#ifndef PD_DISCOVERY_KUBE_H
#define PD_DISCOVERY_KUBE_H

#include <pdplane/discovery.h>
#include <pdplane/json.h>

#define KUBE_OBJECTS_MAX 4096u
#define KUBE_NAME_MAX 253u

struct kube_conf {
    const char *api;           /* NULL: from the environment */
    const char *space;         /* namespace; NULL: from the service account */
    const char *service;       /* EndpointSlices of this service; or */
    const char *selector;      /* pods with these labels */
    const char *port;          /* name or number; NULL: the first (EndpointSlices) */
    const char *token_file;
    const char *ca_file;
    uint64_t resync;
    bool is_tls;
    bool is_peer;
};

/* A place where a pod or an endpoint of a slice listens; strings are of the object. */
struct kube_place {
    struct pd_str name;
    struct pd_str address;     /* "http://10.0.0.1:8000", or without the scheme for nodes */
    uint64_t epoch;
    bool is_v6;
};

/* An EndpointSlice or a pod: one allocation. */
struct kube_object {
    struct kube_object *next;
    char name[KUBE_NAME_MAX + 1];
    struct kube_place *places;
    struct pd_discovery_label *labels;
    uint32_t n_places, n_labels;
    bool is_stale;             /* not seen by the list that runs */
};

struct kube_objects {
    const struct pd_json_api *json;
    const struct kube_conf *conf;
    struct kube_object *all;
    uint32_t n;
};

/* Takes an object of a list or of a change; one of the same name is replaced.
 * PD_OK; PD_EPROTO: it is not what was asked for; PD_ELIMIT; PD_ENOMEM. */
pd_status kube_objects_put(struct kube_objects *set, const struct pd_json_value *object);
void kube_objects_remove(struct kube_objects *set, const struct pd_json_value *object);
/* Before a list and behind it: what it did not have goes. */
void kube_objects_mark(struct kube_objects *set);
void kube_objects_sweep(struct kube_objects *set);
void kube_objects_clear(struct kube_objects *set);
/* Tells all places to the sink, each name once. */
void kube_objects_tell(const struct kube_objects *set, struct pd_discovery_sink *sink);

#endif
