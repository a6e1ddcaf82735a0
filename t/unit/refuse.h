/* SPDX-License-Identifier: Apache-2.0 */
/* System calls of core/os that a test can make fail: the linker puts __wrap_NAME in
 * place of each NAME of refuse.c (-Wl,--wrap). */
#ifndef PD_T_UNIT_REFUSE_H
#define PD_T_UNIT_REFUSE_H

/* The n-th call of that name from now on (from 1; 0: each) fails with the error. */
void refuse(const char *call, int n, int error);
/* No call fails any more; how many did. */
int refuse_end(void);
/* The path that open takes for another, or NULL for none. */
void refuse_move(const char *from, const char *to);

#endif
