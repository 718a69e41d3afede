# SPDX-License-Identifier: Apache-2.0
"""The transport between nodes over networks that cut, lose, delay and stall, with nothing above it."""
import os
import queue
import subprocess
import threading
import time

import pytest

from harness import BIN, wait_until
from netrelay import Net, possible

PROBE = os.path.join(BIN, "tests", "integration", "tools", "transport_probe")
PORT = 7420
# Heartbeats find a dead connection within 4 s; a try to connect ends after 3 s, and the next begins within 5.
DOWN, UP = 8, 15

pytestmark = pytest.mark.skipif(not possible() or not os.path.exists(PROBE),
                                reason="needs root, /dev/net/tun and the built tools")


class Lane:
    def __init__(self, words):
        self.came, self.holes, self.backwards, self.sent, self.full = words


class Probe:
    def __init__(self, net, which):
        self.which, self.address = which, f"{net.address(which)}:{PORT}"
        self.process = subprocess.Popen([*net.wrap(which), PROBE, str(which), self.address], text=True, bufsize=1,
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.key = self.process.stdout.readline().split()[1]
        self.links, self.answers = {}, queue.Queue()
        self.reader = threading.Thread(target=self.read)
        self.reader.start()

    def read(self):
        for line in self.process.stdout:
            words = line.split()
            if words[0] == "link":
                self.links[int(words[1])] = words[2]
            else:
                self.answers.put([int(n) for n in words[1:]])

    def say(self, line):
        self.process.stdin.write(line + "\n")

    def knows(self, *others):
        for other in others:
            self.say(f"peer {other.which} {other.key} {other.address}")

    def stream(self, to, lane, size, every_ms):
        self.say(f"stream {to.which} {lane} {size} {every_ms}")

    def stats(self, other):
        """How often the link went down; control; bulk."""
        self.say(f"stats {other.which}")
        n = self.answers.get(timeout=10)
        return n[0], Lane(n[1:6]), Lane(n[6:11])

    def came(self, other, lane=0):
        return self.stats(other)[1 + lane].came

    def up(self, *others):
        return all(self.links.get(o.which) == "up" for o in others)

    def close(self):
        self.process.stdin.close()
        assert self.process.wait(timeout=10) == 0
        self.reader.join()
        self.process.stdout.close()


@pytest.fixture
def net():
    with Net(3) as n:
        n.probes = [Probe(n, i) for i in (1, 2, 3)]
        for p in n.probes:
            p.knows(*(o for o in n.probes if o is not p))
        wait_until(lambda: all_up(n.probes), UP, "links")
        yield n
        for p in n.probes:
            p.close()


def all_up(probes):
    return all(p.up(*(o for o in probes if o is not p)) for p in probes)


def test_cut_is_seen_and_heals(net):
    a, b, c = net.probes
    for p in (a, b, c):
        for o in (a, b, c):
            if o is not p:
                p.stream(o, "control", 200, 20)
    net.cut(1, 2)
    wait_until(lambda: not a.up(b) and not b.up(a), DOWN, "the cut seen by both")
    assert a.up(c) and b.up(c) and c.up(a, b)  # and by nobody else
    before = a.came(c)
    time.sleep(5)  # connections are tried, in vain
    assert not a.up(b) and a.came(c) > before + 100
    net.heal()
    wait_until(lambda: all_up(net.probes), UP, "the links again")
    before = a.came(b), b.came(a)
    wait_until(lambda: a.came(b) > before[0] and b.came(a) > before[1], 10, "frames again")
    assert c.stats(a)[0] == 0 and c.stats(b)[0] == 0


def test_one_way(net):
    a, b, c = net.probes
    a.stream(b, "control", 200, 20)
    b.stream(a, "control", 200, 20)
    net.cut(1, 2, both=False)
    wait_until(lambda: not a.up(b) and not b.up(a), DOWN, "one direction is as good as none")
    net.heal()
    wait_until(lambda: all_up(net.probes), UP, "the links again")
    assert c.stats(a)[0] == 0


def test_loss(net):
    """TCP repeats what is lost; a connection that breaks over it loses frames and never their order."""
    a, b, _ = net.probes
    net.lose(30, 1, 2)
    a.stream(b, "control", 500, 20)
    a.stream(b, "bulk", 20000, 100)
    wait_until(lambda: b.came(a) > 300, 90, "300 control frames")
    wait_until(lambda: b.came(a, 1) > 20, 90, "20 bulk frames")
    net.heal()
    before = b.came(a), b.came(a, 1)
    wait_until(lambda: b.came(a) > before[0] + 50 and b.came(a, 1) > before[1] + 20, 30, "speed again")
    downs, control, bulk = b.stats(a)
    print(f"loss: {control.came} came, {control.holes} lost, bulk {bulk.came} and {bulk.holes}, {downs} breaks")
    assert control.backwards == 0 and bulk.backwards == 0


def test_delay(net):
    """A round trip of 400 ms, at first with some 250 KB a second, since TCP takes the change for loss: a window in
    the kernel is half a minute then. The links stand, and nothing is lost."""
    a, b, _ = net.probes
    net.delay(200)
    a.stream(b, "bulk", 262144, 50)
    a.stream(b, "control", 500, 20)
    wait_until(lambda: b.came(a, 1) >= 10 and b.came(a) >= 100, 90, "10 pieces")
    for p in net.probes:
        assert all(p.stats(o)[0] == 0 for o in net.probes if o is not p), "a link broke"
    _, control, bulk = b.stats(a)
    assert control.holes == 0 and bulk.holes == 0 and control.backwards == 0 and bulk.backwards == 0


def test_stall_and_burst(net):
    a, b, _ = net.probes
    a.stream(b, "control", 500, 10)
    wait_until(lambda: b.came(a) > 10, 10, "frames")
    net.hold(1, 2, both=False)
    time.sleep(1.5)
    net.release(1, 2, both=False)
    before = b.came(a)
    wait_until(lambda: b.came(a) > before + 200, 20, "frames after the stall")
    downs, control, _ = b.stats(a)
    assert downs == 0 and control.holes == 0 and control.backwards == 0


def test_flapping(net):
    """Cut and healed again and again: the two find each other each time that there is time."""
    a, b, c = net.probes
    a.stream(b, "bulk", 50000, 20)
    a.stream(c, "bulk", 50000, 20)
    for _ in range(4):
        net.isolate(2)
        time.sleep(2)
        net.heal()
        time.sleep(1)
    wait_until(lambda: all_up(net.probes), UP, "the links")
    before = b.came(a, 1)
    wait_until(lambda: b.came(a, 1) > before + 50, 20, "credit after all that")
    assert b.stats(a)[2].backwards == 0 and c.stats(a)[2].holes == 0
