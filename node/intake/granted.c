/* SPDX-License-Identifier: Apache-2.0 */
#include "node/intake/granted.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "base/alloc.h"

struct granted {
    pthread_mutex_t lock;
    atomic_uint any; /* nearly always 0: then nobody takes the lock */
    struct cidr *nets;
    char **users;
    unsigned net_count, user_count;
};

struct granted *granted_new(void)
{
    struct granted *g = mem_zalloc(sizeof(*g));
    pthread_mutex_init(&g->lock, NULL);
    return g;
}

static void clear(struct granted *g)
{
    for (unsigned i = 0; i < g->user_count; i++)
        free(g->users[i]);
    free(g->users);
    free(g->nets);
}

void granted_free(struct granted *g)
{
    if (!g)
        return;
    clear(g);
    pthread_mutex_destroy(&g->lock);
    free(g);
}

void granted_set(struct granted *g, const struct cidr *nets, unsigned net_count,
    const char *const *users, unsigned user_count)
{
    pthread_mutex_lock(&g->lock);
    clear(g);
    g->nets = mem_alloc((net_count + 1) * sizeof(*g->nets));
    g->users = mem_alloc((user_count + 1) * sizeof(char *));
    for (unsigned i = 0; i < net_count; i++)
        g->nets[i] = nets[i];
    for (unsigned i = 0; i < user_count; i++)
        g->users[i] = mem_strdup(slice_str(users[i]));
    g->net_count = net_count;
    g->user_count = user_count;
    atomic_store(&g->any, net_count + user_count);
    pthread_mutex_unlock(&g->lock);
}

bool granted_allows(struct granted *g, struct ipaddr ip)
{
    bool found = false;
    if (atomic_load_explicit(&g->any, memory_order_relaxed) == 0)
        return false;
    pthread_mutex_lock(&g->lock);
    for (unsigned i = 0; i < g->net_count && !found; i++)
        found = cidr_contains(g->nets[i], ip);
    pthread_mutex_unlock(&g->lock);
    return found;
}

bool granted_is_locked(struct granted *g, const char *user)
{
    bool found = false;
    if (atomic_load_explicit(&g->any, memory_order_relaxed) == 0)
        return false;
    pthread_mutex_lock(&g->lock);
    for (unsigned i = 0; i < g->user_count && !found; i++)
        found = strcmp(g->users[i], user) == 0;
    pthread_mutex_unlock(&g->lock);
    return found;
}
