/* SPDX-License-Identifier: Apache-2.0 */
/* File descriptors.  Any thread. */
#ifndef PD_OS_FD_H
#define PD_OS_FD_H

#include <pdplane/types.h>

pd_status pd_fd_set_cloexec(int fd, bool on);
pd_status pd_fd_set_nonblock(int fd, bool on);
/* Open descriptors of this process; -1 when the system does not tell. */
int pd_fd_count(void);
/* Raises the soft limit of descriptors to the hard one; *out gets the result. */
pd_status pd_fd_raise_limit(uint64_t *out);
/* The soft limit of descriptors; UINT64_MAX: none. */
uint64_t pd_fd_limit(void);
/* All n bytes, over short writes and interruptions; PD_EIO and so on. */
pd_status pd_fd_write_all(int fd, const void *p, size_t n);
/* Closes *fd when it is not negative and sets it to -1. */
void pd_fd_close(int *fd);

#endif
