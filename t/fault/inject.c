/* SPDX-License-Identifier: Apache-2.0 */
/* Loaded into a program by LD_PRELOAD: makes its n-th system call or allocation
 * fail, or its n-th read or write short.  Whoever tests writes into the first
 * bytes of the file PD_FAULT_DIR/PID, which is mapped here, or gives PD_FAULT_NOW; t/lib/PDPlane/Fault.pm
 * does.
 *
 * Errors are those that Linux documents for the call and the kind of descriptor.
 * Two points are left out because libuv 1.44 ends the process there: epoll_ctl
 * in a turn of its loop, and reads and writes of what is no socket. */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <spawn.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#define SHOWN __attribute__((visibility("default")))

enum { OFF, ERRORS, SHORT, SHORT_ALL, ALLOC, FILES };

struct page {
    uint32_t mode;
    uint32_t variety;       /* which of the errors of the call */
    uint64_t at;            /* the call that fails, from 1 */
    uint64_t count;         /* calls that could have */
    uint32_t fired;
    char what[60];          /* the call, and for allocations from where */
};

static struct page off_page, *page = &off_page;

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
            page = p;
    }
    close(fd);
    /* MODE:N:VARIETY: from the start on. */
    const char *now = getenv("PD_FAULT_NOW");
    unsigned mode, variety;
    unsigned long long n;
    if (now != NULL && sscanf(now, "%u:%llu:%u", &mode, &n, &variety) == 3) {
        page->at = n;
        page->variety = variety;
        __atomic_store_n(&page->mode, mode, __ATOMIC_RELEASE);
    }
}

static void *next(const char *name)
{
    void *f = dlsym(RTLD_NEXT, name);
    if (f == NULL)
        abort();
    return f;
}

#define NEXT(name)                                                     \
    static __typeof__(name) *real_##name;                              \
    if (real_##name == NULL)                                           \
    real_##name = (__typeof__(name) *)next(#name)

static int admit(uint32_t mode)
{
    if (__atomic_load_n(&page->mode, __ATOMIC_ACQUIRE) != mode)
        return 0;
    return __atomic_add_fetch(&page->count, 1, __ATOMIC_RELAXED) == page->at;
}

static void note(const char *what)
{
    size_t n = strlen(what);
    n = n < sizeof page->what ? n : sizeof page->what - 1;
    memcpy(page->what, what, n);
    page->what[n] = '\0';
    __atomic_store_n(&page->fired, 1, __ATOMIC_RELEASE);
}

static int is_socket(int fd)
{
    int type;
    socklen_t n = sizeof type;
    static int (*real)(int, int, int, void *, socklen_t *);
    if (real == NULL)
        real = (int (*)(int, int, int, void *, socklen_t *))next("getsockopt");
    return real(fd, SOL_SOCKET, SO_TYPE, &type, &n) == 0;
}

/* Whether this call fails; sets errno to one of n errors. */
static int fails_in(uint32_t mode, const char *what, const int *errors, size_t n)
{
    if (!admit(mode))
        return 0;
    note(what);
    errno = errors[page->variety % n];
    return 1;
}

static int fails(const char *what, const int *errors, size_t n)
{
    return fails_in(ERRORS, what, errors, n);
}

static int cut(const char *what, size_t n)
{
    if (n <= 1)
        return 0;
    if (__atomic_load_n(&page->mode, __ATOMIC_ACQUIRE) == SHORT_ALL) {
        note(what);
        return 1;
    }
    if (!admit(SHORT))
        return 0;
    note(what);
    return 1;
}

#define FAIL(what, ...)                                                \
    do {                                                               \
        static const int errors[] = { __VA_ARGS__ };                   \
        if (fails(what, errors, sizeof errors / sizeof errors[0]))     \
            return -1;                                                 \
    } while (0)

#define READ_ERRORS ECONNRESET, EINTR, ETIMEDOUT, ENOMEM
#define WRITE_ERRORS EPIPE, ECONNRESET, EINTR, ENOBUFS, ENOMEM

SHOWN ssize_t read(int fd, void *p, size_t n)
{
    NEXT(read);
    if (page->mode != OFF && is_socket(fd)) {
        FAIL("read", READ_ERRORS);
        if (cut("read", n))
            n = 1;
    }
    return real_read(fd, p, n);
}

SHOWN ssize_t write(int fd, const void *p, size_t n)
{
    NEXT(write);
    if (page->mode != OFF && is_socket(fd)) {
        FAIL("write", WRITE_ERRORS);
        if (cut("write", n))
            n = 1;
    }
    return real_write(fd, p, n);
}

SHOWN ssize_t recv(int fd, void *p, size_t n, int flags)
{
    NEXT(recv);
    FAIL("recv", READ_ERRORS);
    if (page->mode != OFF && cut("recv", n))
        n = 1;
    return real_recv(fd, p, n, flags);
}

SHOWN ssize_t send(int fd, const void *p, size_t n, int flags)
{
    NEXT(send);
    FAIL("send", WRITE_ERRORS);
    if (page->mode != OFF && cut("send", n))
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
    if (page->mode != OFF && first_byte(iov, (size_t)n, &one) && cut("readv", 2))
        return real_readv(fd, &one, 1);
    return real_readv(fd, iov, n);
}

SHOWN ssize_t writev(int fd, const struct iovec *iov, int n)
{
    NEXT(writev);
    struct iovec one;
    FAIL("writev", WRITE_ERRORS);
    if (page->mode != OFF && first_byte(iov, (size_t)n, &one) && cut("writev", 2))
        return real_writev(fd, &one, 1);
    return real_writev(fd, iov, n);
}

SHOWN ssize_t recvmsg(int fd, struct msghdr *m, int flags)
{
    NEXT(recvmsg);
    struct iovec one;
    FAIL("recvmsg", READ_ERRORS);
    if (page->mode != OFF && first_byte(m->msg_iov, m->msg_iovlen, &one) && cut("recvmsg", 2)) {
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
    if (page->mode != OFF && first_byte(m->msg_iov, m->msg_iovlen, &one) && cut("sendmsg", 2)) {
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

SHOWN int open(const char *path, int flags, ...)
{
    NEXT(open);
    va_list ap;
    va_start(ap, flags);
    mode_t mode = flags & O_CREAT ? va_arg(ap, mode_t) : 0;
    va_end(ap);
    FAIL("open", EMFILE, ENFILE, EINTR, ENOMEM);
    return real_open(path, flags, mode);
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
    if (fd >= 0 && fails("mmap", errors, 1))
        return MAP_FAILED;
    return real_mmap(p, n, prot, flags, fd, off);
}

SHOWN int pthread_create(pthread_t *t, const pthread_attr_t *a, void *(*f)(void *), void *arg)
{
    NEXT(pthread_create);
    if (admit(ERRORS)) {
        note("pthread_create");
        return EAGAIN;
    }
    return real_pthread_create(t, a, f, arg);
}

/* ---- of files, processes and addresses: what programs ask for at their beginning and end */

#define FAIL_FILES(what, ...)                                          \
    do {                                                               \
        static const int errors[] = { __VA_ARGS__ };                   \
        if (fails_in(FILES, what, errors, sizeof errors / sizeof errors[0])) \
            return -1;                                                 \
    } while (0)

SHOWN int fstat(int fd, struct stat *st)
{
    NEXT(fstat);
    FAIL_FILES("fstat", EIO, ENOMEM);
    return real_fstat(fd, st);
}

SHOWN int stat(const char *path, struct stat *st)
{
    NEXT(stat);
    FAIL_FILES("stat", EACCES, ENOENT, EIO);
    return real_stat(path, st);
}

SHOWN int flock(int fd, int operation)
{
    NEXT(flock);
    FAIL_FILES("flock", ENOLCK, EINTR);
    return real_flock(fd, operation);
}

SHOWN int fsync(int fd)
{
    NEXT(fsync);
    FAIL_FILES("fsync", EIO, ENOSPC);
    return real_fsync(fd);
}

SHOWN int rename(const char *from, const char *to)
{
    NEXT(rename);
    FAIL_FILES("rename", EACCES, ENOSPC);
    return real_rename(from, to);
}

SHOWN int mkdir(const char *path, mode_t mode)
{
    NEXT(mkdir);
    FAIL_FILES("mkdir", EROFS, ENOSPC);
    return real_mkdir(path, mode);
}

SHOWN ssize_t readlink(const char *path, char *out, size_t n)
{
    NEXT(readlink);
    FAIL_FILES("readlink", ENOENT, EIO);
    return real_readlink(path, out, n);
}

SHOWN int pipe(int ends[2])
{
    NEXT(pipe);
    FAIL_FILES("pipe", EMFILE, ENFILE);
    return real_pipe(ends);
}

SHOWN int socketpair(int domain, int type, int protocol, int ends[2])
{
    NEXT(socketpair);
    FAIL_FILES("socketpair", EMFILE, ENOMEM);
    return real_socketpair(domain, type, protocol, ends);
}

SHOWN int bind(int fd, const struct sockaddr *a, socklen_t n)
{
    NEXT(bind);
    FAIL_FILES("bind", EADDRINUSE, EACCES, EADDRNOTAVAIL);
    return real_bind(fd, a, n);
}

SHOWN int listen(int fd, int n)
{
    NEXT(listen);
    FAIL_FILES("listen", EADDRINUSE, EIO);
    return real_listen(fd, n);
}

SHOWN int posix_spawn(pid_t *pid, const char *path, const posix_spawn_file_actions_t *actions,
                      const posix_spawnattr_t *attr, char *const *argv, char *const *env)
{
    NEXT(posix_spawn);
    if (admit(FILES)) {
        note("posix_spawn");
        return EAGAIN;
    }
    return real_posix_spawn(pid, path, actions, attr, argv, env);
}

/* ---- allocations, of the program and its modules only */

static __thread int inside;     /* dlsym and dladdr may allocate */

/* Whether this allocation, asked for at that place, fails. */
static int alloc_fails(const char *what, void *from)
{
    Dl_info info;
    char text[sizeof page->what];
    if (page->mode != ALLOC || inside)
        return 0;
    inside = 1;
    int is_ours = dladdr(from, &info) != 0 && info.dli_fname != NULL;
    const char *name = is_ours ? strrchr(info.dli_fname, '/') : NULL;
    name = name != NULL ? name + 1 : is_ours ? info.dli_fname : "";
    /* Libraries of the system are not meant. */
    is_ours = is_ours && strncmp(name, "lib", 3) != 0 && strncmp(name, "ld-", 3) != 0;
    int yes = is_ours && admit(ALLOC);
    if (yes) {
        snprintf(text, sizeof text, "%s %s+%lx", what, name, (unsigned long)((char *)from - (char *)info.dli_fbase));
        note(text);
    }
    inside = 0;
    if (yes)
        errno = ENOMEM;
    return yes;
}

SHOWN void *malloc(size_t n)
{
    static void *(*real)(size_t);
    if (real == NULL)
        real = (void *(*)(size_t))next("malloc");
    return alloc_fails("malloc", __builtin_return_address(0)) ? NULL : real(n);
}

SHOWN void *realloc(void *p, size_t n)
{
    static void *(*real)(void *, size_t);
    if (real == NULL)
        real = (void *(*)(void *, size_t))next("realloc");
    return alloc_fails("realloc", __builtin_return_address(0)) ? NULL : real(p, n);
}

/* dlsym asks for memory itself, from here; it takes this and never gives it back. */
static char early[4096];
static size_t early_used;

SHOWN void *calloc(size_t count, size_t size)
{
    static void *(*real)(size_t, size_t);
    static int is_looking;
    if (real == NULL && is_looking) {
        void *p = early + early_used;
        early_used += (count * size + 15) & ~(size_t)15;
        if (early_used > sizeof early)
            abort();
        return p;
    }
    if (real == NULL) {
        is_looking = 1;
        real = (void *(*)(size_t, size_t))next("calloc");
    }
    return alloc_fails("calloc", __builtin_return_address(0)) ? NULL : real(count, size);
}

SHOWN int posix_memalign(void **out, size_t align, size_t n)
{
    static int (*real)(void **, size_t, size_t);
    if (real == NULL)
        real = (int (*)(void **, size_t, size_t))next("posix_memalign");
    return alloc_fails("posix_memalign", __builtin_return_address(0)) ? ENOMEM : real(out, align, n);
}
