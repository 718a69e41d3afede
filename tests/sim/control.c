/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/sim/control.h"

#include "cluster/core/switches.h"

#include <string.h>

#define CONTROL(name, world, rule) [MUT_##name] = {#name, rule, world}

static const struct control table[MUT_COUNT] = {
    [MUT_NONE] = {"NONE", "", ""},
    CONTROL(NO_QUARANTINE, "", "I2: a restarted voter judges nobody for one lease"),
    CONTROL(LEASE_FROM_RECEIPT, "@7-grants-come-late", "a lease counts from its request"),
    CONTROL(MAJORITY_OF_ALIVE, "", "a quorum is of all voters, not of those heard"),
    CONTROL(FENCE_EARLY, "", "no fence while the own promise runs"),
    CONTROL(GRANT_FENCED, "", "no grant to a fenced session"),
    CONTROL(NO_SYNC, "returning", "C6: no re-own before SYNC"),
    CONTROL(NO_TABLE, "", "a session opens with the session table"),
    CONTROL(LEARN_MINE, "late", "ownership is never learned"),
    CONTROL(REOWN_ANY, "heirs", "C6: a left-over consent needs a claim"),
    CONTROL(NO_CONSENT, "", "C2: a claim asks every name"),
    CONTROL(NO_TIE, "heirs", "C5: one term, two owners: the ids decide"),
    CONTROL(CONSENT_AGAIN, "heirs", "C3: no consent while the owner lives"),
    CONTROL(ACK_BEFORE_DURABLE, "", "answers wait for the disk"),
    CONTROL(GRANT_BEFORE_DURABLE, "", "a new epoch is granted when it is stored"),
    CONTROL(NO_INTENT, "", "no dot before an intent is acknowledged"),
    CONTROL(NO_DOUBT_HOLD, "", "an heir holds what is in doubt"),
    CONTROL(FORGET_EARLY, "", "Forget only when all have acknowledged"),
    CONTROL(UNKNOWN_DELETES, "@24-disk-rolled-back", "\"unknown\" never deletes mail"),
    CONTROL(LIST_SHRINK, "", "a name leaves the list by its acknowledgement"),
    CONTROL(NO_GATE, "", "a dot looks at the lease"),
    CONTROL(ACCEPT_ONE, "", "250 needs the copies"),
    CONTROL(NO_ECHO, "", "E: a copy must be young by the holder's clock"),
    CONTROL(NO_FENCE_CHECK, "", "no copies from fenced sessions"),
    CONTROL(DONE_NOT_LOST, "", "Done goes to names that are down too"),
    CONTROL(NO_RESPONSIVE, "", "a deaf node's promise is not renewed"),
    CONTROL(ABORT_NO_SEND, "", "an abort is told before 451"),
    CONTROL(OUTCOME_RIGHTS, "late", "facts are taken from anybody"),
    CONTROL(NO_FREEZE_CHECK, "", "a clock that stood still is noticed"),
    CONTROL(SPACING, "", "two sets of voters are a lease apart"),
    CONTROL(NO_SEAL, "", "a new set of voters reads the table of the old one"),
    CONTROL(NO_STALE_WAIT, "", "wait for a name that may have claimed meanwhile"),
    CONTROL(EPOCH_REUSED, "", "each start is a new epoch"),
    CONTROL(451_FENCED, "", "A: 451 needs a lease or all acknowledgements"),
    CONTROL(FENCE_NEW, "sworn", "G: frames of static sessions are not known"),
    CONTROL(NARROW_CLAIM, "branches", "W: who passes over a dead heir asks everybody"),
    CONTROL(RELEASE_KNOWER, "returning", "N: no release while an attempt runs"),
    CONTROL(NARROW_INTENT, "untold", "N: names with a shorter list must know"),
    CONTROL(ANY_OUTCOME, "late", "a deferral ends the doubt of its own attempt only"),
    CONTROL(OLD_CONSENT, "untold", "C2a: a consent is younger than the fences"),
    CONTROL(REOWN_ALONE, "", "C6: no re-own past a name that is down"),
    CONTROL(UNSYNCED, "untold", "W: who never met the owner asks everybody"),
    CONTROL(STILL_STATIC, "@22-acceptor-deaf", "static rights end with the own vote"),
    CONTROL(STATIC_MAJORITY, "", "in static mode all decide"),
    CONTROL(COPY_COUNTS, "", "P: a copied fence row is no vote"),
    CONTROL(PROMISE_VOLATILE, "", "votes of Paxos wait for the disk"),
    CONTROL(
        STALE_DELIVERED, "@20-away-longer-than-tombs", "T_tomb: too old is put aside"),
    CONTROL(ROT_IGNORED, "@18-bit-rot", "rotten mail is not delivered nor inherited"),
    CONTROL(PAIR_FENCED, "", "who vouched for the second voter does not fence it"),
    CONTROL(STATIC_STRANGERS, "sworn", "M: who leaves static mode has met every voter"),
    CONTROL(LEFT_IS_ACKED, "", "R: who left without saying so does not know the end"),
    CONTROL(TWIN_GRANTED, "@24-snapshot-restored", "one session, one process"),
};

const struct control *control_at(uint8_t mutant)
{
    return &table[mutant];
}

int control_find(const char *name)
{
    for (int m = 0; m < MUT_COUNT; m++)
        if (strcmp(table[m].name, name) == 0)
            return m;
    return -1;
}
