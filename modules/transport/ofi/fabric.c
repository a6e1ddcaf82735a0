/* SPDX-License-Identifier: Apache-2.0 */
/* Fabric over libfabric.  An instance has one domain, in which memory is
 * registered for remote reading, and one endpoint that serves it; each way has
 * an endpoint that reads.
 *
 * Turns come from the descriptors of completion queues where the provider has
 * them.  They tell of completions alone, not of connections that are made, so a
 * clock runs while something is under way; without descriptors every turn of the
 * loop looks while reads fly. */
#include "fabric_in.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define ENTRIES 64u               /* completions in one look */
#define LOOKS 16u                 /* at one queue in a turn */
#define CLOCK (5 * PD_MS)
#define CLOCK_CONNECTING PD_MS

pd_status pd_ofi_status(int64_t rc)
{
    switch (-rc) {
    case 0:
        return PD_OK;
    case FI_EAGAIN:
        return PD_EAGAIN;
    case FI_ENOMEM:
        return PD_ENOMEM;
    case FI_EMFILE:
        return PD_ELIMIT;
    case FI_EINVAL:
        return PD_EPROTO;
    case FI_ENODATA:
    case FI_ENODEV:
        return PD_ENOENT;
    case FI_ETIMEDOUT:
        return PD_ETIMEDOUT;
    case FI_ECONNREFUSED:
    case FI_ECONNRESET:
    case FI_ECONNABORTED:
    case FI_ENOTCONN:
    case FI_ESHUTDOWN:
    case FI_EHOSTUNREACH:
    case FI_EHOSTDOWN:
    case FI_ENETUNREACH:
    case FI_ECANCELED:
        return PD_EPEER;
    default:
        return PD_EIO;
    }
}

/* ---- turns */

void pd_ofi_again(struct ofi *o)
{
    pd_loop_defer(o->loop, &o->task);
}

static void failed(struct pd_ofi_end *end)
{
    struct fi_cq_err_entry e;
    pd_status st;

    memset(&e, 0, sizeof(e));
    if (fi_cq_readerr(end->cq, &e, 0) < 1 || end->way == NULL)
        return;
    st = pd_ofi_status(-(int64_t)e.err);
    pd_log_info(end->o->log, "a read failed: %s", fi_strerror(e.err));
    pd_counter_inc(end->o->broken);
    if (st == PD_OK || st == PD_EAGAIN)
        st = PD_EIO;
    if (e.op_context != NULL)
        pd_ofi_got(end->way, e.op_context, st);
    else
        pd_xp_far_broken(end->way->far, st);
}

/* True: there is more to do at once. */
static bool look(struct pd_ofi_end *end)
{
    struct fi_cq_entry entries[ENTRIES];
    struct fid *fid = end->cq == NULL ? NULL : &end->cq->fid;

    for (uint32_t i = 0; fid != NULL && i < LOOKS; i++) {
        int64_t n = fi_cq_read(end->cq, entries, ENTRIES);
        if (n == -FI_EAVAIL) {
            failed(end);
            continue;
        }
        if (n <= 0)
            return end->watch != NULL && fi_trywait(end->o->fabric, &fid, 1) == -FI_EAGAIN;
        for (int64_t k = 0; k < n; k++)
            if (end->way != NULL && entries[k].op_context != NULL)
                pd_ofi_got(end->way, entries[k].op_context, PD_OK);
    }
    return fid != NULL;
}

/* Is somebody connecting, here or there? */
static bool all_up(const struct ofi *o)
{
    const struct pd_xp_way *way;

    TAILQ_FOREACH(way, &o->ways, link)
    if (!way->is_up)
        return false;
    return !o->wants_room;
}

static void wind(struct ofi *o)
{
    if (pd_timer_is_active(&o->clock))
        return;
    if (!all_up(o))
        pd_timer_start(&o->clock, CLOCK_CONNECTING);
    else if (pd_xp_far_is_busy(o->base.tp))
        pd_timer_start(&o->clock, o->serve.watch == NULL ? CLOCK_CONNECTING : CLOCK);
}

static bool flies(const struct ofi *o)
{
    const struct pd_xp_way *way;

    TAILQ_FOREACH(way, &o->ways, link)
    if (!TAILQ_EMPTY(&way->flying))
        return true;
    return false;
}

static void turn(struct ofi *o)
{
    struct pd_xp_way *way;
    bool more = look(&o->serve);

    TAILQ_FOREACH(way, &o->ways, link)
    more = look(&way->end) || more;
    pd_ofi_ways_tell(o);
    if (o->wants_room) {
        o->wants_room = false;
        pd_xp_far_room(o->base.tp);
        if (!pd_timer_is_active(&o->clock))
            pd_timer_start(&o->clock, CLOCK_CONNECTING);
    }
    if (more || (o->serve.watch == NULL && flies(o)))
        pd_ofi_again(o);
    wind(o);
}

static void on_task(struct pd_task *task, void *arg)
{
    (void)task;
    turn(arg);
}

static void on_clock(struct pd_timer *timer, void *arg)
{
    (void)timer;
    turn(arg);
}

static void on_event(struct pd_watch *w, uint32_t events, void *arg)
{
    struct pd_ofi_end *end = arg;

    (void)w;
    (void)events;
    if (look(end))
        pd_ofi_again(end->o);
}

static void ofi_poke(struct pd_xp_fabric *f)
{
    pd_ofi_again((struct ofi *)f);
}

/* ---- ends */

void pd_ofi_end_close(struct pd_ofi_end *end)
{
    if (end->watch != NULL)
        pd_watch_close(end->o->loop, end->watch);
    if (end->ep != NULL)
        fi_close(&end->ep->fid);
    if (end->cq != NULL)
        fi_close(&end->cq->fid);
    if (end->av != NULL)
        fi_close(&end->av->fid);
    end->watch = NULL;
    end->ep = NULL;
    end->cq = NULL;
    end->av = NULL;
}

static int queue_open(struct ofi *o, struct pd_ofi_end *end)
{
    struct fi_cq_attr attr = { .format = FI_CQ_FORMAT_CONTEXT,
                               .wait_obj = o->polls ? FI_WAIT_NONE : FI_WAIT_FD };
    int rc = fi_cq_open(o->domain, &attr, &end->cq, NULL);

    if (rc == 0)
        return 0;
    if (rc != -FI_ENOSYS && rc != -FI_EOPNOTSUPP && rc != -FI_EINVAL)
        return rc;
    attr.wait_obj = FI_WAIT_NONE;
    return fi_cq_open(o->domain, &attr, &end->cq, NULL);
}

static int watch(struct ofi *o, struct pd_ofi_end *end)
{
    int fd = -1;

    if (o->polls || fi_control(&end->cq->fid, FI_GETWAIT, &fd) != 0 || fd < 0)
        return 0;
    if (pd_watch_open(o->loop, fd, PD_WATCH_READ, "ofi", on_event, end, &end->watch) != PD_OK)
        return -FI_EMFILE;
    return 0;
}

int pd_ofi_end_open(struct ofi *o, struct pd_ofi_end *end)
{
    struct fi_av_attr av = { .type = FI_AV_UNSPEC };
    int rc;

    end->o = o;
    rc = fi_endpoint(o->domain, o->info, &end->ep, NULL);
    if (rc == 0)
        rc = fi_av_open(o->domain, &av, &end->av, NULL);
    if (rc == 0)
        rc = queue_open(o, end);
    if (rc == 0)
        rc = fi_ep_bind(end->ep, &end->av->fid, 0);
    if (rc == 0)
        rc = fi_ep_bind(end->ep, &end->cq->fid, FI_TRANSMIT | FI_RECV);
    if (rc == 0)
        rc = fi_enable(end->ep);
    if (rc == 0)
        rc = watch(o, end);
    if (rc != 0)
        pd_ofi_end_close(end);
    return rc;
}

/* ---- memory */

static pd_status ofi_region_add(struct pd_xp_fabric *f, void *base, uint64_t bytes,
                                struct pd_xp_region **out, struct pd_err *err)
{
    struct ofi *o = (struct ofi *)f;
    struct pd_xp_region *r = calloc(1, sizeof(*r));
    size_t key_bytes = o->info->domain_attr->mr_key_size;
    uint64_t key = pd_loop_random_u64(o->loop);
    int rc;

    if (r == NULL) {
        pd_xp_fail(err, PD_ENOMEM, "out of memory");
        return PD_ENOMEM;
    }
    if (key_bytes > 0 && key_bytes < sizeof(key))
        key &= ((uint64_t)1 << 8 * key_bytes) - 1;
    rc = fi_mr_reg(o->domain, base, bytes, FI_READ | FI_REMOTE_READ, 0, key, 0, &r->mr, NULL);
    if (rc == 0 && (o->info->domain_attr->mr_mode & FI_MR_ENDPOINT) != 0) {
        rc = fi_mr_bind(r->mr, &o->serve.ep->fid, 0);
        if (rc == 0)
            rc = fi_mr_enable(r->mr);
        if (rc != 0)
            fi_close(&r->mr->fid);
    }
    if (rc != 0) {
        free(r);
        pd_xp_fail(err, pd_ofi_status(rc), "libfabric cannot register the memory: %s; is the limit "
                   "of locked memory high enough?", fi_strerror(-rc));
        return pd_ofi_status(rc);
    }
    r->base = base;
    *out = r;
    return PD_OK;
}

static void ofi_region_remove(struct pd_xp_fabric *f, struct pd_xp_region *r)
{
    (void)f;
    fi_close(&r->mr->fid);
    free(r);
}

static pd_status ofi_region_key(struct pd_xp_fabric *f, struct pd_xp_region *r, void *buf,
                                size_t cap, size_t *len)
{
    struct ofi *o = (struct ofi *)f;
    bool by_address = (o->info->domain_attr->mr_mode & FI_MR_VIRT_ADDR) != 0;
    uint64_t key = fi_mr_key(r->mr), base = by_address ? (uintptr_t)r->base : 0;
    uint8_t *p = buf;

    *len = 16;
    if (cap < *len)
        return PD_ELIMIT;
    if (key == FI_KEY_NOTAVAIL)
        return PD_ENOSYS;
    for (uint32_t i = 0; i < 8; i++) {
        p[i] = (uint8_t)(key >> 8 * i);
        p[8 + i] = (uint8_t)(base >> 8 * i);
    }
    return PD_OK;
}

static pd_status ofi_address(struct pd_xp_fabric *f, void *buf, size_t cap, size_t *len)
{
    struct ofi *o = (struct ofi *)f;
    uint8_t *p = buf;

    *len = 4 + o->name_len;
    if (cap < *len)
        return PD_ELIMIT;
    for (uint32_t i = 0; i < 4; i++)
        p[i] = (uint8_t)(o->info->addr_format >> 8 * i);
    memcpy(p + 4, o->name, o->name_len);
    return PD_OK;
}

/* ---- birth and end */

static void ofi_destroy(struct pd_xp_fabric *f)
{
    struct ofi *o = (struct ofi *)f;

    pd_task_cancel(o->loop, &o->task);
    pd_timer_stop(&o->clock);
    pd_ofi_end_close(&o->serve);
    if (o->domain != NULL)
        fi_close(&o->domain->fid);
    if (o->fabric != NULL)
        fi_close(&o->fabric->fid);
    if (o->info != NULL)
        fi_freeinfo(o->info);
    free(o);
}

static const struct pd_xp_fabric_ops fabric_ops = {
    .destroy = ofi_destroy, .address = ofi_address, .region_add = ofi_region_add,
    .region_remove = ofi_region_remove, .region_key = ofi_region_key,
    .way_open = pd_ofi_way_open, .way_close = pd_ofi_way_close, .key_open = pd_ofi_key_open,
    .key_close = pd_ofi_key_close, .get = pd_ofi_get, .poke = ofi_poke,
};

static int begin(struct ofi *o)
{
    int rc = fi_fabric(o->info->fabric_attr, &o->fabric, NULL);

    if (rc == 0)
        rc = fi_domain(o->fabric, o->info, &o->domain, NULL);
    if (rc == 0)
        rc = pd_ofi_end_open(o, &o->serve);
    o->name_len = sizeof(o->name);
    if (rc == 0)
        rc = fi_getname(&o->serve.ep->fid, o->name, &o->name_len);
    return rc;
}

static struct pd_counter *counter(const struct pd_instance_ctx *ctx, const char *name,
                                  const char *help)
{
    return ctx->metrics == NULL ? NULL : pd_metrics_simple_counter(ctx->metrics, name, help);
}

bool pd_ofi_has_descriptors(void)
{
    int fds[PD_OFI_DESCRIPTORS];
    uint32_t n = 0;

    while (n < PD_OFI_DESCRIPTORS && (fds[n] = open("/dev/null", O_RDONLY | O_CLOEXEC)) >= 0)
        n++;
    for (uint32_t i = 0; i < n; i++)
        close(fds[i]);
    return n == PD_OFI_DESCRIPTORS;
}

pd_status pd_ofi_fabric(const struct pd_instance_ctx *ctx, const struct pd_ofi_conf *conf,
                        struct pd_xp_fabric **out, struct pd_err *err)
{
    struct ofi *o = calloc(1, sizeof(*o));
    int rc;

    if (o == NULL) {
        pd_xp_fail(err, PD_ENOMEM, "out of memory");
        return PD_ENOMEM;
    }
    if (!pd_ofi_has_descriptors()) {
        free(o);
        pd_xp_fail(err, PD_ELIMIT, "no descriptors left: libfabric needs up to %d", PD_OFI_DESCRIPTORS);
        return PD_ELIMIT;
    }
    o->base.ops = &fabric_ops;
    o->loop = ctx->loop;
    o->log = ctx->log;
    o->polls = conf->poll;
    TAILQ_INIT(&o->ways);
    pd_task_init(&o->task, "ofi", on_task, o);
    pd_timer_init(&o->clock, o->loop, "ofi", on_clock, o);
    o->reads = counter(ctx, "pdplane_transport_ofi_reads_total", "Reads of remote memory.");
    o->again = counter(ctx, "pdplane_transport_ofi_again_total",
                       "Reads that libfabric took only later.");
    o->broken = counter(ctx, "pdplane_transport_ofi_broken_total",
                        "Reads of remote memory that failed.");
    o->info = pd_ofi_choose(conf, err);
    if (o->info == NULL) {
        ofi_destroy(&o->base);
        return PD_ENOENT;
    }
    rc = begin(o);
    if (rc != 0) {
        pd_xp_fail(err, pd_ofi_status(rc), "libfabric's provider \"%s\" does not start: %s",
                   o->info->fabric_attr->prov_name, fi_strerror(-rc));
        ofi_destroy(&o->base);
        return pd_ofi_status(rc);
    }
    if (o->info->ep_attr->max_msg_size < SIZE_MAX)
        o->base.max_get = o->info->ep_attr->max_msg_size;
    pd_log_info(o->log, "uses the provider \"%s\", domain \"%s\"", o->info->fabric_attr->prov_name,
                o->info->domain_attr->name == NULL ? "" : o->info->domain_attr->name);
    *out = &o->base;
    return PD_OK;
}
