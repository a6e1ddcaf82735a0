/* SPDX-License-Identifier: Apache-2.0 */
/* Between the files of the fabric over libfabric. */
#ifndef PD_OFI_FABRIC_IN_H
#define PD_OFI_FABRIC_IN_H

#include <sys/queue.h>

#include <rdma/fabric.h>
#include <rdma/fi_cm.h>
#include <rdma/fi_domain.h>
#include <rdma/fi_endpoint.h>
#include <rdma/fi_eq.h>
#include <rdma/fi_rma.h>

#include "fabric.h"
#include "ofi.h"

#define PD_OFI_NAME 512u          /* bytes of an endpoint's name, at most */

struct pd_ofi_get;
TAILQ_HEAD(pd_ofi_gets, pd_ofi_get);

/* An endpoint and what it cannot be without. */
struct pd_ofi_end {
    struct ofi *o;
    struct pd_xp_way *way;        /* NULL: the one that serves */
    struct fid_ep *ep;
    struct fid_cq *cq;
    struct fid_av *av;
    struct pd_watch *watch;       /* NULL: the provider has no descriptor */
};

struct ofi {
    struct pd_xp_fabric base;
    struct pd_loop *loop;
    struct pd_log *log;
    struct fi_info *info;
    struct fid_fabric *fabric;
    struct fid_domain *domain;
    struct pd_ofi_end serve;
    uint8_t name[PD_OFI_NAME];
    size_t name_len;
    struct pd_task task;
    struct pd_timer clock;
    TAILQ_HEAD(, pd_xp_way) ways;
    bool polls;                   /* the option */
    bool wants_room;              /* a get was answered PD_EAGAIN */
    struct pd_counter *reads, *again, *broken;
};

struct pd_xp_region {
    struct fid_mr *mr;
    uint8_t *base;
};

struct pd_xp_way {
    struct ofi *o;
    TAILQ_ENTRY(pd_xp_way) link;
    struct pd_xp_far *far;
    struct pd_ofi_end end;
    fi_addr_t to;
    struct pd_ofi_gets flying, spare;
    bool is_closed, is_up;
};

struct pd_xp_key {
    uint64_t key, base;
};

/* choose.c */
/* The provider to use, by the options; else err says why there is none. */
struct fi_info *pd_ofi_choose(const struct pd_ofi_conf *conf, struct pd_err *err);

/* fabric.c */
/* Opens all of an end but the watch.  0, or an error of libfabric. */
int pd_ofi_end_open(struct ofi *o, struct pd_ofi_end *end);
void pd_ofi_end_close(struct pd_ofi_end *end);
pd_status pd_ofi_status(int64_t rc);
/* Another turn, soon. */
void pd_ofi_again(struct ofi *o);
/* Whether libfabric may be asked for what takes descriptors: its providers of
 * software end the process where they get none. */
#define PD_OFI_DESCRIPTORS 48
bool pd_ofi_has_descriptors(void);

/* way.c */
pd_status pd_ofi_way_open(struct pd_xp_fabric *f, const void *address, size_t len,
                          const struct pd_addr *host, struct pd_xp_far *far,
                          struct pd_xp_way **out);
void pd_ofi_way_close(struct pd_xp_way *way);
pd_status pd_ofi_key_open(struct pd_xp_way *way, const void *key, size_t len, uint64_t bytes,
                          struct pd_xp_key **out);
void pd_ofi_key_close(struct pd_xp_key *key);
pd_status pd_ofi_get(struct pd_xp_way *way, struct pd_xp_key *key, uint64_t offset, void *to,
                     struct pd_xp_region *r, size_t len, void *get, bool *done);
/* A get ended; context is what came out of the queue. */
void pd_ofi_got(struct pd_xp_way *way, void *context, pd_status status);
/* Says the last word about ways that are closed. */
void pd_ofi_ways_tell(struct ofi *o);

#endif
