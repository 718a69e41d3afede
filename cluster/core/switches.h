/* SPDX-License-Identifier: Apache-2.0 */
/* What only simulator builds have: switches that break a rule, counters of rare paths. */
#ifndef CLUSTER_CORE_SWITCHES_H
#define CLUSTER_CORE_SWITCHES_H

/* ---- switches that break one rule each; compiled only for the simulator ---- */
enum mutant {
    MUT_NONE,
    MUT_NO_QUARANTINE,      /* a restarted voter fences at once */
    MUT_LEASE_FROM_RECEIPT, /* lease counted from the arrival of the grant */
    MUT_MAJORITY_OF_ALIVE,  /* quorum counted over the nodes heard lately */
    MUT_FENCE_EARLY,        /* a voter fences while its promise runs */
    MUT_GRANT_FENCED,       /* a voter renews a fenced session */
    MUT_NO_SYNC,            /* re-own without SYNC */
    MUT_NO_TABLE,           /* session opens without the session table */
    MUT_LEARN_MINE,         /* ownership learned from another node */
    MUT_REOWN_ANY,          /* re-own of left-over consents */
    MUT_NO_CONSENT,         /* claim ends without asking the holders */
    MUT_NO_TIE,             /* versions compared by term alone */
    MUT_CONSENT_AGAIN,      /* consent although the owner lives */
    MUT_ACK_BEFORE_DURABLE,
    MUT_GRANT_BEFORE_DURABLE, /* new epoch granted before it is stored */
    MUT_NO_INTENT,            /* dot allowed before an intent is acknowledged */
    MUT_NO_DOUBT_HOLD,        /* heir delivers recipients in doubt at once */
    MUT_FORGET_EARLY,         /* tombstones forgotten before all acknowledged */
    MUT_UNKNOWN_DELETES,      /* "I do not know it" deletes the holder's copy */
    MUT_LIST_SHRINK,          /* a slow holder is dropped from the list unasked */
    MUT_NO_GATE,              /* dots do not look at the lease */
    MUT_ACCEPT_ONE,           /* 250 with the own copy alone */
    MUT_NO_ECHO,              /* copies of any age are taken (rule E) */
    MUT_NO_FENCE_CHECK,       /* copies of fenced sessions are taken */
    MUT_DONE_NOT_LOST,        /* Done skips the nodes that are down */
    MUT_NO_RESPONSIVE,        /* deaf nodes keep their promises */
    MUT_ABORT_NO_SEND,        /* abort is not told to the holders */
    MUT_OUTCOME_RIGHTS,       /* outcomes and Done of fenced sessions are refused */
    MUT_NO_FREEZE_CHECK,      /* lost time is not noticed */
    MUT_SPACING,              /* v+2 without waiting */
    MUT_NO_SEAL,              /* new voters start with an empty table */
    MUT_NO_STALE_WAIT,        /* no wait for holders that could have claimed */
    MUT_EPOCH_REUSED,         /* a restart keeps its epoch */
    MUT_451_FENCED,           /* 451 although an heir may have a copy (rule A) */
    MUT_FENCE_NEW,            /* sessions that never had a lease are fenced (rule G) */
    MUT_NARROW_CLAIM,         /* claims ask only their list (rule W) */
    MUT_RELEASE_KNOWER,       /* a holder is released while an attempt runs */
    MUT_NARROW_INTENT,        /* the gate ignores holders with an older list (rule N) */
    MUT_ANY_OUTCOME,          /* a deferral ends the doubts of other attempts */
    MUT_OLD_CONSENT,          /* consents older than a fence count (rule C2a) */
    MUT_REOWN_ALONE,          /* re-own although a holder is down */
    MUT_UNSYNCED,             /* claims are not wide where the owner was never met */
    MUT_STILL_STATIC,         /* static rights after the word against them was given */
    MUT_STATIC_MAJORITY,      /* a majority decides in static mode */
    MUT_COPY_COUNTS,          /* a copied fence row outruns a promise (rule P) */
    MUT_PROMISE_VOLATILE,     /* answers of Paxos do not wait for the disk */
    MUT_STALE_DELIVERED,      /* copies older than every tombstone are claimed */
    MUT_ROT_IGNORED,          /* damaged mail is delivered and inherited */
    MUT_TWIN_GRANTED,         /* two processes of one session get leases */
    MUT_STATIC_STRANGERS,     /* leaves static mode without having met (rule M) */
    MUT_PAIR_FENCED,          /* who vouched for the second voter fences it */
    MUT_LEFT_IS_ACKED,        /* who left need not know the end of a unit (rule R) */
    MUT_COUNT
};
#ifdef CORE_SIM
#define MUT(core, m) ((core)->mutant == (m))
#define SOMETIMES(core, s) ((core)->sometimes[s]++)
#else
#define MUT(core, m) ((void)(core), false)
#define SOMETIMES(core, s) ((void)(core))
#endif

/* Paths that a good soak must have walked. */
enum sometimes {
    ST_CLAIM_CONFLICT,
    ST_CLAIM_RESTART,
    ST_CLAIM_FINISH,
    ST_CLAIM_UNKNOWN,
    ST_CLAIM_REJECT_OWNER,
    ST_LEFTOVER,
    ST_TIE,
    ST_RAISE,
    ST_REOWN,
    ST_HEDGE,
    ST_ABORT,
    ST_DEGRADED,
    ST_RELEASE,
    ST_REPAIR,
    ST_RELAY,
    ST_FREEZE,
    ST_QUARANTINE,
    ST_DEAF,
    ST_WAIT,
    ST_FENCED_SELF,
    ST_FENCE_ROUND,
    ST_RESIGN,
    ST_STALE_ECHO,
    ST_GRAVE,
    ST_COPY_FENCED,
    ST_TOMB_HIT,
    ST_TOMB_ASK,
    ST_DOUBT_HOLD,
    ST_DOUBT_ENDED,
    ST_FACT_FORWARD,
    ST_STALE_WAIT,
    ST_STEAL,
    ST_SEQ_DROP,
    ST_DIGEST_DIFF,
    ST_SEAL,
    ST_CFG_STEP,
    ST_CFG_CONFLICT,
    ST_FULL,
    ST_BUSY,
    ST_GC_CLAIM,
    ST_ACCEPT_KNOWN,
    ST_ACCEPT_EXISTS,
    ST_NO_CREDIT,
    ST_LATE_COPY,
    ST_PUT_ASIDE,
    ST_TOMB_EXPIRED,
    ST_DAMAGED,
    ST_FIXED,
    ST_STEAL_ASKED,
    ST_OLD_IMAGE,
    ST_MORE_NAMES,
    ST_COUNT
};

#endif
