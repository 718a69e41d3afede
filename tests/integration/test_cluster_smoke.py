# SPDX-License-Identifier: Apache-2.0
"""Three real nodes on loopback: mail to all of them, one killed with its mail under way."""
import pytest

from cluster import Cluster, Load
from harness import wait_until
from sink import Sink


@pytest.fixture
def sink():
    with Sink() as s:
        yield s


def three_voters(c):
    three = lambda r: r.get("voters") == "mx1 mx2 mx3" and r.get("mode") == "quorum"
    wait_until(lambda: all(any(map(three, n.records("cluster"))) for n in c.running()), 60, "three voters")


def test_owner_killed_mid_stream(sink):
    with Cluster(3, sink) as c:
        three_voters(c)
        with Load(c.nodes, sessions=4, sizes=(500, 10_000, 100_000)) as load:
            load.wait_more(150)
            c["mx2"].kill()
            load.wait_more(150)
        c.balance(load, timeout=60)
        survivors = [c["mx1"], c["mx3"]]
        assert any(r["event"] == "replicated" and r["copies"] == 2 for n in survivors for r in n.records())
        members = c["mx1"].members()
        assert members["mx2"]["view"] == "dead" and members["mx2"]["session"] == "fenced"


def test_large_bodies_travel(sink):
    with Cluster(3, sink) as c:
        three_voters(c)
        with Load(c.nodes, sessions=3, sizes=(70_000, 1_500_000, 4_000_000)) as load:
            load.wait_more(20)
        c.balance(load, timeout=60, duplicates=0)
