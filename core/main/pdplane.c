/* SPDX-License-Identifier: Apache-2.0 */
/* pdplane: option parsing and wiring of the daemon. */
#include <pdplane/types.h>

int main(void)
{
    return PD_OK;
}
