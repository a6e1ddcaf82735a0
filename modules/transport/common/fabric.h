/* SPDX-License-Identifier: Apache-2.0 */
/* What a library for fabrics (RDMA and the like) is to the engine: it registers
 * memory so that others may read it, and reads registered memory of others.
 * Nothing here lets anybody write into another node.
 *
 *   memory of the poster              owner of the window
 *   region_add -> region_key  ------> key_open
 *   address                   ------> way_open
 *                                     get, get, ...   -> pd_xp_far_got each
 *                                     way_close       -> pd_xp_far_closed
 *
 * Everything happens on the loop's thread.  The engine is called back from the
 * fabric's own turns only, never from inside an op. */
#ifndef PD_XP_FABRIC_H
#define PD_XP_FABRIC_H

#include <pdplane/loop.h>
#include <pdplane/transport.h>

#define PD_XP_FABRIC_BYTES 4096u  /* of an address or a key, at most */

struct pd_xp_fabric;
struct pd_xp_far;                 /* the engine's side of a way */
struct pd_xp_region;              /* registered memory */
struct pd_xp_way;                 /* to the memory of one other node */
struct pd_xp_key;                 /* to one region of it */

struct pd_xp_fabric_ops {
    /* No regions and no ways are left. */
    void (*destroy)(struct pd_xp_fabric *f);
    /* Where others reach the regions.  PD_ELIMIT when cap is too small. */
    pd_status (*address)(struct pd_xp_fabric *f, void *buf, size_t cap, size_t *len);

    pd_status (*region_add)(struct pd_xp_fabric *f, void *base, uint64_t bytes,
                            struct pd_xp_region **out, struct pd_err *err);
    void (*region_remove)(struct pd_xp_fabric *f, struct pd_xp_region *r);
    pd_status (*region_key)(struct pd_xp_fabric *f, struct pd_xp_region *r, void *buf, size_t cap,
                            size_t *len);

    /* The address and the key are the peer's words; so is the number of bytes.
     * host is where its control connection comes from. */
    pd_status (*way_open)(struct pd_xp_fabric *f, const void *address, size_t len,
                          const struct pd_addr *host, struct pd_xp_far *far,
                          struct pd_xp_way **out);
    /* Ends every get; pd_xp_far_closed comes after the last pd_xp_far_got. */
    void (*way_close)(struct pd_xp_way *way);
    pd_status (*key_open)(struct pd_xp_way *way, const void *key, size_t len, uint64_t bytes,
                          struct pd_xp_key **out);
    /* No get uses it.  Allowed when the way is closed, too. */
    void (*key_close)(struct pd_xp_key *key);

    /* Reads [offset, offset + len), which is inside the region, to `to` in region
     * r.  PD_OK: pd_xp_far_got(get) follows unless *done says that all is there.
     * PD_EAGAIN: pd_xp_far_room follows.  Others: nothing happened. */
    pd_status (*get)(struct pd_xp_way *way, struct pd_xp_key *key, uint64_t offset, void *to,
                     struct pd_xp_region *r, size_t len, void *get, bool *done);
    /* Something is under way that the fabric may not know of: stay awake while
     * pd_xp_far_is_busy. */
    void (*poke)(struct pd_xp_fabric *f);
};

/* The head of a module's own struct. */
struct pd_xp_fabric {
    const struct pd_xp_fabric_ops *ops;
    struct pd_transport *tp;      /* set by the engine */
    size_t max_get;               /* bytes of a get; 0: any */
};

/* far.c */
void pd_xp_far_got(void *get, pd_status status);
void pd_xp_far_room(struct pd_transport *tp);
void pd_xp_far_broken(struct pd_xp_far *far, pd_status status);
void pd_xp_far_closed(struct pd_xp_far *far);
bool pd_xp_far_is_busy(const struct pd_transport *tp);

#endif
