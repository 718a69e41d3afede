/* SPDX-License-Identifier: Apache-2.0 */
/* M6b: a static cluster of three members becomes a quorum cluster.
 *
 * Version 1 is static (each node delivers its own units without a lease), version 2 has three voters.
 * Node 0 proposes; a member that stored version 2 delivers only with a lease; voters act for version 2
 * once they know that it was decided.  Leases are reduced to what lease.pml proves: a session that
 * holds one is not fenced, fences need both other voters.
 * Each node has one unit from before (owner session own[n]) and new mail (owner session ep[n]).
 *
 * Checked: no node may deliver a unit whose owner session is fenced.
 * Bounds: MAXR restarts, MAXO power-offs named by the operator.
 * Controls: BUG_MAJORITY (decided by two of three), BUG_EARLY (voters act before they know the
 *   decision), BUG_STILLSTATIC (a node that stored version 2 still delivers without a lease),
 *   BUG_FENCENEW (a session that never asked for a lease may be fenced: 2.6 as first written),
 *   BUG_REOWN (a static node that restarted re-owns without contact to its peers). */
#ifndef MAXR
#define MAXR 3
#endif
#ifndef MAXO
#define MAXO 1
#endif
#define B(i) (1 << (i))
byte ep[3], cfg[3], own[3], fen[3], cur[3];   /* cur: newest session known to want leases */
byte heard[3];                                /* newest session of n heard by any voter */
byte acked, off, knows, up, lease;            /* bit masks of nodes */
bit decided, proposed;
byte nr, no;

#ifdef BUG_EARLY
#define ACTIVE(v) (cfg[v] == 2)
#else
#define ACTIVE(v) (knows & B(v))
#endif
#define UP(n) (up & B(n))
#define ALL(m) ((m) == 7)
#ifdef BUG_MAJORITY
#define ENOUGH ((acked | off) == 7 || (acked | off) == 3 || (acked | off) == 5 || (acked | off) == 6)
#else
#define ENOUGH ALL(acked | off)
#endif
#ifdef BUG_STILLSTATIC
#define RIGHT(n) (UP(n) && (!(knows & B(n)) || (lease & B(n))))
#else
#define RIGHT(n) (UP(n) && (cfg[n] == 1 || (lease & B(n))))
#endif
#ifdef BUG_FENCENEW
#define FENCEABLE(n) heard[n]
#else
#define FENCEABLE(n) cur[n]
#endif
#define MAX(a, b) ((a) > (b) -> (a) : (b))

#define NODE(n, a, b) \
  :: d_step { proposed && UP(n) && cfg[n] == 1 -> printf("%d stores version 2\n", n); cfg[n] = 2 } \
  :: d_step { cfg[n] == 2 && !(acked & B(n)) && UP(n) && !decided -> printf("%d acknowledges\n", n); \
        acked = acked | B(n); cur[n] = MAX(cur[n], ep[n]); heard[n] = MAX(heard[n], ep[n]) } \
  :: d_step { decided && UP(n) && !(knows & B(n)) -> printf("%d learns the decision\n", n); \
        cfg[n] = 2; knows = knows | B(n) } \
  :: d_step { UP(n) && nr < MAXR -> printf("%d stops\n", n); nr++; up = up & ~B(n); lease = lease & ~B(n) } \
  :: d_step { !UP(n) -> printf("%d starts\n", n); ep[n]++; up = up | B(n) } \
  :: d_step { !UP(n) && no < MAXO && !decided && proposed -> printf("%d named as powered off\n", n); \
        no++; off = off | B(n); cur[n] = MAX(cur[n], ep[n]); heard[n] = MAX(heard[n], ep[n]) } \
  :: d_step { UP(n) && heard[n] < ep[n] && (UP(a) || UP(b)) -> printf("%d is heard\n", n); heard[n] = ep[n] } \
  :: d_step { UP(n) && cfg[n] == 2 && ep[n] > fen[n] && !(lease & B(n)) && \
        ((ACTIVE(n) && (ACTIVE(a) || ACTIVE(b))) || (ACTIVE(a) && ACTIVE(b))) -> \
        printf("%d gets a lease\n", n); lease = lease | B(n); cur[n] = MAX(cur[n], ep[n]); \
        heard[n] = MAX(heard[n], ep[n]) } \
  :: d_step { (lease & B(n)) -> printf("lease of %d ends\n", n); lease = lease & ~B(n) } \
  :: d_step { ACTIVE(a) && ACTIVE(b) && UP(a) && UP(b) && !(lease & B(n)) && fen[n] < FENCEABLE(n) -> \
        printf("%d is fenced\n", n); fen[n] = FENCEABLE(n) } \
  :: d_step { UP(n) && own[n] < ep[n] && own[n] > fen[n] && \
        (REOWN(n, a, b) || (lease & B(n))) -> printf("%d re-owns\n", n); own[n] = ep[n] } \
  :: d_step { RIGHT(n) && own[n] == ep[n] && fen[n] >= own[n] -> assert(false) } \
  :: d_step { RIGHT(n) && fen[n] >= ep[n] -> assert(false) } \
  :: d_step { RIGHT(n) && cfg[n] == 1 && OLDTOO && fen[n] >= own[n] -> assert(false) }
#ifdef BUG_REOWN
#define OLDTOO true
#define REOWN(n, a, b) (cfg[n] == 1)
#else
#define OLDTOO false
#define REOWN(n, a, b) (cfg[n] == 1 && UP(a) && UP(b) && cfg[a] == 1 && cfg[b] == 1)
#endif

active proctype world() {
    d_step {
        ep[0] = 1; ep[1] = 1; ep[2] = 1; cfg[0] = 1; cfg[1] = 1; cfg[2] = 1; own[0] = 1; own[1] = 1; own[2] = 1;
        cur[0] = 1; cur[1] = 1; cur[2] = 1; heard[0] = 1; heard[1] = 1; heard[2] = 1; up = 7
    }
    do
    NODE(0, 1, 2) NODE(1, 0, 2) NODE(2, 0, 1)
    :: d_step { !proposed && UP(0) -> proposed = 1; cfg[0] = 2 }
    :: d_step { proposed && !decided && ENOUGH -> printf("decided\n"); decided = 1; knows = knows | 1; cfg[0] = 2 }
    od
}
