/* SPDX-License-Identifier: Apache-2.0 */
/* A shared object that is no module. */
int pd_no_module(void);

__attribute__((visibility("default"))) int pd_no_module(void)
{
    return 0;
}
