/* SPDX-License-Identifier: Apache-2.0 */
/* Shared memory of a peer.  It sends a descriptor once; we map it read-only and
 * copy out of it.  Nobody can make us fault: the file must be sealed against
 * shrinking before it is mapped, and every piece is checked against the
 * mapping.  A payload of a COPY frame is
 *
 *    memory id u32 | count u32 | count * (offset u64, bytes u64) */
#include "link.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#if defined(__x86_64__)
#include <emmintrin.h>
#endif

/* Copies of at least this many bytes go around the cache: the destination is
 * much larger than it, and the source is not read again. */
#define AROUND_CACHE 8192u

static void put32(uint8_t *p, uint32_t v)
{
    memcpy(p, &v, sizeof(v));
}

static void put64(uint8_t *p, uint64_t v)
{
    memcpy(p, &v, sizeof(v));
}

static uint32_t get32(const uint8_t *p)
{
    uint32_t v;
    memcpy(&v, p, sizeof(v));
    return v;
}

static uint64_t get64(const uint8_t *p)
{
    uint64_t v;
    memcpy(&v, p, sizeof(v));
    return v;
}

pd_status pd_xp_share_check(int fd, uint64_t end, struct pd_err *err)
{
    const int need = F_SEAL_SHRINK | F_SEAL_GROW;
    struct stat sb;
    int seals;

    if (fd < 0) {
        pd_xp_fail(err, PD_EINVAL, "memory without a descriptor cannot be shared");
        return PD_EINVAL;
    }
    seals = fcntl(fd, F_GET_SEALS);
    if (seals < 0 || (seals & need) != need) {
        pd_xp_fail(err, PD_EPERM, "the memory is not sealed against shrinking and growing");
        return PD_EPERM;
    }
    if (fstat(fd, &sb) != 0 || sb.st_size < 0 || (uint64_t)sb.st_size < end) {
        pd_xp_fail(err, PD_EINVAL, "the memory is larger than its descriptor");
        return PD_EINVAL;
    }
    return PD_OK;
}

static const struct pd_xp_map *find(const struct pd_xp_lane *lane, uint32_t id)
{
    for (uint32_t i = 0; id != 0 && i < PD_XP_MAX_MAPS; i++)
        if (lane->maps[i].id == id)
            return &lane->maps[i];
    return NULL;
}

static pd_status map_it(struct pd_xp_map *m, int fd, const struct pd_xp_head *h)
{
    uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE);
    uint64_t skip = h->offset % page;
    void *p;
    pd_status st;

    if (h->xid == 0 || h->offset > INT64_MAX || h->xid > INT64_MAX - h->offset)
        return PD_EPROTO;
    st = pd_xp_share_check(fd, h->offset + h->xid, NULL);
    if (st != PD_OK)
        return st;
    p = mmap(NULL, (size_t)(h->xid + skip), PROT_READ, MAP_SHARED, fd, (off_t)(h->offset - skip));
    if (p == MAP_FAILED)
        return PD_ENOMEM;
    m->id = h->id;
    m->map = p;
    m->map_len = (size_t)(h->xid + skip);
    m->base = (const uint8_t *)p + skip;
    m->bytes = h->xid;
    return PD_OK;
}

void pd_xp_share_take(struct pd_xp_lane *lane, const struct pd_xp_head *h)
{
    struct pd_xp_map *free_map = NULL;
    pd_status st = PD_ELIMIT;
    int fd;

    if (lane->n_fds == 0 || h->id == 0 || find(lane, h->id) != NULL) {
        pd_xp_lane_fail(lane, PD_EPROTO);
        return;
    }
    fd = lane->fds[0];
    lane->n_fds--;
    memmove(lane->fds, lane->fds + 1, lane->n_fds * sizeof(lane->fds[0]));
    for (uint32_t i = 0; i < PD_XP_MAX_MAPS && free_map == NULL; i++)
        if (lane->maps[i].id == 0)
            free_map = &lane->maps[i];
    if (free_map != NULL)
        st = map_it(free_map, fd, h);
    close(fd);
    if (st != PD_OK) {
        pd_log_warn(lane->tp->log, "refused the memory of a peer, status %d", (int)st);
        pd_xp_lane_fail(lane, st);
    }
}

void pd_xp_share_forget(struct pd_xp_lane *lane, uint32_t id)
{
    for (uint32_t i = 0; id != 0 && i < PD_XP_MAX_MAPS; i++) {
        if (lane->maps[i].id != id)
            continue;
        munmap(lane->maps[i].map, lane->maps[i].map_len);
        memset(&lane->maps[i], 0, sizeof(lane->maps[i]));
    }
}

void pd_xp_share_drop_all(struct pd_xp_lane *lane)
{
    for (uint32_t i = 0; lane->maps != NULL && i < PD_XP_MAX_MAPS; i++)
        pd_xp_share_forget(lane, lane->maps[i].id);
    for (uint32_t i = 0; i < lane->n_fds; i++)
        close(lane->fds[i]);
    lane->n_fds = 0;
}

uint32_t pd_xp_share_describe(const struct pd_transfer *t, uint64_t from, uint32_t *len,
                              uint8_t *buf)
{
    const struct pd_transport_memory *m = t->memory;
    struct pd_iov iov[PD_XP_IOV];
    uint64_t left = *len;
    uint32_t count = 0;

    while (left > 0 && count < PD_XP_COPY_SEGS) {
        size_t max = PD_XP_COPY_SEGS - count < PD_XP_IOV ? PD_XP_COPY_SEGS - count : PD_XP_IOV;
        uint64_t covered;
        size_t n = pd_xp_segs_iov(t->segs, from, left, iov, max, &covered);
        for (size_t i = 0; i < n; i++, count++) {
            put64(buf + 8 + 16 * (size_t)count, (uint64_t)((uint8_t *)iov[i].base - m->base));
            put64(buf + 16 + 16 * (size_t)count, iov[i].len);
        }
        from += covered;
        left -= covered;
    }
    *len -= (uint32_t)left;
    put32(buf, m->id);
    put32(buf + 4, count);
    return 8 + 16 * count;
}

pd_status pd_xp_share_read(const struct pd_xp_lane *lane, const uint8_t *buf, uint32_t n,
                           uint64_t *bytes)
{
    const struct pd_xp_map *m;
    uint32_t count;
    uint64_t sum = 0;

    if (n < 8 || (m = find(lane, get32(buf))) == NULL)
        return PD_EPROTO;
    count = get32(buf + 4);
    if (count == 0 || count > PD_XP_COPY_SEGS || n != 8 + 16 * count)
        return PD_EPROTO;
    for (uint32_t i = 0; i < count; i++) {
        uint64_t offset = get64(buf + 8 + 16 * (size_t)i);
        uint64_t len = get64(buf + 16 + 16 * (size_t)i);
        if (len == 0 || len > m->bytes || offset > m->bytes - len || len > UINT32_MAX - sum)
            return PD_EPROTO;
        sum += len;
    }
    *bytes = sum;
    return PD_OK;
}

static void copy(uint8_t *to, const uint8_t *from, size_t n)
{
#if defined(__x86_64__)
    if (n >= AROUND_CACHE) {
        size_t lead = (16 - ((uintptr_t)to & 15)) & 15;
        memcpy(to, from, lead);
        to += lead;
        from += lead;
        n -= lead;
        for (; n >= 64; n -= 64, to += 64, from += 64) {
            const __m128i *s = (const __m128i *)(const void *)from;
            __m128i *d = (__m128i *)(void *)to;
            __m128i a = _mm_loadu_si128(s), b = _mm_loadu_si128(s + 1);
            __m128i c = _mm_loadu_si128(s + 2), e = _mm_loadu_si128(s + 3);
            _mm_stream_si128(d, a);
            _mm_stream_si128(d + 1, b);
            _mm_stream_si128(d + 2, c);
            _mm_stream_si128(d + 3, e);
        }
        _mm_sfence();
    }
#endif
    memcpy(to, from, n);
}

void pd_xp_share_copy(const struct pd_xp_lane *lane, const uint8_t *buf, uint32_t n,
                      const struct pd_xp_segs *segs, uint64_t to)
{
    const struct pd_xp_map *m = find(lane, get32(buf));
    uint32_t count = (n - 8) / 16;

    for (uint32_t i = 0; i < count; i++) {
        const uint8_t *from = m->base + get64(buf + 8 + 16 * (size_t)i);
        uint64_t left = get64(buf + 16 + 16 * (size_t)i);
        while (left > 0) {
            struct pd_iov iov[PD_XP_IOV];
            uint64_t covered;
            size_t k = pd_xp_segs_iov(segs, to, left, iov, PD_XP_IOV, &covered);
            for (size_t j = 0; j < k; j++) {
                copy(iov[j].base, from, iov[j].len);
                from += iov[j].len;
            }
            to += covered;
            left -= covered;
        }
    }
}
