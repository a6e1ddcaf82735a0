/* SPDX-License-Identifier: Apache-2.0 */
/* The source's end of a hand-over.
 *
 *   CONNECTING --> MOVING -- all posted, digests sent --> WAITING -- verdict --> STOPPING
 *        any of these -- abort, failure, timeout --> STOPPING --> (FENCING) --> ENDED
 *
 * Here are its states, its messages and its end; source_open.c makes it, source_move.c posts
 * its blocks, source_digest.c digests them.
 *
 * DONE goes out with the last post and overtakes it: the destination counts what has
 * landed by itself.  on_end comes when no transfer can read the blocks any more: every post has
 * had its terminal status, and after an unfenced one the way is gone. */
#include "kv/source_int.h"

#include <stdio.h>

#include "base/compiler.h"
#include "base/mem.h"
#include "base/status.h"
#include "base/str.h"
#include "base/uuid.h"

const char *pd_kv_source_state_text(const struct pd_kv_source *source)
{
    static const char *const text[] = {
        "connecting", "moving", "waiting", "stopping", "fencing", "ended",
    };
    return text[source->state];
}

void pd_kv_source_kick(struct pd_kv_source *source)
{
    pd_loop_defer(source->e.kv->loop, &source->e.task);
}

void pd_kv_source_give_up(struct pd_kv_source *source, uint32_t verdict, pd_status status,
                          const char *reason, bool tell)
{
    if (source->e.verdict != 0 || source->state == PD_SOURCE_ENDED)
        return;
    pd_kv_end_decide(&source->e, verdict, status, reason);
    source->tell_abort = tell;
    pd_kv_source_kick(source);
}

void pd_kv_source_send(struct pd_kv_source *source, struct pd_kv_message *m, const uint64_t *digests)
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
        pd_kv_source_give_up(source, PD_KV_FAILED, st, "a message could not be sent", false);
    }
}

void pd_kv_source_free(struct pd_kv_source *source)
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
        pd_kv_source_transport(source)->ops->target_close(PD_TAKE(&source->target));
    pd_kv_way_leave(source);
    if (source->peer_aborted) {
        struct pd_kv_message m = { .type = PD_KV_M_ABORTED, .fenced = 1 };
        pd_kv_source_send(source, &m, NULL);
    }
    pd_kv_end_report(&source->e, true, &result);
    source->events.on_end(source, &result, source->arg);
    pd_kv_source_free(source);
}

/* ---- the way */

void pd_kv_source_try(struct pd_kv_source *source)
{
    while (source->at_candidate < source->n_candidates) {
        const struct pd_kv_candidate *c = &source->candidates[source->at_candidate];
        pd_status st = pd_kv_way_join(source);
        if (st == PD_PENDING)
            return;
        if (st == PD_OK) {
            st = pd_kv_source_transport(source)->ops->target_open(source->way->tp, c->blob, c->blob_len,
                                                        &source->target);
            if (st == PD_OK) {
                source->state = PD_SOURCE_MOVING;
                snprintf(source->e.transport, sizeof source->e.transport, "%s",
                         pd_kv_source_transport(source)->name);
                pd_kv_source_kick(source);
                return;
            }
            source->target = NULL;
            pd_kv_way_leave(source);
        }
        pd_log_info(source->e.kv->log, "transport \"%s\" does not reach peer \"%s\": %s",
                    pd_kv_source_transport(source)->name, source->e.peer_name, pd_status_text(st));
        source->at_candidate++;
    }
    source->at_candidate = source->n_candidates - 1;
    pd_kv_source_give_up(source, PD_KV_FAILED, PD_EPEER, "no transport reaches the destination", true);
}

void pd_kv_source_way_up(struct pd_kv_source *source)
{
    if (source->state != PD_SOURCE_CONNECTING || source->e.verdict != 0)
        return;
    /* Joins again: the way is up, or has just been found wanting. */
    pd_kv_way_leave(source);
    pd_kv_source_try(source);
}

void pd_kv_source_way_gone(struct pd_kv_source *source, pd_status status)
{
    if (source->state == PD_SOURCE_CONNECTING && source->e.verdict == 0) {
        pd_log_info(source->e.kv->log, "transport \"%s\" does not reach peer \"%s\": %s",
                    pd_kv_source_transport(source)->name, source->e.peer_name, pd_status_text(status));
        /* The grant that was to let the way in may have ended with its hand-over; this
         * source has one of its own. */
        if (status != PD_EPERM || source->made_way || source->made_again)
            source->at_candidate++;
        else
            source->made_again = true;
        pd_kv_source_try(source);
        return;
    }
    if ((source->state == PD_SOURCE_MOVING && source->posted < source->e.bytes_expected) ||
        (source->state <= PD_SOURCE_WAITING && source->in_flight > 0))
        pd_kv_source_give_up(source, PD_KV_FAILED, status, "the way to the destination is lost", true);
    pd_kv_source_kick(source);
}

void pd_kv_source_way_writable(struct pd_kv_source *source)
{
    source->is_blocked = false;
    pd_kv_source_kick(source);
}

/* ---- steps */

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
        pd_kv_source_give_up(source, PD_KV_FAILED, PD_EIO, "a transfer failed", true);
    }
    pd_free(post);
    pd_kv_source_kick(source);
}

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
    pd_kv_source_send(source, &m, NULL);
}

static void cancel_posts(struct pd_kv_source *source)
{
    PD_LIST_EACH(&source->posts, l) {
        struct pd_kv_post *post = PD_LIST_ENTRY(l, struct pd_kv_post, node);
        pd_kv_source_transport(source)->ops->cancel(post->transfer);
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

void pd_kv_source_on_task(struct pd_task *task, void *arg)
{
    struct pd_kv_source *source = (struct pd_kv_source *)arg;
    (void)task;
    if (source->tell_abort) {
        struct pd_kv_message m = { .type = PD_KV_M_ABORT, .verdict = source->e.verdict };
        source->tell_abort = false;
        pd_kv_source_send(source, &m, NULL);
    }
    if (source->e.verdict == 0)
        pd_kv_source_send_digests(source);
    if (source->state == PD_SOURCE_MOVING && source->e.verdict == 0) {
        pd_kv_source_move(source);
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

void pd_kv_source_on_timer(struct pd_timer *timer, void *arg)
{
    struct pd_kv_source *source = (struct pd_kv_source *)arg;
    struct pd_kv_message m = { .type = PD_KV_M_RENEW };
    (void)timer;
    if (source->state >= PD_SOURCE_STOPPING) {
        cancel_posts(source);
        return;
    }
    if (source->state == PD_SOURCE_WAITING && source->in_flight == 0) {
        pd_kv_source_give_up(source, PD_KV_TIMEOUT, PD_ETIMEDOUT, "no verdict came", true);
        return;
    }
    pd_timer_start(&source->timer, source->ttl / 3);
    pd_kv_source_send(source, &m, NULL);
}

void pd_kv_source_push(struct pd_kv_source *source, uint32_t upto)
{
    upto = PD_MIN(upto, source->e.to);
    if (upto <= source->ready || source->e.verdict != 0)
        return;
    source->ready = upto;
    if (source->e.keys != NULL)
        pd_kv_job_start(source->e.kv, &source->e.job);
    pd_kv_source_kick(source);
}

pd_status pd_kv_source_message(struct pd_kv_source *source, struct pd_str bytes)
{
    struct pd_kv_message m;
    struct pd_kv_end *e = &source->e;
    if (pd_kv_message_parse(bytes, &m) != PD_OK ||
        (m.type != PD_KV_M_VERDICT && m.type != PD_KV_M_ABORT)) {
        pd_kv_source_give_up(source, PD_KV_FAILED, PD_EPROTO, "the destination sent a malformed message", true);
        return PD_EPROTO;
    }
    if (m.xid != e->xid || m.generation != e->generation) {
        pd_kv_source_give_up(source, PD_KV_STALE, PD_ESTALE, "the destination spoke of another hand-over", true);
        return PD_OK;
    }
    if (m.type == PD_KV_M_ABORT) {
        source->peer_aborted = true;
        pd_kv_source_give_up(source, m.verdict == PD_KV_TIMEOUT ? PD_KV_TIMEOUT : PD_KV_PEER_ABORTED,
                PD_ECANCELED,
                "the destination gave up", false);
    } else if (m.verdict == PD_KV_VALID && source->state != PD_SOURCE_WAITING) {
        pd_kv_source_give_up(source, PD_KV_FAILED, PD_EPROTO, "the destination was content too early", true);
        return PD_EPROTO;
    } else {
        bool valid = m.verdict == PD_KV_VALID;
        pd_status st = valid ? PD_OK : m.verdict == PD_KV_CORRUPT ? PD_EINTEGRITY : PD_ECANCELED;
        e->is_verified = valid && e->keys != NULL;
        pd_kv_source_give_up(source, m.verdict == PD_KV_ABORTED ? PD_KV_PEER_ABORTED : m.verdict, st,
                valid ? "" : "the destination says so", false);
    }
    return PD_OK;
}

void pd_kv_source_abort(struct pd_kv_source *source, bool peer_gone)
{
    if (peer_gone)
        source->e.is_silent = true;
    pd_kv_source_give_up(source, PD_KV_ABORTED, PD_ECANCELED, "aborted here", !peer_gone);
}
