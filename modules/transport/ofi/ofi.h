/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PD_OFI_H
#define PD_OFI_H

#include "conf.h"

struct pd_ofi_conf {
    struct pd_xp_fabric_conf f;
    const char *provider;
    const char *domain;
    bool poll;
};

/* Gives a fabric; else err says why not. */
pd_status pd_ofi_fabric(const struct pd_instance_ctx *ctx, const struct pd_ofi_conf *conf,
                        struct pd_xp_fabric **out, struct pd_err *err);

#endif
