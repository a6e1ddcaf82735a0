/* SPDX-License-Identifier: Apache-2.0 */
/* What rows cannot say about a configuration as a whole. */
#ifndef PD_NODE_CHECK_H
#define PD_NODE_CHECK_H

#include <pdplane/loop.h>

#include "conf/conf.h"
#include "conf/report.h"
#include "mod/mod.h"

/* Looks for what would let a node fail at its start: roles without an engine,
 * addresses and URLs that are none, certificates and keys that cannot be used,
 * plugins of the scheduler that do not exist.  Files are read and scheduler
 * plugins made for a moment; nothing listens, connects or computes.  conf is
 * filled.  PD_OK (there may be warnings), or PD_EINVAL and the report has all
 * that was found.  Loop thread; loop need not run. */
pd_status pd_node_conf_check(struct pd_conf *conf, struct pd_mods *mods, struct pd_loop *loop,
                             struct pd_conf_report *report);

#endif
