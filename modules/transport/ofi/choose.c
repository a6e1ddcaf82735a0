/* SPDX-License-Identifier: Apache-2.0 */
/* Which provider: what the options name, or the first of a list that is there
 * and can do what is asked. */
#include "fabric_in.h"

#include <arpa/inet.h>
#include <string.h>

static const char *const order[] = { "cxi", "efa", "verbs;ofi_rxm", "opx", "psm3", "tcp;ofi_rxm",
                                     "tcp" };

/* Nothing is received but a provider's own messages. */
#define RECEIVES 64u

static struct fi_info *hints_for(const struct pd_ofi_conf *conf, const char *provider)
{
    struct fi_info *h = fi_allocinfo();

    if (h == NULL)
        return NULL;
    h->caps = FI_RMA | FI_READ | FI_REMOTE_READ;
    h->mode = FI_CONTEXT | FI_CONTEXT2;
    h->ep_attr->type = FI_EP_RDM;
    h->domain_attr->mr_mode = FI_MR_LOCAL | FI_MR_VIRT_ADDR | FI_MR_ALLOCATED | FI_MR_PROV_KEY |
                              FI_MR_ENDPOINT;
    h->domain_attr->threading = FI_THREAD_DOMAIN;
    h->domain_attr->resource_mgmt = FI_RM_ENABLED;
    /* Defaults are for thousands: a provider would clear megabytes for each link. */
    h->tx_attr->size = conf->f.depth;
    h->rx_attr->size = RECEIVES;
    h->domain_attr->name = conf->domain == NULL ? NULL : strdup(conf->domain);
    h->fabric_attr->prov_name = strdup(provider);
    if (h->fabric_attr->prov_name == NULL || (conf->domain != NULL && h->domain_attr->name == NULL)) {
        fi_freeinfo(h);
        return NULL;
    }
    return h;
}

/* Memory is bound to the endpoint that serves; where it would have to be known
 * to each endpoint that reads, too, it would be registered for each link. */
static bool fits(const struct fi_info *info)
{
    const uint64_t both = FI_MR_ENDPOINT | FI_MR_LOCAL;

    return ((uint64_t)info->domain_attr->mr_mode & both) != both &&
           info->domain_attr->mr_key_size <= sizeof(uint64_t);
}

/* A provider whose addresses are those of the internet is told which to take. */
static bool node_of(const struct pd_ofi_conf *conf, char *text, size_t size)
{
    static const uint8_t any[16];
    struct pd_addr here, told;
    size_t n;

    if (pd_xp_addresses(conf->f.listen, conf->f.advertise, &here, &told, NULL) != PD_OK)
        return false;
    n = here.family == PD_AF_IPV4 ? 4 : 16;
    return memcmp(here.ip, any, n) != 0 &&
           inet_ntop(n == 4 ? AF_INET : AF_INET6, here.ip, text, (socklen_t)size) != NULL;
}

/* All of a provider that fit the hints; NULL when there are none. */
static struct fi_info *list_of(const struct pd_ofi_conf *conf, const struct fi_info *hints)
{
    struct fi_info *list = NULL;
    char node[INET6_ADDRSTRLEN];

    if (node_of(conf, node, sizeof(node)) &&
        fi_getinfo(FI_VERSION(1, 17), node, "0", FI_SOURCE, hints, &list) == 0)
        return list;
    return fi_getinfo(FI_VERSION(1, 17), NULL, NULL, 0, hints, &list) == 0 ? list : NULL;
}

static struct fi_info *find(const struct pd_ofi_conf *conf, const char *provider)
{
    struct fi_info *hints = hints_for(conf, provider), *list, *one, *found = NULL;

    if (hints == NULL)
        return NULL;
    list = list_of(conf, hints);
    if (list == NULL) {
        /* One with smaller queues: it says when they are full. */
        hints->tx_attr->size = hints->rx_attr->size = 0;
        list = list_of(conf, hints);
    }
    fi_freeinfo(hints);
    for (one = list; one != NULL && found == NULL; one = one->next)
        if (fits(one))
            found = fi_dupinfo(one);
    if (list != NULL)
        fi_freeinfo(list);
    return found;
}

struct fi_info *pd_ofi_choose(const struct pd_ofi_conf *conf, struct pd_err *err)
{
    struct fi_info *info = NULL;

    if (conf->provider != NULL)
        info = find(conf, conf->provider);
    for (size_t i = 0; conf->provider == NULL && info == NULL && i < sizeof(order) / sizeof(order[0]); i++)
        info = find(conf, order[i]);
    if (info == NULL)
        pd_xp_fail(err, PD_ENOENT, "libfabric has no provider \"%s\" with domain \"%s\" that can "
                   "read remote memory", conf->provider == NULL ? "any" : conf->provider,
                   conf->domain == NULL ? "any" : conf->domain);
    return info;
}
