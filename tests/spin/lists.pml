/* SPDX-License-Identifier: Apache-2.0 */
/* M3: the list of holders of ONE unit while it is accepted, copied, released and claimed.
 *
 * Four nodes; node 0 accepts.  The lease layer is reduced to its proven property (lease.pml):
 * fence(n) is atomic, and from then on session (n, ep) neither delivers nor adds holders; a node
 * need not know that it, or another, is fenced (fe[] is the truth, f(x,n) what x knows).
 * A copy on its way to a holder (Prepare, HolderAdd) is a frame that may arrive at any later time.
 *
 * Checked in every state:
 *   S1  at most one unfenced session believes that it owns the unit
 *   S2  after 250 a copy that is not aborted exists, with up to MAXD < copies disks destroyed
 *   S3  (-DCHECK_V) strict pairwise visibility: of two unfenced nodes with a record, one lists the other
 *   S4  visibility as mended: two nodes that do not list each other share a fenced node in their lists,
 *       so that the claim of either asks every member
 *
 * With -DGC (M5): delivery, Done, Forget and tombstones; nothing is delivered twice but for D5, and
 * (-DCHECK_GONE) no tombstone or mark outlives the exchange when nobody is removed.
 *
 * Bounds: MAXF fences, MAXR restarts, MAXA holders added, MAXL releases, MAXX transfers, MAXD disks, MAXM members removed.
 * Controls: see the README; each BUG_ removes one rule. */
#ifndef MAXF
#define MAXF 2
#endif
#ifndef MAXR
#define MAXR 0
#endif
#ifndef MAXA
#define MAXA 3
#endif
#ifndef MAXL
#define MAXL 0
#endif
#ifndef MAXX
#define MAXX 0
#endif
#ifndef MAXD
#define MAXD 0
#endif
#ifndef MAXM
#define MAXM 0
#endif
#define B(i) (1 << (i))
#define MAX(a, b) ((a) > (b) -> (a) : (b))
#define f(x, n) F[(x) * 4 + (n)]
#define k(x, n) K[(x) * 4 + (n)]

byte ep[4], fe[4];                        /* truth: epoch, highest fenced epoch */
byte term[4], own[4], oep[4], mine[4];    /* durable record of each node */
byte lst[4];                              /* its list of holders; 0 = no record */
byte F[16], K[16];                        /* fences and epochs that x knows of n */
byte sy[4];                               /* peers with which the session has synced */
byte pend[4], ok[4];                      /* claim: new term, nodes that consented */
bit xf[4];                                /* the claim is a transfer: the owner consented */
byte fl[4], ft[4], fo[4], fp[4];          /* copy in flight to h: list, term, owner, owner epoch */
byte rel[4];                              /* rule U: h refuses copies up to this term */
byte rq[4];                               /* term of a Release that h obeyed, acknowledgement under way */
byte ackd;                                /* nodes whose PrepareAck reached an owner */
byte tomb;                                /* nodes with an abort tombstone */
byte gone;                                /* nodes whose disk is destroyed */
bit dur0, said250, aborted;
#ifdef GC
byte gco = 9, gl, dacks, fgt;             /* who settles Done; list there, DoneAcks, Forgets under way */
byte tl[4];                               /* list kept in the tombstone */
byte removed, ndel, nm, blind;            /* blind: claimed when no node it could ask knew of the dot */
byte im;                                  /* im: nodes that know of the dot (intent, in memory) */
bit forgot, old;                          /* old: T_tomb has passed */
#endif
byte nf, nr, na, nl, nx, nd;

#define TOMB(x) (tomb & B(x))
#ifdef BUG_NOTOMB
#define UNKNOWN(h) true
#else
#define UNKNOWN(h) (!TOMB(h))
#endif
#define REC(x) (lst[x] != 0)
#define LIVE(x) (ep[x] > fe[x])
#define ALIVEK(x, n) (k(x, n) > f(x, n))
#define CLEAR(x, n) ((n) == (x) || (sy[x] & B(n)) || !ALIVEK(x, n))
#define READY(x) (CLEAR(x, 0) && CLEAR(x, 1) && CLEAR(x, 2) && CLEAR(x, 3))
#define BELIEVES(x) (REC(x) && own[x] == (x) && oep[x] == ep[x] && mine[x] == ep[x])
#define OWNER(x) (BELIEVES(x) && LIVE(x))
#define REOWNOK(x) (mine[x] && mine[x] == oep[x])
#define RECFENCED(x) (f(x, own[x]) >= oep[x])
#define NEWER(a, b) (term[a] > term[b] || (term[a] == term[b] && own[a] > own[b]))

/* Rule W: a claim asks every member if it passes over a fenced holder other than the recorded owner, or if
 * this session of the claimant has never been in touch with that owner. */
#define SKIP(x, n) ((n) != (x) && (lst[x] & B(n)) && !ALIVEK(x, n) && (n) != own[x])
/* C6: who could have claimed while x was away, and is down now, makes x claim instead of re-own. */
#ifdef BUG_REOWNALONE
#define PASSED(x) false
#else
#define PASSED(x) (SKIP(x, 0) || SKIP(x, 1) || SKIP(x, 2) || SKIP(x, 3))
#endif
#ifdef BUG_NARROW
#define WIDE(x) false
#else
#ifdef BUG_UNSYNCED
#define FRESH(x) true
#else
#define FRESH(x) (own[x] == x || (sy[x] & B(own[x])))
#endif
#define WIDE(x) (!FRESH(x) || SKIP(x, 0) || SKIP(x, 1) || SKIP(x, 2) || SKIP(x, 3))
#endif
#ifdef BUG_NOCONSENT
#define HASOK(x, h) true
#else
#define HASOK(x, h) \
    ((h) == (x) || (ok[x] & B(h)) || !ALIVEK(x, h) || (!(lst[x] & B(h)) && !WIDE(x)))
#endif
#define ALLOK(x) (HASOK(x, 0) && HASOK(x, 1) && HASOK(x, 2) && HASOK(x, 3))

inline copyver(a, b) {
    term[a] = term[b]; own[a] = own[b]; oep[a] = oep[b]; mine[a] = 0
}
inline unite(a, b) {
#ifndef BUG_NOUNION
    lst[a] = lst[a] | lst[b]; lst[b] = lst[a]
#endif
    skip
}
/* Rule U: who answers "unknown" for a unit that lists it refuses copies of older terms from then on. */
inline mark(x, t) {
#ifndef BUG_UNMARKED
    if
    :: rel[x] < (t) -> rel[x] = (t)
    :: else
    fi
#else
    skip
#endif
}
/* Rule C2a: a consent counts only if it was given after the claimant knew every fence it relies on, so
 * that the answer holds all that the fenced session told. */
#ifdef BUG_OLDCONSENT
#define ASK_AGAIN(x) skip
#else
#define ASK_AGAIN(x) if :: pend[x] -> ok[x] = 0 :: else fi
#endif
inline drop_claim(x) { pend[x] = 0; ok[x] = 0; xf[x] = 0 }
inline drop_record(x) {
    lst[x] = 0; term[x] = 0; own[x] = 0; oep[x] = 0; mine[x] = 0; drop_claim(x)
}
#ifdef GC
#define KEEPLIST(x) tl[x] = tl[x] | lst[x]
#else
#define KEEPLIST(x) skip
#endif
inline bury(x) { printf("tombstone at %d\n", x); KEEPLIST(x); drop_record(x); tomb = tomb | B(x) }
inline fence(n) { printf("fence %d\n", n); nf++; fe[n] = ep[n] }

#ifdef GC
/* D5: whoever knew of the first dot died before another live node knew */
#define TOLD(x, n) ((TOMB(n) || (im & B(n))) && ALIVEK(x, n))
#define D5(x) (!forgot && !old && !TOLD(x, 0) && !TOLD(x, 1) && !TOLD(x, 2) && !TOLD(x, 3))
#define BLIND(x) if :: ndel && D5(x) -> blind = blind | B(x) :: else fi
#define UNBLIND(x) blind = blind & ~B(x)
#define NAMED(p, x) (gco == p && (gl & B(x)))
#define FORGETINTENT(x) im = im & ~B(x)
#define TELLINTENT(h, x) if :: im & B(h) -> im = im | B(x) :: else fi
#else
#define BLIND(x) skip
#define UNBLIND(x) skip
#define NAMED(p, x) false
#define FORGETINTENT(x) skip
#define TELLINTENT(h, x) skip
#endif
/* New session of x.  The quorum read tells it all epochs and fences.  A record of node 0 that was not
 * durable yet is lost. */
inline restart(x) { printf("restart %d\n", x);
    nr++; fe[x] = MAX(fe[x], ep[x]); ep[x]++; drop_claim(x); sy[x] = 0; FORGETINTENT(x);
    if
    :: x == 0 && !dur0 -> drop_record(0); dur0 = 1
    :: else
    fi;
    k(x, 0) = ep[0]; k(x, 1) = ep[1]; k(x, 2) = ep[2]; k(x, 3) = ep[3];
    f(x, 0) = fe[0]; f(x, 1) = fe[1]; f(x, 2) = fe[2]; f(x, 3) = fe[3]
}

/* x, restarted, syncs with p: p shows its record only if its list names x. */
inline sync(x, p) { printf("sync %d %d\n", x, p);
    k(p, x) = MAX(k(p, x), ep[x]); f(p, x) = MAX(f(p, x), ep[x] - 1); k(x, p) = MAX(k(x, p), ep[p]);
    if
    :: TOMB(p) && (REC(x) || NAMED(p, x)) -> bury(x)
    :: !TOMB(p) && !REC(x) && REC(p) && (lst[p] & B(x)) -> mark(x, term[p] - 1)
    :: !TOMB(p) && REC(x) && REC(p) && (lst[p] & B(x)) ->
        unite(x, p);
        if
        :: BELIEVES(p) ->
            if
            :: term[x] >= term[p] && own[x] != p -> term[p] = term[x] + 1
            :: else
            fi;
            copyver(x, p)
        :: else ->
            if
            :: NEWER(p, x) -> copyver(x, p)
            :: else -> if :: NEWER(x, p) -> copyver(p, x) :: else fi
            fi
        fi;
        if
        :: own[p] == x && !BELIEVES(p) -> oep[p] = ep[x]; drop_claim(p)
        :: else
        fi
    :: else
    fi;
    sy[x] = sy[x] | B(p);
    TELLINTENT(p, x)
}

/* Owner x: the new name is stored first, then the copy goes out with the whole list. */
inline add(x, h) { printf("add %d %d\n", x, h);
    na++;
#ifndef BUG_ADDFIRST
    lst[x] = lst[x] | B(h);
    fl[h] = lst[x];
#else
    fl[h] = lst[x] | B(h);
#endif
#ifdef BUG_SHORTLIST
    fl[h] = B(x) | B(h);
#endif
    ft[h] = term[x]; fo[h] = x; fp[h] = oep[x]
}

/* The copy arrives. */
inline recv(h) { printf("recv %d\n", h);
    if
#ifndef BUG_STALEADD
    :: f(h, fo[h]) >= fp[h] -> skip                       /* a right of a fenced session */
#endif
    :: rel[h] >= ft[h] -> skip                            /* rule U: released or denied since */
    :: TOMB(h) -> skip
    :: else ->
        k(h, fo[h]) = MAX(k(h, fo[h]), fp[h]);
        if
        :: !REC(h) -> term[h] = ft[h]; own[h] = fo[h]; oep[h] = fp[h]; mine[h] = 0; lst[h] = fl[h]
        :: else -> lst[h] = lst[h] | fl[h]
        fi;
        if
        :: BELIEVES(fo[h]) && ep[fo[h]] == fp[h] -> ackd = ackd | B(h)
#ifdef BUG_ADDFIRST
            ; lst[fo[h]] = lst[fo[h]] | B(h)
#endif
        :: else
        fi
    fi;
    fl[h] = 0; ft[h] = 0; fo[h] = 0; fp[h] = 0
}

/* Release: h deletes its copy, leaves a mark, acknowledges; the name goes when the owner sees that. */
inline release(x, h) { printf("release %d %d\n", x, h);
    nl++;
#ifdef BUG_SHRINK
    lst[x] = lst[x] & ~B(h); ackd = ackd & ~B(h)
#else
    drop_record(h); rq[h] = term[x];
#ifndef BUG_NOMARK
    rel[h] = term[x];
#endif
     ackd = ackd & ~B(h)
#endif
}
inline released(x, h) { printf("released %d %d\n", x, h); lst[x] = lst[x] & ~B(h); rq[h] = 0 }

inline evidence(x, h, n) {
    if
#ifdef BUG_EVIDENCE
    :: (n) == own[x] && f(x, n) > f(h, n) -> f(h, n) = f(x, n); ASK_AGAIN(h)
#else
    :: (lst[x] & B(n)) && f(x, n) > f(h, n) -> f(h, n) = f(x, n); ASK_AGAIN(h)
#endif
    :: else
    fi
}

/* x asks h to consent to its claim. */
inline ask(x, h) { printf("ask %d %d\n", x, h);
    TELLINTENT(h, x); BLIND(x);
    k(h, x) = MAX(k(h, x), ep[x]);
    evidence(x, h, 0); evidence(x, h, 1); evidence(x, h, 2); evidence(x, h, 3);
    if
#ifndef BUG_NOTOMB
    :: TOMB(h) -> bury(x)
#endif
    :: !REC(h) && UNKNOWN(h) ->                           /* unknown here: counts as consent */
        ok[x] = ok[x] | B(h);
        if
        :: lst[x] & B(h) -> mark(h, pend[x] - 1)
        :: else
        fi
    :: else ->
        unite(x, h);
        if
        :: BELIEVES(h) || (term[h] >= pend[x] && own[h] != x) -> copyver(x, h); drop_claim(x)
        :: else ->
            if
            :: pend[h] && h > x && pend[h] <= pend[x] -> drop_claim(h)    /* C4: the later one cancels */
            :: else
            fi;
            if
            :: pend[h] == 0 && (term[h] < pend[x] || (term[h] == pend[x] && own[h] == x)) && (own[h] == x || RECFENCED(h) || xf[x]) ->
                term[h] = pend[x]; own[h] = x; oep[h] = ep[x]; mine[h] = 0; ok[x] = ok[x] | B(h)
            :: else
            fi
        fi
    fi
}
inline finish(x) { printf("finish %d\n", x);
    term[x] = pend[x]; own[x] = x; oep[x] = ep[x]; mine[x] = ep[x]; drop_claim(x);
    BLIND(x)
}
/* Transfer: live owner o gives the unit up to holder x and tells it all it knows. */
inline offer(o, x) { printf("offer %d %d\n", o, x);
    nx++; k(x, o) = MAX(k(x, o), ep[o]); k(o, x) = MAX(k(o, x), ep[x]);
    unite(o, x); TELLINTENT(o, x);
    pend[x] = term[o] + 1; ok[x] = B(o); xf[x] = 1;
    term[o] = pend[x]; own[o] = x; oep[o] = ep[x]; mine[o] = 0
}
inline destroy(n) { printf("destroy %d\n", n);
    nd++; fe[n] = ep[n]; drop_record(n); gone = gone | B(n);
    fl[n] = 0; ft[n] = 0; fo[n] = 0; fp[n] = 0; rq[n] = 0
}
#ifdef GC
#define HOT(d, n) (fl[d] && fo[d] == (n) && f(d, n) < fp[d])
#ifdef BUG_NODRAIN
#define DRAINED(n) true
#else
#define DRAINED(n) (!HOT(0, n) && !HOT(1, n) && !HOT(2, n) && !HOT(3, n))
#endif
/* Rule I: the gate needs an IntentAck of one unfenced holder, and of each that may not know the list. */
#ifdef BUG_ANYINTENT
#define UNSURE(x, h) false
#else
#define UNSURE(x, h) ((h) != (x) && (lst[x] & B(h)) && ALIVEK(x, h) && (!REC(h) || (lst[x] & ~lst[h])))
#endif
inline intent(x, h) {
    if
    :: UNSURE(x, h) -> im = im | B(h);
        if
        :: REC(h) -> unite(x, h); copyver(h, x); drop_claim(h)
        :: else -> mark(h, term[x] - 1)
        fi
    :: else
    fi
}
#define WILL1(x, h) (!UNSURE(x, h) || (UP(h) && (!REC(h) || own[h] == x || NEWER(x, h))))
#define WILL(x) (WILL1(x, 0) && WILL1(x, 1) && WILL1(x, 2) && WILL1(x, 3))
/* The dot of x, its intent known at y (y == x: no unfenced holder); the outcome follows as Done. */
inline deliver(x, y) { printf("deliver %d (intent at %d)\n", x, y);
    assert(ndel == 0 || (im & B(x)) || (blind & B(x)) || D5(x));
    if
    :: x != y -> im = im | B(y)
    :: else
    fi;
    intent(x, 0); intent(x, 1); intent(x, 2); intent(x, 3);
    ndel = 1; gco = x; gl = lst[x]; dacks = B(x); fgt = 0; bury(x)
}
inline done(h) { printf("done %d\n", h);
    bury(h);
#ifndef BUG_DONELIST
    gl = gl | tl[h];
#endif
    dacks = dacks | B(h)
}
#ifdef BUG_FORGETEARLY
#define SETTLED true
#else
#ifdef BUG_FORGETREMOVED
#define SETTLED ((gl & ~(dacks | removed)) == 0)
#else
/* rule R: when a name left without saying that it knows, everybody who is left must */
#define ONELEFT ((gl & removed & ~dacks) != 0)
#define SETTLED ((gl & ~dacks) == 0 || ((gl & ~(dacks | removed)) == 0 && (15 & ~(dacks | removed)) == 0))
#endif
#endif
#ifndef ONELEFT
#define ONELEFT false
#endif
#ifdef BUG_NOQUAR
#define STALE(x) false
#else
#define STALE(x) old
#endif
#define AGREES(x, h) (REC(h) && own[h] == x && oep[h] == ep[x])
#define MATE(x, h) ((h) != (x) && (lst[x] & B(h)) && ALIVEK(x, h))
#define ALONE(x) (!MATE(x, 0) && !MATE(x, 1) && !MATE(x, 2) && !MATE(x, 3))
#define GCPAIR(x, h) \
  :: d_step { OWNER(x) && UP(x) && (said250 || term[x] > 1) && WILL(x) && MATE(x, h) && AGREES(x, h) && UP(h) -> deliver(x, h) } 
#define GCNODE(x) \
  :: d_step { OWNER(x) && UP(x) && (said250 || term[x] > 1) && WILL(x) && ALONE(x) -> deliver(x, x) } \
  :: d_step { gco < 4 && ((gl & B(x)) || (ONELEFT && !(removed & B(x)))) && !(dacks & B(x)) && UP(x) && DRAINED(x) && DRAINED(gco) -> done(x) } \
  :: d_step { (fgt & B(x)) && UP(x) -> printf("forget %d\n", x); fgt = fgt & ~B(x); tomb = tomb & ~B(x); rel[x] = 0; tl[x] = 0 } \
  :: d_step { nm < MAXM && UP(x) && !LIVE(x) -> printf("remove %d\n", x); nm++; removed = removed | B(x); gone = gone | B(x); \
        drop_record(x); tomb = tomb & ~B(x); fl[x] = 0 } \
  :: d_step { old && REC(x) && !BELIEVES(x) && STALE(x) && UP(x) -> printf("quarantine %d\n", x); drop_record(x) } \
  :: d_step { old && TOMB(x) -> tomb = tomb & ~B(x); rel[x] = 0; tl[x] = 0 }
#else
#define STALE(x) false
#endif
#define BITS(m) (((m) & 1) + (((m) >> 1) & 1) + (((m) >> 2) & 1) + (((m) >> 3) & 1))
#ifdef BUG_RELEASEEARLY
#define KEPT(x, h) true
#else
#define KEPT(x, h) (BITS((ackd | B(x)) & lst[x] & ~B(h)) >= 2)
#endif
#define UP(x) (!(gone & B(x)))
#define HAVE_BODY(x) REC(x)

#define PAIR(x, h) \
  :: d_step { f(x, h) < fe[h] && UP(x) -> printf("%d learns fence of %d\n", x, h); f(x, h) = fe[h]; ASK_AGAIN(x) } \
  :: d_step { nr && UP(x) && !(sy[x] & B(h)) && ALIVEK(x, h) && k(x, h) == ep[h] && UP(h) -> sync(x, h) } \
  :: d_step { pend[x] && !(ok[x] & B(h)) && UP(h) && UP(x) && ((lst[x] & B(h)) || WIDE(x)) -> ask(x, h) } \
  :: d_step { OWNER(x) && na < MAXA && !aborted && !(lst[x] & B(h)) && fl[h] == 0 && UP(h) \
              && rel[h] < term[x] && (x != 0 || dur0 || lst[0] == 1) \
              && (x != 0 || term[0] > 1 || h == 1 || (lst[0] & B(h - 1))) -> add(x, h) } \
  :: d_step { OWNER(x) && nl < MAXL && (lst[x] & B(h)) && UP(h) && rq[h] == 0 && KEPT(x, h) && !BELIEVES(h) \
              && (!REC(h) || (own[h] == x && pend[h] == 0)) -> release(x, h) } \
  :: d_step { OWNER(x) && rq[h] == term[x] -> released(x, h) } \
  :: d_step { BELIEVES(x) && LIVE(x) && nx < MAXX && said250 && REC(h) && pend[h] == 0 && READY(h) -> offer(x, h) }

#define NODE(x) \
  :: d_step { nf < MAXF && LIVE(x) -> fence(x) } \
  :: d_step { nr < MAXR && UP(x) -> restart(x) } \
  :: d_step { nd < MAXD && UP(x) -> destroy(x) } \
  :: d_step { fl[x] && UP(x) -> recv(x) } \
  :: d_step { REC(x) && READY(x) && !STALE(x) && own[x] == x && REOWNOK(x) && !PASSED(x) && oep[x] < ep[x] && pend[x] == 0 -> \
              printf("reown %d\n", x); oep[x] = ep[x]; mine[x] = ep[x] } \
  :: d_step { LIVE(x) && REC(x) && READY(x) && !STALE(x) && !BELIEVES(x) && pend[x] == 0 && \
              ((own[x] != x && RECFENCED(x)) || (own[x] == x && (!REOWNOK(x) || PASSED(x)))) -> \
              printf("claim %d\n", x); pend[x] = term[x] + 1; ok[x] = 0; UNBLIND(x) } \
  :: d_step { pend[x] && !STALE(x) && ALLOK(x) && (xf[x] || RECFENCED(x) || own[x] == x) -> finish(x) } \
  :: d_step { aborted && REC(x) -> bury(x) }

#ifdef BUG_ABORTLATE
#define CANABORT (!aborted)
#else
#define CANABORT (!aborted && !said250)
#endif
#define COPY(x) (REC(x))
#define SEE(a, b) ((lst[a] & B(b)) || (lst[b] & B(a)))
#define PV(a, b) (!(REC(a) && REC(b) && LIVE(a) && LIVE(b)) || SEE(a, b))
#define FENCEDSET ((fe[0] > 0) + (fe[1] > 0) * 2 + (fe[2] > 0) * 4 + (fe[3] > 0) * 8)
#define PW(a, b) (PV(a, b) || (lst[a] & lst[b] & FENCEDSET))

active proctype world() {
    d_step {
        ep[0] = 1; ep[1] = 1; ep[2] = 1; ep[3] = 1; sy[0] = 15; sy[1] = 15; sy[2] = 15; sy[3] = 15;
        term[0] = 1; oep[0] = 1; mine[0] = 1; lst[0] = 1;
        K[0] = 1; K[1] = 1; K[2] = 1; K[3] = 1; K[4] = 1; K[5] = 1; K[6] = 1; K[7] = 1;
        K[8] = 1; K[9] = 1; K[10] = 1; K[11] = 1; K[12] = 1; K[13] = 1; K[14] = 1; K[15] = 1
    }
    do
    NODE(0) NODE(1) NODE(2) NODE(3)
    PAIR(0, 1) PAIR(0, 2) PAIR(0, 3) PAIR(1, 0) PAIR(1, 2) PAIR(1, 3)
    PAIR(2, 0) PAIR(2, 1) PAIR(2, 3) PAIR(3, 0) PAIR(3, 1) PAIR(3, 2)
    :: d_step { !dur0 -> dur0 = 1 }
    :: d_step { !said250 && !aborted && dur0 && ep[0] == 1 && BELIEVES(0) && (ackd & lst[0] & 14) -> said250 = 1 }
#ifdef GC
    GCNODE(0) GCNODE(1) GCNODE(2) GCNODE(3)
    GCPAIR(0, 1) GCPAIR(0, 2) GCPAIR(0, 3) GCPAIR(1, 0) GCPAIR(1, 2) GCPAIR(1, 3)
    GCPAIR(2, 0) GCPAIR(2, 1) GCPAIR(2, 3) GCPAIR(3, 0) GCPAIR(3, 1) GCPAIR(3, 2)
    :: d_step { gco < 4 && !forgot && SETTLED && !fgt && TOMB(gco) -> printf("forget\n"); forgot = 1; fgt = gl }
#ifdef CHECK_GONE
    :: timeout -> assert(!ndel || (!(tomb & ~gone) && !(rel[0] + rel[1] + rel[2] + rel[3]))); break
#else
    :: d_step { ndel && !old && nm -> printf("T_tomb passes\n"); old = 1 }
#endif
#else
    :: d_step { CANABORT && ep[0] == 1 && BELIEVES(0) -> aborted = 1; bury(0) }
#endif
    :: d_step { OWNER(0) + OWNER(1) + OWNER(2) + OWNER(3) > 1 -> assert(false) }
#ifndef GC
    :: d_step { said250 && !COPY(0) && !COPY(1) && !COPY(2) && !COPY(3) -> assert(false) }
#endif
#ifdef CHECK_V
    :: d_step { !(PV(0, 1) && PV(0, 2) && PV(0, 3) && PV(1, 2) && PV(1, 3) && PV(2, 3)) -> assert(false) }
#endif
#ifdef CHECK_W
    :: d_step { !(PW(0, 1) && PW(0, 2) && PW(0, 3) && PW(1, 2) && PW(1, 3) && PW(2, 3)) -> assert(false) }
#endif
    od
}
