/* SPDX-License-Identifier: Apache-2.0 */
/* Every state and event of a lease, and its clock. */
#include "unit.h"

#include "kv/lease.h"
#include "loop/sim.h"

/* next state, or -1 and the status; written down apart from the table in lease.c. */
static const struct { int state, event, next; pd_status status; } rows[] = {
    { PD_LEASE_ACTIVE, PD_LEASE_RENEW, -1, PD_OK },
    { PD_LEASE_ACTIVE, PD_LEASE_SETTLE, PD_LEASE_SETTLING, PD_OK },
    { PD_LEASE_ACTIVE, PD_LEASE_EXPIRE, PD_LEASE_EXPIRED, PD_OK },
    { PD_LEASE_ACTIVE, PD_LEASE_ABORT, PD_LEASE_FENCING, PD_OK },
    { PD_LEASE_ACTIVE, PD_LEASE_FENCE, PD_LEASE_FENCED, PD_OK },
    { PD_LEASE_ACTIVE, PD_LEASE_RELEASE, -1, PD_EBUSY },
    { PD_LEASE_SETTLING, PD_LEASE_RENEW, -1, PD_OK },
    { PD_LEASE_SETTLING, PD_LEASE_SETTLE, -1, PD_OK },
    { PD_LEASE_SETTLING, PD_LEASE_EXPIRE, PD_LEASE_EXPIRED, PD_OK },
    { PD_LEASE_SETTLING, PD_LEASE_ABORT, PD_LEASE_FENCING, PD_OK },
    { PD_LEASE_SETTLING, PD_LEASE_FENCE, PD_LEASE_VERIFYING, PD_OK },
    { PD_LEASE_SETTLING, PD_LEASE_RELEASE, -1, PD_EBUSY },
    { PD_LEASE_VERIFYING, PD_LEASE_RENEW, -1, PD_OK },
    { PD_LEASE_VERIFYING, PD_LEASE_SETTLE, -1, PD_OK },
    { PD_LEASE_VERIFYING, PD_LEASE_EXPIRE, -1, PD_OK },
    { PD_LEASE_VERIFYING, PD_LEASE_ABORT, PD_LEASE_FENCED, PD_OK },
    { PD_LEASE_VERIFYING, PD_LEASE_FENCE, -1, PD_OK },
    { PD_LEASE_VERIFYING, PD_LEASE_RELEASE, PD_LEASE_RELEASED, PD_OK },
    { PD_LEASE_EXPIRED, PD_LEASE_RENEW, -1, PD_ESTALE },
    { PD_LEASE_EXPIRED, PD_LEASE_SETTLE, -1, PD_ESTALE },
    { PD_LEASE_EXPIRED, PD_LEASE_EXPIRE, -1, PD_OK },
    { PD_LEASE_EXPIRED, PD_LEASE_ABORT, -1, PD_OK },
    { PD_LEASE_EXPIRED, PD_LEASE_FENCE, PD_LEASE_FENCED, PD_OK },
    { PD_LEASE_EXPIRED, PD_LEASE_RELEASE, -1, PD_EBUSY },
    { PD_LEASE_FENCING, PD_LEASE_RENEW, -1, PD_ESTALE },
    { PD_LEASE_FENCING, PD_LEASE_SETTLE, -1, PD_ESTALE },
    { PD_LEASE_FENCING, PD_LEASE_EXPIRE, -1, PD_OK },
    { PD_LEASE_FENCING, PD_LEASE_ABORT, -1, PD_OK },
    { PD_LEASE_FENCING, PD_LEASE_FENCE, PD_LEASE_FENCED, PD_OK },
    { PD_LEASE_FENCING, PD_LEASE_RELEASE, -1, PD_EBUSY },
    { PD_LEASE_FENCED, PD_LEASE_RENEW, -1, PD_ESTALE },
    { PD_LEASE_FENCED, PD_LEASE_SETTLE, -1, PD_ESTALE },
    { PD_LEASE_FENCED, PD_LEASE_EXPIRE, -1, PD_OK },
    { PD_LEASE_FENCED, PD_LEASE_ABORT, -1, PD_OK },
    { PD_LEASE_FENCED, PD_LEASE_FENCE, -1, PD_OK },
    { PD_LEASE_FENCED, PD_LEASE_RELEASE, PD_LEASE_RELEASED, PD_OK },
    { PD_LEASE_RELEASED, PD_LEASE_RENEW, -1, PD_ESTALE },
    { PD_LEASE_RELEASED, PD_LEASE_SETTLE, -1, PD_ESTALE },
    { PD_LEASE_RELEASED, PD_LEASE_EXPIRE, -1, PD_OK },
    { PD_LEASE_RELEASED, PD_LEASE_ABORT, -1, PD_ESTALE },
    { PD_LEASE_RELEASED, PD_LEASE_FENCE, -1, PD_OK },
    { PD_LEASE_RELEASED, PD_LEASE_RELEASE, -1, PD_ESTALE },
};

static void test_table(void **state)
{
    bool seen[PD_LEASE_STATES][PD_LEASE_EVENTS] = { { false } };
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        pd_status st;
        int next = pd_lease_next((enum pd_lease_state)rows[i].state,
                                 (enum pd_lease_event)rows[i].event, &st);
        assert_int_equal(next, rows[i].next);
        assert_int_equal(st, rows[i].status);
        /* No release without a fence. */
        if (next == PD_LEASE_RELEASED)
            assert_true(rows[i].state == PD_LEASE_VERIFYING || rows[i].state == PD_LEASE_FENCED);
        seen[rows[i].state][rows[i].event] = true;
    }
    for (int s = 0; s < PD_LEASE_STATES; s++)
        for (int e = 0; e < PD_LEASE_EVENTS; e++)
            assert_true(seen[s][e]);
}

static void on_expired(struct pd_lease *lease, void *arg)
{
    assert_int_equal(lease->state, PD_LEASE_EXPIRED);
    ++*(int *)arg;
}

static void test_clock(void **state)
{
    struct pd_sim *sim;
    struct pd_loop *loop;
    struct pd_leases t;
    struct pd_lease *a, *b, *c;
    struct pd_node_id holder = { .epoch = 1 };
    struct pd_kv_lease_row row[4];
    int expired = 0;
    (void)state;
    assert_int_equal(pd_sim_create(1, NULL, &sim), PD_OK);
    assert_int_equal(pd_sim_loop_create(sim, "owner", NULL, &loop), PD_OK);
    pd_leases_init(&t, loop, NULL, 2);
    assert_int_equal(pd_lease_grant(&t, &holder, "p", 40 * PD_MS, 3, on_expired, &expired, &a),
                     PD_OK);
    assert_int_equal(pd_lease_grant(&t, &holder, "p", 40 * PD_MS, 3, on_expired, &expired, &b),
                     PD_OK);
    assert_int_equal(pd_lease_grant(&t, &holder, "p", 40 * PD_MS, 3, on_expired, &expired, &c),
                     PD_ELIMIT);
    assert_true(a->xid != b->xid && a->generation < b->generation);
    for (int i = 0; i < 4; i++) {
        pd_sim_run_until(sim, pd_sim_now(sim) + 20 * PD_MS);
        assert_int_equal(pd_lease_step(a, PD_LEASE_RENEW, 0), PD_OK);
    }
    assert_int_equal(expired, 1);
    assert_int_equal(a->state, PD_LEASE_ACTIVE);
    assert_int_equal(b->state, PD_LEASE_EXPIRED);
    assert_int_equal(pd_lease_step(b, PD_LEASE_RELEASE, PD_KV_TIMEOUT), PD_EBUSY);
    assert_int_equal(pd_lease_step(b, PD_LEASE_RENEW, 0), PD_ESTALE);
    assert_int_equal(pd_lease_step(b, PD_LEASE_FENCE, 0), PD_OK);
    uint64_t xid = b->xid;
    assert_int_equal(pd_lease_verdict(&t, xid), 0);
    assert_int_equal(pd_lease_step(b, PD_LEASE_RELEASE, PD_KV_TIMEOUT), PD_OK);
    assert_int_equal(pd_lease_verdict(&t, xid), PD_KV_TIMEOUT);
    assert_int_equal(pd_leases_list(&t, row, 4), 2);
    assert_string_equal(row[0].state, "active");
    assert_int_equal(row[0].renewals, 4);
    assert_string_equal(row[1].state, "released");
    assert_int_equal(row[1].verdict, PD_KV_TIMEOUT);
    pd_sim_run_until(sim, pd_sim_now(sim) + 60 * PD_MS);
    assert_int_equal(pd_lease_verdict(&t, xid), PD_KV_TIMEOUT);
    pd_sim_run_until(sim, pd_sim_now(sim) + 60 * PD_MS);
    assert_int_equal(pd_lease_verdict(&t, xid), 0);     /* the tombstone is gone */
    assert_int_equal(expired, 2);
    assert_int_equal(pd_lease_step(a, PD_LEASE_FENCE, 0), PD_OK);
    assert_int_equal(pd_lease_step(a, PD_LEASE_RELEASE, PD_KV_ABORTED), PD_OK);
    /* What was said to be done lands soon or never, however long the lease. */
    assert_int_equal(pd_lease_grant(&t, &holder, "p", 60 * PD_SEC, 3, on_expired, &expired, &a),
                     PD_OK);
    assert_int_equal(pd_lease_step(a, PD_LEASE_SETTLE, 0), PD_OK);
    pd_sim_run_until(sim, pd_sim_now(sim) + PD_LEASE_LAND - PD_MS);
    assert_int_equal(a->state, PD_LEASE_SETTLING);
    pd_sim_run_until(sim, pd_sim_now(sim) + 2 * PD_MS);
    assert_int_equal(a->state, PD_LEASE_EXPIRED);
    assert_int_equal(expired, 3);
    assert_int_equal(pd_lease_step(a, PD_LEASE_FENCE, 0), PD_OK);
    assert_int_equal(pd_lease_step(a, PD_LEASE_RELEASE, PD_KV_TIMEOUT), PD_OK);
    pd_leases_fini(&t);
    assert_int_equal(pd_loop_destroy(loop, NULL, 0), PD_OK);
    assert_int_equal(pd_sim_destroy(sim), PD_OK);
}

static const struct CMUnitTest tests[] = { cmocka_unit_test(test_table),
                                           cmocka_unit_test(test_clock) };
PD_UNIT_MAIN(tests)
