/* SPDX-License-Identifier: Apache-2.0 */
/* The destination's end of a hand-over.
 *
 *   OPEN -- DONE and all bytes landed --> CLOSING -- fenced --> VERIFYING --> ENDED
 *   OPEN -- abort, expiry, nonsense ----> CLOSING -- fenced -----------------> ENDED
 *
 * The windows are closed before the digests are compared: what was verified
 * cannot change any more, and what is reported has no writer. */
#include "kv/priv.h"

#include <stdio.h>

#include "base/compiler.h"
#include "base/mem.h"
#include "base/wire.h"

const char *pd_kv_dest_state_text(const struct pd_kv_dest *dest)
{
    static const char *const text[] = { "open", "fencing", "verifying", "ended" };
    return dest->state == PD_DEST_OPEN && dest->e.bytes > 0 ? "moving" : text[dest->state];
}

static const struct pd_transport_ops *window_ops(const struct pd_kv_window *w)
{
    return w->dest->e.kv->transports[w->transport].ops;
}

static void kick(struct pd_kv_dest *dest)
{
    pd_loop_defer(dest->e.kv->loop, &dest->e.task);
}

static void send_message(struct pd_kv_dest *dest, const struct pd_kv_message *m)
{
    struct pd_buf b;
    if (dest->e.is_silent)
        return;
    pd_buf_init(&b, 256);
    pd_status st = pd_kv_message_write(m, NULL, &b);
    if (st == PD_OK)
        st = dest->events.on_send(dest, pd_buf_str(&b), dest->arg);
    if (st != PD_OK)
        dest->e.is_silent = true;
    pd_buf_fini(&b);
}

static void free_dest(struct pd_kv_dest *dest)
{
    struct pd_kv *kv = dest->e.kv;
    pd_kv_end_fini(&dest->e);
    pd_buf_fini(&dest->grant);
    pd_free(dest->have);
    pd_free(dest->blocks);
    pd_free(dest->windows);
    if (!pd_list_is_empty(&dest->e.node)) {
        pd_list_remove(&dest->e.node);
        kv->n_dests--;
    }
    pd_free(dest);
    pd_kv_check_closed(kv);
}

/* Everything is fenced and the verdict is known. */
static void finish(struct pd_kv_dest *dest)
{
    struct pd_kv_result result;
    struct pd_kv_end *e = &dest->e;
    struct pd_kv_message m = { .type = PD_KV_M_VERDICT, .xid = e->xid, .generation = e->generation,
                               .verdict = e->verdict };
    pd_assert(dest->n_open == 0 && e->verdict != 0);
    dest->state = PD_DEST_ENDED;
    pd_status st = pd_lease_step(dest->lease, PD_LEASE_RELEASE, e->verdict);
    pd_assert(st == PD_OK);
    dest->lease = NULL;
    send_message(dest, &m);
    pd_kv_end_report(e, false, &result);
    dest->events.on_end(dest, &result, dest->arg);
    free_dest(dest);
}

/* One slice of the comparison. */
static bool verify(struct pd_kv_job *job, uint64_t *budget)
{
    struct pd_kv_dest *dest = pd_container_of(job, struct pd_kv_dest, e.job);
    struct pd_kv_end *e = &dest->e;
    pd_time from = pd_loop_clock(e->kv->loop);
    while (*budget > 0 && e->at_block < e->n_wire && e->verdict == 0) {
        uint32_t a, b;
        uint64_t digest;
        pd_kv_wire_range(e->from, e->to, e->wire_tokens, e->at_block, &a, &b);
        if (!e->in_block) {
            struct pd_kv_place place = { .layout = &e->region->layout,
                                         .pool_blocks = e->region->blocks,
                                         .n_blocks = dest->n_blocks, .blocks = dest->blocks };
            pd_kv_plan_clear(&e->digester.plan);
            pd_status st = pd_kv_plan_add(&e->digester.plan, &place, a, b, e->wire_tokens,
                                          PD_KV_MAX_SEGMENTS);
            if (st != PD_OK) {
                pd_kv_end_decide(e, PD_KV_FAILED, st, "out of memory while verifying");
                break;
            }
            pd_kv_digester_begin(&e->digester, e->keys[e->at_block]);
            e->in_block = true;
        }
        if (!pd_kv_digester_run(&e->digester, budget, &digest))
            break;
        e->in_block = false;
        if (digest != e->digests[e->at_block]) {
            char text[96];
            snprintf(text, sizeof text, "tokens %u to %u do not match their digest", a, b);
            e->kv->digest_failures++;
            pd_counter_inc(e->kv->metric_digest_failures);
            pd_kv_end_decide(e, PD_KV_CORRUPT, PD_EINTEGRITY, text);
        }
        e->at_block++;
    }
    e->verify_ns += pd_loop_clock(e->kv->loop) - from;
    if (e->at_block < e->n_wire && e->verdict == 0)
        return false;
    if (e->verdict == 0) {
        e->is_verified = true;
        pd_kv_end_decide(e, PD_KV_VALID, PD_OK, "");
    }
    kick(dest);
    return true;
}

static void on_fenced(struct pd_kv_dest *dest)
{
    struct pd_kv_end *e = &dest->e;
    e->is_fenced = true;
    (void)pd_lease_step(dest->lease, PD_LEASE_FENCE, 0);
    if (e->verdict == 0 && e->keys == NULL)
        pd_kv_end_decide(e, PD_KV_VALID, PD_OK, "");
    if (e->verdict != 0) {
        finish(dest);
        return;
    }
    dest->state = PD_DEST_VERIFYING;
    pd_kv_job_start(e->kv, &e->job);
}

static void begin_close(struct pd_kv_dest *dest)
{
    if (dest->state != PD_DEST_OPEN)
        return;
    dest->state = PD_DEST_CLOSING;
    for (uint32_t i = 0; i < dest->n_windows; i++)
        if (dest->windows[i].window != NULL)
            window_ops(&dest->windows[i])->window_close(dest->windows[i].window);
}

/* Ends without a verification. */
static void give_up(struct pd_kv_dest *dest, uint32_t verdict, pd_status status, const char *reason,
                    bool tell)
{
    if (dest->state == PD_DEST_ENDED || dest->e.verdict != 0)
        return;
    pd_kv_end_decide(&dest->e, verdict, status, reason);
    (void)pd_lease_step(dest->lease, PD_LEASE_ABORT, 0);
    if (dest->state == PD_DEST_VERIFYING)
        pd_kv_job_stop(&dest->e.job);
    dest->tell_abort = tell;
    begin_close(dest);
    kick(dest);
}

static void on_task(struct pd_task *task, void *arg)
{
    struct pd_kv_dest *dest = (struct pd_kv_dest *)arg;
    (void)task;
    if (dest->tell_abort) {
        /* At once, so that the source stops; the verdict would come after the fence. */
        struct pd_kv_message m = { .type = PD_KV_M_ABORT, .xid = dest->e.xid,
                                   .generation = dest->e.generation, .verdict = dest->e.verdict };
        dest->tell_abort = false;
        send_message(dest, &m);
        dest->e.is_silent = true;
    }
    if (dest->state == PD_DEST_VERIFYING && dest->e.verdict != 0)
        finish(dest);
}

static void on_expired(struct pd_lease *lease, void *arg)
{
    struct pd_kv_dest *dest = (struct pd_kv_dest *)arg;
    char text[96];
    (void)lease;
    if (dest->is_done)
        snprintf(text, sizeof text, "the source was done, but only %llu of %llu bytes came",
                 (unsigned long long)dest->e.bytes, (unsigned long long)dest->e.bytes_expected);
    else
        snprintf(text, sizeof text, "nothing was heard of the source within the lease");
    give_up(dest, PD_KV_TIMEOUT, PD_ETIMEDOUT, text, true);
}

static bool has_landed(const struct pd_kv_dest *dest)
{
    return dest->is_done && dest->windows[dest->done_way].landed >= dest->e.bytes_expected;
}

static void on_bytes(struct pd_transport_window *window, uint64_t total, void *arg)
{
    struct pd_kv_window *w = (struct pd_kv_window *)arg;
    struct pd_kv_dest *dest = w->dest;
    (void)window;
    if (total <= w->landed)
        return;
    dest->e.bytes += total - w->landed;
    w->landed = total;
    if (dest->state != PD_DEST_OPEN)
        return;
    pd_kv_end_moved(&dest->e);
    if (dest->e.transport[0] == '\0')
        snprintf(dest->e.transport, sizeof dest->e.transport, "%s",
                 dest->e.kv->transports[w->transport].name);
    (void)pd_lease_step(dest->lease, PD_LEASE_RENEW, 0);
    if (has_landed(dest))
        begin_close(dest);
}

static void on_window_closed(struct pd_transport_window *window, void *arg)
{
    struct pd_kv_window *w = (struct pd_kv_window *)arg;
    struct pd_kv_dest *dest = w->dest;
    (void)window;
    w->window = NULL;
    if (--dest->n_open > 0)
        return;
    if (dest->state == PD_DEST_OPEN) {
        dest->state = PD_DEST_CLOSING;
        pd_kv_end_decide(&dest->e, PD_KV_FAILED, PD_EIO, "the transport closed the window");
    }
    on_fenced(dest);
}

static const struct pd_window_events window_events = {
    .size = sizeof window_events, .on_bytes = on_bytes, .on_closed = on_window_closed,
};

/* ---- opening */

static bool params_are_sane(const struct pd_kv_dest_params *p)
{
    if (p->region == NULL || p->blocks == NULL || p->tokens == NULL || p->from >= p->to ||
        p->to > PD_KV_MAX_TOKENS)
        return false;
    return (uint64_t)p->n_blocks * p->region->layout.block_tokens >= p->to;
}

/* Opens a window per transport; those that fail are left out. */
static void open_windows(struct pd_kv_dest *dest, const uint32_t *chosen, uint32_t n,
                         const struct pd_kv_plan *plan, struct pd_kv_grant_full *grant)
{
    struct pd_kv_end *e = &dest->e;
    for (uint32_t i = 0; i < n && grant->g.n_transports < PD_KV_GRANT_WAYS; i++) {
        const struct pd_kv_transport *t = &e->kv->transports[chosen[i]];
        struct pd_kv_window *w = &dest->windows[dest->n_windows];
        size_t len = 0;
        struct pd_window_desc desc = {
            .size = sizeof desc, .access = PD_TRANSPORT_WRITE, .peer = e->peer_id, .xid = e->xid,
            .generation = e->generation, .memory = e->region->memory[chosen[i]],
            .segments = plan->segments, .n_segments = plan->n,
        };
        w->dest = dest;
        w->transport = chosen[i];
        pd_status st = t->ops->window_open(t->instance, &desc, &window_events, w, &w->window);
        if (st != PD_OK) {
            pd_log_warn(e->kv->log,
                        "transport \"%s\" cannot open a window for peer \"%s\": status %d",
                        t->name, e->peer_name, (int)st);
            w->window = NULL;
            continue;
        }
        st = t->ops->window_export(w->window, w->blob, sizeof w->blob, &len);
        if (st != PD_OK || len > sizeof w->blob) {
            pd_log_warn(e->kv->log, "transport \"%s\" cannot export a window: status %d", t->name,
                        (int)st);
            len = 0;    /* useless to the source, closed with the others */
        }
        struct pd_kv_grant_way *way = &grant->ways[grant->g.n_transports];
        w->blob_len = (uint32_t)len;
        way->transport = (struct pd_str){ t->name, strlen(t->name) };
        way->blob = (struct pd_str){ (const char *)w->blob, len };
        /* The index in the grant is the index here. */
        grant->g.n_transports++;
        dest->n_windows++;
        dest->n_open++;
    }
}

static struct pd_kv_dest *dest_create(struct pd_kv *kv, const struct pd_kv_dest_params *p,
                                      const struct pd_peer_info *peer, uint64_t *tag,
                                      pd_status *status)
{
    struct pd_kv_dest *dest = (struct pd_kv_dest *)pd_calloc(1, sizeof *dest);
    *status = PD_ENOMEM;
    if (dest == NULL)
        return NULL;
    *status = pd_kv_end_init(&dest->e, kv, p->region, peer, p->request_id);
    dest->e.from = p->from;
    dest->e.to = p->to;
    dest->e.wire_tokens = p->region->layout.block_tokens;
    pd_buf_init(&dest->grant, PD_KV_MAX_GRANT);
    pd_task_init(&dest->e.task, "kv destination", on_task, dest);
    dest->e.job.run = verify;
    dest->n_blocks = p->n_blocks;
    dest->blocks = (uint32_t *)pd_memdup(p->blocks, p->n_blocks * sizeof *p->blocks);
    dest->windows = (struct pd_kv_window *)pd_calloc(PD_KV_GRANT_WAYS, sizeof *dest->windows);
    if (*status == PD_OK)
        *status = pd_kv_end_keys(&dest->e, p->tokens, kv->conf.digests == PD_KV_DIGESTS_FULL, tag);
    dest->have = (uint8_t *)pd_calloc(1, dest->e.n_wire / 8 + 1);
    if (*status == PD_OK && (dest->blocks == NULL || dest->windows == NULL || dest->have == NULL ||
                             pd_buf_reserve(&dest->grant, PD_KV_MAX_GRANT) != PD_OK))
        *status = PD_ENOMEM;
    if (*status == PD_OK)
        return dest;
    free_dest(dest);
    return NULL;
}

pd_status pd_kv_dest_open(struct pd_kv *kv, const struct pd_kv_dest_params *p,
                          const struct pd_kv_dest_events *events, void *arg,
                          struct pd_kv_dest **out)
{
    struct pd_peer_info peer;
    struct pd_kv_grant_full grant = { .g = { .size = sizeof grant.g } };
    struct pd_kv_plan plan;
    uint32_t chosen[PD_KV_MAX_TRANSPORTS];
    uint64_t tag = 0;
    pd_status st;
    if (!params_are_sane(p) || kv->is_closing)
        return PD_EINVAL;
    st = kv->conf.peer_api->info(kv->conf.peers, p->peer, &peer);
    if (st != PD_OK)
        return st;
    if (kv->n_dests >= kv->conf.max_handovers)
        return PD_ELIMIT;
    uint32_t n = pd_kv_choose(kv, p->region, &peer, chosen);
    if (n == 0)
        return PD_ENOENT;
    struct pd_kv_dest *dest = dest_create(kv, p, &peer, &tag, &st);
    if (dest == NULL)
        return st;
    struct pd_kv_end *e = &dest->e;
    struct pd_kv_place place = { .layout = &p->region->layout, .pool_blocks = p->region->blocks,
                                 .n_blocks = p->n_blocks, .blocks = dest->blocks };
    pd_kv_plan_init(&plan);
    st = pd_kv_plan_add(&plan, &place, p->from, p->to, e->wire_tokens, PD_KV_MAX_SEGMENTS);
    if (st != PD_OK)
        goto failed;
    pd_time ttl = p->ttl_ms != 0 ? p->ttl_ms * PD_MS : kv->conf.lease_ttl;
    st = pd_lease_grant(&kv->leases, &e->peer_id, e->peer_name, ttl, p->n_blocks, on_expired, dest,
                        &dest->lease);
    if (st != PD_OK)
        goto failed;
    e->xid = dest->lease->xid;
    e->generation = dest->lease->generation;
    dest->events = *events;
    dest->arg = arg;
    open_windows(dest, chosen, n, &plan, &grant);
    if (dest->n_open == 0) {
        st = PD_ENOENT;
        (void)pd_lease_step(dest->lease, PD_LEASE_FENCE, 0);
        (void)pd_lease_step(dest->lease, PD_LEASE_RELEASE, PD_KV_FAILED);
        goto failed;
    }
    grant.g.xid = e->xid;
    grant.generation = e->generation;
    grant.g.owner = kv->conf.self;
    grant.g.from = e->from;
    grant.g.to = e->to;
    grant.g.wire_block_tokens = e->wire_tokens;
    grant.g.ttl_ms = (uint32_t)PD_MAX(ttl / PD_MS, (pd_time)1);
    grant.g.bytes = e->bytes_expected;
    grant.g.layout = e->region->layout;
    grant.tag = tag;
    grant.digests = e->keys != NULL;
    st = pd_kv_grant_write(&grant, &dest->grant);
    pd_assert(st == PD_OK);     /* its room was reserved */
    pd_kv_plan_fini(&plan);
    pd_list_append(&kv->dests, &e->node);
    kv->n_dests++;
    *out = dest;
    return PD_OK;
failed:
    pd_kv_plan_fini(&plan);
    free_dest(dest);
    return st;
}

struct pd_str pd_kv_dest_grant(struct pd_kv_dest *dest)
{
    return pd_buf_str(&dest->grant);
}

/* ---- what the source says */

static void got_digests(struct pd_kv_dest *dest, const struct pd_kv_message *m)
{
    struct pd_kv_end *e = &dest->e;
    for (uint32_t i = 0; i < m->count; i++) {
        uint32_t at = m->first + i;
        uint8_t bit = (uint8_t)(1u << (at % 8));
        if ((dest->have[at / 8] & bit) == 0)
            e->n_digests++;
        dest->have[at / 8] |= bit;
        e->digests[at] = pd_wire_get_u64(m->digests + 8 * (size_t)i);
    }
}

static void got_done(struct pd_kv_dest *dest, const struct pd_kv_message *m)
{
    struct pd_kv_end *e = &dest->e;
    if (m->way >= dest->n_windows || m->bytes != e->bytes_expected || m->count != e->n_wire) {
        give_up(dest, PD_KV_FAILED, PD_EPROTO, "the source is done with something else", true);
        return;
    }
    if (e->keys != NULL && e->n_digests != e->n_wire) {
        give_up(dest, PD_KV_FAILED, PD_EPROTO, "the source is done, but digests are missing", true);
        return;
    }
    if (pd_lease_step(dest->lease, PD_LEASE_SETTLE, 0) != PD_OK)
        return;     /* too late; the fence is being closed */
    dest->is_done = true;
    dest->done_way = m->way;
    if (has_landed(dest))
        begin_close(dest);
}

pd_status pd_kv_dest_message(struct pd_kv_dest *dest, struct pd_str bytes)
{
    struct pd_kv_message m;
    struct pd_kv_end *e = &dest->e;
    if (pd_kv_message_parse(bytes, &m) != PD_OK || m.type == PD_KV_M_VERDICT) {
        give_up(dest, PD_KV_FAILED, PD_EPROTO, "the source sent a malformed message", true);
        return PD_EPROTO;
    }
    if (m.xid != e->xid || m.generation != e->generation) {
        give_up(dest, PD_KV_STALE, PD_ESTALE, "the source spoke of another hand-over", true);
        return PD_OK;
    }
    if (m.type == PD_KV_M_ABORT) {
        e->is_silent = true;
        give_up(dest, m.verdict == PD_KV_REFUSED ||
                m.verdict == PD_KV_FAILED ? m.verdict : PD_KV_PEER_ABORTED,
                PD_ECANCELED, "the source gave up", false);
        return PD_OK;
    }
    if (dest->state != PD_DEST_OPEN)
        return PD_OK;
    if (m.type == PD_KV_M_DIGESTS && e->keys != NULL) {
        if (m.first >= e->n_wire || m.count > e->n_wire - m.first) {
            give_up(dest, PD_KV_FAILED, PD_EPROTO, "the source sent digests of no block", true);
            return PD_EPROTO;
        }
        if (!dest->is_done)     /* what was said to be complete does not change */
            got_digests(dest, &m);
    }
    (void)pd_lease_step(dest->lease, PD_LEASE_RENEW, 0);
    if (m.type == PD_KV_M_DONE && !dest->is_done)
        got_done(dest, &m);
    return PD_OK;
}

void pd_kv_dest_renew(struct pd_kv_dest *dest)
{
    if (dest->state == PD_DEST_OPEN)
        (void)pd_lease_step(dest->lease, PD_LEASE_RENEW, 0);
}

void pd_kv_dest_abort(struct pd_kv_dest *dest, bool peer_gone)
{
    if (peer_gone)
        dest->e.is_silent = true;
    give_up(dest, PD_KV_ABORTED, PD_ECANCELED, "aborted here", !peer_gone);
}
