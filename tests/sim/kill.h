/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TESTS_SIM_KILL_H
#define TESTS_SIM_KILL_H

/* Steps of the design's 2.7 and 2.10 at which a scenario kills the owner, one a seed. */
enum kill_step {
    KILL_STORE, /* its row and the copies are on their way */
    KILL_COPY,  /* a holder has the copy in its hands */
    KILL_DURABLE,
    KILL_ACK,   /* the holder's answer is there */
    KILL_250,   /* said, and the client does not hear it */
    KILL_HEARD, /* the client has it */
    KILL_ACCEPT_STEPS,
    KILL_ATTEMPT = KILL_ACCEPT_STEPS,
    KILL_INTENT, /* a holder has it */
    KILL_INTENT_OK,
    KILL_GATE,
    KILL_DOT,
    KILL_REPLY,   /* the destination's */
    KILL_OUTCOME, /* a holder has it */
    KILL_DONE,    /* ... all of it */
    KILL_GAVE,    /* an owner has given a unit away, and says so */
    KILL_TOOK,    /* a claimant has its answer */
    KILL_STEPS
};

#endif
