/* SPDX-License-Identifier: Apache-2.0 */
/* Addresses to reach.  A configured one is tried for ever, with back-off and
 * jitter; one that a reach asked for is tried once, each of its addresses.
 * When the node behind an address has a link already, the dial rests until
 * that link breaks. */
#include "peer/priv.h"

#include "base/mem.h"
#include "base/str.h"
#include "base/uuid.h"

static void try_next(struct pd_dial *dial);

static void on_resolved(struct pd_resolve *r, pd_status status, const struct pd_addr *addrs,
                        size_t n, void *arg)
{
    struct pd_dial *dial = (struct pd_dial *)arg;
    (void)r;
    dial->n_addrs = 0;
    if (status != PD_OK)
        pd_log_info(dial->peers->log, "peer address \"%s\" cannot be resolved", dial->text);
    for (size_t i = 0; i < n && i < 16; i++)
        dial->addrs[dial->n_addrs++] = addrs[i];
    dial->next_addr = 0;
    dial->state = PD_DIAL_LINKING;
    try_next(dial);
}

/* A reach that failed tells so by its peer. */
static void give_up(struct pd_dial *dial)
{
    struct pd_peers *peers = dial->peers;
    struct pd_peer *peer = pd_peers_get(peers, dial->want);
    pd_dial_remove(dial);
    if (peer == NULL || peer->link != NULL)
        return;
    pd_peer_set_state(peer, PD_PEER_DOWN, "cannot be reached");
    pd_peer_forget_later(peer, peers->conf.forget);
    pd_peers_emit(peers, peer, PD_PEER_ON_DOWN);
}

static void wait_and_retry(struct pd_dial *dial)
{
    struct pd_peers *peers = dial->peers;
    if (!dial->is_configured) {
        give_up(dial);
        return;
    }
    pd_time base = dial->backoff;
    pd_time delay = base / 2 + pd_loop_random_below(peers->loop, base / 2 + 1);
    dial->backoff = base * 2 > peers->conf.backoff_max ? peers->conf.backoff_max : base * 2;
    dial->state = PD_DIAL_WAITING;
    pd_timer_start(&dial->timer, delay);
}

static void try_next(struct pd_dial *dial)
{
    while (dial->next_addr < dial->n_addrs) {
        const struct pd_addr *addr = &dial->addrs[dial->next_addr++];
        if (pd_link_open(dial, addr) == PD_OK)
            return;
    }
    wait_and_retry(dial);
}

static void start(struct pd_dial *dial)
{
    struct pd_peers *peers = dial->peers;
    struct pd_str text = pd_str_from(dial->text);
    dial->n_addrs = 0;
    dial->next_addr = 0;
    if (pd_addr_parse(peers->loop, text, &dial->addrs[0]) == PD_OK) {
        dial->n_addrs = 1;
        dial->state = PD_DIAL_LINKING;
        try_next(dial);
        return;
    }
    memset(&dial->resolve, 0, sizeof dial->resolve);
    dial->resolve.cb = on_resolved;
    dial->resolve.arg = dial;
    dial->resolve.name = "peer address";
    dial->state = PD_DIAL_RESOLVING;
    if (pd_resolve_start(peers->loop, dial->host, dial->port, &dial->resolve) != PD_OK)
        wait_and_retry(dial);
}

static void on_timer(struct pd_timer *timer, void *arg)
{
    struct pd_dial *dial = (struct pd_dial *)arg;
    struct pd_peer *peer;
    (void)timer;
    if (dial->state == PD_DIAL_COVERED) {
        peer = pd_peers_by_uuid(dial->peers, &dial->covered.uuid);
        if (peer != NULL && peer->link != NULL) {
            pd_timer_start(&dial->timer, dial->peers->conf.backoff_max);
            return;
        }
    }
    start(dial);
}

/* Splits "host:port"; the host may be a name. */
static pd_status split(struct pd_str address, char *host, size_t size, uint16_t *number)
{
    uint64_t port = 0;
    size_t i = address.n;
    while (i > 0 && address.p[i - 1] != ':')
        i--;
    if (i < 2 || pd_str_parse_u64(pd_str_sub(address, i, address.n), &port) != PD_OK ||
        port == 0 || port > 65535)
        return PD_EINVAL;
    if (pd_str_copy(pd_str_sub(address, 0, i - 1), host, size) != PD_OK)
        return PD_EINVAL;
    *number = (uint16_t)port;
    return PD_OK;
}

bool pd_peers_can_dial(struct pd_loop *loop, struct pd_str address)
{
    struct pd_dial *dial = NULL; /* only for the sizes of its members */
    char host[sizeof dial->host];
    struct pd_addr addr;
    uint16_t port;
    return address.n < sizeof dial->text &&
           (pd_addr_parse(loop, address, &addr) == PD_OK ||
            split(address, host, sizeof host, &port) == PD_OK);
}

pd_status pd_dial_add(struct pd_peers *peers, struct pd_str address, bool is_configured,
                      pd_peer_ref want, struct pd_dial **out)
{
    struct pd_addr addr;
    if (peers->n_dials >= PD_PEER_MAX_DIALS)
        return PD_ELIMIT;
    struct pd_dial *dial = (struct pd_dial *)pd_calloc(1, sizeof *dial);
    if (dial == NULL)
        return PD_ENOMEM;
    dial->peers = peers;
    pd_list_init(&dial->node);
    pd_timer_init(&dial->timer, peers->loop, "peer dial", on_timer, dial);
    if (pd_str_copy(address, dial->text, sizeof dial->text) != PD_OK ||
        (pd_addr_parse(peers->loop, address, &addr) != PD_OK &&
         split(address, dial->host, sizeof dial->host, &dial->port) != PD_OK)) {
        pd_free(dial);
        return PD_EINVAL;
    }
    dial->is_configured = is_configured;
    dial->want = want;
    dial->backoff = peers->conf.backoff_min;
    pd_list_append(&peers->dials, &dial->node);
    peers->n_dials++;
    /* Not from inside the caller's function. */
    pd_timer_start(&dial->timer, 0);
    *out = dial;
    return PD_OK;
}

void pd_dial_remove(struct pd_dial *dial)
{
    pd_timer_stop(&dial->timer);
    if (dial->state == PD_DIAL_RESOLVING)
        pd_resolve_cancel(dial->peers->loop, &dial->resolve);
    if (dial->link != NULL)
        dial->link->dial = NULL;
    pd_list_remove(&dial->node);
    dial->peers->n_dials--;
    pd_free(dial);
}

struct pd_dial *pd_dial_find(struct pd_peers *peers, struct pd_str address)
{
    PD_LIST_EACH(&peers->dials, l) {
        struct pd_dial *dial = PD_LIST_ENTRY(l, struct pd_dial, node);
        if (dial->is_configured && pd_str_is(address, dial->text))
            return dial;
    }
    return NULL;
}

struct pd_dial *pd_dial_find_want(struct pd_peers *peers, pd_peer_ref want)
{
    PD_LIST_EACH(&peers->dials, l) {
        struct pd_dial *dial = PD_LIST_ENTRY(l, struct pd_dial, node);
        if (!dial->is_configured && dial->want == want)
            return dial;
    }
    return NULL;
}

bool pd_dial_covers(struct pd_peers *peers, const struct pd_peer *peer)
{
    PD_LIST_EACH(&peers->dials, l) {
        struct pd_dial *dial = PD_LIST_ENTRY(l, struct pd_dial, node);
        if (dial->is_configured && pd_uuid_eq(&dial->covered.uuid, &peer->id.uuid))
            return true;
    }
    return false;
}

/* The address stands for this node now; what it stood for before may be another
 * one, when a node started again without its identity. */
static void cover(struct pd_dial *dial, const struct pd_node_id *id)
{
    bool is_other = !pd_uuid_eq(&dial->covered.uuid, &id->uuid);
    dial->covered = *id;
    if (is_other && dial->is_configured)
        pd_peers_release(dial->peers);
}

void pd_dial_up(struct pd_dial *dial, const struct pd_node_id *id)
{
    dial->backoff = dial->peers->conf.backoff_min;
    dial->state = PD_DIAL_LINKED;
    cover(dial, id);
    if (!dial->is_configured)
        pd_dial_remove(dial);   /* the link goes on without it */
}

void pd_dial_lost(struct pd_dial *dial, uint32_t reason, const struct pd_node_id *id)
{
    struct pd_peers *peers = dial->peers;
    if (peers->is_closing)
        return;
    if (reason == PD_GOODBYE_DUPLICATE && !dial->is_configured) {
        /* The other link is up, or is about to be; if it fails, nobody else tells. */
        struct pd_peer *want = pd_peers_get(peers, dial->want);
        pd_dial_remove(dial);
        if (want != NULL)
            pd_peer_forget_later(want, 2 * peers->conf.connect_timeout);
    } else if (reason == PD_GOODBYE_DUPLICATE) {
        dial->state = PD_DIAL_COVERED;
        cover(dial, id);
        struct pd_peer *peer = pd_peers_by_uuid(peers, &id->uuid);
        if (peer != NULL) {
            peer->flags |= PD_PEER_CONFIGURED;
            if (!dial->is_resting)
                pd_peer_rest(peer, false);
        }
        pd_timer_start(&dial->timer, peers->conf.backoff_max);
    } else if (reason == PD_GOODBYE_SELF) {
        dial->state = PD_DIAL_SELF;     /* an address of ours; nothing to do, ever */
    } else if (dial->state == PD_DIAL_LINKED) {
        dial->backoff = peers->conf.backoff_min;
        wait_and_retry(dial);
    } else {
        try_next(dial);
    }
}

void pd_dial_uncover(struct pd_peers *peers, const struct pd_node_id *id)
{
    PD_LIST_EACH(&peers->dials, l) {
        struct pd_dial *dial = PD_LIST_ENTRY(l, struct pd_dial, node);
        if (dial->state == PD_DIAL_COVERED && pd_uuid_eq(&dial->covered.uuid, &id->uuid))
            pd_timer_start(&dial->timer,
                           pd_loop_random_below(peers->loop, peers->conf.backoff_min + 1));
    }
}
