/* SPDX-License-Identifier: Apache-2.0 */
/* Role kind: what a node is.  Roles are written with the second-tier tables
 * (net.h, peer.h, kv.h, sched.h, req.h, api.h), so a role module is bound to
 * the exact version of pdplane. */
#ifndef PDPLANE_ROLE_H
#define PDPLANE_ROLE_H

#include <pdplane/module.h>

#ifdef __cplusplus
extern "C" {
#endif

#define PD_ROLE_V1 1u

struct pd_role; /* an instance; the module's own */

struct pd_node_generation;     /* node.h */

struct pd_role_ops {
    struct pd_ops_head head;   /* PD_OPS(pd_role_ops, PD_ROLE_V1) */
    uint32_t role;             /* PD_ROLE_* of scheduler.h that other nodes see */
    uint32_t reserved;

    /* create: engines and transports of the node exist; start: all roles are
     * created, listeners are about to accept.  Loop thread. */
    pd_status (*create)(const struct pd_instance_ctx *ctx, const void *conf, struct pd_role **out,
                        struct pd_err *err);
    pd_status (*start)(struct pd_role *role, struct pd_err *err);
    /* Takes no new work; calls done(arg) when the last request has ended, at
     * once when there is none.  May be called once. */
    void (*drain)(struct pd_role *role, void (*done)(void *arg), void *arg);
    /* Ends what is left with an honest error and frees everything; closed(arg)
     * is the last call. */
    void (*destroy)(struct pd_role *role, void (*closed)(void *arg), void *arg);
    /* Goes on with other options: what begins from here on follows conf, which is
     * valid until the next adopt or destroy.  What began before may use the
     * options of then as long as it holds its generation (node.h).  Cannot fail:
     * what is wrong with options is the unit's check to say.  May be NULL: the
     * options of the role then cannot change while the node runs. */
    void (*adopt)(struct pd_role *role, const void *conf);
    /* Ends with an honest error all that holds this generation (node.h) and can be
     * ended: it was replaced so long ago that nothing of it may go on.  May be NULL:
     * then what holds it ends by itself. */
    void (*end_generation)(struct pd_role *role, const struct pd_node_generation *generation);
};

#ifdef __cplusplus
}
#endif
#endif
