/* SPDX-License-Identifier: Apache-2.0 */
/* Lease + fence core, 3 voters, owner not a voter. Global time T (drift is absorbed by
 * the (1-2rho) factor in the text). One outstanding request per voter; a request or a grant
 * may be delayed arbitrarily or lost; a voter may crash and restart (volatile promise lost).  */
#define L  2
#define TMAX 4
#ifdef BUG_MAJLIVE
#define FQ 1
#else
#define FQ 2
#endif
byte T, prom[3], quar[3], slot[3], expi[3]; bit fenced[3], crashed;
#define CERT ((fenced[0]+fenced[1]+fenced[2]) >= FQ)
#define MAX(a,b) ((a)>(b)->(a):(b))
#ifdef BUG_RECVTIME
#define EXPIRY(g) (T+L)
#else
#define EXPIRY(g) ((g)+L)
#endif
#ifdef BUG_NOQUAR
#define QUAR 0
#else
#define QUAR (T+L)
#endif
/* slot: 0 idle, 1+t request sent at t in flight, 17+t grant for it in flight */
#define STEP(v) \
  :: d_step { slot[v]==0 -> slot[v] = 1+T } \
  :: d_step { slot[v] && slot[v]<17 && !fenced[v] -> prom[v] = MAX(prom[v],T+L); slot[v] = slot[v]+16 } \
  :: d_step { slot[v]>=17 -> expi[v] = MAX(expi[v], EXPIRY(slot[v]-17)); slot[v] = 0 } \
  :: d_step { slot[v] -> slot[v] = 0 } \
  :: d_step { !fenced[v] && T >= prom[v] && T >= quar[v] -> fenced[v] = 1 } \
  :: d_step { !crashed -> crashed = 1; prom[v] = 0; quar[v] = QUAR }
active proctype world() {
  do
  STEP(0) STEP(1) STEP(2)
  :: d_step { T < TMAX -> T++ }
  :: d_step { ((expi[0]>T)+(expi[1]>T)+(expi[2]>T)) >= 2 -> assert(!CERT) }  /* final dot */
  od
}
