/* SPDX-License-Identifier: Apache-2.0 */
/* A seed becomes a plan: topology, pacing, pools, network, load, faults.
 *
 * Each run has its own mood: which kinds of faults there are at all, how slow
 * engines are and how small pools, is drawn once per run, so that rare
 * combinations come up as often as common ones. */
#include "fuzz.h"

const char *fuzz_kind_name(uint32_t kind)
{
    static const char *const names[FUZZ_KINDS] = {
        "none", "crash", "vanish", "stop", "end", "drain", "cut", "cut one way", "reset", "half open",
        "flip", "slow", "memory",
    };
    return kind < FUZZ_KINDS ? names[kind] : "?";
}

static void node_add(struct fuzz_plan *p, struct fuzz_rng *r, const char *name, uint32_t roles,
                     uint32_t min_tokens, bool small)
{
    static const uint32_t steps[] = { 8, 16, 16, 32, 128 }, sizes[] = { 8, 16, 16, 32 };
    struct fuzz_node *n = &p->nodes[p->n_nodes++];
    snprintf(n->host, sizeof n->host, "%s", name);
    n->roles = roles;
    n->block_tokens = p->is_mixed ? sizes[fuzz_next(r) % 4] : 16;
    n->blocks = (min_tokens + (uint32_t)(small ? fuzz_range(r, 0, 150) : fuzz_range(r, 300, 3000))) /
                    n->block_tokens + 1;
    n->queue = fuzz_percent(r, 75) ? 256 : (uint32_t)fuzz_range(r, 0, 3);
    n->sequences = fuzz_percent(r, 80) ? 1024 : (uint32_t)fuzz_range(r, 1, 8);
    if ((p->only_prefill || p->only_one) && roles != PD_ROLE_PREFILL) {
        n->queue = 256;     /* nobody may be sent away */
        n->sequences = 1024;
    }
    n->step_tokens = steps[fuzz_next(r) % 5];
    n->max_running = (uint32_t)fuzz_range(r, 1, 16);
    n->prefill_tps = p->is_slow ? (uint32_t)fuzz_range(r, 500, 20000) : 0;
    n->ms10_per_token = p->is_slow && fuzz_percent(r, 70) ? (uint32_t)fuzz_range(r, 1, 100) : 0;
    n->prefix_cache = fuzz_percent(r, 80);
    n->n_minus_1 = fuzz_percent(r, 30);
    n->keeps_uuid = fuzz_percent(r, 50);
}

static void topology(struct fuzz_plan *p, struct fuzz_rng *r, uint32_t min_tokens)
{
    uint32_t prefills = (uint32_t)fuzz_range(r, 1, 3);
    uint32_t decodes = (uint32_t)fuzz_range(r, p->only_one ? 2 : 1, 3);
    bool small = fuzz_percent(r, 60), both = !p->only_prefill && fuzz_percent(r, 20);
    char name[16];
    node_add(p, r, "router", PD_ROLE_ROUTER | (fuzz_percent(r, 8) ? PD_ROLE_DECODE : 0), min_tokens, small);
    for (uint32_t i = 0; i < prefills; i++) {
        snprintf(name, sizeof name, "p%u", (unsigned)i);
        node_add(p, r, name, PD_ROLE_PREFILL | (both ? PD_ROLE_DECODE : 0), min_tokens, small);
    }
    for (uint32_t i = 0; i < decodes; i++) {
        snprintf(name, sizeof name, "d%u", (unsigned)i);
        node_add(p, r, name, PD_ROLE_DECODE | (both && i > 0 ? PD_ROLE_PREFILL : 0), min_tokens, small);
    }
}

static void network(struct fuzz_plan *p, struct fuzz_rng *r)
{
    static const uint64_t speeds[] = { 0, 1250000000, 12500000, 1000000, 200000 };
    struct pd_sim_link *k = &p->sim.link;
    k->latency_ns = fuzz_range(r, 20, fuzz_percent(r, 20) ? 10000 : 500) * PD_US;
    k->jitter_ns = fuzz_percent(r, 50) ? fuzz_range(r, 1, 2000) * PD_US : 0;
    k->bytes_per_s = speeds[fuzz_next(r) % 5];
    k->loss_ppm = fuzz_percent(r, 25) ? (uint32_t)fuzz_range(r, 100, 20000) : 0;
    p->sim.buffer_bytes = fuzz_percent(r, 30) ? (uint32_t)fuzz_range(r, 4096, 32768) : 0;
    p->sim.segment_bytes = fuzz_percent(r, 30) ? (uint32_t)fuzz_range(r, 256, 16384) : 0;
    p->sim.whole_io = fuzz_percent(r, 50);
}

static void load(struct fuzz_plan *p, struct fuzz_rng *r, pd_time length, uint32_t n_cases)
{
    uint32_t aborts = fuzz_percent(r, 50) ? (uint32_t)fuzz_range(r, 5, 60) : 0;
    uint32_t pauses = fuzz_percent(r, 25) ? (uint32_t)fuzz_range(r, 5, 60) : 0;
    bool bursts = fuzz_percent(r, 50), fresh = fuzz_percent(r, 50);
    uint32_t same = fuzz_percent(r, 30) ? (uint32_t)fuzz_range(r, 1, 4) : n_cases;
    uint32_t first = (uint32_t)(fuzz_next(r) % n_cases);
    p->n_reqs = (uint32_t)fuzz_range(r, 2, fuzz_percent(r, 35) ? FUZZ_REQS : 12);
    pd_time at = 0;
    for (uint32_t i = 0; i < p->n_reqs; i++) {
        struct fuzz_req *q = &p->reqs[i];
        if (!bursts || i % 6 == 0)
            at = fuzz_next(r) % length;
        q->at = at + (bursts ? fuzz_range(r, 0, 3000) * PD_US : 0);
        q->which = (first + (uint32_t)(fuzz_next(r) % same)) % n_cases;
        q->fresh = fresh;
        q->pause = fuzz_percent(r, pauses) ? fuzz_range(r, 1, 3000) * PD_MS : 0;
        if (fuzz_percent(r, aborts))
            q->abort_after = fuzz_range(r, 1, fuzz_percent(r, 50) ? 20000 : 1000000) * PD_US;
    }
}

/* A node that a fault may hit: any, or with only_prefill one that does nothing
 * but prefill. */
static uint32_t node_pick(const struct fuzz_plan *p, struct fuzz_rng *r)
{
    for (;;) {
        uint32_t i = (uint32_t)(fuzz_next(r) % p->n_nodes);
        if (p->only_one)
            return p->n_nodes - 1;
        if (p->only_prefill && p->nodes[i].roles != PD_ROLE_PREFILL)
            continue;
        /* the router less often than the others */
        if ((p->nodes[i].roles & PD_ROLE_ROUTER) != 0 && !fuzz_percent(r, 40))
            continue;
        return i;
    }
}

static void fault_make(struct fuzz_plan *p, struct fuzz_rng *r, uint32_t kinds, pd_time length)
{
    struct fuzz_fault *f = &p->faults[p->n_faults];
    do {
        f->kind = (uint32_t)fuzz_range(r, 1, FUZZ_KINDS - 1);
    } while ((kinds & (1u << f->kind)) == 0 || (f->kind == FUZZ_MEMORY && (p->only_prefill || p->only_one)));
    /* Most faults hit while requests run: shortly after one of them began. */
    f->at = fuzz_percent(r, 75) ? p->reqs[fuzz_next(r) % p->n_reqs].at +
                                      fuzz_range(r, 0, fuzz_percent(r, 60) ? 30000 : 300000) * PD_US
                                : fuzz_next(r) % length;
    f->len = fuzz_percent(r, 50) ? fuzz_range(r, 1, 2000) * PD_MS : fuzz_range(r, 1, 12) * PD_SEC;
    if (fuzz_percent(r, 15))
        f->len = PD_TIME_NEVER; /* until all is healed */
    f->a = node_pick(p, r);
    f->b = (uint32_t)(fuzz_next(r) % (p->n_nodes + 1));
    if (f->b == p->n_nodes)
        f->b = (p->nodes[f->a].roles & PD_ROLE_ROUTER) != 0 ? FUZZ_CLIENTS : FUZZ_ALL;
    if (f->b == f->a)
        f->b = FUZZ_ALL;
    if (f->b == FUZZ_ALL && (p->nodes[f->a].roles & PD_ROLE_ROUTER) != 0)
        f->b = 1;
    if (f->b == FUZZ_CLIENTS && (f->kind == FUZZ_FLIP || f->kind == FUZZ_HALF_OPEN || f->kind == FUZZ_SLOW))
        f->b = 1; /* HTTP has no checksum of its own */
    f->n = (uint32_t)fuzz_range(r, 1, f->kind == FUZZ_MEMORY ? fuzz_percent(r, 50) ? 100 : 3000 : 20);
    p->n_faults++;
}

void fuzz_plan_make(struct fuzz_plan *p, uint64_t seed, const struct fuzz_cases *cases)
{
    struct fuzz_rng r = { seed };
    uint32_t longest = 0, kinds = 0, n;
    memset(p, 0, sizeof *p);
    p->seed = seed;
    for (uint32_t i = 0; i < cases->n; i++)
        longest = cases->list[i].tokens > longest ? cases->list[i].tokens : longest;
    p->only_prefill = fuzz_percent(&r, 35);
    p->only_one = !p->only_prefill && fuzz_percent(&r, 35);
    p->is_slow = fuzz_percent(&r, 50);
    p->is_mixed = fuzz_percent(&r, 25) && !p->only_one; /* answers go on with equal layouts only */
    topology(p, &r, longest + 32);
    network(p, &r);
    pd_time length = fuzz_range(&r, 200, fuzz_percent(&r, 30) ? 15000 : 2000) * PD_MS;
    load(p, &r, length, cases->n);
    p->deadline = p->only_prefill || p->only_one || fuzz_percent(&r, 50) ? 300 * PD_SEC : fuzz_range(&r, 8, 30) * PD_SEC;
    if (!p->only_prefill && !p->only_one && !p->is_slow && p->sim.link.bytes_per_s != 200000 && fuzz_percent(&r, 40))
        p->deadline = fuzz_range(&r, 1500, 5000) * PD_MS;
    p->inflight_k = fuzz_percent(&r, 70) ? 32768 : 64;
    p->no_checksum = fuzz_percent(&r, 50);
    p->lease = fuzz_range(&r, 500, 5000) * PD_MS;
    p->prefill_timeout = fuzz_range(&r, 1000, 30000) * PD_MS;
    p->heartbeat = fuzz_percent(&r, 50) ? 0 : fuzz_range(&r, 100, 500) * PD_MS;
    p->threshold = fuzz_percent(&r, 70) ? 1 : (uint32_t)fuzz_range(&r, 1, 100);
    while ((kinds & ~(1u << FUZZ_MEMORY)) == 0)
        kinds = (uint32_t)fuzz_next(&r) & ((1u << FUZZ_KINDS) - 2);
    n = fuzz_percent(&r, 12) ? 0 : (uint32_t)fuzz_range(&r, 1, fuzz_percent(&r, 30) ? FUZZ_FAULTS : 6);
    if (p->only_one && n > 2)
        n = 2;
    for (uint32_t i = 0; i < n; i++)
        fault_make(p, &r, kinds, length);
    p->heal_at = length + fuzz_range(&r, 0, 10) * PD_SEC;
}

static const char *end_name(const struct fuzz_plan *p, uint32_t i)
{
    return i == FUZZ_ALL ? "all" : i == FUZZ_CLIENTS ? "clients" : p->nodes[i].host;
}

void fuzz_plan_print(const struct fuzz_plan *p, const struct fuzz_cases *cases, FILE *to)
{
    const struct pd_sim_link *k = &p->sim.link;
    fprintf(to, "seed %llu: deadline %.1f s, lease %.1f s, prefill timeout %.1f s, threshold %u%s\n",
            (unsigned long long)p->seed, (double)p->deadline / 1e9, (double)p->lease / 1e9,
            (double)p->prefill_timeout / 1e9, (unsigned)p->threshold,
            p->only_prefill ? ", only prefill nodes fail"
            : p->only_one ? ", one node fails" : "");
    fprintf(to, "  network: %.2f ms, jitter %.2f ms, %llu B/s, loss %u ppm\n", (double)k->latency_ns / 1e6,
            (double)k->jitter_ns / 1e6, (unsigned long long)k->bytes_per_s, (unsigned)k->loss_ppm);
    for (uint32_t i = 0; i < p->n_nodes; i++) {
        const struct fuzz_node *n = &p->nodes[i];
        fprintf(to, "  node %s:%s%s%s %u blocks of %u, steps of %u, %u running, queue %u, %u sequences, "
                "%u tokens/s, %.1f ms/token%s%s%s\n",
                n->host, n->roles & PD_ROLE_ROUTER ? " router" : "", n->roles & PD_ROLE_PREFILL ? " prefill" : "",
                n->roles & PD_ROLE_DECODE ? " decode" : "", (unsigned)n->blocks,
                (unsigned)n->block_tokens, (unsigned)n->step_tokens, (unsigned)n->max_running,
                (unsigned)n->queue, (unsigned)n->sequences, (unsigned)n->prefill_tps, n->ms10_per_token / 10.0,
                n->prefix_cache ? "" : ", no prefix cache", n->n_minus_1 ? ", n-1" : "",
                n->keeps_uuid ? ", keeps its uuid" : "");
    }
    for (uint32_t i = 0; i < p->n_reqs; i++) {
        const struct fuzz_req *q = &p->reqs[i];
        if (q->is_off)
            continue;
        fprintf(to, "  %9.3f ms request %u: case %u%s", (double)q->at / 1e6, (unsigned)i, (unsigned)q->which,
                q->fresh ? ", own connection" : "");
        if (q->abort_after != 0)
            fprintf(to, ", aborted after %.3f ms", (double)q->abort_after / 1e6);
        if (q->pause != 0)
            fprintf(to, ", pauses for %.3f ms", (double)q->pause / 1e6);
        fprintf(to, ": %.110s\n", cases->list[q->which].body);
    }
    for (uint32_t i = 0; i < p->n_faults; i++) {
        const struct fuzz_fault *f = &p->faults[i];
        if (f->is_off)
            continue;
        fprintf(to, "  %9.3f ms fault %u: %s %s", (double)f->at / 1e6, (unsigned)i, fuzz_kind_name(f->kind),
                end_name(p, f->a));
        if (f->kind == FUZZ_MEMORY)
            fprintf(to, ": allocation %u", (unsigned)f->n);
        else if (f->kind >= FUZZ_CUT)
            fprintf(to, " - %s", end_name(p, f->b));
        if (f->len == PD_TIME_NEVER)
            fprintf(to, " until the end\n");
        else
            fprintf(to, " for %.3f ms\n", (double)f->len / 1e6);
    }
    fprintf(to, "  %9.3f ms healed\n", (double)p->heal_at / 1e6);
}
