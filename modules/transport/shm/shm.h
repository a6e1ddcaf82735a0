/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PD_SHM_H
#define PD_SHM_H

#include "link.h"

struct pd_shm_conf {
    const char *directory;
    uint32_t queue;
    uint32_t windows;
    uint32_t connections;
    uint64_t timeout;
};

#endif
