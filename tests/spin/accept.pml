/* SPDX-License-Identifier: Apache-2.0 */
/* M4: accepting one message at node 0 with two copies; holders 1 and 2 (2 is the hedge).
 *
 * Prepare, acknowledgement, 250, abort, 451, the crash of node 0 between any two of them, its return, the
 * takeover.  A claim is one step here (lists.pml and claim.pml take it apart).  Node 0 may be fenced
 * without knowing; a session that holds a lease is not fenced.
 *
 * Checked:
 *   A1  250 is said only with two durable copies, and no copy is buried as aborted before or after it
 *   A2  after 250 the unit is delivered or a copy exists (one copy may be lost: MAXLOSS)
 *   A3  451 is not said once the unit is delivered
 *   A4  after 451 nothing is delivered, but for D8: the session of node 0 is fenced and the holder never heard of the abort
 * Controls: BUG_ACKEARLY, BUG_ONECOPY, BUG_ABORTEARLY (451 before the abort is durable), BUG_BOTH (the
 *   timer aborts after 250), BUG_ABORTUNKNOWN (a returned node 0 that does not know the unit orders an
 *   abort), BUG_451FENCED (451 without a live lease and without every holder's word: 2.7 as first written),
 *   BUG_LATEPREP (an abort that comes before the copy leaves no tombstone). */
#ifndef MAXLOSS
#define MAXLOSS 1
#endif
#define B(i) (1 << (i))
byte rec, tomb, list0, acks, abacks;      /* masks of nodes; list0: durable list of node 0 */
byte lh[3], pr[3];                        /* list in the copy of h; Prepare on its way to h */
byte ep0, fe0, f[3], k[3];                /* node 0: epoch, fenced epoch; what h knows of it */
byte owner, reply;                        /* 3 = nobody; 0 none 1 250 2 451 3 closed without a word */
byte nloss, nrestart;
bit dur0, up0, synced0, decided, wantabort, durabort, delivered, d8;
#define LEASE0 (up0 && ep0 > fe0)
#define OWN0 (owner == 0)

/* holder h stores the copy */
inline store(h) {
    if
    :: tomb & B(h) -> skip
    :: f[h] >= 1 -> skip
    :: else -> printf("copy stored at %d\n", h); rec = rec | B(h); lh[h] = pr[h]
    fi;
    pr[h] = 0
}
inline bury(h) { printf("%d buries the unit\n", h); 
#ifdef BUG_LATEPREP
    if :: rec & B(h) -> tomb = tomb | B(h) :: else fi;
#else
    tomb = tomb | B(h);
#endif
    rec = rec & ~B(h); abacks = abacks | B(h); lh[h] = 0;
    if :: owner == h -> owner = 3 :: else fi }

#define HOLDER(h, g) \
  :: d_step { pr[h] -> store(h) } \
  :: d_step { (rec & B(h)) && reply == 0 && up0 && ep0 == 1 && !(acks & B(h)) -> acks = acks | B(h) } \
  :: d_step { f[h] < fe0 -> printf("%d learns the fence of 0\n", h); f[h] = fe0 } \
  :: d_step { durabort && !(tomb & B(h)) && !(delivered && owner == h) && !(abacks & B(h)) && (list0 & B(h)) -> bury(h) } \
  :: d_step { up0 && synced0 == 0 && ep0 == 2 && k[h] < 2 -> printf("0 syncs with %d\n", h); k[h] = 2; f[h] = 1; \
        if :: durabort && (rec & B(h)) && !(delivered && owner == h) -> bury(h) :: else fi; \
        if :: k[g] == 2 -> synced0 = 1 :: else fi } \
  :: d_step { (rec & B(h)) && f[h] >= 1 && owner != h && !(tomb & B(h)) && owner != g && \
        (k[h] < 2 || (up0 && !OWN0)) -> \
        if \
        :: k[h] == 2 && UNKNOWNABORTS && !(rec & 1) -> bury(h) \
        :: k[h] == 2 && durabort -> bury(h) \
        :: (tomb & B(g)) && (lh[h] & B(g)) -> bury(h) \
        :: else -> printf("%d claims\n", h); owner = h \
        fi } \
  :: d_step { owner == h && (rec & B(h)) && !delivered -> printf("%d delivers\n", h); delivered = 1; \
        if :: reply == 2 && fe0 >= 1 && !(abacks & B(h)) -> d8 = 1 :: else fi }
#ifdef BUG_ABORTUNKNOWN
#define UNKNOWNABORTS true
#else
#define UNKNOWNABORTS false
#endif
#define NACKS (((acks & list0) >> 1) & 1) + (((acks & list0) >> 2) & 1)
#ifdef BUG_ONECOPY
#define MAYSAY250 (dur0)
#else
#ifdef BUG_ACKEARLY
#define MAYSAY250 (dur0 && (pr[1] || pr[2] || NACKS >= 1))
#else
#define MAYSAY250 (dur0 && NACKS >= 1)
#endif
#endif
#ifdef BUG_BOTH
#define MAYABORT (reply != 2)
#else
#define MAYABORT (reply == 0 && !decided)
#endif
#ifdef BUG_ABORTEARLY
#define ABORTED (wantabort)
#else
#define ABORTED (durabort)
#endif
/* Rule A: 451 needs a live lease now, or the word of every holder that the unit is buried. */
#ifdef BUG_451FENCED
#define MAYSAY451 true
#else
#define MAYSAY451 (LEASE0 || ((abacks | 1) & list0) == list0)
#endif

active proctype world() {
    d_step { ep0 = 1; up0 = 1; synced0 = 1; list0 = 3; pr[1] = 3; rec = 0; owner = 0; k[1] = 1; k[2] = 1 }
    do
    HOLDER(1, 2) HOLDER(2, 1)
    :: d_step { !dur0 && !durabort && up0 && ep0 == 1 -> printf("own copy durable\n"); dur0 = 1; rec = rec | 1 }
    :: d_step { up0 && ep0 == 1 && dur0 && !(list0 & 4) && reply == 0 -> printf("hedge to 2\n"); list0 = 7; pr[2] = 7 }
    :: d_step { up0 && ep0 == 1 && reply == 0 && !wantabort && MAYSAY250 -> printf("250\n"); decided = 1; reply = 1;
        assert(!(tomb & list0) && ((rec >> 1) & 1) + ((rec >> 2) & 1) >= 1 && (rec & 1)) }
    :: d_step { up0 && ep0 == 1 && MAYABORT && !wantabort -> printf("abort wanted\n"); wantabort = 1 }
    :: d_step { up0 && ep0 == 1 && wantabort && !durabort -> printf("abort durable\n"); durabort = 1; rec = rec & ~1;
        tomb = tomb | 1; if :: OWN0 -> owner = 3 :: else fi }
    :: d_step { up0 && ep0 == 1 && ABORTED && reply == 0 && MAYSAY451 -> printf("451\n"); reply = 2; assert(!delivered) }
    :: d_step { up0 && reply == 0 -> printf("connection closed\n"); reply = 3 }
    :: d_step { fe0 < ep0 && ep0 == 1 -> printf("0 is fenced\n"); fe0 = 1 }
    :: d_step { up0 && nrestart < 1 -> printf("0 crashes\n"); nrestart++; up0 = 0; if :: reply == 0 -> reply = 3 :: else fi;
        if :: OWN0 -> owner = 3 :: else fi }
    :: d_step { !up0 && nloss < MAXLOSS && reply == 1 && (rec & 1) -> printf("disk of 0 rolled back\n"); nloss++; rec = rec & ~1; dur0 = 0 }
    :: d_step { !up0 && ep0 == 1 -> printf("0 starts again\n"); ep0 = 2; fe0 = 1; up0 = 1; synced0 = 0 }
    :: d_step { up0 && ep0 == 2 && synced0 && (rec & 1) && owner == 3 -> printf("0 re-owns\n"); owner = 0 }
    :: d_step { OWN0 && up0 && ep0 > fe0 && (rec & 1) && !delivered && (ep0 == 2 || reply == 1) -> printf("0 delivers\n"); delivered = 1;
        assert(reply != 2) }
    :: d_step { reply == 1 && !delivered && !rec -> assert(false) }
    :: d_step { reply == 1 && (tomb) -> assert(false) }
    :: d_step { reply == 2 && delivered && !d8 -> assert(false) }
    od
}
