/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PD_SHM_H
#define PD_SHM_H

#include "link.h"

#define PD_SHM_FOLDER_MAX 60u     /* bytes of its name; that of a socket in it takes 45 more */
#define PD_SHM_NAMES 16384u       /* in a folder that are read when it is swept */
#define PD_SHM_SOCKETS 256u       /* of them that are tried */

struct pd_shm_conf {
    const char *directory;
    uint32_t queue;
    uint32_t windows;
    uint32_t connections;
    uint64_t timeout;
};

/* A path in dir that no life of any node had before. */
void pd_shm_name(struct pd_loop *loop, const char *dir, struct pd_addr *out);

/* Removes sockets from dir that processes of this user made with pd_shm_name and left
 * when they were killed. */
void pd_shm_sweep(struct pd_loop *loop, struct pd_log *log, const char *dir);

#endif
