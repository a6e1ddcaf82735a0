/* SPDX-License-Identifier: Apache-2.0 */
/* Loaded into a program by LD_PRELOAD: makes its n-th system call or allocation
 * fail, or its n-th read or write short.  Whoever tests writes into the first
 * bytes of the file PD_FAULT_DIR/PID, which is mapped here, or gives PD_FAULT_NOW; t/lib/PDPlane/Fault.pm
 * does.  Here are the start and the calls for sockets; inject_files.c has those for files
 * and processes, inject_memory.c allocations.
 *
 * Errors are those that Linux documents for the call and the kind of descriptor.
 * Two points are left out because libuv 1.44 ends the process there: epoll_ctl
 * in a turn of its loop, and reads and writes of what is no socket. */
#include "inject.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

static struct page off_page;
struct page *inject_page = &off_page;
__thread int inject_inside;

static __attribute__((constructor)) void begin(void)
{
    const char *dir = getenv("PD_FAULT_DIR");
    char path[4096];
    int fd;
    if (dir == NULL)
        return;
    snprintf(path, sizeof path, "%s/%d", dir, (int)getpid());
    fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0)
        return;
    if (ftruncate(fd, 4096) == 0) {
        void *p = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        if (p != MAP_FAILED)
            inject_page = p;
    }
    close(fd);
    /* MODE:N:VARIETY: from the start on. */
    const char *now = getenv("PD_FAULT_NOW");
    unsigned mode, variety;
    unsigned long long n;
    if (now != NULL && sscanf(now, "%u:%llu:%u", &mode, &n, &variety) == 3) {
        inject_page->at = n;
        inject_page->variety = variety;
        __atomic_store_n(&inject_page->mode, mode, __ATOMIC_RELEASE);
    }
}

void *inject_next(const char *name)
{
    void *f = dlsym(RTLD_NEXT, name);
    if (f == NULL)
        abort();
    return f;
}

int inject_admit(uint32_t mode)
{
    if (__atomic_load_n(&inject_page->mode, __ATOMIC_ACQUIRE) != mode)
        return 0;
    return __atomic_add_fetch(&inject_page->count, 1, __ATOMIC_RELAXED) == inject_page->at;
}

void inject_note(const char *what)
{
    size_t n = strlen(what);
    n = n < sizeof inject_page->what ? n : sizeof inject_page->what - 1;
    memcpy(inject_page->what, what, n);
    inject_page->what[n] = '\0';
    __atomic_store_n(&inject_page->fired, 1, __ATOMIC_RELEASE);
}

int inject_fails(uint32_t mode, const char *what, const int *errors, size_t n)
{
    if (!inject_admit(mode))
        return 0;
    inject_note(what);
    errno = errors[inject_page->variety % n];
    return 1;
}

const char *inject_object(void *address, char **base)
{
    Dl_info info;
    int was_inside = inject_inside;
    inject_inside = 1;
    int is_known = dladdr(address, &info) != 0 && info.dli_fname != NULL;
    inject_inside = was_inside;
    if (!is_known)
        return NULL;
    const char *slash = strrchr(info.dli_fname, '/');
    const char *name = slash != NULL ? slash + 1 : info.dli_fname;
    *base = info.dli_fbase;
    return strncmp(name, "lib", 3) == 0 || strncmp(name, "ld-", 3) == 0 ? NULL : name;
}

/* ---- a program's main, after which nothing fails: what counts branches or looks for leaks does not live
 * without its files and its memory ---- */

static int (*program_main)(int, char **, char **);

static int main_once(int argc, char **argv, char **env)
{
    int rc = program_main(argc, argv, env);
    inject_page->mode = OFF;
    return rc;
}

int __libc_start_main(int (*entry)(int, char **, char **), int argc, char **argv, void (*init)(void),
                      void (*fini)(void), void (*loader_fini)(void), void *stack);

SHOWN int __libc_start_main(int (*entry)(int, char **, char **), int argc, char **argv, void (*init)(void),
                            void (*fini)(void), void (*loader_fini)(void), void *stack)
{
    NEXT(__libc_start_main);
    program_main = entry;
    return real___libc_start_main(main_once, argc, argv, init, fini, loader_fini, stack);
}

/* ---- sockets, memory and threads ---- */

static int is_socket(int fd)
{
    int type;
    socklen_t n = sizeof type;
    static int (*real)(int, int, int, void *, socklen_t *);
    if (real == NULL)
        real = (int (*)(int, int, int, void *, socklen_t *))inject_next("getsockopt");
    return real(fd, SOL_SOCKET, SO_TYPE, &type, &n) == 0;
}

static int cut(const char *what, size_t n)
{
    if (n <= 1)
        return 0;
    if (__atomic_load_n(&inject_page->mode, __ATOMIC_ACQUIRE) == SHORT_ALL) {
        inject_note(what);
        return 1;
    }
    if (!inject_admit(SHORT))
        return 0;
    inject_note(what);
    return 1;
}

#define FAIL(what, ...) FAIL_IN(ERRORS, what, __VA_ARGS__)

#define READ_ERRORS ECONNRESET, EINTR, ETIMEDOUT, ENOMEM
#define WRITE_ERRORS EPIPE, ECONNRESET, EINTR, ENOBUFS, ENOMEM

SHOWN ssize_t read(int fd, void *p, size_t n)
{
    NEXT(read);
    if (inject_page->mode != OFF && is_socket(fd)) {
        FAIL("read", READ_ERRORS);
        if (cut("read", n))
            n = 1;
    } else if (inject_file_read(__builtin_return_address(0))) {
        return -1;
    }
    return real_read(fd, p, n);
}

SHOWN ssize_t write(int fd, const void *p, size_t n)
{
    NEXT(write);
    if (inject_page->mode != OFF && is_socket(fd)) {
        FAIL("write", WRITE_ERRORS);
        if (cut("write", n))
            n = 1;
    } else if (inject_file_write(__builtin_return_address(0))) {
        return -1;
    }
    return real_write(fd, p, n);
}

SHOWN ssize_t recv(int fd, void *p, size_t n, int flags)
{
    NEXT(recv);
    FAIL("recv", READ_ERRORS);
    if (inject_page->mode != OFF && cut("recv", n))
        n = 1;
    return real_recv(fd, p, n, flags);
}

SHOWN ssize_t send(int fd, const void *p, size_t n, int flags)
{
    NEXT(send);
    FAIL("send", WRITE_ERRORS);
    if (inject_page->mode != OFF && cut("send", n))
        n = 1;
    return real_send(fd, p, n, flags);
}

/* The first byte of a list of buffers. */
static int first_byte(const struct iovec *iov, size_t n, struct iovec *out)
{
    for (size_t i = 0; i < n; i++) {
        if (iov[i].iov_len > 0) {
            *out = (struct iovec){ iov[i].iov_base, 1 };
            return 1;
        }
    }
    return 0;
}

SHOWN ssize_t readv(int fd, const struct iovec *iov, int n)
{
    NEXT(readv);
    struct iovec one;
    FAIL("readv", READ_ERRORS);
    if (inject_page->mode != OFF && first_byte(iov, (size_t)n, &one) && cut("readv", 2))
        return real_readv(fd, &one, 1);
    return real_readv(fd, iov, n);
}

SHOWN ssize_t writev(int fd, const struct iovec *iov, int n)
{
    NEXT(writev);
    struct iovec one;
    FAIL("writev", WRITE_ERRORS);
    if (inject_page->mode != OFF && first_byte(iov, (size_t)n, &one) && cut("writev", 2))
        return real_writev(fd, &one, 1);
    return real_writev(fd, iov, n);
}

SHOWN ssize_t recvmsg(int fd, struct msghdr *m, int flags)
{
    NEXT(recvmsg);
    struct iovec one;
    FAIL("recvmsg", READ_ERRORS);
    if (inject_page->mode != OFF && first_byte(m->msg_iov, m->msg_iovlen, &one) && cut("recvmsg", 2)) {
        struct iovec *iov = m->msg_iov;
        size_t n = m->msg_iovlen;
        m->msg_iov = &one;
        m->msg_iovlen = 1;
        ssize_t r = real_recvmsg(fd, m, flags);
        m->msg_iov = iov;
        m->msg_iovlen = n;
        return r;
    }
    return real_recvmsg(fd, m, flags);
}

SHOWN ssize_t sendmsg(int fd, const struct msghdr *m, int flags)
{
    NEXT(sendmsg);
    struct iovec one;
    FAIL("sendmsg", WRITE_ERRORS);
    if (inject_page->mode != OFF && first_byte(m->msg_iov, m->msg_iovlen, &one) && cut("sendmsg", 2)) {
        struct msghdr small = *m;
        small.msg_iov = &one;
        small.msg_iovlen = 1;
        return real_sendmsg(fd, &small, flags);
    }
    return real_sendmsg(fd, m, flags);
}

SHOWN int accept4(int fd, struct sockaddr *a, socklen_t *n, int flags)
{
    NEXT(accept4);
    FAIL("accept4", EMFILE, ECONNABORTED, ENFILE, ENOBUFS, ENOMEM, EINTR);
    return real_accept4(fd, a, n, flags);
}

SHOWN int socket(int domain, int type, int protocol)
{
    NEXT(socket);
    FAIL("socket", EMFILE, ENFILE, ENOBUFS, ENOMEM);
    return real_socket(domain, type, protocol);
}

SHOWN int connect(int fd, const struct sockaddr *a, socklen_t n)
{
    NEXT(connect);
    FAIL("connect", ECONNREFUSED, ENETUNREACH, EADDRNOTAVAIL, EINTR);
    return real_connect(fd, a, n);
}

SHOWN int shutdown(int fd, int how)
{
    NEXT(shutdown);
    FAIL("shutdown", ENOTCONN);
    return real_shutdown(fd, how);
}

SHOWN int getsockopt(int fd, int level, int name, void *p, socklen_t *n)
{
    NEXT(getsockopt);
    FAIL("getsockopt", ENOBUFS, ENOPROTOOPT);
    return real_getsockopt(fd, level, name, p, n);
}

SHOWN int setsockopt(int fd, int level, int name, const void *p, socklen_t n)
{
    NEXT(setsockopt);
    FAIL("setsockopt", ENOBUFS, ENOPROTOOPT);
    return real_setsockopt(fd, level, name, p, n);
}

SHOWN int epoll_wait(int fd, struct epoll_event *e, int n, int ms)
{
    NEXT(epoll_wait);
    FAIL("epoll_wait", EINTR);
    return real_epoll_wait(fd, e, n, ms);
}

SHOWN int epoll_pwait(int fd, struct epoll_event *e, int n, int ms, const sigset_t *set)
{
    NEXT(epoll_pwait);
    FAIL("epoll_pwait", EINTR);
    return real_epoll_pwait(fd, e, n, ms, set);
}

SHOWN int memfd_create(const char *name, unsigned flags)
{
    NEXT(memfd_create);
    FAIL("memfd_create", EMFILE, ENOMEM);
    return real_memfd_create(name, flags);
}

SHOWN int ftruncate(int fd, off_t n)
{
    NEXT(ftruncate);
    FAIL("ftruncate", EINTR, EIO);
    return real_ftruncate(fd, n);
}

SHOWN void *mmap(void *p, size_t n, int prot, int flags, int fd, off_t off)
{
    NEXT(mmap);
    static const int errors[] = { ENOMEM };
    if (fd >= 0 && inject_fails(ERRORS, "mmap", errors, 1))
        return MAP_FAILED;
    return real_mmap(p, n, prot, flags, fd, off);
}

SHOWN int pthread_create(pthread_t *t, const pthread_attr_t *a, void *(*f)(void *), void *arg)
{
    NEXT(pthread_create);
    if (inject_admit(ERRORS)) {
        inject_note("pthread_create");
        return EAGAIN;
    }
    return real_pthread_create(t, a, f, arg);
}
