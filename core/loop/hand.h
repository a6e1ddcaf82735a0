/* SPDX-License-Identifier: Apache-2.0 */
/* Between a process and its child: short texts, each with an open descriptor if
 * need be, over a pair of sockets.  Any thread, one at a time for each end. */
#ifndef PD_LOOP_HAND_H
#define PD_LOOP_HAND_H

#include <pdplane/types.h>

#define PD_HAND_MAX 256u        /* bytes of a text */

/* ends[0] is closed by exec and never waits, ends[1] stays open in the child.
 * PD_OK or what the system said. */
pd_status pd_hand_pair(int ends[2]);
/* Sends one text and, when fd is not negative, a copy of that descriptor.  Waits
 * while the other side does not read.  PD_OK, PD_ELIMIT: too long, PD_EPEER: the
 * other side is gone. */
pd_status pd_hand_send(int end, const char *text, int fd);
/* Takes one text, ended by zero; *fd is a descriptor that is closed by exec, or
 * -1.  PD_OK; PD_EAGAIN: there is none; PD_EEOF: the other side is gone. */
pd_status pd_hand_receive(int end, char text[PD_HAND_MAX + 1], int *fd);

#endif
