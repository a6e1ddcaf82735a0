/* SPDX-License-Identifier: Apache-2.0 */
/* Facts about this process and the machine.  Any thread. */
#ifndef PD_OS_PROC_H
#define PD_OS_PROC_H

#include <pdplane/types.h>

/* Processors this process may use, limits of its control group included; at
 * least 1. */
uint32_t pd_proc_cpus(void);
/* Resident memory in bytes; 0 when the system does not tell. */
uint64_t pd_proc_rss_bytes(void);
/* Physical memory of the machine in bytes; 0 when the system does not tell. */
uint64_t pd_proc_memory_bytes(void);
/* User and system time this process has used. */
pd_time pd_proc_cpu_time(void);
/* Threads of this process; 0 when the system does not tell. */
uint32_t pd_proc_threads(void);
/* Processes that ran or waited to run, on average of the last minute; 0 when the
 * system does not tell. */
double pd_proc_load_average(void);
/* Names of the processor and of the kernel's release, cut to size.  PD_OK or
 * PD_ENOENT. */
pd_status pd_proc_cpu_model(char *out, size_t size);
pd_status pd_proc_kernel(char *out, size_t size);
/* Name of this machine, cut to size. */
pd_status pd_proc_hostname(char *out, size_t size);

#endif
