/* SPDX-License-Identifier: Apache-2.0 */
/* M7: a node that is heard but hears nothing is fenced at last (2.21, hole 12).
 *
 * Node n asks three voters for its lease again and again; the answers are lost for good from some moment on.
 * Ages are counted in ticks; L is two.  `unheard` is the age of the oldest grant that n has not acknowledged.
 *
 * Checked: once n is deaf, a quorum has fenced it eventually.  And while it hears, no quorum needs to.
 * Control: BUG_ALWAYSGRANT (no `responsive` rule: the promises are renewed for ever and nobody can fence). */
#define L 2
byte promise[3], unheard[3];
bit fenced[3], deaf;
#ifdef BUG_ALWAYSGRANT
#define RESPONSIVE(v) true
#else
#define RESPONSIVE(v) (unheard[v] < L)
#endif
#define CERT (fenced[0] + fenced[1] + fenced[2] >= 2)

proctype sender(byte v) {
    do
    :: d_step { !fenced[v] && RESPONSIVE(v) && promise[v] < L -> promise[v] = L }
    od
}
proctype hearer(byte v) {
    do
    :: d_step { !deaf && unheard[v] -> unheard[v] = 0 }
    od
}
proctype clock() {
    byte v;
    do
    :: d_step {
        v = 0;
        do
        :: v < 3 ->
            if
            :: promise[v] -> promise[v]--; if :: unheard[v] < L -> unheard[v]++ :: else fi
            :: else
            fi;
            v++
        :: else -> break
        od
    }
    od
}
proctype fencer(byte v) {
    do
    :: d_step { promise[v] == 0 && !fenced[v] -> fenced[v] = 1 }
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
        promise[0] = L; promise[1] = L; promise[2] = L;
        run sender(0); run sender(1); run sender(2); run hearer(0); run hearer(1); run hearer(2);
        run fencer(0); run fencer(1); run fencer(2); run clock()
    };
    deaf = 1
}
ltl ends { [] (deaf -> <> CERT) }
