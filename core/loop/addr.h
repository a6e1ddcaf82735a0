/* SPDX-License-Identifier: Apache-2.0 */
/* Addresses as text and as the system's structures, without a loop. */
#ifndef PD_LOOP_ADDR_H
#define PD_LOOP_ADDR_H

#include <pdplane/loop.h>

struct sockaddr;
struct sockaddr_storage;

/* Reads "127.0.0.1:80", "[::1]:80", "[fe80::1%2]:80" or "unix:/path".  PD_OK
 * or PD_EINVAL.  Any thread. */
pd_status pd_loop_addr_parse(struct pd_str text, struct pd_addr *out);

/* Reads a bare numeric address ("127.0.0.1", "::1") without a port. */
pd_status pd_loop_addr_parse_ip(const char *text, uint16_t port, struct pd_addr *out);

/* Writes it with a final zero byte, cut to size; returns the length. */
size_t pd_loop_addr_format(const struct pd_addr *addr, char *buf, size_t size);

/* To and from the system's structures.  to_system returns the length, 0: not
 * an address.  from_system returns PD_OK or PD_EINVAL (another family). */
size_t pd_loop_addr_to_system(const struct pd_addr *addr, struct sockaddr_storage *out);
pd_status pd_loop_addr_from_system(const struct sockaddr *sa, size_t len, struct pd_addr *out);

#endif
