/* SPDX-License-Identifier: Apache-2.0 */
/* The source's end of a hand-over.
 *
 *   CONNECTING --> MOVING -- all posted, digests sent --> WAITING -- verdict --> STOPPING
 *        any of these -- abort, failure, timeout --> STOPPING --> (FENCING) --> ENDED
 *
 * DONE goes out with the last post and overtakes it: the destination counts what has
 * landed by itself.  on_end comes when no transfer can read the blocks any more: every post has
 * had its terminal status, and after an unfenced one the way is gone. */
#include "kv/priv.h"

#include <stdio.h>

#include "base/compiler.h"
#include "base/mem.h"
#include "base/status.h"
#include "base/str.h"
#include "base/uuid.h"

#define POSTS_AT_A_TIME 64u

const char *pd_kv_source_state_text(const struct pd_kv_source *source)
{
    static const char *const text[] = {
        "connecting", "moving", "waiting", "stopping", "fencing", "ended",
    };
    return text[source->state];
}

static void kick(struct pd_kv_source *source)
{
    pd_loop_defer(source->e.kv->loop, &source->e.task);
}

static const struct pd_kv_transport *transport_of(const struct pd_kv_source *source)
{
    return &source->e.kv->transports[source->candidates[source->at_candidate].transport];
}

static void give_up(struct pd_kv_source *source, uint32_t verdict, pd_status status,
                    const char *reason,
                    bool tell)
{
    if (source->e.verdict != 0 || source->state == PD_SOURCE_ENDED)
        return;
    pd_kv_end_decide(&source->e, verdict, status, reason);
    source->tell_abort = tell;
    kick(source);
}

static void send_message(struct pd_kv_source *source, struct pd_kv_message *m,
                         const uint64_t *digests)
{
    struct pd_buf b;
    if (source->e.is_silent)
        return;
    m->xid = source->e.xid;
    m->generation = source->e.generation;
    pd_buf_init(&b, 64 + 8 * (size_t)PD_KV_DIGESTS_PER_MESSAGE);
    pd_status st = pd_kv_message_write(m, digests, &b);
    if (st == PD_OK)
        st = source->events.on_send(source, pd_buf_str(&b), source->arg);
    pd_buf_fini(&b);
    if (st != PD_OK) {
        source->e.is_silent = true;
        give_up(source, PD_KV_FAILED, st, "a message could not be sent", false);
    }
}

static void free_source(struct pd_kv_source *source)
{
    struct pd_kv *kv = source->e.kv;
    pd_timer_stop(&source->timer);
    pd_kv_end_fini(&source->e);
    pd_kv_plan_fini(&source->plan);
    pd_free(source->candidates);
    pd_free(source->index);
    if (!pd_list_is_empty(&source->e.node)) {
        pd_list_remove(&source->e.node);
        kv->n_sources--;
    }
    pd_free(source);
    pd_kv_check_closed(kv);
}

static void finish(struct pd_kv_source *source)
{
    struct pd_kv_result result;
    pd_assert(pd_list_is_empty(&source->posts) && source->e.verdict != 0);
    source->state = PD_SOURCE_ENDED;
    source->e.is_fenced = true;
    if (source->target != NULL)
        transport_of(source)->ops->target_close(PD_TAKE(&source->target));
    pd_kv_way_leave(source);
    if (source->peer_aborted) {
        struct pd_kv_message m = { .type = PD_KV_M_ABORTED, .fenced = 1 };
        send_message(source, &m, NULL);
    }
    pd_kv_end_report(&source->e, true, &result);
    source->events.on_end(source, &result, source->arg);
    free_source(source);
}

/* ---- the way */

static void try_candidates(struct pd_kv_source *source)
{
    while (source->at_candidate < source->n_candidates) {
        const struct pd_kv_candidate *c = &source->candidates[source->at_candidate];
        pd_status st = pd_kv_way_join(source);
        if (st == PD_PENDING)
            return;
        if (st == PD_OK) {
            st = transport_of(source)->ops->target_open(source->way->tp, c->blob, c->blob_len,
                                                        &source->target);
            if (st == PD_OK) {
                source->state = PD_SOURCE_MOVING;
                snprintf(source->e.transport, sizeof source->e.transport, "%s",
                         transport_of(source)->name);
                kick(source);
                return;
            }
            source->target = NULL;
            pd_kv_way_leave(source);
        }
        pd_log_info(source->e.kv->log, "transport \"%s\" does not reach peer \"%s\": %s",
                    transport_of(source)->name, source->e.peer_name, pd_status_text(st));
        source->at_candidate++;
    }
    source->at_candidate = source->n_candidates - 1;
    give_up(source, PD_KV_FAILED, PD_EPEER, "no transport reaches the destination", true);
}

void pd_kv_source_way_up(struct pd_kv_source *source)
{
    if (source->state != PD_SOURCE_CONNECTING || source->e.verdict != 0)
        return;
    /* Joins again: the way is up, or has just been found wanting. */
    pd_kv_way_leave(source);
    try_candidates(source);
}

void pd_kv_source_way_gone(struct pd_kv_source *source, pd_status status)
{
    if (source->state == PD_SOURCE_CONNECTING && source->e.verdict == 0) {
        pd_log_info(source->e.kv->log, "transport \"%s\" does not reach peer \"%s\": %s",
                    transport_of(source)->name, source->e.peer_name, pd_status_text(status));
        /* The grant that was to let the way in may have ended with its hand-over; this
         * source has one of its own. */
        if (status != PD_EPERM || source->made_way || source->made_again)
            source->at_candidate++;
        else
            source->made_again = true;
        try_candidates(source);
        return;
    }
    if ((source->state == PD_SOURCE_MOVING && source->posted < source->e.bytes_expected) ||
        (source->state <= PD_SOURCE_WAITING && source->in_flight > 0))
        give_up(source, PD_KV_FAILED, status, "the way to the destination is lost", true);
    kick(source);
}

void pd_kv_source_way_writable(struct pd_kv_source *source)
{
    source->is_blocked = false;
    kick(source);
}

/* ---- moving */

/* The place of tokens [a, b) in the pool; asks the user for indices. */
static pd_status place_of(struct pd_kv_source *source, uint32_t a, uint32_t b,
                          struct pd_kv_place *place)
{
    const struct pd_layout *l = &source->e.region->layout;
    uint32_t first = a / l->block_tokens;
    uint32_t n = (b - 1) / l->block_tokens - first + 1;
    if (n > source->index_cap) {
        void *p = pd_realloc_array(source->index, n, sizeof *source->index);
        if (p == NULL)
            return PD_ENOMEM;
        source->index = (uint32_t *)p;
        source->index_cap = n;
    }
    pd_status st = source->events.blocks(source, first, n, source->index, source->arg);
    *place = (struct pd_kv_place){ .layout = l, .pool_blocks = source->e.region->blocks,
                                   .first_block = first, .n_blocks = n, .blocks = source->index };
    return st;
}

/* Whether all tokens of a wire block may be read. */
static bool is_ready(const struct pd_kv_source *source, uint32_t block)
{
    uint32_t a, b;
    if (block >= source->e.n_wire)
        return false;
    pd_kv_wire_range(source->e.from, source->e.to, source->e.wire_tokens, block, &a, &b);
    return b <= source->ready;
}

/* Plans the next wire blocks that are ready, about one post of them. */
static pd_status plan_more(struct pd_kv_source *source)
{
    struct pd_kv_end *e = &source->e;
    uint32_t first = source->planned, a = 0, b = 0, unused;
    uint64_t bytes = 0, token = pd_kv_layout_token_bytes(&e->region->layout);
    struct pd_kv_place place;
    pd_kv_plan_clear(&source->plan);
    source->plan_segment = 0;
    source->plan_offset = 0;
    while (is_ready(source, source->planned) && bytes < e->kv->conf.post_bytes &&
           source->planned - first < 256) {
        pd_kv_wire_range(e->from, e->to, e->wire_tokens, source->planned++, &a, &b);
        bytes += (b - a) * token;
    }
    if (source->planned == first)
        return PD_OK;
    pd_kv_wire_range(e->from, e->to, e->wire_tokens, first, &a, &unused);
    pd_status st = place_of(source, a, b, &place);
    if (st == PD_OK)
        st = pd_kv_plan_add(&source->plan, &place, a, b, e->wire_tokens, PD_KV_MAX_SEGMENTS);
    return st;
}

/* Posts the next part of the plan within the transport's limits. */
static pd_status post_some(struct pd_kv_source *source)
{
    const struct pd_kv_transport *t = transport_of(source);
    struct pd_segment *s = &source->plan.segments[source->plan_segment];
    uint32_t left = source->plan.n - source->plan_segment, n = 0;
    uint64_t limit = PD_MIN(t->info.max_bytes, source->e.kv->conf.post_bytes), bytes = 0;
    uint32_t max = PD_MIN(left, t->info.max_segments);
    struct pd_segment cut = *s;
    while (n < max && s[n].bytes <= limit - bytes)
        bytes += s[n++].bytes;
    bool is_cut = n == 0;
    if (is_cut) {
        cut.bytes = bytes = limit;
        n = 1;
    }
    struct pd_kv_post *post = (struct pd_kv_post *)pd_calloc(1, sizeof *post);
    if (post == NULL)
        return PD_ENOMEM;
    struct pd_post desc = {
        .size = sizeof desc, .op = PD_TRANSPORT_WRITE, .offset = source->posted,
        .memory = source->e.region->memory[source->candidates[source->at_candidate].transport],
        .segments = is_cut ? &cut : s, .n_segments = n, .arg = post,
    };
    post->source = source;
    post->bytes = bytes;
    pd_list_init(&post->node);
    pd_status st = t->ops->post(source->target, &desc, &post->transfer);
    if (st != PD_OK) {
        pd_free(post);
        return st;
    }
    pd_list_append(&source->posts, &post->node);
    source->posted += bytes;
    source->in_flight += bytes;
    if (is_cut) {
        s->offset += bytes;
        s->bytes -= bytes;
    } else {
        source->plan_segment += n;
    }
    return PD_OK;
}

static void move(struct pd_kv_source *source)
{
    struct pd_kv *kv = source->e.kv;
    while (!source->is_blocked && source->in_flight < kv->conf.inflight_bytes &&
           pd_list_count(&source->posts) < POSTS_AT_A_TIME) {
        pd_status st = PD_OK;
        if (source->plan_segment == source->plan.n)
            st = plan_more(source);
        if (st == PD_OK && source->plan_segment == source->plan.n)
            return;
        if (st == PD_OK)
            st = post_some(source);
        if (st == PD_EAGAIN) {
            source->is_blocked = true;
        } else if (st != PD_OK) {
            give_up(source, PD_KV_FAILED, st, "a transfer could not be posted", true);
            return;
        }
    }
}

/* The destination closes, verifies and answers; much later it has gone. */
static void wait_for_verdict(struct pd_kv_source *source)
{
    pd_timer_start(&source->timer, 3 * source->ttl);
}

void pd_kv_source_done(struct pd_kv_post *post, uint32_t terminal, uint64_t bytes)
{
    struct pd_kv_source *source = post->source;
    (void)bytes;
    pd_list_remove(&post->node);
    source->in_flight -= post->bytes;
    if (terminal == PD_TRANSFER_OK) {
        source->e.bytes += post->bytes;
        pd_kv_end_moved(&source->e);
        if (source->state == PD_SOURCE_WAITING && source->in_flight == 0)
            wait_for_verdict(source);
    } else {
        if (terminal == PD_TRANSFER_FAILED_UNFENCED)
            source->needs_fence = true;
        give_up(source, PD_KV_FAILED, PD_EIO, "a transfer failed", true);
    }
    pd_free(post);
    kick(source);
}

/* ---- digests */

static bool digest(struct pd_kv_job *job, uint64_t *budget)
{
    struct pd_kv_source *source = pd_container_of(job, struct pd_kv_source, e.job);
    struct pd_kv_end *e = &source->e;
    pd_time from = pd_loop_clock(e->kv->loop);
    pd_status st = PD_OK;
    while (*budget > 0 && e->verdict == 0 && is_ready(source, e->at_block)) {
        if (!e->in_block) {
            struct pd_kv_place place;
            uint32_t a, b;
            pd_kv_wire_range(e->from, e->to, e->wire_tokens, e->at_block, &a, &b);
            pd_kv_plan_clear(&e->digester.plan);
            st = place_of(source, a, b, &place);
            if (st == PD_OK)
                st = pd_kv_plan_add(&e->digester.plan, &place, a, b, e->wire_tokens,
                                    PD_KV_MAX_SEGMENTS);
            if (st != PD_OK) {
                give_up(source, PD_KV_FAILED, st, "the blocks cannot be read", true);
                break;
            }
            pd_kv_digester_begin(&e->digester, e->keys[e->at_block]);
            e->in_block = true;
        }
        if (!pd_kv_digester_run(&e->digester, budget, &e->digests[e->at_block]))
            break;
        e->in_block = false;
        e->at_block++;
    }
    e->verify_ns += pd_loop_clock(e->kv->loop) - from;
    if (e->at_block == e->n_wire || e->at_block - source->digests_sent >= PD_KV_DIGESTS_PER_MESSAGE)
        kick(source);
    return e->verdict != 0 || !is_ready(source, e->at_block);
}

static void send_digests(struct pd_kv_source *source)
{
    struct pd_kv_end *e = &source->e;
    while (source->digests_sent < e->at_block && e->verdict == 0) {
        uint32_t n = e->at_block - source->digests_sent;
        if (n < PD_KV_DIGESTS_PER_MESSAGE && e->at_block < e->n_wire)
            return;
        struct pd_kv_message m = { .type = PD_KV_M_DIGESTS, .first = source->digests_sent,
                                   .count = PD_MIN(n, PD_KV_DIGESTS_PER_MESSAGE) };
        source->digests_sent += m.count;
        send_message(source, &m, e->digests + m.first);
    }
}

/* ---- steps */

static bool all_is_said(const struct pd_kv_source *source)
{
    const struct pd_kv_end *e = &source->e;
    return e->verdict == 0 && source->posted == e->bytes_expected &&
           (e->keys == NULL || source->digests_sent == e->n_wire);
}

static void say_done(struct pd_kv_source *source)
{
    struct pd_kv_message m = { .type = PD_KV_M_DONE, .bytes = source->posted,
                               .count = source->e.n_wire,
                               .way = source->candidates[source->at_candidate].way };
    source->state = PD_SOURCE_WAITING;
    if (source->in_flight == 0)
        wait_for_verdict(source);
    send_message(source, &m, NULL);
}

static void cancel_posts(struct pd_kv_source *source)
{
    PD_LIST_EACH(&source->posts, l) {
        struct pd_kv_post *post = PD_LIST_ENTRY(l, struct pd_kv_post, node);
        transport_of(source)->ops->cancel(post->transfer);
    }
}

static void stop(struct pd_kv_source *source)
{
    source->state = PD_SOURCE_STOPPING;
    pd_timer_stop(&source->timer);
    pd_kv_job_stop(&source->e.job);
    /* What the destination has seen land ends by itself; one that lies gains no more
     * than this time. */
    if (source->e.verdict == PD_KV_VALID && !pd_list_is_empty(&source->posts))
        pd_timer_start(&source->timer, source->ttl);
    else
        cancel_posts(source);
}

static void on_task(struct pd_task *task, void *arg)
{
    struct pd_kv_source *source = (struct pd_kv_source *)arg;
    (void)task;
    if (source->tell_abort) {
        struct pd_kv_message m = { .type = PD_KV_M_ABORT, .verdict = source->e.verdict };
        source->tell_abort = false;
        send_message(source, &m, NULL);
    }
    if (source->e.verdict == 0)
        send_digests(source);
    if (source->state == PD_SOURCE_MOVING && source->e.verdict == 0) {
        move(source);
        if (all_is_said(source))
            say_done(source);
    }
    if (source->e.verdict != 0 && source->state <= PD_SOURCE_WAITING)
        stop(source);
    if (source->state == PD_SOURCE_STOPPING && pd_list_is_empty(&source->posts)) {
        if (source->needs_fence && source->way != NULL) {
            source->state = PD_SOURCE_FENCING;
            pd_kv_way_fence(source->way);
            return;
        }
        finish(source);
        return;
    }
    if (source->state == PD_SOURCE_FENCING && source->way == NULL)
        finish(source);
}

static void on_timer(struct pd_timer *timer, void *arg)
{
    struct pd_kv_source *source = (struct pd_kv_source *)arg;
    struct pd_kv_message m = { .type = PD_KV_M_RENEW };
    (void)timer;
    if (source->state >= PD_SOURCE_STOPPING) {
        cancel_posts(source);
        return;
    }
    if (source->state == PD_SOURCE_WAITING && source->in_flight == 0) {
        give_up(source, PD_KV_TIMEOUT, PD_ETIMEDOUT, "no verdict came", true);
        return;
    }
    pd_timer_start(&source->timer, source->ttl / 3);
    send_message(source, &m, NULL);
}

/* ---- opening */

static pd_status check_grant(struct pd_kv *kv, const struct pd_kv_source_params *p,
                             const struct pd_kv_grant_full *f, const struct pd_peer_info *peer,
                             struct pd_err *err)
{
    const struct pd_kv_grant *g = &f->g;
    if (!pd_node_id_eq(&g->owner, &peer->desc->id))
        return pd_err_set(err, PD_ESTALE, "the grant is of another node than sent it");
    if (g->to > p->n_tokens)
        return pd_err_set(err, PD_EINVAL, "the grant is for %u tokens, the prompt has %u", g->to,
                          p->n_tokens);
    if (g->ttl_ms > kv->conf.lease_max / PD_MS)
        return pd_err_set(err, PD_EINVAL, "the grant's lease of %u ms is too long", g->ttl_ms);
    return pd_kv_layout_compatible(&g->layout, &p->region->layout, err);
}

/* Matches the grant's ways with our transports, in our order. */
static uint32_t find_candidates(struct pd_kv *kv, const struct pd_kv_region *region,
                                const struct pd_kv_grant_full *f, const struct pd_peer_info *peer,
                                struct pd_kv_candidate *out)
{
    uint32_t chosen[PD_KV_MAX_TRANSPORTS], count = 0;
    uint32_t n = pd_kv_choose(kv, region, peer, chosen);
    for (uint32_t i = 0; i < n; i++) {
        const char *name = kv->transports[chosen[i]].name;
        const struct pd_peer_transport *there = pd_kv_peer_transport(peer, name);
        for (uint32_t w = 0; w < f->g.n_transports && count < PD_KV_GRANT_WAYS; w++) {
            if (!pd_str_is(f->ways[w].transport, name) || f->ways[w].blob.n == 0)
                continue;
            struct pd_kv_candidate *c = &out[count++];
            c->transport = chosen[i];
            c->way = w;
            c->address_len = there->address_len;
            memcpy(c->address, there->address, there->address_len);
            c->blob_len = (uint32_t)f->ways[w].blob.n;
            memcpy(c->blob, f->ways[w].blob.p, f->ways[w].blob.n);
            break;
        }
    }
    return count;
}

/* "[::1]:7000" gives "::1", "10.0.0.1:7000" gives "10.0.0.1". */
static void host_of(const char *address, char *out, size_t size)
{
    struct pd_str s = pd_str_from(address);
    size_t end = s.n;
    while (end > 0 && s.p[end - 1] != ':')
        end--;
    s = pd_str_sub(s, 0, end > 0 ? end - 1 : 0);
    if (s.n >= 2 && s.p[0] == '[' && s.p[s.n - 1] == ']')
        s = pd_str_sub(s, 1, s.n - 2);
    if (pd_str_copy(s, out, size) != PD_OK || pd_str_starts_with(s, PD_STR("unix")))
        out[0] = '\0';
}

static struct pd_kv_source *source_create(struct pd_kv *kv, const struct pd_kv_source_params *p,
                                          const struct pd_kv_grant_full *f,
                                          const struct pd_peer_info *peer, uint64_t *tag,
                                          pd_status *status)
{
    struct pd_kv_source *source = (struct pd_kv_source *)pd_calloc(1, sizeof *source);
    *status = PD_ENOMEM;
    if (source == NULL)
        return NULL;
    struct pd_kv_end *e = &source->e;
    *status = pd_kv_end_init(e, kv, p->region, peer, p->request_id);
    e->xid = f->g.xid;
    e->generation = f->generation;
    e->from = f->g.from;
    e->to = f->g.to;
    e->wire_tokens = f->g.wire_block_tokens;
    source->ttl = f->g.ttl_ms * PD_MS;
    e->job.run = digest;
    pd_list_init(&source->way_node);
    pd_list_init(&source->posts);
    pd_kv_plan_init(&source->plan);
    pd_task_init(&e->task, "kv source", on_task, source);
    pd_timer_init(&source->timer, kv->loop, "kv source", on_timer, source);
    if (peer->flags & PD_PEER_SELF)
        snprintf(source->host, sizeof source->host, "127.0.0.1");
    else
        host_of(peer->address, source->host, sizeof source->host);
    source->candidates = (struct pd_kv_candidate *)pd_calloc(PD_KV_GRANT_WAYS,
                                                             sizeof *source->candidates);
    if (*status == PD_OK)
        *status = pd_kv_end_keys(e, p->tokens, f->digests != 0, tag);
    if (*status == PD_OK && source->candidates == NULL)
        *status = PD_ENOMEM;
    if (*status == PD_OK)
        return source;
    free_source(source);
    return NULL;
}

pd_status pd_kv_source_open(struct pd_kv *kv, const struct pd_kv_source_params *p,
                            const struct pd_kv_source_events *events, void *arg,
                            struct pd_kv_source **out, struct pd_err *err)
{
    struct pd_peer_info peer;
    struct pd_kv_grant_full f;
    uint64_t tag = 0;
    struct pd_str grant = { (const char *)p->grant, p->grant_len };
    if (p->region == NULL || p->tokens == NULL || kv->is_closing)
        return pd_err_set(err, PD_EINVAL, "no region or no tokens");
    pd_status st = pd_kv_grant_parse(grant, &f);
    if (st != PD_OK)
        return pd_err_set(err, st, "the grant is malformed");
    st = kv->conf.peer_api->info(kv->conf.peers, p->peer, &peer);
    if (st != PD_OK)
        return pd_err_set(err, st, "the peer that granted is gone");
    st = check_grant(kv, p, &f, &peer, err);
    if (st != PD_OK)
        return st;
    if (kv->n_sources >= kv->conf.max_handovers)
        return pd_err_set(err, PD_ELIMIT, "too many hand-overs at a time");
    struct pd_kv_source *source = source_create(kv, p, &f, &peer, &tag, &st);
    if (source == NULL)
        return pd_err_set(err, st, "out of memory");
    if (tag != f.tag) {
        free_source(source);
        return pd_err_set(err, PD_EINVAL, "the grant is for another prompt");
    }
    source->n_candidates = find_candidates(kv, p->region, &f, &peer, source->candidates);
    if (source->n_candidates == 0) {
        free_source(source);
        return pd_err_set(err, PD_ENOENT, "no transport in common with peer \"%s\"",
                          peer.desc->name);
    }
    source->events = *events;
    source->arg = arg;
    pd_list_append(&kv->sources, &source->e.node);
    kv->n_sources++;
    pd_timer_start(&source->timer, source->ttl / 3);
    try_candidates(source);
    *out = source;
    return PD_OK;
}

void pd_kv_source_push(struct pd_kv_source *source, uint32_t upto)
{
    upto = PD_MIN(upto, source->e.to);
    if (upto <= source->ready || source->e.verdict != 0)
        return;
    source->ready = upto;
    if (source->e.keys != NULL)
        pd_kv_job_start(source->e.kv, &source->e.job);
    kick(source);
}

pd_status pd_kv_source_message(struct pd_kv_source *source, struct pd_str bytes)
{
    struct pd_kv_message m;
    struct pd_kv_end *e = &source->e;
    if (pd_kv_message_parse(bytes, &m) != PD_OK ||
        (m.type != PD_KV_M_VERDICT && m.type != PD_KV_M_ABORT)) {
        give_up(source, PD_KV_FAILED, PD_EPROTO, "the destination sent a malformed message", true);
        return PD_EPROTO;
    }
    if (m.xid != e->xid || m.generation != e->generation) {
        give_up(source, PD_KV_STALE, PD_ESTALE, "the destination spoke of another hand-over", true);
        return PD_OK;
    }
    if (m.type == PD_KV_M_ABORT) {
        source->peer_aborted = true;
        give_up(source, m.verdict == PD_KV_TIMEOUT ? PD_KV_TIMEOUT : PD_KV_PEER_ABORTED,
                PD_ECANCELED,
                "the destination gave up", false);
    } else if (m.verdict == PD_KV_VALID && source->state != PD_SOURCE_WAITING) {
        give_up(source, PD_KV_FAILED, PD_EPROTO, "the destination was content too early", true);
        return PD_EPROTO;
    } else {
        bool valid = m.verdict == PD_KV_VALID;
        pd_status st = valid ? PD_OK : m.verdict == PD_KV_CORRUPT ? PD_EINTEGRITY : PD_ECANCELED;
        e->is_verified = valid && e->keys != NULL;
        give_up(source, m.verdict == PD_KV_ABORTED ? PD_KV_PEER_ABORTED : m.verdict, st,
                valid ? "" : "the destination says so", false);
    }
    return PD_OK;
}

void pd_kv_source_abort(struct pd_kv_source *source, bool peer_gone)
{
    if (peer_gone)
        source->e.is_silent = true;
    give_up(source, PD_KV_ABORTED, PD_ECANCELED, "aborted here", !peer_gone);
}
