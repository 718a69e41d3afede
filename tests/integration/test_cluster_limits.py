# SPDX-License-Identifier: Apache-2.0
"""Limits of a destination that all nodes keep together: connections at once and messages in a time, as the destination
sees them."""
import os
import threading
import time
import urllib.request

import pytest

from cluster import Cluster
from harness import Baton, wait_until
from sink import Sink

CONNECTIONS, RATE = 6, 80
LIMITS = f"limits: {{destination_connections: {CONNECTIONS}, destination_rate: {RATE}/1s, " \
         "idle_connection: 1s}\n"


class Counter(Sink):
    """How many connections are open at once, of all and of each node (by its EHLO name)."""

    def __init__(self):
        super().__init__()
        self.open, self.most, self.names, self.by, self.most_by = 0, 0, {}, {}, {}
        self.ehlo = self.hello

    def hello(self, line):
        """Called right after the line went into `commands`."""
        name = line.split()[1].split(".")[0]
        self.names[self.commands[-1][0]] = name
        self.by[name] = self.by.get(name, 0) + 1
        self.most_by[name] = max(self.most_by.get(name, 0), self.by[name])

    async def _client(self, reader, writer):
        number = self.connections + 1
        self.open += 1
        self.most = max(self.most, self.open)
        try:
            await super()._client(reader, writer)
        finally:
            self.open -= 1
            if number in self.names:
                self.by[self.names[number]] -= 1

    def most_in_a_second(self):
        at = sorted(m.at for m in self.messages)
        return max((sum(1 for t in at[i:i + 2 * RATE] if t < at[i] + 1) for i in range(len(at))), default=0)


def submit(node, count, sessions=4):
    """At once over some sessions; how fast the node takes it does not matter."""
    def some(first):
        with node.smtp() as s:
            s.ehlo()
            for i in range(first, count, sessions):
                assert s.mail("a@source.test")[0] == 250 and s.rcpt("b@dest.test")[0] == 250
                assert s.data(f"X-Test-Id: {node.name}-{i}\r\n\r\nhello\r\n".encode())[0] == 250
    threads = [threading.Thread(target=some, args=(i,)) for i in range(sessions)]
    for t in threads:
        t.start()
    return threads


def metric(node, name):
    with urllib.request.urlopen(f"http://127.0.0.1:{node.ports['api']}/metrics", timeout=10) as r:
        for line in r.read().decode().splitlines():
            if line.startswith(f"baton_{name} "):
                return float(line.split()[1])
    return 0


def form_quickly(c):
    """Nobody is killed: it need not wait for three votes."""
    first, *rest = c.nodes
    first.init().start()
    for n in rest:
        n.join(first)
    up = lambda n: sum(m["session"] == "open" and m["lease"] in ("held", "static") for m in n.status().get("nodes", []))
    wait_until(lambda: all(up(n) == len(c.nodes) for n in c.nodes), 60, "all nodes up")


def within(sink):
    assert sink.most <= CONNECTIONS, (sink.most, sink.most_by)
    assert sink.most_in_a_second() <= RATE, sink.most_in_a_second()


def test_a_node_alone_and_a_reload():
    """All of the rate; a lower one holds from the reload on, whatever was sent before it."""
    with Counter() as sink, Baton(sink_port=sink.port, extra="limits: {destination_rate: 20/1s}\n") as b:
        b.name = "alone"
        for t in submit(b, 40):
            t.join()
        sink.wait(40)
        assert 20 >= sink.most_in_a_second() >= 15
        b.write_settings(b.settings.replace("20/1s", "4/1s"))
        b.ctl("reload")
        wait_until(lambda: b.ctl_json("why", "b@dest.test")[0]["destination"]["rate_share"] == 4, what="the new rate")
        at = time.time()
        for t in submit(b, 10):
            t.join()
        sink.wait(50)
        late = sorted(m.at for m in sink.messages if m.at > at)
        assert len(late) == 10 and max(sum(1 for t in late[i:] if t < late[i] + 1) for i in range(10)) <= 4


# The build has time for two nodes; tests/soak/cluster runs three.
@pytest.mark.parametrize("count", [2, 3] if os.environ.get("BATON_CLUSTER_ALL") else [2])
def test_all_nodes_together_keep_the_limits(count):
    with Counter() as sink, Cluster(count, sink, extra=LIMITS, start=False) as c:
        form_quickly(c)
        # one is busy, the others are not: it has all of it
        sink.delay = 0.03
        for t in submit(c["mx1"], 50):
            t.join()
        sink.wait(25)
        there = c["mx1"].ctl_json("why", "b@dest.test")[0]["destination"]
        sink.wait(50)
        assert sink.most_by["mx1"] == CONNECTIONS, (sink.most_by, there)
        assert there["connections_share"] <= CONNECTIONS and 0 < there["rate_share"] <= RATE, there
        within(sink)
        sink.delay = 0.002
        # all are
        threads = [t for n in c.nodes for t in submit(n, 100 // count, sessions=2)]
        for t in threads:
            t.join()
        sink.wait(50 + 100 // count * count)
        within(sink)
        assert all(sink.most_by.get(n.name) for n in c.nodes), sink.most_by
        assert sum(metric(n, "destination_shares_coordinated") for n in c.nodes) <= 1
        wait_until(lambda: not c.queued(), 20, "an empty queue")
        # and nothing is kept of it
        wait_until(lambda: not any(metric(n, "destination_shares") for n in c.nodes), 20, "no shares")


@pytest.mark.skipif(not os.environ.get("BATON_CLUSTER_ALL"), reason="takes over 20 s")
def test_the_coordinator_dies():
    with Counter() as sink, Cluster(3, sink, extra=LIMITS) as c:
        for t in [t for n in c.nodes for t in submit(n, 1000, sessions=2)]:
            t.join()
        dividing = lambda: [n for n in c.nodes if metric(n, "destination_shares_coordinated")]
        wait_until(dividing, 10, "a coordinator")
        dead = dividing()[0]
        dead.kill()
        at = time.time()
        others = [n for n in c.nodes if n is not dead]
        sink.wait(len(sink.messages) + 100, timeout=15)  # it goes on
        wait_until(lambda: any(metric(n, "destination_shares_coordinated") for n in others), 20, "another coordinator")
        print("another coordinator after", round(time.time() - at, 1), "s")
        sink.wait(3000, timeout=120)
        within(sink)
        wait_until(lambda: not c.queued(), 60, "an empty queue")
