/* SPDX-License-Identifier: Apache-2.0 */
/* M8: the gate before the final dot, in discrete time.
 *
 * Owner 0 with a lease, one holder that becomes the heir.  The owner announces the attempt (Intent, kept
 * in the holder's memory), passes the gate, writes the dot within DDOT, the bytes leave the kernel within
 * UTO (TCP_USER_TIMEOUT), the destination accepts, the reply becomes an Outcome.  The lease may end, the owner may
 * be fenced, crash, be cut off from the holder; the holder may restart.  The heir holds what is in doubt for HDOUBT.
 *
 * Checked:
 *   T1  no dot is written by a fenced session
 *   T2  the heir delivers without the mark "possible duplicate" only if the owner never passed the gate
 *   T3  no bytes of the owner's dot are accepted once the heir has delivered
 *   T4  no hold ends in a delivery when the Outcome reached the heir before
 * Controls: BUG_NOINTENT, BUG_NODDOT (the gate ignores the time between check and write), BUG_SHORTHOLD (hold
 *   shorter than UTO), BUG_NOHOLD, BUG_RECHECK (a paused write is finished without reading the gate again),
 *   BUG_UNMARKED (a holder that restarted delivers unmarked), BUG_DROPFACT (the outcome of a fenced session is refused). */
#ifndef TMAX
#define TMAX 12
#endif
#define L 3
#define DDOT 1
#ifndef UTO
#define UTO 2
#endif
#ifdef BUG_SHORTHOLD
#define HDOUBT (UTO - 1)
#else
#define HDOUBT (UTO + 1)
#endif
#define MAX(a, b) ((a) > (b) -> (a) : (b))
byte T, le, prom, gate_at, wrote_at, claim_at;
byte stage;      /* 0 idle, 1 announced, 2 gate passed, 3 written, 4 accepted there, 5 reply here */
bit fenced, dead, cut, known, acked, restarted, outcome, claimed, heir_sent, marked, tcp_dead;

#ifdef BUG_NOINTENT
#define INTENT_OK true
#else
#define INTENT_OK acked
#endif
#ifdef BUG_NODDOT
#define TIME_OK (T < le)
#else
#define TIME_OK (T + DDOT < le)
#endif
/* I4: what the gate allowed is written within DDOT, else the gate is read again. */
#ifdef BUG_RECHECK
#define WRITE_OK true
#else
#define WRITE_OK (T <= gate_at + DDOT)
#endif
#ifdef BUG_UNMARKED
#define DOUBT known
#else
#define DOUBT (known || restarted)
#endif
#ifdef BUG_NOHOLD
#define HELD false
#else
#define HELD (DOUBT && T < claim_at + HDOUBT)
#endif
#ifdef BUG_DROPFACT
#define FACT_OK (!fenced)
#else
#define FACT_OK true
#endif

active proctype world() {
    d_step { le = L; prom = L }
    do
    :: d_step { T < TMAX -> T++ }
    :: d_step { !fenced && !dead && prom != T + L -> prom = T + L }             /* the grant is lost */
    :: d_step { !fenced && !dead && le != T + L -> prom = T + L; le = T + L }
    :: d_step { !fenced && T >= prom -> printf("%d: fenced\n", T); fenced = 1 }
    :: d_step { !dead -> printf("%d: owner dies\n", T); dead = 1 }
    :: d_step { !cut -> printf("%d: cut\n", T); cut = 1 }
    :: d_step { cut -> printf("%d: heals\n", T); cut = 0 }
    :: d_step { stage == 0 && !dead && T < le -> printf("%d: announced\n", T); stage = 1 }
    :: d_step { stage >= 1 && stage < 5 && !known && !cut && !dead && !fenced && !claimed ->
        printf("%d: intent known\n", T); known = 1; acked = 1 }
    :: d_step { !restarted && !claimed -> printf("%d: holder restarts\n", T); restarted = 1; known = 0 }
    :: d_step { stage == 1 && !dead && INTENT_OK && TIME_OK -> printf("%d: gate\n", T); stage = 2; gate_at = T }
    :: d_step { stage == 2 && !dead && WRITE_OK -> printf("%d: dot\n", T); assert(!fenced); stage = 3; wrote_at = T }
    :: d_step { stage == 2 && !dead && !WRITE_OK -> printf("%d: gate shut\n", T); stage = 1 }
    :: d_step { stage == 3 && !tcp_dead && T <= wrote_at + UTO -> printf("%d: accepted\n", T); assert(!heir_sent); stage = 4 }
    :: d_step { stage == 3 && !tcp_dead -> tcp_dead = 1 }
    :: d_step { stage == 4 && !dead -> printf("%d: reply\n", T); stage = 5 }
    :: d_step { stage == 5 && !dead && !cut && !outcome && FACT_OK -> printf("%d: outcome at holder\n", T); outcome = 1 }
    :: d_step { fenced && !claimed -> printf("%d: claimed\n", T); claimed = 1; claim_at = T }
    :: d_step { claimed && !heir_sent && !outcome && !HELD && T >= claim_at ->
        printf("%d: heir delivers\n", T); heir_sent = 1; marked = DOUBT;
        assert(marked || stage < 2);
        assert(!(stage == 5 && !dead && !cut && T > claim_at && !FACT_OK)) }
    od
}
