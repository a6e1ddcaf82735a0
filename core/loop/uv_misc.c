/* SPDX-License-Identifier: Apache-2.0 */
/* The small handles of the uv backend: foreign descriptors, names, signals.
 *
 * A name is looked up on libuv's threads.  The lookup's memory outlives a
 * cancelled struct pd_resolve: cancelling only cuts the tie.
 *
 * libuv makes its threads with the first lookup of the process and aborts when it
 * cannot; so they are tried out before. */
#include "loop/uv_impl.h"

#include <netdb.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

enum { MAX_ADDRS = PD_RESOLVE_MAX, MAX_HOST = 253 };

/* ---- foreign descriptors */

struct pd_watch {
    struct uvl *l;
    struct uvl_handle handle;
    uv_poll_t poll;
    uint32_t events;
    bool closed;
    pd_watch_cb cb;
    void *arg;
};

static void on_watch(uv_poll_t *h, int status, int events);

static int apply(struct pd_watch *w)
{
    int bits = 0;

    if (w->events & PD_WATCH_READ)
        bits |= UV_READABLE;
    if (w->events & PD_WATCH_WRITE)
        bits |= UV_WRITABLE;
    pd_loop_uvl_touch(w->l);
    return bits != 0 ? uv_poll_start(&w->poll, bits, on_watch) : uv_poll_stop(&w->poll);
}

static void on_watch(uv_poll_t *h, int status, int events)
{
    struct pd_watch *w = h->data;
    struct uvl *l = w->l;
    const char *name = w->handle.name;
    uint32_t bits = 0;

    if (w->closed)
        return;
    if (status < 0)
        bits |= PD_WATCH_ERROR | w->events;
    if (events & UV_READABLE)
        bits |= PD_WATCH_READ;
    if (events & UV_WRITABLE)
        bits |= PD_WATCH_WRITE;
    pd_loop_uvl_enter(l);
    w->cb(w, bits, w->arg);
    /* libuv stops a poll that saw an error; the owner decides when to end. */
    if (status < 0 && !w->closed)
        apply(w);
    pd_loop_uvl_leave(l, name);
}

pd_status pd_loop_uvl_watch_open(struct pd_loop *loop, int fd, uint32_t events, const char *name,
                                 pd_watch_cb cb, void *arg, struct pd_watch **out)
{
    struct uvl *l = uvl_of(loop);
    struct pd_watch *w;
    int err;

    if (cb == NULL || fd < 0)
        return PD_EINVAL;
    w = pd_calloc(1, sizeof *w);
    if (w == NULL)
        return PD_ENOMEM;
    w->l = l;
    w->cb = cb;
    w->arg = arg;
    w->events = events;
    err = uv_poll_init(&l->uv, &w->poll, fd);
    if (err != 0) {
        pd_free(w);
        return pd_status_from_errno(-err);
    }
    w->poll.data = w;
    pd_loop_uvl_handle_add(l, &w->handle, "watch", name);
    l->st.watches++;
    apply(w);
    *out = w;
    return PD_OK;
}

pd_status pd_loop_uvl_watch_set(struct pd_loop *loop, struct pd_watch *w, uint32_t events)
{
    (void)loop;
    if (w->events == events)
        return PD_OK;
    w->events = events;
    return pd_status_from_errno(-apply(w));
}

static void on_watch_closed(uv_handle_t *h)
{
    struct pd_watch *w = h->data;

    w->l->closing--;
    pd_free(w);
}

void pd_loop_uvl_watch_close(struct pd_loop *loop, struct pd_watch *w)
{
    struct uvl *l = uvl_of(loop);

    if (w->closed)
        return;
    w->closed = true;
    pd_loop_uvl_handle_remove(&w->handle);
    l->st.watches--;
    l->closing++;
    pd_loop_uvl_touch(l);
    uv_close((uv_handle_t *)&w->poll, on_watch_closed);
}

/* ---- names */

struct lookup {
    uv_getaddrinfo_t req;
    struct uvl *l;
    struct uvl_handle handle;
    struct pd_resolve *r;       /* NULL: cancelled */
    struct pd_task task;        /* tells a numeric address, or what is wrong */
    pd_status failed;
    struct pd_addr addr;
    uint16_t port;
};

static void answer(struct lookup *k, pd_status st, const struct pd_addr *addrs, size_t n)
{
    struct pd_resolve *r = k->r;
    struct uvl *l = k->l;

    if (r == NULL) {
        pd_free(k);
        return;
    }
    r->priv = NULL;
    pd_loop_uvl_handle_remove(&k->handle);
    l->st.resolves--;
    r->cb(r, st, addrs, n, r->arg);
    pd_free(k);
}

static void on_numeric(struct pd_task *task, void *arg)
{
    struct lookup *k = arg;

    (void)task;
    answer(k, k->failed, &k->addr, k->failed == PD_OK ? 1 : 0);
}

/* ---- libuv's threads */

enum { POOL_THREADS = 4, POOL_MAX = 1024 };

static void *wait_for_all(void *arg)
{
    pthread_mutex_t *lock = arg;

    pthread_mutex_lock(lock);
    pthread_mutex_unlock(lock);
    return NULL;
}

/* As many threads as libuv is going to make, all at a time. */
static bool can_start_threads(void)
{
    pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
    const char *text = getenv("UV_THREADPOOL_SIZE");
    long wanted = text != NULL ? strtol(text, NULL, 10) : POOL_THREADS;
    pthread_t threads[POOL_MAX];
    size_t n = 0, want = wanted < 1 ? 1 : wanted > POOL_MAX ? POOL_MAX : (size_t)wanted;

    pthread_mutex_lock(&lock);
    while (n < want && pthread_create(&threads[n], NULL, wait_for_all, &lock) == 0)
        n++;
    pthread_mutex_unlock(&lock);
    for (size_t i = 0; i < n; i++)
        pthread_join(threads[i], NULL);
    return n == want;
}

static bool pool_is_there(void)
{
    static bool is_there;

    if (!__atomic_load_n(&is_there, __ATOMIC_RELAXED) && can_start_threads())
        __atomic_store_n(&is_there, true, __ATOMIC_RELAXED);
    return __atomic_load_n(&is_there, __ATOMIC_RELAXED);
}

static size_t collect(const struct addrinfo *list, uint16_t port, struct pd_addr *out)
{
    size_t n = 0;

    for (const struct addrinfo *ai = list; ai != NULL && n < MAX_ADDRS; ai = ai->ai_next) {
        if (pd_loop_addr_from_system(ai->ai_addr, ai->ai_addrlen, &out[n]) == PD_OK &&
            out[n].family != PD_AF_UNIX) {
            out[n].port = port;
            n++;
        }
    }
    return n;
}

static void on_lookup(uv_getaddrinfo_t *req, int status, struct addrinfo *res)
{
    struct lookup *k = req->data;
    struct uvl *l = k->l;
    struct pd_addr addrs[MAX_ADDRS];
    size_t n = 0;
    pd_status st = PD_OK;

    pd_loop_uvl_enter(l);
    l->closing--;
    if (status == 0)
        n = collect(res, k->port, addrs);
    else if (status == UV_EAI_AGAIN)
        st = PD_ETIMEDOUT;
    else if (status == UV_EAI_NONAME || status == UV_EAI_NODATA || status == UV_EAI_ADDRFAMILY)
        st = PD_ENOENT;
    else
        st = status == UV_ENOMEM || status == UV_EAI_MEMORY ? PD_ENOMEM : PD_EIO;
    if (st == PD_OK && n == 0)
        st = PD_ENOENT;
    uv_freeaddrinfo(res);
    answer(k, st, addrs, n);
    pd_loop_uvl_leave(l, "resolve");
}

static pd_status start_lookup(struct lookup *k, const char *host)
{
    struct addrinfo hints;
    int err;

    memset(&hints, 0, sizeof hints);
    hints.ai_family = AF_UNSPEC;
    hints.ai_socktype = SOCK_STREAM;
    hints.ai_flags = AI_ADDRCONFIG;
    k->req.data = k;
    err = uv_getaddrinfo(&k->l->uv, &k->req, on_lookup, host, NULL, &hints);
    if (err != 0)
        return err == UV_ENOMEM ? PD_ENOMEM : PD_EINVAL;
    /* The request's memory must outlive a cancel. */
    k->l->closing++;
    return PD_OK;
}

pd_status pd_loop_uvl_resolve(struct pd_loop *loop, const char *host, uint16_t port,
                              struct pd_resolve *r)
{
    struct uvl *l = uvl_of(loop);
    struct lookup *k;
    pd_status st = PD_OK;

    if (r->cb == NULL || r->priv != NULL || host[0] == '\0' || strlen(host) > MAX_HOST)
        return PD_EINVAL;
    if (l->st.resolves >= UVL_RESOLVE_LIMIT)
        return PD_ELIMIT;
    k = pd_calloc(1, sizeof *k);
    if (k == NULL)
        return PD_ENOMEM;
    k->l = l;
    k->r = r;
    k->port = port;
    pd_task_init(&k->task, r->name, on_numeric, k);
    if (pd_loop_addr_parse_ip(host, port, &k->addr) == PD_OK)
        pd_loop_uvl_defer(loop, &k->task);
    else if (!pool_is_there())
        k->failed = PD_ELIMIT;
    else
        st = start_lookup(k, host);
    if (k->failed != PD_OK)
        pd_loop_uvl_defer(loop, &k->task);
    if (st != PD_OK) {
        pd_free(k);
        return st;
    }
    r->priv = k;
    pd_loop_uvl_handle_add(l, &k->handle, "resolve", r->name);
    l->st.resolves++;
    return PD_OK;
}

void pd_loop_uvl_resolve_cancel(struct pd_loop *loop, struct pd_resolve *r)
{
    struct uvl *l = uvl_of(loop);
    struct lookup *k = r->priv;

    if (k == NULL)
        return;
    r->priv = NULL;
    k->r = NULL;
    pd_loop_uvl_handle_remove(&k->handle);
    l->st.resolves--;
    if (k->addr.family != PD_AF_NONE || k->failed != PD_OK) {
        pd_loop_uvl_task_cancel(loop, &k->task);
        pd_free(k);
    } else {
        uv_cancel((uv_req_t *)&k->req);
    }
}

/* ---- signals */

struct pd_loop_signal {
    struct uvl *l;
    struct uvl_handle handle;
    uv_signal_t sig;
    void (*cb)(int signum, void *arg);
    void *arg;
};

static void on_signal(uv_signal_t *h, int signum)
{
    struct pd_loop_signal *s = h->data;
    struct uvl *l = s->l;
    const char *name = s->handle.name;

    pd_loop_uvl_enter(l);
    s->cb(signum, s->arg);
    pd_loop_uvl_leave(l, name);
}

static void on_signal_closed(uv_handle_t *h)
{
    struct pd_loop_signal *s = h->data;

    s->l->closing--;
    pd_free(s);
}

pd_status pd_loop_uv_signal_open(struct pd_loop *loop, int signum, const char *name,
                                 void (*cb)(int signum, void *arg), void *arg,
                                 struct pd_loop_signal **out)
{
    struct uvl *l = uvl_of(loop);
    struct pd_loop_signal *s = pd_calloc(1, sizeof *s);
    int err;

    if (s == NULL)
        return PD_ENOMEM;
    s->l = l;
    s->cb = cb;
    s->arg = arg;
    pd_loop_uvl_touch(l);
    uv_signal_init(&l->uv, &s->sig);
    s->sig.data = s;
    pd_loop_uvl_handle_add(l, &s->handle, "signal", name);
    err = uv_signal_start(&s->sig, on_signal, signum);
    if (err != 0) {
        pd_loop_uv_signal_close(s);
        return pd_status_from_errno(-err);
    }
    *out = s;
    return PD_OK;
}

void pd_loop_uv_signal_close(struct pd_loop_signal *s)
{
    pd_loop_uvl_handle_remove(&s->handle);
    s->l->closing++;
    pd_loop_uvl_touch(s->l);
    uv_close((uv_handle_t *)&s->sig, on_signal_closed);
}
