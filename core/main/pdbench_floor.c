/* SPDX-License-Identifier: Apache-2.0 */
/* pdbench transport: what the machine itself does, to compare with: memcpy,
 * reading the other process's memory, and a plain stream between the two. */
#include "main/pdbench_source.h"

#include <string.h>

#include "base/mem.h"
#include "os/process.h"

void pdbench_floor_copy(struct pdbench_source *s, const struct pd_segment *from, const struct pd_segment *to, uint32_t n)
{
    const uint8_t *base = s->side.memory.base;
    for (uint32_t i = 0; i < n; i++)
        memcpy(s->copy + to[i].offset, base + from[i].offset, from[i].bytes);
}

bool pdbench_floor_readv(struct pdbench_source *s, const struct pd_segment *from, const struct pd_segment *to, uint32_t n)
{
    uint64_t *remote = pd_calloc(n, sizeof *remote);
    void **local = pd_calloc(n, sizeof *local);
    bool is_good = remote != NULL && local != NULL;
    for (uint32_t i = 0; is_good && i < n; i++) {
        remote[i] = s->ready.base + from[i].offset;
        local[i] = s->copy + to[i].offset;
    }
    is_good = is_good && pd_process_read((pid_t)s->ready.pid, remote, local, n, from[0].bytes) == PD_OK;
    pd_free(remote);
    pd_free(local);
    return is_good;
}

static void on_connected(struct pd_stream *stream, pd_status status, void *arg)
{
    struct pdbench_source *s = arg;
    (void)stream;
    s->is_connected = s->is_writable = true;
    s->is_lost = s->is_lost || status != PD_OK;
}

static void on_stream_writable(struct pd_stream *stream, void *arg)
{
    (void)stream;
    ((struct pdbench_source *)arg)->is_writable = true;
}

static void on_stream_closed(struct pd_stream *stream, void *arg)
{
    (void)stream;
    ((struct pdbench_source *)arg)->is_stream_closed = true;
}

bool pdbench_floor_stream(struct pdbench_source *s)
{
    static const struct pd_stream_events events = { .name = "plain stream", .on_connected = on_connected,
                                                    .on_writable = on_stream_writable, .on_closed = on_stream_closed };
    struct pd_addr addr;
    if (s->stream == NULL) {
        if (pd_addr_parse(s->side.loop, PD_STR("127.0.0.1:1"), &addr) != PD_OK)
            return false;
        addr.port = s->ready.port;
        if (pd_stream_connect(s->side.loop, &addr, &events, s, &s->stream) != PD_OK || !pdbench_source_wait(s, &s->is_connected))
            return false;
    }
    s->has_got = false;
    for (uint64_t at = 0; at < s->side.bytes;) {
        size_t sent = 0;
        s->is_writable = false;
        pd_status st = pd_stream_write(s->stream, (uint8_t *)s->side.memory.base + at, s->side.bytes - at, &sent);
        at += st == PD_OK ? sent : 0;
        if ((st != PD_OK && st != PD_EAGAIN) || (at < s->side.bytes && !pdbench_source_wait(s, &s->is_writable)))
            return false;
    }
    return pdbench_source_wait(s, &s->has_got) && s->got.type == PDBENCH_MSG_STREAMED;
}
