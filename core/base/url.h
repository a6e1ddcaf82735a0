/* SPDX-License-Identifier: Apache-2.0 */
/* The URL of a server: scheme, host and port, no path.  Pure; any thread. */
#ifndef PD_BASE_URL_H
#define PD_BASE_URL_H

#include <pdplane/types.h>

#define PD_URL_HOST_MAX 255u

struct pd_url {
    bool is_tls;               /* https:// */
    bool is_v6;                /* host stood in brackets */
    uint16_t port;             /* never 0 */
    struct pd_str host;        /* borrowed from the text; without brackets */
};

/* "http://HOST[:PORT][/]" or https://.  PD_OK, PD_EINVAL. */
pd_status pd_url_parse(struct pd_str text, struct pd_url *out);
/* "HOST:PORT" or "[V6]:PORT"; the port is needed.  is_tls stays false.  PD_OK,
 * PD_EINVAL. */
pd_status pd_url_authority_parse(struct pd_str text, struct pd_url *out);

#endif
