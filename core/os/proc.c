/* SPDX-License-Identifier: Apache-2.0 */
/* Facts about the process, from the system and from /proc. */
#include "os/proc.h"

#include "base/buf.h"
#include "base/status.h"
#include "base/str.h"
#include "os/file.h"

#include <errno.h>
#include <sched.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/utsname.h>
#include <unistd.h>

#define SMALL_FILE 4096

/* The first line "max 100000" or "200000 100000": processors of the group, or 0
 * when there is no limit. */
static uint32_t cgroup_cpus(void)
{
    struct pd_buf text;
    struct pd_str quota;
    struct pd_str period;
    uint64_t q;
    uint64_t p;
    uint32_t n = 0;
    pd_buf_init(&text, SMALL_FILE);
    if (pd_file_read("/sys/fs/cgroup/cpu.max", SMALL_FILE, &text, NULL) == PD_OK) {
        struct pd_str rest = pd_str_trim(pd_buf_str(&text));
        if (pd_str_split(&rest, ' ', &quota) && pd_str_split(&rest, ' ', &period) &&
            pd_str_parse_u64(quota, &q) == PD_OK && pd_str_parse_u64(period, &p) == PD_OK && p != 0)
            n = (uint32_t)((q + p - 1) / p);
    }
    pd_buf_fini(&text);
    return n;
}

uint32_t pd_proc_cpus(void)
{
    cpu_set_t set;
    uint32_t n = 0;
    if (sched_getaffinity(0, sizeof set, &set) == 0) {
        n = (uint32_t)CPU_COUNT(&set);
    } else {
        long online = sysconf(_SC_NPROCESSORS_ONLN);
        n = online > 0 ? (uint32_t)online : 1;
    }
    uint32_t limit = cgroup_cpus();
    if (limit != 0 && limit < n)
        n = limit;
    return n == 0 ? 1 : n;
}

/* The number behind "key:" in a file of such lines; 0 when it is not there. */
static uint64_t number_of(const char *path, struct pd_str key)
{
    struct pd_buf text;
    struct pd_str line;
    uint64_t v = 0;
    pd_buf_init(&text, 64 * 1024);
    if (pd_file_read(path, 64 * 1024, &text, NULL) == PD_OK) {
        struct pd_str rest = pd_buf_str(&text);
        while (pd_str_split(&rest, '\n', &line)) {
            struct pd_str word;
            if (!pd_str_starts_with(line, key))
                continue;
            line = pd_str_trim(pd_str_sub(line, key.n, SIZE_MAX));
            if (!pd_str_split(&line, ' ', &word) || pd_str_parse_u64(word, &v) != PD_OK)
                v = 0;
            break;
        }
    }
    pd_buf_fini(&text);
    return v;
}

uint64_t pd_proc_rss_bytes(void)
{
    return number_of("/proc/self/status", PD_STR("VmRSS:")) * 1024;
}

uint32_t pd_proc_threads(void)
{
    return (uint32_t)number_of("/proc/self/status", PD_STR("Threads:"));
}

uint64_t pd_proc_memory_bytes(void)
{
    long pages = sysconf(_SC_PHYS_PAGES);
    long page = sysconf(_SC_PAGESIZE);
    return pages <= 0 || page <= 0 ? 0 : (uint64_t)pages * (uint64_t)page;
}

pd_time pd_proc_cpu_time(void)
{
    struct rusage usage;
    if (getrusage(RUSAGE_SELF, &usage) != 0)
        return 0;
    uint64_t seconds = (uint64_t)usage.ru_utime.tv_sec + (uint64_t)usage.ru_stime.tv_sec;
    uint64_t micros = (uint64_t)usage.ru_utime.tv_usec + (uint64_t)usage.ru_stime.tv_usec;
    return seconds * PD_SEC + micros * PD_US;
}

pd_status pd_proc_hostname(char *out, size_t size)
{
    if (size == 0)
        return PD_EINVAL;
    if (gethostname(out, size) != 0 && errno != ENAMETOOLONG)
        return pd_status_from_errno(errno);
    out[size - 1] = '\0';
    return PD_OK;
}

double pd_proc_load_average(void)
{
    double load[1];
    return getloadavg(load, 1) == 1 ? load[0] : 0;
}

pd_status pd_proc_cpu_model(char *out, size_t size)
{
    struct pd_buf text;
    struct pd_str rest, line, name = { "", 0 };
    pd_buf_init(&text, 1u << 20);
    if (pd_file_read("/proc/cpuinfo", 1u << 20, &text, NULL) == PD_OK) {
        rest = pd_buf_str(&text);
        while (name.n == 0 && pd_str_split(&rest, '\n', &line)) {
            size_t colon = pd_str_find_char(line, ':');
            if (colon != PD_STR_NPOS && pd_str_starts_with(line, PD_STR("model name")))
                name = pd_str_trim(pd_str_sub(line, colon + 1, line.n));
        }
    }
    name.n = name.n < size ? name.n : size - 1;
    pd_status status = name.n > 0 ? pd_str_copy(name, out, size) : PD_ENOENT;
    pd_buf_fini(&text);
    return status;
}

pd_status pd_proc_kernel(char *out, size_t size)
{
    struct utsname u;
    if (uname(&u) != 0)
        return PD_ENOENT;
    struct pd_str name = pd_str_from(u.release);
    name.n = name.n < size ? name.n : size - 1;
    return pd_str_copy(name, out, size);
}
