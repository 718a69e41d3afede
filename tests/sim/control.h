/* SPDX-License-Identifier: Apache-2.0 */
/* The negative controls: each switch removes one rule, and somewhere that must show. */
#ifndef TESTS_SIM_CONTROL_H
#define TESTS_SIM_CONTROL_H

#include <stdint.h>

struct control {
    const char *name, *rule;
    const char *world; /* "": the swarm; a profile; "@" and a scenario */
};

const struct control *control_at(uint8_t mutant);
int control_find(const char *name); /* enum mutant, -1: none */

#endif
