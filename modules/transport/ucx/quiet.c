/* SPDX-License-Identifier: Apache-2.0 */
/* UCX behaves like the owner of the process it is loaded into: it takes over
 * signals for faults and writes to the standard output.  Here both end: the
 * handlers that were there before come back, and its words become log lines. */
#include "ucx.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <ucp/api/ucp.h>
#include <ucs/debug/debug.h>
#include <ucs/debug/log_def.h>

static _Thread_local struct pd_log *words;

void pd_ucx_log_to(struct pd_log *log)
{
    words = log;
}

PD_PRINTF(6, 0)
static ucs_log_func_rc_t on_word(const char *file, unsigned line, const char *function,
                                 ucs_log_level_t level, const ucs_log_component_config_t *conf,
                                 const char *message, va_list ap)
{
    char text[512];

    (void)file;
    (void)line;
    (void)function;
    (void)conf;
    if (level > UCS_LOG_LEVEL_INFO || words == NULL)
        return UCS_LOG_FUNC_RC_STOP;
    vsnprintf(text, sizeof(text), message, ap);
    if (level <= UCS_LOG_LEVEL_WARN)
        pd_log_warn(words, "%s", text);
    else
        pd_log_info(words, "%s", text);
    return UCS_LOG_FUNC_RC_STOP;
}

void pd_ucx_quiet(void)
{
    static const int signals[] = { SIGILL, SIGSEGV, SIGBUS, SIGFPE };
    static bool is_quiet;

    if (__atomic_exchange_n(&is_quiet, true, __ATOMIC_ACQ_REL))
        return;
    for (size_t i = 0; i < sizeof(signals) / sizeof(signals[0]); i++)
        ucs_debug_disable_signal(signals[i]);
    ucs_log_push_handler(on_word);
}

/* UCX 1.13 ends the process where it gets no descriptor. */
bool pd_ucx_has_descriptors(void)
{
    int fds[PD_UCX_DESCRIPTORS];
    uint32_t n = 0;

    while (n < PD_UCX_DESCRIPTORS && (fds[n] = open("/dev/null", O_RDONLY | O_CLOEXEC)) >= 0)
        n++;
    for (uint32_t i = 0; i < n; i++)
        close(fds[i]);
    return n == PD_UCX_DESCRIPTORS;
}
