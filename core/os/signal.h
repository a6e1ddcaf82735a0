/* SPDX-License-Identifier: Apache-2.0 */
/* What a daemon does with signals outside of its loop.  Main thread. */
#ifndef PD_OS_SIGNAL_H
#define PD_OS_SIGNAL_H

#include <signal.h>

#include <pdplane/types.h>

pd_status pd_signal_ignore(int number);
/* Default action for every signal and nothing blocked, as a program expects
 * that is started with exec. */
void pd_signal_reset_all(void);
/* Blocks all signals for this thread and the threads it starts; *old receives
 * what pd_signal_restore wants. */
pd_status pd_signal_block_all(sigset_t *old);
pd_status pd_signal_restore(const sigset_t *old);
/* "TERM" for SIGTERM; "?" when it has no name here. */
const char *pd_signal_name(int number);
/* On a crash (SEGV, BUS, ILL, FPE, ABRT) writes the signal and a backtrace to
 * standard error, then dies from the same signal. */
pd_status pd_signal_report_crashes(void);

#endif
