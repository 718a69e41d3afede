/* SPDX-License-Identifier: Apache-2.0 */
/* M6: two configuration changes in a row under the lease of ONE session (of a node that is no voter).
 *
 * Voters: version 1 {0,1,2}, version 2 {0,1,2,3}, version 3 {1,2,3}.  A voter of version w+1 becomes
 * active by reading the fence rows of a quorum of voters(w); who answers that read is sealed: it
 * refuses whatever is tagged w from then on.  Clocks are perfect (the drift is in lease.pml's argument), a
 * grant arrives at once (a later arrival only removes behaviours).
 *
 * Checked: no instant with a lease from a quorum of any version and a fence from a quorum of any version.
 * Controls: BUG_NOSEAL, BUG_NOCOPY (fence rows are not taken over), BUG_NOSPACING, BUG_NOACTIVE (version
 *   3 before a quorum of version 2 is active),
 *   BUG_JUMP (version 2 exchanges two voters at once), BUG_NOQUAR, BUG_SEALVOLATILE (a restart forgets the seal),
 *   BUG_COPYCOUNTS (a copied row confirms a fence at once: 2.3 and 2.6 as first written). */
#ifndef TMAX
#define TMAX 4
#endif
#ifndef L
#define L 2
#endif
#define B(i) (1 << (i))
#define MAX(a, b) ((a) > (b) -> (a) : (b))
#ifdef BUG_JUMP
#define V2 12                                  /* {2,3}, from {0,1,2} */
#define Q2 2
#else
#define V2 15
#define Q2 3
#endif
#define V1 7
#define V3 14
#define VOTERS(w) ((w) == 1 -> V1 : ((w) == 2 -> V2 : V3))
#define QUORUM(w) ((w) == 2 -> Q2 : 2)
#define BITS(m) (((m) & 1) + (((m) >> 1) & 1) + (((m) >> 2) & 1) + (((m) >> 3) & 1))

byte T, decided, quorum_at, used;
byte ver[4], act[4], prom[4], quar[4];
byte expi[12];                                 /* (w - 1) * 4 + v */
byte fenced, okays[4];                        /* okays[w]: voters that confirmed under version w */
#define e(v, w) expi[((w) - 1) * 4 + (v)]
#define SERVES(v, w) (act[v] == (w) && ver[v] <= (w) && (VOTERS(w) & B(v)))
#define HELD(w) (BITS(VOTERS(w) & ((e(0, w) > T) + (e(1, w) > T) * 2 + (e(2, w) > T) * 4 + (e(3, w) > T) * 8)) >= QUORUM(w))
#define CERT(w) (BITS(VOTERS(w) & okays[w]) >= QUORUM(w))
#define ACTIVE2 ((act[0] >= 2) + (act[1] >= 2) + (act[2] >= 2) + (act[3] >= 2))

/* v, asked by a reader for version w + 1, seals; its row for version w is frozen with that */
#define SEALS(v, w) \
  :: d_step { decided > (w) && act[v] == (w) && ver[v] <= (w) && (VOTERS(w) & B(v)) -> \
        printf("%d: %d seals version %d\n", T, v, w); SEAL(v, w) }
#define SEALED(v, w) (ver[v] > (w))
/* u, a voter of version w + 1, has read the rows of the voters in set s, a quorum of voters(w) */
#define READ(u, s, w) \
  :: d_step { decided > (w) && (VOTERS(w + 1) & B(u)) && act[u] <= (w) && (UNSEALEDOK || \
        (s & ~(SEALED(0, w) + SEALED(1, w) * 2 + SEALED(2, w) * 4 + SEALED(3, w) * 8)) == 0) -> \
        printf("%d: %d is active in version %d\n", T, u, (w) + 1); \
        act[u] = (w) + 1; ver[u] = MAX(ver[u], (w) + 1); \
        if :: fenced & (s) -> COPY(u) :: else fi }
#ifdef BUG_NOSEAL
#define SEAL(v, w) skip
#define UNSEALEDOK true
#else
#define UNSEALEDOK false
#define SEAL(v, w) ver[v] = MAX(ver[v], (w) + 1)
#endif
#ifdef BUG_NOCOPY
#define COPY(u) skip
#else
#define COPY(u) fenced = fenced | B(u)
#endif
/* Rule P: a row that came by copy does not end the promise of the voter that copied it. */
#ifdef BUG_COPYCOUNTS
#define CONFIRMS(v) ((fenced & B(v)) || (T >= prom[v] && T >= quar[v]))
#else
#define CONFIRMS(v) (T >= prom[v] && T >= quar[v])
#endif
#define STEP(v, w) \
  :: d_step { SERVES(v, w) && !(fenced & B(v)) && e(v, w) != T + L -> printf("%d: %d grants under %d\n", T, v, w); prom[v] = MAX(prom[v], T + L); e(v, w) = T + L } \
  :: d_step { SERVES(v, w) && !(okays[w] & B(v)) && CONFIRMS(v) -> \
        printf("%d: %d fences under %d\n", T, v, w); fenced = fenced | B(v); okays[w] = okays[w] | B(v) }
#ifdef BUG_NOQUAR
#define QUAR 0
#else
#define QUAR (T + L)
#endif
#ifdef BUG_SEALVOLATILE
#define UNSEAL(v) ver[v] = act[v]
#else
#define UNSEAL(v) skip
#endif
#define CRASH(v) \
  :: d_step { used < MAXC -> used++; prom[v] = 0; quar[v] = QUAR; UNSEAL(v) }
#ifndef MAXC
#define MAXC 1
#endif
#ifdef BUG_NOSPACING
#define SPACED true
#else
#define SPACED (T >= quorum_at + L)
#endif
#ifdef BUG_NOACTIVE
#define READY3 true
#else
#define READY3 (ACTIVE2 >= Q2 && quorum_at && SPACED)
#endif
#define VOTER(v) STEP(v, 1) STEP(v, 2) STEP(v, 3) CRASH(v)
#define READS1(u) READ(u, 3, 1) READ(u, 5, 1) READ(u, 6, 1)
#ifdef BUG_JUMP
#define READS2(u) READ(u, 12, 2)
#else
#define READS2(u) READ(u, 7, 2) READ(u, 11, 2) READ(u, 13, 2) READ(u, 14, 2)
#endif

active proctype world() {
    d_step { decided = 1; ver[0] = 1; ver[1] = 1; ver[2] = 1; act[0] = 1; act[1] = 1; act[2] = 1; T = 1 }
    do
    VOTER(0) VOTER(1) VOTER(2) VOTER(3)
    SEALS(0, 1) SEALS(1, 1) SEALS(2, 1) SEALS(0, 2) SEALS(1, 2) SEALS(2, 2) SEALS(3, 2)
    READS1(0) READS1(1) READS1(2) READS1(3) READS2(1) READS2(2) READS2(3)
    :: d_step { T < TMAX -> T++ }
    :: d_step { decided == 1 -> decided = 2 }
    :: d_step { decided == 2 && !quorum_at && ACTIVE2 >= Q2 -> quorum_at = T }
    :: d_step { decided == 2 && READY3 -> decided = 3 }
    :: d_step { (HELD(1) || HELD(2) || HELD(3)) && (CERT(1) || CERT(2) || CERT(3)) -> assert(false) }
    od
}
