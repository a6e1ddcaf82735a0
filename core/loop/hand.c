/* SPDX-License-Identifier: Apache-2.0 */
/* Sockets that keep the borders of messages carry both texts and descriptors. */
#include "loop/hand.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/status.h"
#include "os/fd.h"

union room {
    char bytes[CMSG_SPACE(sizeof(int))];
    struct cmsghdr align;
};

pd_status pd_hand_pair(int ends[2])
{
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) != 0)
        return pd_status_from_errno(errno);
    pd_status status = pd_fd_set_nonblock(ends[0], true);
    if (status == PD_OK)
        status = pd_fd_set_cloexec(ends[1], false);
    if (status != PD_OK) {
        close(ends[0]);
        close(ends[1]);
    }
    return status;
}

pd_status pd_hand_send(int end, const char *text, int fd)
{
    struct iovec iov = { (void *)(uintptr_t)text, strlen(text) };
    struct msghdr m = { .msg_iov = &iov, .msg_iovlen = 1 };
    union room room;
    ssize_t n;
    if (iov.iov_len == 0 || iov.iov_len > PD_HAND_MAX)
        return PD_ELIMIT;
    if (fd >= 0) {
        memset(&room, 0, sizeof room);
        m.msg_control = room.bytes;
        m.msg_controllen = sizeof room.bytes;
        struct cmsghdr *c = CMSG_FIRSTHDR(&m);
        c->cmsg_level = SOL_SOCKET;
        c->cmsg_type = SCM_RIGHTS;
        c->cmsg_len = CMSG_LEN(sizeof fd);
        memcpy(CMSG_DATA(c), &fd, sizeof fd);
    }
    do
        n = sendmsg(end, &m, MSG_NOSIGNAL);
    while (n < 0 && errno == EINTR);
    return n >= 0 ? PD_OK : errno == EPIPE || errno == ECONNRESET ? PD_EPEER : pd_status_from_errno(errno);
}

pd_status pd_hand_receive(int end, char text[PD_HAND_MAX + 1], int *fd)
{
    struct iovec iov = { text, PD_HAND_MAX };
    union room room;
    struct msghdr m = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = room.bytes,
                        .msg_controllen = sizeof room.bytes };
    ssize_t n;
    *fd = -1;
    do
        n = recvmsg(end, &m, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
    while (n < 0 && errno == EINTR);
    if (n < 0)
        return errno == EAGAIN ? PD_EAGAIN : errno == ECONNRESET ? PD_EEOF : pd_status_from_errno(errno);
    for (struct cmsghdr *c = CMSG_FIRSTHDR(&m); c != NULL; c = CMSG_NXTHDR(&m, c)) {
        if (c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_RIGHTS)
            memcpy(fd, CMSG_DATA(c), sizeof *fd);
    }
    text[n] = '\0';
    return n > 0 ? PD_OK : PD_EEOF;
}
