/* SPDX-License-Identifier: Apache-2.0 */
/* A router's configuration made ready for the simulator: everything about its
 * choices stays as it is; addresses, TLS, keys, files and sources of the outer
 * world are replaced or left out.  Main thread. */
#ifndef PD_WHATIF_SETUP_H
#define PD_WHATIF_SETUP_H

#include "conf/conf.h"
#include "mod/mod.h"
#include "node/sections.h"

#define PD_WHATIF_ENDPOINTS_MAX 4096u
#define PD_WHATIF_ROUTER_PORT 8000u
#define PD_WHATIF_SERVER_PORT 8000u
/* Servers have so many hosts; further ones share them, on the next ports. */
#define PD_WHATIF_SERVER_HOSTS 250u

struct pd_whatif_setup {
    struct pd_mods *mods;
    struct pd_conf *conf;
    const struct pd_node_conf *root;
};

/* Reads a file and applies changes (pd_conf_change) in order; what is left out and
 * matters is a warning.  PD_OK, or the report says why not.  Gives:
 * pd_whatif_setup_close, in both cases. */
pd_status pd_whatif_setup_open(const char *file, const struct pd_conf_source *src, const char *const *changes,
                               size_t n_changes, struct pd_conf_report *report, struct pd_whatif_setup *out);
void pd_whatif_setup_close(struct pd_whatif_setup *s);

/* The numeric address of the host of the i-th endpoint, and its port. */
void pd_whatif_setup_server(uint32_t i, char *ip, size_t size, uint16_t *port);

#endif
