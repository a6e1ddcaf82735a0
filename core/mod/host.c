/* SPDX-License-Identifier: Apache-2.0 */
/* The table of functions that modules get.  It is constant and the same for
 * all nodes of a process; what differs between nodes hangs off struct pd_host.
 * Members are only ever added at the end. */
#include "mod/host.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <pdplane/module.h>

#include "base/status.h"
#include "config.h"

void pd_host_init(struct pd_host *host)
{
    memset(host, 0, sizeof *host);
}

pd_status pd_host_register(struct pd_host *host, const char *name, uint32_t version, const void *table,
                           void *object)
{
    for (uint32_t i = 0; i < host->n_entries; i++) {
        if (strcmp(host->entries[i].name, name) == 0)
            return PD_EEXIST;
    }
    if (host->n_entries == PD_HOST_TABLES_MAX)
        return PD_ELIMIT;
    host->entries[host->n_entries++] =
        (struct pd_host_entry){ .name = name, .version = version, .table = table, .object = object };
    return PD_OK;
}

static const struct pd_host_entry *entry_find(const struct pd_host *host, const char *name)
{
    for (uint32_t i = 0; i < host->n_entries; i++) {
        if (strcmp(host->entries[i].name, name) == 0)
            return &host->entries[i];
    }
    return NULL;
}

void pd_host_set_object(struct pd_host *host, const char *name, void *object)
{
    for (uint32_t i = 0; i < host->n_entries; i++) {
        if (strcmp(host->entries[i].name, name) == 0)
            host->entries[i].object = object;
    }
}

static const void *host_table(struct pd_host *host, const char *name, uint32_t version)
{
    const struct pd_host_entry *entry = entry_find(host, name);
    return entry != NULL && entry->version == version ? entry->table : NULL;
}

static void *host_object(struct pd_host *host, const char *name)
{
    const struct pd_host_entry *entry = entry_find(host, name);
    return entry != NULL ? entry->object : NULL;
}

pd_status pd_host_codec_add(struct pd_host *host, const char *name, const struct pd_codec_ops *ops,
                            struct pd_codec *codec)
{
    for (uint32_t i = 0; i < host->n_codecs; i++) {
        if (strcmp(host->codecs[i].name, name) == 0)
            return PD_EEXIST;
    }
    if (host->n_codecs == PD_HOST_CODECS_MAX)
        return PD_ELIMIT;
    host->codecs[host->n_codecs++] = (struct pd_host_codec){ name, ops, codec };
    return PD_OK;
}

static const struct pd_codec_ops *host_codec(struct pd_host *host, const char *name, struct pd_codec **out)
{
    for (uint32_t i = 0; i < host->n_codecs; i++) {
        if (strcmp(host->codecs[i].name, name) != 0)
            continue;
        *out = host->codecs[i].codec;
        return host->codecs[i].ops;
    }
    return NULL;
}

/* Pages are touched by their user, not here; the seals keep other processes
 * that map the memory safe from its size changing. */
static pd_status host_memory_alloc(struct pd_host *host, const char *name, uint64_t bytes,
                                   struct pd_host_memory *out, struct pd_err *err)
{
    uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE);
    if (bytes == 0 || bytes > INT64_MAX - page)
        return pd_err_set(err, PD_EINVAL, "%llu bytes is not a size of memory", (unsigned long long)bytes);
    bytes = (bytes + page - 1) / page * page;
    if (host->n_memories == PD_HOST_MEMORIES_MAX)
        return pd_err_set(err, PD_ELIMIT, "a node can have %u pieces of shared memory",
                          PD_HOST_MEMORIES_MAX);
    int fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (fd < 0)
        return pd_err_set(err, pd_status_from_errno(errno), "cannot create shared memory: %s",
                          strerror(errno));
    void *base = MAP_FAILED;
    if (ftruncate(fd, (off_t)bytes) == 0 && fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW) == 0)
        base = mmap(NULL, (size_t)bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (base == MAP_FAILED) {
        int why = errno;
        close(fd);
        return pd_err_set(err, PD_ENOMEM, "cannot get %llu bytes of shared memory: %s",
                          (unsigned long long)bytes, strerror(why));
    }
    out->fd = fd;
    out->base = base;
    out->bytes = bytes;
    host->n_memories++;
    return PD_OK;
}

static void host_memory_free(struct pd_host *host, struct pd_host_memory *memory)
{
    if (memory->base == NULL)
        return;
    munmap(memory->base, (size_t)memory->bytes);
    close(memory->fd);
    memory->base = NULL;
    memory->fd = -1;
    host->n_memories--;
}

const struct pd_host_api *pd_host_api_table(void)
{
    static const struct pd_host_api table = {
        .size = sizeof table,
        .abi_major = PD_ABI_MAJOR,
        .abi_minor = PD_ABI_MINOR,
        .version = PACKAGE_VERSION,
        .status_text = pd_status_text,
        .memory_alloc = host_memory_alloc,
        .memory_free = host_memory_free,
        .table = host_table,
        .object = host_object,
        .codec = host_codec,
    };
    return &table;
}
