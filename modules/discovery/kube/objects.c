/* SPDX-License-Identifier: Apache-2.0 */
/* EndpointSlices (discovery.k8s.io/v1) and pods (v1), as far as they say where
 * somebody listens: what is ready, by name of the pod, with the labels of pod or
 * service. */
#include "kube.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "source.h"

#define PLACES_MAX 1000u           /* endpoints of one slice, as the API server has it */
#define PLACE_EXTRA 32u            /* scheme, brackets, port */

/* ---- reading one object --------------------------------------------------------------- */

/* An object on its way: texts are taken out of one block. */
struct reading {
    const struct pd_json_api *json;
    const struct kube_conf *conf;
    struct kube_object *o;
    char *at, *end;
};

static struct pd_json_value member(const struct reading *r, const struct pd_json_value *object, const char *key)
{
    struct pd_json_value v = { .type = PD_JSON_NONE };
    if (object->type == PD_JSON_OBJECT)
        (void)r->json->find(object, key, &v);
    return v;
}

/* Empty when it is no string, or has no room. */
static struct pd_str text(struct reading *r, const struct pd_json_value *v)
{
    struct pd_str out = { "", 0 };
    if (v->type != PD_JSON_STRING ||
        r->json->get_cstr(v, r->at, (size_t)(r->end - r->at)) != PD_OK)
        return out;
    out = (struct pd_str){ r->at, strlen(r->at) };
    r->at += out.n + 1;
    return out;
}

static uint64_t epoch_of(struct pd_str uid)
{
    uint64_t h = 0xcbf29ce484222325u;
    for (size_t i = 0; i < uid.n; i++)
        h = (h ^ (unsigned char)uid.p[i]) * 0x100000001b3u;
    return uid.n == 0 ? 0 : h;
}

static void labels_read(struct reading *r, const struct pd_json_value *labels)
{
    struct pd_json_iter it;
    struct pd_json_value key, value;
    if (labels->type != PD_JSON_OBJECT || r->json->iter_init(&it, labels) != PD_OK)
        return;
    while (r->o->n_labels < PD_DISCOVERY_LABELS_MAX && r->json->iter_next(&it, &key, &value)) {
        struct pd_discovery_label *l = &r->o->labels[r->o->n_labels];
        l->key = text(r, &key);
        l->value = text(r, &value);
        r->o->n_labels += l->key.n > 0;
    }
}

static void place_add(struct reading *r, struct pd_str name, struct pd_str ip, uint64_t port, struct pd_str uid)
{
    struct kube_object *o = r->o;
    bool is_v6 = memchr(ip.p, ':', ip.n) != NULL;
    const char *scheme = r->conf->is_peer ? "" : r->conf->is_tls ? "https://" : "http://";
    size_t room = (size_t)(r->end - r->at);
    int n = snprintf(r->at, room, is_v6 ? "%s[%.*s]:%u" : "%s%.*s:%u", scheme, PD_STR_ARG(ip), (unsigned)port);
    if (ip.n == 0 || port == 0 || port > 65535 || n < 0 || (size_t)n >= room)
        return;
    struct kube_place *p = &o->places[o->n_places++];
    *p = (struct kube_place){ .address = { r->at, (size_t)n }, .epoch = epoch_of(uid), .is_v6 = is_v6 };
    r->at += n + 1;
    if (name.n == 0)
        name = source_authority(p->address);
    /* Longer names are cut at their front: what tells pods apart stands behind. */
    if (name.n > PD_DISCOVERY_NAME_MAX)
        name = (struct pd_str){ name.p + name.n - PD_DISCOVERY_NAME_MAX, PD_DISCOVERY_NAME_MAX };
    p->name = name;
}

/* ---- EndpointSlices ----------------------------------------------------------------------- */

static bool is_number(const char *s)
{
    return s[0] != '\0' && strspn(s, "0123456789") == strlen(s);
}

/* The port with the configured name or number, or the first; 0: none. */
static uint64_t slice_port(const struct reading *r, const struct pd_json_value *ports)
{
    struct pd_json_iter it;
    struct pd_json_value port;
    const char *want = r->conf->port;
    uint64_t number = 0;
    if (ports->type != PD_JSON_ARRAY || r->json->iter_init(&it, ports) != PD_OK)
        return want != NULL && is_number(want) ? strtoul(want, NULL, 10) : 0;
    while (r->json->iter_next(&it, NULL, &port)) {
        struct pd_json_value name = member(r, &port, "name"), v = member(r, &port, "port");
        if (r->json->get_u64(&v, &number) != PD_OK)
            continue;
        if (want == NULL || (is_number(want) ? number == strtoul(want, NULL, 10) : r->json->is_str(&name, want)))
            return number;
    }
    return 0;
}

/* conditions.ready: absent means ready. */
static bool endpoint_is_ready(const struct reading *r, const struct pd_json_value *endpoint)
{
    struct pd_json_value conditions = member(r, endpoint, "conditions");
    struct pd_json_value ready = member(r, &conditions, "ready");
    bool is_ready = true;
    (void)r->json->get_bool(&ready, &is_ready);
    return is_ready;
}

static void slice_read(struct reading *r, const struct pd_json_value *slice)
{
    struct pd_json_value endpoints = member(r, slice, "endpoints"), ports = member(r, slice, "ports"), e;
    struct pd_json_iter it;
    uint64_t port = slice_port(r, &ports);
    if (endpoints.type != PD_JSON_ARRAY || r->json->iter_init(&it, &endpoints) != PD_OK)
        return;
    while (r->o->n_places < PLACES_MAX && r->json->iter_next(&it, NULL, &e)) {
        struct pd_json_value addresses = member(r, &e, "addresses"), first;
        struct pd_json_value target = member(r, &e, "targetRef");
        struct pd_json_value kind = member(r, &target, "kind");
        struct pd_json_value name = member(r, &target, "name"), uid = member(r, &target, "uid");
        struct pd_json_iter at;
        if (!endpoint_is_ready(r, &e) || addresses.type != PD_JSON_ARRAY ||
            r->json->iter_init(&at, &addresses) != PD_OK || !r->json->iter_next(&at, NULL, &first))
            continue;
        struct pd_str none = { "", 0 }, pod = r->json->is_str(&kind, "Pod") ? text(r, &name) : none;
        place_add(r, pod, text(r, &first), port, text(r, &uid));
    }
}

/* ---- pods ----------------------------------------------------------------------------------- */

static bool pod_is_ready(const struct reading *r, const struct pd_json_value *pod,
                         const struct pd_json_value *status)
{
    struct pd_json_value metadata = member(r, pod, "metadata");
    struct pd_json_value gone = member(r, &metadata, "deletionTimestamp");
    struct pd_json_value conditions = member(r, status, "conditions"), c;
    struct pd_json_iter it;
    if (gone.type == PD_JSON_STRING || conditions.type != PD_JSON_ARRAY ||
        r->json->iter_init(&it, &conditions) != PD_OK)
        return false;
    while (r->json->iter_next(&it, NULL, &c)) {
        struct pd_json_value type = member(r, &c, "type"), value = member(r, &c, "status");
        if (r->json->is_str(&type, "Ready"))
            return r->json->is_str(&value, "True");
    }
    return false;
}

static void pod_read(struct reading *r, const struct pd_json_value *pod)
{
    struct pd_json_value metadata = member(r, pod, "metadata"), status = member(r, pod, "status");
    struct pd_json_value name = member(r, &metadata, "name"), uid = member(r, &metadata, "uid");
    struct pd_json_value ip = member(r, &status, "podIP");
    if (pod_is_ready(r, pod, &status))
        place_add(r, text(r, &name), text(r, &ip), strtoul(r->conf->port, NULL, 10), text(r, &uid));
}

/* ---- the set --------------------------------------------------------------------------------- */

static struct kube_object **find(struct kube_objects *set, const char *name)
{
    struct kube_object **link = &set->all;
    while (*link != NULL && strcmp((*link)->name, name) != 0)
        link = &(*link)->next;
    return link;
}

/* PD_OK, or PD_EPROTO. */
static pd_status name_read(const struct kube_objects *set, const struct pd_json_value *object,
                           char name[KUBE_NAME_MAX + 1])
{
    struct pd_json_value metadata = { .type = PD_JSON_NONE }, v = { .type = PD_JSON_NONE };
    if (object->type != PD_JSON_OBJECT || set->json->find(object, "metadata", &metadata) != PD_OK ||
        metadata.type != PD_JSON_OBJECT || set->json->find(&metadata, "name", &v) != PD_OK ||
        set->json->get_cstr(&v, name, KUBE_NAME_MAX + 1) != PD_OK)
        return PD_EPROTO;
    return PD_OK;
}

pd_status kube_objects_put(struct kube_objects *set, const struct pd_json_value *object)
{
    char name[KUBE_NAME_MAX + 1];
    if (name_read(set, object, name) != PD_OK)
        return PD_EPROTO;
    struct reading r = { .json = set->json, .conf = set->conf };
    struct pd_json_value metadata = member(&r, object, "metadata");
    struct pd_json_value labels = member(&r, &metadata, "labels"), list = member(&r, object, "endpoints");
    size_t places = set->conf->service == NULL ? 1 : set->json->count(&list);
    size_t n_labels = set->json->count(&labels);
    places = places > PLACES_MAX ? PLACES_MAX : places;
    n_labels = n_labels > PD_DISCOVERY_LABELS_MAX ? PD_DISCOVERY_LABELS_MAX : n_labels;
    /* No text that is taken is longer than it stands in the document, but addresses are twice there. */
    size_t head = sizeof *r.o + places * sizeof *r.o->places + n_labels * sizeof *r.o->labels;
    size_t size = head + 2 * object->text.n + places * PLACE_EXTRA + 64;
    struct kube_object **at = find(set, name), *old = *at;
    if (old == NULL && set->n == KUBE_OBJECTS_MAX)
        return PD_ELIMIT;
    r.o = malloc(size);
    if (r.o == NULL)
        return PD_ENOMEM;
    memset(r.o, 0, head);
    r.o->places = (struct kube_place *)(r.o + 1);
    r.o->labels = (struct pd_discovery_label *)(r.o->places + places);
    r.at = (char *)r.o + head;
    r.end = (char *)r.o + size;
    memcpy(r.o->name, name, sizeof name);
    labels_read(&r, &labels);
    if (set->conf->service != NULL)
        slice_read(&r, object);
    else
        pod_read(&r, object);
    r.o->next = old != NULL ? old->next : NULL;
    *at = r.o;
    set->n += old == NULL;
    free(old);
    return PD_OK;
}

static void unlink_object(struct kube_objects *set, struct kube_object **at)
{
    struct kube_object *o = *at;
    *at = o->next;
    set->n--;
    free(o);
}

void kube_objects_remove(struct kube_objects *set, const struct pd_json_value *object)
{
    char name[KUBE_NAME_MAX + 1];
    if (name_read(set, object, name) != PD_OK)
        return;
    struct kube_object **at = find(set, name);
    if (*at != NULL)
        unlink_object(set, at);
}

void kube_objects_mark(struct kube_objects *set)
{
    for (struct kube_object *o = set->all; o != NULL; o = o->next)
        o->is_stale = true;
}

void kube_objects_sweep(struct kube_objects *set)
{
    struct kube_object **at = &set->all;
    while (*at != NULL) {
        if ((*at)->is_stale)
            unlink_object(set, at);
        else
            at = &(*at)->next;
    }
}

void kube_objects_clear(struct kube_objects *set)
{
    while (set->all != NULL)
        unlink_object(set, &set->all);
}

/* ---- telling ------------------------------------------------------------------------------------ */

struct named {
    const struct kube_place *place;
    const struct kube_object *object;
};

/* By name; of one pod, that in two slices (dual stack, or on its way), IPv4 first. */
static int by_name(const void *a, const void *b)
{
    const struct kube_place *x = ((const struct named *)a)->place, *y = ((const struct named *)b)->place;
    size_t n = x->name.n < y->name.n ? x->name.n : y->name.n;
    int order = memcmp(x->name.p, y->name.p, n);
    if (order == 0 && x->name.n != y->name.n)
        order = x->name.n < y->name.n ? -1 : 1;
    return order != 0 ? order : (int)x->is_v6 - (int)y->is_v6;
}

static bool same_name(const struct named *a, const struct named *b)
{
    return a->place->name.n == b->place->name.n && memcmp(a->place->name.p, b->place->name.p, a->place->name.n) == 0;
}

void kube_objects_tell(const struct kube_objects *set, struct pd_discovery_sink *sink)
{
    size_t n = 0;
    for (const struct kube_object *o = set->all; o != NULL; o = o->next)
        n += o->n_places;
    struct named *all = malloc((n + 1) * sizeof *all);
    if (all == NULL) {
        pd_discovery_lost(sink, "out of memory");
        return;
    }
    n = 0;
    for (const struct kube_object *o = set->all; o != NULL; o = o->next) {
        for (uint32_t i = 0; i < o->n_places; i++)
            all[n++] = (struct named){ &o->places[i], o };
    }
    qsort(all, n, sizeof *all, by_name);
    pd_discovery_begin(sink);
    for (size_t i = 0; i < n; i++) {
        if (i > 0 && same_name(&all[i - 1], &all[i]))
            continue;
        struct pd_discovery_entry e = {
            .size = sizeof e, .what = set->conf->is_peer ? PD_DISCOVERY_PEER : PD_DISCOVERY_SERVER,
            .name = all[i].place->name, .address = all[i].place->address, .epoch = all[i].place->epoch,
            .labels = all[i].object->labels, .n_labels = all[i].object->n_labels,
        };
        pd_discovery_put(sink, &e);
    }
    pd_discovery_end(sink);
    free(all);
}
