# SPDX-License-Identifier: Apache-2.0
"""A cluster of real processes on a network that breaks (netrelay.py): what must be true after it, and during."""
import time

import pytest

from cluster import LEASE, Cluster, Load
from harness import wait_until
from netrelay import Net, possible
from sink import Sink

pytestmark = pytest.mark.skipif(not possible(), reason="needs root, /dev/net/tun and the built netrelay")


@pytest.fixture
def broken():
    """Three nodes on a network of their own; clients and the sink are outside, and reach all of them."""
    with Net(3) as net, Sink(host=net.address(0)) as sink:
        with Cluster(3, sink, node_options=lambda i: {"net": (net, i + 1)}) as c:
            c.net = net
            yield c


def others(cluster, node):
    return [n for n in cluster.nodes if n is not node]


def test_one_cut_off_and_back(broken):
    """The rest fences it and goes on; it delivers nothing meanwhile; healed, all is one again."""
    with Load(broken.nodes, rate=40) as load:
        load.wait_more(80)
        broken.net.isolate(2)
        wait_until(lambda: broken["mx1"].members()["mx2"]["session"] == "fenced", 3 * LEASE + 6, "the fence")
        load.wait_more(40)
        broken.net.heal()
        broken.settled(3, timeout=90)
        load.wait_more(40)
    broken.balance(load)


def test_all_apart_and_back(broken):
    """Nobody has a majority: nobody delivers; no mail is lost, and it heals by itself."""
    with Load(broken.nodes, rate=40) as load:
        load.wait_more(60)
        broken.net.split([1], [2], [3])
        time.sleep(LEASE + 2)
        seen = len(broken.sink.messages)
        time.sleep(3)
        assert len(broken.sink.messages) == seen, "mail left without a majority"
        broken.net.heal()
        broken.settled(3, timeout=90)
        load.wait_more(40)
    broken.balance(load)


def test_one_way(broken):
    broken.net.cut(1, 2, both=False)
    with Load(broken.nodes, rate=40) as load:
        load.wait_more(120)
        broken.net.heal()
        broken.settled(3, timeout=90)
    broken.balance(load)


def test_one_pair_only(broken):
    """1 and 2 do not see each other, both see 3: nobody has to be fenced, and mail goes on."""
    with Load(broken.nodes, rate=40) as load:
        load.wait_more(40)
        broken.net.cut(1, 2)
        load.wait_more(120)
        broken.net.heal()
        broken.settled(3, timeout=90)
    broken.balance(load)


@pytest.mark.parametrize("what", ["loss", "delay"])
def test_bad_all_over(broken, what):
    nodes = [(a, b) for a in (1, 2, 3) for b in (1, 2, 3) if a < b]
    for a, b in nodes:
        if what == "loss":
            broken.net.lose(30, a, b)
        else:
            broken.net.delay(200, a, b)
    with Load(broken.nodes, rate=20) as load:
        load.wait_more(60, timeout=120)
        broken.net.heal()
        broken.settled(3, timeout=90)
    broken.balance(load)


def test_flapping(broken):
    with Load(broken.nodes, rate=40) as load:
        for _ in range(4):
            broken.net.isolate(3)
            time.sleep(2)
            broken.net.heal()
            time.sleep(2)
        load.wait_more(40)
        broken.settled(3, timeout=90)
    broken.balance(load)
