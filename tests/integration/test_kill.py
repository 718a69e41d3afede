# SPDX-License-Identifier: Apache-2.0
"""kill -9 under load, again and again; then every acknowledged message must have arrived.
BATON_KILL_ROUNDS sets how often (20 here; tests/README.md says how to do more)."""
import os
import random
import smtplib
import threading

from harness import Baton, wait_until
from sink import Sink

ROUNDS = int(os.environ.get("BATON_KILL_ROUNDS", "20"))
SESSIONS = 8


class Load:
    """Clients that send until told to stop, and write down what was acknowledged."""

    def __init__(self, baton):
        self.baton, self.stopping, self.lock = baton, threading.Event(), threading.Lock()
        self.acknowledged, self.unsure, self.count = set(), set(), 0
        self.threads = [threading.Thread(target=self.run, args=(i,)) for i in range(SESSIONS)]

    def run(self, number):
        n = 0
        while not self.stopping.is_set():
            try:
                with self.baton.smtp("relay", timeout=10) as s:
                    s.ehlo()
                    while not self.stopping.is_set():
                        ident = f"{number}-{n}"
                        n += 1
                        size = random.choice([100, 1000, 10_000, 60_000, 1_500_000 if n % 40 == 0 else 500])
                        if s.mail("a@source.test")[0] != 250 or s.rcpt("b@dest.test")[0] != 250:
                            break
                        with self.lock:
                            self.unsure.add(ident)
                        code, _ = s.data(f"X-Test-Id: {ident}\r\n\r\n".encode() + b"x" * 70 + b"\r\n" + (b"y" * 70 + b"\r\n") * (size // 72))
                        with self.lock:
                            self.unsure.discard(ident)
                            if code == 250:
                                self.acknowledged.add(ident)
            except (OSError, smtplib.SMTPException):
                self.stopping.wait(0.05)  # it was killed: the next connection is made when it is back

    def start(self):
        for t in self.threads:
            t.start()

    def stop(self):
        self.stopping.set()
        for t in self.threads:
            t.join(30)


def test_nothing_acknowledged_is_lost():
    seed = int(os.environ.get("BATON_SEED", random.randrange(1 << 32)))
    random.seed(seed)
    print(f"BATON_SEED={seed}")
    with Sink() as sink:
        b = Baton(sink_port=sink.port, retry="{first: 200ms, max: 1s, give_up: 1h}")
        with b:
            load = Load(b)
            load.start()
            try:
                for _ in range(ROUNDS):
                    before = len(load.acknowledged)
                    wait_until(lambda: len(load.acknowledged) > before + random.randint(5, 120), 60, "progress")
                    b.kill()
                    b.start()
            finally:
                load.stop()
            arrived = lambda: {m.id() for m in sink.messages}
            wait_until(lambda: load.acknowledged <= arrived(), 90, "the arrival of all that was acknowledged")
            wait_until(lambda: not b.ctl_json("queue", "ls"), 60, "an empty queue")
            ids = [m.id() for m in sink.messages]
            doubles = len(ids) - len(set(ids))
            # A kill may catch each connection between dot and durable outcome (D1), no more.
            assert doubles <= ROUNDS * 20, doubles
            print(f"{ROUNDS} kills: {len(load.acknowledged)} acknowledged, {len(set(ids))} arrived, "
                  f"{doubles} duplicates, 0 lost")
