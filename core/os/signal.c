/* SPDX-License-Identifier: Apache-2.0 */
/* Signals outside of the loop.  The crash report uses only what may be called
 * in a handler, except backtrace, which is warmed up beforehand. */
#include "os/signal.h"

#include "base/compiler.h"
#include "base/status.h"

#include <errno.h>
#include <execinfo.h>
#include <string.h>
#include <unistd.h>

static const int crash_signals[] = { SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGABRT };

pd_status pd_signal_ignore(int number)
{
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_handler = SIG_IGN;
    return sigaction(number, &action, NULL) == 0 ? PD_OK : pd_status_from_errno(errno);
}

void pd_signal_reset_all(void)
{
    sigset_t none;
    for (int number = 1; number < NSIG; number++) {
        /* KILL, STOP and those the C library keeps refuse; nothing to do. */
        struct sigaction action;
        memset(&action, 0, sizeof action);
        action.sa_handler = SIG_DFL;
        sigaction(number, &action, NULL);
    }
    sigemptyset(&none);
    pthread_sigmask(SIG_SETMASK, &none, NULL);
}

pd_status pd_signal_block_all(sigset_t *old)
{
    sigset_t all;
    sigfillset(&all);
    /* A crash must stay a crash: blocked, these would kill without a report. */
    for (size_t i = 0; i < PD_ARRAY_LEN(crash_signals); i++)
        sigdelset(&all, crash_signals[i]);
    return pd_status_from_errno(pthread_sigmask(SIG_SETMASK, &all, old));
}

pd_status pd_signal_restore(const sigset_t *old)
{
    return pd_status_from_errno(pthread_sigmask(SIG_SETMASK, old, NULL));
}

const char *pd_signal_name(int number)
{
    static const struct {
        int number;
        const char *name;
    } names[] = {
        { SIGHUP, "HUP" },   { SIGINT, "INT" },   { SIGQUIT, "QUIT" }, { SIGILL, "ILL" },
        { SIGABRT, "ABRT" }, { SIGBUS, "BUS" },   { SIGFPE, "FPE" },   { SIGKILL, "KILL" },
        { SIGUSR1, "USR1" }, { SIGSEGV, "SEGV" }, { SIGUSR2, "USR2" }, { SIGPIPE, "PIPE" },
        { SIGALRM, "ALRM" }, { SIGTERM, "TERM" }, { SIGCHLD, "CHLD" }, { SIGCONT, "CONT" },
        { SIGSTOP, "STOP" }, { SIGWINCH, "WINCH" }, { SIGXCPU, "XCPU" }, { SIGXFSZ, "XFSZ" },
        { SIGSYS, "SYS" },   { SIGTRAP, "TRAP" },
    };
    for (size_t i = 0; i < PD_ARRAY_LEN(names); i++) {
        if (names[i].number == number)
            return names[i].name;
    }
    return "?";
}

static void say(const char *text)
{
    /* Nothing can be done when standard error is gone. */
    if (write(STDERR_FILENO, text, strlen(text)) < 0)
        return;
}

/* Installed with SA_RESETHAND, so that raising again dies the usual way. */
static void on_crash(int number)
{
    void *frames[64];
    say("pdplane: crashed by signal ");
    say(pd_signal_name(number));
    say("\n");
    backtrace_symbols_fd(frames, backtrace(frames, (int)PD_ARRAY_LEN(frames)), STDERR_FILENO);
    raise(number);
}

pd_status pd_signal_report_crashes(void)
{
    void *frame[1];
    struct sigaction action;
    /* The first call loads a library, which a handler must not do. */
    backtrace(frame, 1);
    memset(&action, 0, sizeof action);
    action.sa_handler = on_crash;
    action.sa_flags = (int)SA_RESETHAND | SA_NODEFER;
    for (size_t i = 0; i < PD_ARRAY_LEN(crash_signals); i++) {
        if (sigaction(crash_signals[i], &action, NULL) != 0)
            return pd_status_from_errno(errno);
    }
    return PD_OK;
}
