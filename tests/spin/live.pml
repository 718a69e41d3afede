/* SPDX-License-Identifier: Apache-2.0 */
/* M7: after the owner (0) is fenced, somebody owns the unit at last.
 *
 * Holders 1, 2, 3 with the full list, all know the fence, nobody fails any more; every kind of step is a
 * process of its own, so that weak fairness (pan -f) is fairness for each of them.  The link
 * between 1 and 2 is cut for good; 3 can pass messages on.
 *
 * Checked: eventually and from then on exactly one owner.
 * Controls: BUG_NOCANCEL (a node with a pending claim never consents), BUG_NORELAY, BUG_NODIGEST (records
 *   that differ never meet outside claims), BUG_ONCE (no OK for a claim that is on record already: C3 as
 *   first written).  BUG_BOTHCANCEL (either cancels, not only the later one) is no error: the order saves time only. */
#define B(i) (1 << (i))
byte term[4], own[4], pend[4], ok[4];
bit mine[4];
#ifdef BUG_NORELAY
#define LINK(x, h) ((x) + (h) != 3)
#else
#define LINK(x, h) true
#endif
#define OWNER(x) (own[x] == (x) && mine[x])
#define OWNERS (OWNER(1) + OWNER(2) + OWNER(3))
#define NEWER(a, b) (term[a] > term[b] || (term[a] == term[b] && own[a] > own[b]))
#ifdef BUG_NOCANCEL
#define YIELDS(h, x) false
#else
#ifdef BUG_BOTHCANCEL
#define YIELDS(h, x) true
#else
#define YIELDS(h, x) ((h) > (x))
#endif
#endif
#define OTHERS(x) (14 & ~B(x))

inline copyver(a, b) { term[a] = term[b]; own[a] = own[b]; mine[a] = 0 }
/* h has the claim on record already, by an answer that was lost or from somebody else */
#ifdef BUG_ONCE
#define SAME(x, h) false
#else
#define SAME(x, h) (term[h] == pend[x] && own[h] == x)
#endif
inline ask(x, h) {
    if
    :: OWNER(h) || (term[h] >= pend[x] && own[h] != x) -> copyver(x, h); pend[x] = 0; ok[x] = 0
    :: else ->
        if
        :: pend[h] && YIELDS(h, x) -> pend[h] = 0; ok[h] = 0
        :: else
        fi;
        if
        :: pend[h] == 0 && (term[h] < pend[x] || SAME(x, h)) -> term[h] = pend[x]; own[h] = x; mine[h] = 0; ok[x] = ok[x] | B(h)
        :: else
        fi
    fi
}
/* a question that would change nothing is not a step */
#define ANSWERS(x, h) (OWNER(h) || (term[h] >= pend[x] && own[h] != x) || !pend[h] || YIELDS(h, x))

proctype claimer(byte x) {
    do
    :: d_step { !OWNER(x) && pend[x] == 0 && term[x] < 9 && (own[x] == 0 || own[x] == x) -> pend[x] = term[x] + 1; ok[x] = 0 }
    :: d_step { pend[x] && ok[x] == OTHERS(x) -> term[x] = pend[x]; own[x] = x; mine[x] = 1; pend[x] = 0; ok[x] = 0 }
    od
}
proctype asker(byte x; byte h) {
    do
    :: d_step { pend[x] && !(ok[x] & B(h)) && LINK(x, h) && ANSWERS(x, h) -> ask(x, h) }
    od
}
proctype digest(byte x; byte h) {
    do
    :: d_step { LINK(x, h) && NEWER(x, h) && !mine[h] && !(own[x] == h && pend[h]) -> copyver(h, x); pend[h] = 0; ok[h] = 0 }
    od
}
/* Always has a step, so that a standstill of all others is a run too. */
bit beat;
proctype idle() {
    do
    :: d_step { !beat -> beat = 1 }
    :: d_step { beat -> beat = 0 }
    od
}
init {
    atomic {
        run idle();
        term[1] = 1; term[2] = 1; term[3] = 1;
        run claimer(1); run claimer(2); run claimer(3);
        run asker(1, 2); run asker(1, 3); run asker(2, 1); run asker(2, 3); run asker(3, 1); run asker(3, 2);
#ifndef BUG_NODIGEST
        run digest(1, 2); run digest(1, 3); run digest(2, 1); run digest(2, 3); run digest(3, 1); run digest(3, 2)
#endif
    }
}
ltl settles { <>[] (OWNERS == 1) }
