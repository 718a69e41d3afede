/* SPDX-License-Identifier: Apache-2.0 */
/* exhaustive version: grant receipt merged with the voter step (sound: a later receipt only
 * removes behaviours, because expiry is counted from the send time)  */
#define L  2
#ifndef TMAX
#define TMAX 4
#endif
byte T, prom[3], quar[3], slot[3], expi[3]; bit fenced[3], crashed;
#define CERT ((fenced[0]+fenced[1]+fenced[2]) >= 2)
#define MAX(a,b) ((a)>(b)->(a):(b))
#ifdef BUG_NOQUAR
#define QUAR 0
#else
#define QUAR (T+L)
#endif
#define STEP(v) \
  :: d_step { slot[v]!=1+T -> slot[v] = 1+T } \
  :: d_step { slot[v] && !fenced[v] -> prom[v] = MAX(prom[v],T+L); expi[v] = MAX(expi[v],slot[v]-1+L); slot[v] = 0 } \
  :: d_step { !fenced[v] && T >= prom[v] && T >= quar[v] -> fenced[v] = 1 } \
  :: d_step { !crashed -> crashed = 1; prom[v] = 0; quar[v] = QUAR }
active proctype world() {
  do
  STEP(0) STEP(1) STEP(2)
  :: d_step { T < TMAX -> T++ }
  :: d_step { ((expi[0]>T)+(expi[1]>T)+(expi[2]>T)) >= 2 && CERT -> assert(false) }
  od
}
