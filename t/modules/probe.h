/* SPDX-License-Identifier: Apache-2.0 */
/* Stops a process at a named point until a test lets it go on.  For modules of
 * tests only; none of them is installed.
 *
 * A test writes the name of a point to DIR/arm and listens on the socket
 * DIR/mark.  The first process that comes to the point removes the file, says
 * the name and what it knows on the socket and waits, whole, for an answer or
 * for the end of the connection.  Without the file nothing happens. */
#ifndef PD_T_PROBE_H
#define PD_T_PROBE_H

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

/* The armed point in `out`, with its end cut off; false: none. */
static inline bool probe_armed(const char *dir, char *path, size_t path_size, char *out, size_t size)
{
    snprintf(path, path_size, "%s/arm", dir);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return false;
    ssize_t n = read(fd, out, size - 1);
    close(fd);
    if (n <= 0)
        return false;
    out[n] = '\0';
    out[strcspn(out, "\n")] = '\0';
    return true;
}

/* The process is at `point`. */
static inline void probe_wait(const char *dir, const char *path, const char *point, const char *more)
{
    struct sockaddr_un to = { .sun_family = AF_UNIX };
    char text[512], answer;
    int fd;
    if (unlink(path) != 0)
        return; /* another process was first */
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return;
    snprintf(to.sun_path, sizeof to.sun_path, "%s/mark", dir);
    int n = snprintf(text, sizeof text, "%ld %s %s\n", (long)getpid(), point, more);
    if (connect(fd, (struct sockaddr *)&to, sizeof to) == 0 && write(fd, text, (size_t)n) == n)
        (void)!read(fd, &answer, 1);
    close(fd);
}

#endif
