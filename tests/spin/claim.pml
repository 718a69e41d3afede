/* SPDX-License-Identifier: Apache-2.0 */
/* Ownership of ONE message held by nodes 0,1,2 (initial owner 0).  The lease layer is
 * abstracted to its proven property: FENCE(n) is atomic and from then on session (n,ep) can
 * not deliver; a node may not KNOW that it is fenced (fe[] is the truth, F(x,n) what x knows).
 * Checked: at most one unfenced session believes it owns the message.
 * Negative controls: -DBUG_NOSYNC (a restarted node re-owns without SYNC)
 *   -DBUG_NOCONSENT (claim as soon as the owner is fenced, no consent of co-holders)
 *   -DBUG_STALEEP  (restart does not learn current epochs from a quorum read)            */
#define N 3
#ifndef MAXR
#define MAXR 2
#endif
#ifndef MAXF
#define MAXF 2
#endif
#ifndef MAXX
#define MAXX 1
#endif
byte ep[N], fe[N];                 /* truth */
byte term[N], own[N], oep[N];      /* durable record per holder */
byte F[9], K[9];                   /* F: fences known by x; K: newest epoch of n known by x */
byte sy[N];                        /* bitmask: peers synced by current session */
byte pend[N], ok[N];               /* claim in progress: new term, consent bitmask */
byte nr, nf, nx;
byte mine[N];                      /* session in which x completed accept/claim/re-own: the ONLY source of the right */
#define B(i)  (1<<(i))
#define f(x,n) F[(x)*3+(n)]
#define k(x,n) K[(x)*3+(n)]
#define ALIVEK(x,n) (k(x,n) > f(x,n))            /* x thinks session of n is not fenced */
#define CLEAR(x,n)  ((n)==(x) || (sy[x] & B(n)) || !ALIVEK(x,n))
#ifdef BUG_NOSYNC
#define READY(x) true
#else
#define READY(x) (CLEAR(x,0) && CLEAR(x,1) && CLEAR(x,2))
#endif
#ifdef BUG_LEARNOWN
#define BELIEVES(x) (own[x]==(x) && oep[x]==ep[x])
#else
#define BELIEVES(x) (own[x]==(x) && oep[x]==ep[x] && mine[x]==ep[x])
#endif
#ifdef BUG_REOWNANY
#define REOWNOK(x) true
#else
#define REOWNOK(x) (mine[x] && mine[x]==oep[x])
#endif
#define OWNER(x) (BELIEVES(x) && ep[x] > fe[x])
#define RECFENCED(x) (f(x,own[x]) >= oep[x])
#define MAX(a,b) ((a)>(b)->(a):(b))
#ifdef BUG_NOTIE
#define NEWER(a,b) (term[a] > term[b])
#else
#define NEWER(a,b) (term[a] > term[b] || term[a]==term[b] && own[a] > own[b])
#endif
inline copyrec(a,b) { term[a]=term[b]; own[a]=own[b]; oep[a]=oep[b]; mine[a]=0 }
inline fence(n)   { nf++; fe[n] = ep[n] }
inline restart(x) { nr++; fe[x] = MAX(fe[x],ep[x]); ep[x]++; pend[x]=0; ok[x]=0; sy[x]=0;
#ifndef BUG_STALEEP
  k(x,0)=ep[0]; k(x,1)=ep[1]; k(x,2)=ep[2];
#else
  k(x,x)=ep[x];
#endif
  f(x,0)=fe[0]; f(x,1)=fe[1]; f(x,2)=fe[2] }
/* new session x syncs with p (p may be fenced without knowing) */
inline sync(x,p) {
  k(p,x) = MAX(k(p,x), ep[x]); f(p,x) = MAX(f(p,x), ep[x]-1); k(x,p) = MAX(k(x,p),ep[p]);
  if
  :: BELIEVES(p) -> if :: term[x] >= term[p] && own[x]!=p -> term[p] = term[x]+1 :: else fi; copyrec(x,p)
  :: else -> if
     :: NEWER(p,x) -> copyrec(x,p)
     :: else -> if :: NEWER(x,p) -> copyrec(p,x) :: else fi
     fi
  fi;
  if :: own[p]==x && !BELIEVES(p) -> oep[p] = ep[x];                /* adopt */
#ifndef BUG_PENDSYNC
        pend[p] = 0; ok[p] = 0                                        /* abort own pending claim */
#endif
     :: else fi;
  sy[x] = sy[x] | B(p) }
/* x asks h to consent to its claim with new term pend[x] */
inline ask(x,h) {
  k(h,x) = MAX(k(h,x), ep[x]);
  if :: own[h]==own[x] && RECFENCED(x) -> f(h,own[x]) = MAX(f(h,own[x]), oep[x]) :: else fi;
  if
  :: BELIEVES(h) || term[h] >= pend[x] && own[h] != x -> copyrec(x,h); pend[x]=0; ok[x]=0
  :: else -> if
     :: pend[h]==0 && term[h] < pend[x] && (own[h]==x || RECFENCED(h)) ->
          term[h]=pend[x]; own[h]=x; oep[h]=ep[x]; mine[h]=0; ok[x] = ok[x] | B(h)
     :: else -> skip
     fi
  fi }
#define HASOK(x,h) ((h)==(x) || (ok[x] & B(h)) || !ALIVEK(x,h))
/* voluntary transfer: live owner o consents first (durably gives up), others as usual */
inline offer(o,x) { nx++; k(x,o)=MAX(k(x,o),ep[o]); k(o,x)=MAX(k(o,x),ep[x]);
  pend[x]=term[o]+1; ok[x]=B(o); term[o]=pend[x]; own[o]=x; oep[o]=ep[x]; mine[o]=0 }
inline askx(x,h) { k(h,x)=MAX(k(h,x),ep[x]);       /* consent evidence of old owner carried */
  if :: !BELIEVES(h) && pend[h]==0 && term[h] < pend[x] -> term[h]=pend[x]; own[h]=x; oep[h]=ep[x]; mine[h]=0; ok[x]=ok[x]|B(h)
     :: else -> skip fi }
#define NODE(x,a,b) \
  :: d_step { nf < MAXF && ep[x] > fe[x] -> fence(x) } \
  :: d_step { nr < MAXR -> restart(x) } \
  :: d_step { f(x,a) < fe[a] -> f(x,a) = fe[a] } \
  :: d_step { f(x,b) < fe[b] -> f(x,b) = fe[b] } \
  :: d_step { !(sy[x]&B(a)) && ALIVEK(x,a) && k(x,a)==ep[a] -> sync(x,a) } \
  :: d_step { !(sy[x]&B(b)) && ALIVEK(x,b) && k(x,b)==ep[b] -> sync(x,b) } \
  :: d_step { READY(x) && own[x]==x && REOWNOK(x) && oep[x] < ep[x] && pend[x]==0 -> oep[x] = ep[x]; mine[x] = ep[x] } \
  :: d_step { READY(x) && !BELIEVES(x) && ((own[x]!=x && RECFENCED(x)) || (own[x]==x && !REOWNOK(x))) && pend[x]==0 -> pend[x]=term[x]+1; ok[x]=0 } \
  :: d_step { pend[x] && !(ok[x]&B(a)) && !xf[x] -> ask(x,a) } \
  :: d_step { pend[x] && !(ok[x]&B(b)) && !xf[x] -> ask(x,b) } \
  :: d_step { pend[x] && xf[x] && !(ok[x]&B(a)) -> askx(x,a) } \
  :: d_step { pend[x] && xf[x] && !(ok[x]&B(b)) -> askx(x,b) } \
  :: d_step { pend[x] && FIN(x,a,b) -> term[x]=pend[x]; own[x]=x; oep[x]=ep[x]; mine[x]=ep[x]; pend[x]=0; ok[x]=0; xf[x]=0 } \
  :: d_step { BELIEVES(x) && nx < MAXX && pend[a]==0 && READY(a) -> offer(x,a); xf[a]=1 } \
  :: d_step { pend[x]==0 && xf[x] -> xf[x]=0 }
#ifdef BUG_NOCONSENT
#define FIN(x,a,b) true
#else
#ifdef BUG_PENDSYNC
#define FIN(x,a,b) (HASOK(x,a) && HASOK(x,b))
#else
#define FIN(x,a,b) (HASOK(x,a) && HASOK(x,b) && (xf[x] || RECFENCED(x) || own[x]==x))
#endif
#endif
bit xf[N];
active proctype world() {
  d_step { ep[0]=1; ep[1]=1; ep[2]=1; term[0]=1; term[1]=1; term[2]=1; oep[0]=1; oep[1]=1; oep[2]=1;
    mine[0]=1; sy[0]=7; sy[1]=7; sy[2]=7; K[0]=1;K[1]=1;K[2]=1;K[3]=1;K[4]=1;K[5]=1;K[6]=1;K[7]=1;K[8]=1 }
  do
  NODE(0,1,2) NODE(1,0,2) NODE(2,0,1)
  :: d_step { OWNER(0)+OWNER(1)+OWNER(2) > 1 -> assert(false) }
  od
}
