# SPDX-License-Identifier: Apache-2.0
"""Rounds of trouble for a cluster under load, with its books kept by processes of their own (ledger.py).
For the short forms in tests/run and for tests/soak/cluster.

    with World(folder) as w:
        for _ in range(100):
            print(w.kill())
        print(w.close())
"""
import datetime
import random
import signal
import time

from cluster import LEASE, Cluster
from harness import wait_until
from ledger import Ledger

# Duplicates at most, all of them named: so many a message, or in a short run one a session and death.
DUPLICATES = 1e-4
# Ownership moves within the lease and this, in seconds.
TAKEOVER = 6
WHOLE = 60


class World:
    def __init__(self, folder, nodes=3, lease=LEASE, rate=0, sessions=8, keep=True):
        self.ledger, self.count, self.lease, self.folder = Ledger(folder), nodes, lease, folder
        self.rate, self.sessions = rate, sessions
        self.took, self.deaths, self.down = [], 0, ()

    def __enter__(self):
        self.ledger.__enter__()
        self.cluster = Cluster(self.count, self.ledger, lease=self.lease, log_level="info",
                               extra="limits: {repeat_window: 10m}\n")
        self.cluster.__enter__()
        self.nodes = self.cluster.nodes
        self.use()
        self.ledger.start_load(self.sessions, self.rate)
        return self

    def __exit__(self, *exc):
        self.ledger.__exit__(*exc)
        self.cluster.__exit__(*exc)

    def use(self, but=None):
        self.ledger.use([n.ports["relay"] for n in self.nodes if n is not but])

    def flow(self, messages, timeout=120):
        """So many more are acknowledged."""
        want = len(self.ledger.read().acknowledged) + messages

        def look():
            assert all(n.alive() for n in self.nodes if n not in self.down), "a node ended by itself"
            return len(self.ledger.read().acknowledged) >= want
        wait_until(look, timeout, f"{messages} more acknowledged")

    def whole(self):
        started = time.monotonic()
        self.cluster.settled(self.count, timeout=WHOLE)
        return time.monotonic() - started

    def fenced(self, victim, since):
        """Seconds until the others know that it is out."""
        helper = next(n for n in self.nodes if n is not victim)
        wait_until(lambda: helper.members().get(victim.name, {}).get("session") == "fenced",
                   self.lease + 3 * TAKEOVER, f"the fence of {victim.name}")
        took = time.monotonic() - since
        self.took.append(took)
        assert took <= self.lease + TAKEOVER, f"takeover after {took:.1f} s, lease {self.lease} s"
        return took

    # --- the rows ---

    def kill(self):
        """kill -9, the disk deleted; it joins again under its name."""
        self.flow(random.randrange(200, 800))
        victim = random.choice(self.nodes)
        self.deaths += 1
        victim.kill()
        died = time.monotonic()
        victim.wipe()
        self.down = (victim,)
        took = self.fenced(victim, died)
        self.flow(random.randrange(20, 200))
        victim.join(next(n for n in self.nodes if n is not victim))
        self.down = ()
        self.use()
        back = self.whole()
        return self.line(f"{victim.name} died with its disk, taken over after {took:.1f} s, whole {back:.1f} s after its return")

    def stop(self, seconds=None):
        """SIGSTOP, then SIGCONT."""
        seconds = seconds or random.choice((5, 20, 60))
        self.flow(random.randrange(200, 800))
        victim = random.choice(self.nodes)
        self.deaths += 1
        self.use(but=victim)
        victim.process.send_signal(signal.SIGSTOP)
        stopped, lease_over = time.monotonic(), time.time() + self.lease
        self.ledger.read().latest.clear()
        took = f"taken over after {self.fenced(victim, stopped):.1f} s, " if seconds > self.lease + TAKEOVER else ""
        wait_until(lambda: time.monotonic() - stopped >= seconds, seconds + 1)
        victim.process.send_signal(signal.SIGCONT)
        back = self.whole()
        self.no_dot(victim, lease_over)
        self.use()
        return self.line(f"{victim.name} stopped for {seconds} s, {took}whole {back:.1f} s after it went on")

    def no_dot(self, victim, lease_over):
        """It brought nothing between the end of its lease and its next session."""
        begun = max(r["time"] for r in victim.records("cluster") if r["text"].startswith("session "))
        begun = datetime.datetime.fromisoformat(begun.replace("Z", "+00:00")).timestamp()
        late = [at for at, who in self.ledger.read().latest if who.startswith(victim.name) and lease_over < at < begun]
        assert not late, f"{victim.name} sent {len(late)} messages without a lease, {late[0] - lease_over:.2f} s late"

    def everyone(self):
        """All at once, started again in random order."""
        self.flow(random.randrange(200, 800))
        self.deaths += self.count
        for n in self.nodes:
            n.process.send_signal(signal.SIGKILL)
        for n in self.nodes:
            n.process.wait()
        order = random.sample(self.nodes, len(self.nodes))
        for n in order:
            n.start()
        self.use()
        back = self.whole()
        return self.line(f"all killed, started again as {' '.join(n.name for n in order)}, whole after {back:.1f} s")

    # --- the books ---

    def line(self, text):
        again, named, nobody = self.ledger.read().doubles()
        self.ledger.read_logs(self.nodes)
        return f"{text}; {len(self.ledger.acknowledged)} acknowledged, duplicates {len(again)} sent again, " \
               f"{len(named) + len(nobody)} others"

    def close(self, timeout=120):
        """No more mail; all of it must have arrived, and every duplicate have its cause."""
        self.ledger.stop_load()
        wait_until(lambda: not self.ledger.missing(), timeout, "the arrival of all that was acknowledged")
        wait_until(lambda: not self.cluster.queued(), timeout, "an empty queue")
        self.cluster.takeovers_told_once()
        self.ledger.read().read_logs(self.nodes)
        again, named, nobody = self.ledger.doubles()
        sent, twice = len(self.ledger.acknowledged), len(again) + len(named) + len(nobody)
        text = f"{sent} acknowledged, {sent} delivered, 0 lost; {twice} duplicates: {len(again)} sent again by a " \
               f"client without an answer, {len(named)} named by a log, {len(nobody)} without a cause"
        if self.took:
            text += f"; takeover {min(self.took):.1f} to {max(self.took):.1f} s"
        assert twice <= max(DUPLICATES * sent, self.sessions * self.deaths), text
        assert not nobody, text + "".join(f"\n  {i}: {self.ledger.queue_ids[i]} {self.ledger.when[i]}" for i in nobody[:10])
        return text
