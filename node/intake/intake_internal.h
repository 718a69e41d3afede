/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of this room share. */
#ifndef NODE_INTAKE_INTAKE_INTERNAL_H
#define NODE_INTAKE_INTAKE_INTERNAL_H

#include <pthread.h>
#include <stdatomic.h>
#include <sys/queue.h>

#include "base/ids.h"
#include "node/intake/auth.h"
#include "node/intake/clients.h"
#include "node/intake/granted.h"
#include "node/intake/intake.h"
#include "node/intake/pace.h"
#include "node/intake/policy.h"
#include "node/intake/repeats.h"
#include "node/intake/verify.h"
#include "node/net/listener.h"
#include "node/net/tls.h"

/* One generation of the settings with all that was loaded from them. Immutable. */
struct intake_config {
    atomic_uint refs;
    struct settings *settings;
    struct policy *policy;
    struct tls_server *tls;   /* NULL: no certificate */
    struct auth_users *users; /* NULL: no users file */
    char warning[300];        /* "" or what an operator should look at */
};
/* NULL with problems. */
struct intake_config *intake_config_new(
    struct settings *s, struct settings_problems *problems);
struct intake_config *intake_config_ref(struct intake_config *c);
void intake_config_unref(struct intake_config *c);

/* Connections of a listener, by its name: it outlives a reload. */
struct intake_service {
    LIST_ENTRY(intake_service) link;
    atomic_uint open;
    char name[];
};

/* An address that we listen on. Port 0 is told apart by where it stands in the file. */
struct intake_address {
    struct netaddr asked, bound;
    const char *listener; /* name; owned */
    unsigned index;       /* in the listener's list */
};

/* Its socket on one loop. */
struct intake_door {
    LIST_ENTRY(intake_door) link;
    struct intake_loop *il;
    struct intake_address address;
    struct acceptor *acceptor;
    unsigned generation; /* of the configuration below */
    struct intake_config *config;
    const struct listener_settings *listener;
    struct intake_service *service;
};

/* A domain that DNS said takes mail: not asked again for a while. */
#define DOMAINS_KNOWN 512
struct known_domain {
    uint64_t hash;
    struct mono until;
};

LIST_HEAD(session_list, session);
LIST_HEAD(door_list, intake_door);
struct intake_loop {
    struct intake *intake;
    struct loop *loop;
    struct conns *conns;
    unsigned index;
    struct session_list sessions;
    struct door_list doors;
    unsigned waiting; /* transactions without a session */
    atomic_uint load; /* sessions and those; read by the main thread */
    bool draining;
    struct pace pace;
    struct verifier *verifier; /* made on first use */
    uint64_t domain_key;
    struct known_domain domains[DOMAINS_KNOWN];
};

struct intake_ids {
    pthread_mutex_t lock; /* more loops than lanes share one */
    struct msg_id_source source;
};

struct intake {
    struct intake_deps deps;
    struct intake_loop *loops;
    struct clients *clients;
    struct verify_memory *verified;
    struct repeats *repeats;
    struct granted *granted;
    struct intake_ids ids[INTAKE_LANES];
    struct pace_memory memory;
    pthread_mutex_t lock; /* guards `config` and `services` */
    struct intake_config *config;
    atomic_uint generation; /* of `config`; rises with each reload */
    LIST_HEAD(, intake_service) services;
    struct intake_address *addresses; /* main thread */
    unsigned address_count;
};

/* The settings of now; the caller owns the reference. Any thread. */
struct intake_config *intake_config_now(struct intake *in);
/* By the settings, or granted at run time. Any thread. */
bool intake_is_relay_client(
    struct intake *in, const struct intake_config *config, struct ipaddr ip);
struct intake_service *intake_service(struct intake *in, const char *name);
struct msg_id intake_new_id(struct intake_loop *il, struct wall now);
/* Takes from the budget for bodies; false when there is not so much left. */
bool intake_reserve(struct intake *in, uint64_t bytes, uint64_t budget);
void intake_unreserve(struct intake *in, uint64_t bytes);
/* Keeps `load` right. */
void intake_loop_count(struct intake_loop *il, int change);

#endif
