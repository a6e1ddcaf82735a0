/* SPDX-License-Identifier: Apache-2.0 */
/* Follows the objects: lists, then watches from the version of the list on; when the
 * version is too old (410), or now and then anyway, lists again.
 *
 * One thing at a time goes on: a lookup, a call, or the timer of the next try, so a source
 * always comes to its next step.  What has gone wrong is tried again ever later. */
#include <stdarg.h>
#include <stdlib.h>

#include <pdplane/host.h>
#include <pdplane/log.h>

#include "follow.h"
#include "source.h"

#define BODY_MAX (16u << 20)        /* of a page of a list, and of one change */
#define BACKOFF_MAX (30 * PD_SEC)
#define LIST_PAUSE PD_SEC           /* at most, before a list that a watch has asked for */
#define SETTLE (20 * PD_MS)         /* changes that come together are told together */

static void step(struct pd_discovery *d);

static void retry(struct pd_discovery *d)
{
    pd_time base = d->backoff;
    d->state = KUBE_IDLE;
    d->backoff = base * 2 > BACKOFF_MAX ? BACKOFF_MAX : base * 2;
    pd_timer_start(&d->timer, base / 2 + pd_loop_random_below(d->loop, base / 2 + 1));
}

void kube_trouble(struct pd_discovery *d, const char *fmt, ...)
{
    char why[300];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(why, sizeof why, fmt, ap);
    va_end(ap);
    pd_discovery_lost(d->sink, why);
    retry(d);
}

static void status_trouble(struct pd_discovery *d)
{
    const char *what = d->conf->service != NULL ? "endpointslices" : "pods";
    if (d->status == 401)
        kube_trouble(d, "the API server does not know the token (401)");
    else if (d->status == 403)
        kube_trouble(d, "the account may not get, list and watch %s in namespace %s (403)", what, d->space);
    else
        kube_trouble(d, "the API server answers with status %u", d->status);
}

static void on_head(struct pd_http_call *call, const struct pd_http_head *head, void *arg)
{
    struct pd_discovery *d = arg;
    (void)call;
    d->status = head->status;
    if (d->status == 200 && d->state == KUBE_WATCHING)
        pd_discovery_synced(d->sink);
}

static bool body_add(struct pd_discovery *d, struct pd_str piece)
{
    if (d->body_n + piece.n > BODY_MAX)
        return false;
    if (d->body_n + piece.n > d->body_cap) {
        size_t cap = d->body_cap == 0 ? 65536 : d->body_cap;
        while (cap < d->body_n + piece.n)
            cap *= 2;
        char *more = realloc(d->body, cap);
        if (more == NULL)
            return false;
        d->body = more;
        d->body_cap = cap;
    }
    memcpy(d->body + d->body_n, piece.p, piece.n);
    d->body_n += piece.n;
    return true;
}

void kube_body_clear(struct pd_discovery *d)
{
    free(d->body);
    d->body = NULL;
    d->body_n = d->body_cap = 0;
}

void kube_hang_up(struct pd_discovery *d)
{
    if (d->call != NULL)
        d->net->call_cancel(d->call);
    d->call = NULL;
}

/* Nothing is known of where the objects stand. */
static void forget_version(struct pd_discovery *d)
{
    kube_hang_up(d);
    kube_body_clear(d);
    d->version[0] = d->next[0] = '\0';
}

void kube_list_again(struct pd_discovery *d)
{
    forget_version(d);
    d->state = KUBE_IDLE;
    pd_timer_start(&d->timer, 0);
}

/* The same because of what came.  It is no trouble and has a pause of its own, so that an
 * API server that says it each time is not asked without end. */
static void list_later(struct pd_discovery *d)
{
    forget_version(d);
    d->state = KUBE_IDLE;
    pd_timer_start(&d->timer, LIST_PAUSE / 2 + pd_loop_random_below(d->loop, LIST_PAUSE / 2));
}

/* ---- lists ------------------------------------------------------------------------------------------ */

static pd_status scan(struct pd_discovery *d, struct pd_str doc, const char *const *paths, size_t n,
                      struct pd_json_value *v)
{
    return d->json->scan(doc, &(struct pd_json_limits){ .depth = 64, .keys = 4096 }, paths, n, v, NULL);
}

static void objects_tell(struct pd_discovery *d)
{
    pd_timer_stop(&d->settle);
    kube_objects_tell(&d->objects, d->sink);
}

void kube_on_settle(struct pd_timer *timer, void *arg)
{
    (void)timer;
    objects_tell(arg);
}

/* One page; false: it cannot be used. */
static bool page_take(struct pd_discovery *d)
{
    static const char *const paths[] = { "metadata.resourceVersion", "metadata.continue", "items" };
    struct pd_json_value v[3], item;
    struct pd_json_iter it;
    bool is_first = d->next[0] == '\0';
    /* The version of the first page: what happens behind it comes with the watch. */
    if (scan(d, (struct pd_str){ d->body, d->body_n }, paths, 3, v) != PD_OK ||
        (is_first && d->json->get_cstr(&v[0], d->version, sizeof d->version) != PD_OK))
        return false;
    if (is_first)
        kube_objects_mark(&d->objects);
    if (v[2].type == PD_JSON_ARRAY && d->json->iter_init(&it, &v[2]) == PD_OK) {
        while (d->json->iter_next(&it, NULL, &item)) {
            if (kube_objects_put(&d->objects, &item) != PD_OK)
                return false;
        }
    }
    if (v[1].type != PD_JSON_STRING)
        d->next[0] = '\0';
    else if (d->json->get_cstr(&v[1], d->next, sizeof d->next) != PD_OK)
        return false;
    return true;
}

static void list_end(struct pd_discovery *d)
{
    if (d->status == 410) {             /* the pages were too long on their way */
        list_later(d);
        return;
    }
    if (d->status != 200) {
        d->version[0] = d->next[0] = '\0';
        kube_body_clear(d);
        status_trouble(d);
        return;
    }
    bool is_good = page_take(d);
    kube_body_clear(d);
    if (!is_good) {
        d->version[0] = d->next[0] = '\0';
        kube_trouble(d, "the list of the API server cannot be read");
        return;
    }
    if (d->next[0] == '\0') {
        kube_objects_sweep(&d->objects);
        d->listed_at = pd_loop_now(d->loop);
        objects_tell(d);
    }
    step(d);
}

/* ---- changes ------------------------------------------------------------------------------------------ */

/* One line of a watch; false: list again. */
static bool change_take(struct pd_discovery *d, struct pd_str line)
{
    static const char *const paths[] = { "type", "object", "object.metadata.resourceVersion", "object.code" };
    struct pd_json_value v[4];
    uint64_t code = 0;
    if (scan(d, line, paths, 4, v) != PD_OK)
        return false;
    if (d->json->is_str(&v[0], "ERROR")) {
        (void)d->json->get_u64(&v[3], &code);
        pd_log_info(d->log, "the watch ends with code %llu", (unsigned long long)code);
        return false;
    }
    if (d->json->get_cstr(&v[2], d->version, sizeof d->version) != PD_OK)
        return false;
    d->backoff = KUBE_BACKOFF_MIN;
    if (d->json->is_str(&v[0], "BOOKMARK")) {
        pd_discovery_synced(d->sink);
        return true;
    }
    if (d->json->is_str(&v[0], "DELETED"))
        kube_objects_remove(&d->objects, &v[1]);
    else if (!d->json->is_str(&v[0], "ADDED") && !d->json->is_str(&v[0], "MODIFIED"))
        return false;
    else if (kube_objects_put(&d->objects, &v[1]) != PD_OK)
        return false;
    if (!pd_timer_is_active(&d->settle))
        pd_timer_start(&d->settle, SETTLE);
    return true;
}

static void changes_take(struct pd_discovery *d)
{
    size_t from = 0;
    char *feed;
    while ((feed = memchr(d->body + from, '\n', d->body_n - from)) != NULL) {
        size_t n = (size_t)(feed - d->body) - from;
        if (n > 0 && !change_take(d, (struct pd_str){ d->body + from, n })) {
            list_later(d);
            return;
        }
        from += n + 1;
    }
    memmove(d->body, d->body + from, d->body_n - from);
    d->body_n -= from;
    if (pd_loop_now(d->loop) > d->listed_at + d->conf->resync)
        kube_list_again(d);
}

static void on_body(struct pd_http_call *call, struct pd_str piece, void *arg)
{
    struct pd_discovery *d = arg;
    (void)call;
    if (!body_add(d, piece)) {
        d->version[0] = d->next[0] = '\0';
        kube_hang_up(d);
        kube_body_clear(d);
        kube_trouble(d, "an answer of the API server is too long");
    } else if (d->state == KUBE_WATCHING && d->status == 200) {
        changes_take(d);
    }
}

/* The API server ended the watch, as it does after a time; one that ends again
 * and again without a word is waited for longer and longer. */
static void watch_end(struct pd_discovery *d)
{
    kube_body_clear(d);
    if (d->status == 410) {
        list_later(d);
    } else if (d->status != 200) {
        status_trouble(d);
    } else {
        retry(d);
    }
}

static void on_end(struct pd_http_call *call, void *arg)
{
    struct pd_discovery *d = arg;
    (void)call;
    d->call = NULL;
    if (d->state == KUBE_LISTING)
        list_end(d);
    else
        watch_end(d);
}

static void on_error(struct pd_http_call *call, enum pd_http_fail fail, pd_status why, void *arg)
{
    struct pd_discovery *d = arg;
    (void)call;
    (void)fail;
    d->call = NULL;
    kube_body_clear(d);
    d->next[0] = '\0';
    if (d->state == KUBE_LISTING)
        d->version[0] = '\0';
    if (d->state == KUBE_WATCHING && d->status == 200 && why == PD_ETIMEDOUT) {
        d->state = KUBE_IDLE;                /* nothing for long: watch on from where it was */
        pd_timer_start(&d->timer, 0);
        return;
    }
    d->addr.family = PD_AF_NONE;        /* it may have moved */
    kube_trouble(d, "the API server at %s: %s", d->authority, pd_host()->status_text(why));
}

const struct pd_http_call_events kube_call_events = {
    .on_head = on_head, .on_body = on_body, .on_end = on_end, .on_error = on_error,
};

/* ---- the next step --------------------------------------------------------------------------------------- */

static void resolved(struct pd_resolve *resolve, pd_status status, const struct pd_addr *addrs, size_t n, void *arg)
{
    struct pd_discovery *d = arg;
    (void)resolve;
    if (status != PD_OK || n == 0) {
        kube_trouble(d, "there is no address for the API server \"%s\"", d->host);
        return;
    }
    d->addr = addrs[0];
    step(d);
}

static void step(struct pd_discovery *d)
{
    if (d->addr.family == PD_AF_NONE) {
        d->state = KUBE_RESOLVING;
        d->resolve = (struct pd_resolve){ .cb = resolved, .arg = d, .name = "discovery kube" };
        if (pd_resolve_start(d->loop, d->host, d->port, &d->resolve) != PD_OK)
            kube_trouble(d, "too many names are looked up at a time");
        return;
    }
    d->state = d->version[0] != '\0' && d->next[0] == '\0' ? KUBE_WATCHING : KUBE_LISTING;
    kube_call_start(d);
}

void kube_on_timer(struct pd_timer *timer, void *arg)
{
    (void)timer;
    step(arg);
}
