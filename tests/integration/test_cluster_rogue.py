# SPDX-License-Identifier: Apache-2.0
"""Peers that speak garbage, another version, with a foreign key, or flood: refused and logged, memory bounded,
the cluster unharmed. tools/rogue_peer is ZMTP and CURVE by hand: it does what libzmq's own client never would."""
import concurrent.futures
import os
import random
import socket
import subprocess
import time

import pytest

from cluster import Cluster, Load
from harness import BIN, wait_until
from sink import Sink

TOOLS = os.path.join(BIN, "tests", "integration", "tools")


@pytest.fixture(scope="module")
def cluster():
    with Sink() as sink, Cluster(3, sink) as c:
        yield c


@pytest.fixture
def three(cluster):
    """One for all these tests: what they do to it leaves no trace."""
    cluster.sink.messages.clear()
    return cluster


def key(node):
    return os.path.join(node.folder, "data", "cluster.key")


def rogue(own, node, lane, what, *args):
    """With the key of `own` (None: a fresh one) at a port of `node`."""
    return subprocess.Popen([os.path.join(TOOLS, "rogue_peer"), key(own) if own else "-", key(node),
                             f"127.0.0.1:{node.port + lane}", what, *map(str, args)],
                            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def ends(process, stdin=""):
    """["in" or "out", frames sent, bytes sent, "open" or "closed"]"""
    out, _ = process.communicate(stdin, timeout=60)
    words = out.split()
    return [words[0], int(words[2]), int(words[3]), words[4]]


def memory_mb(node):
    with open(f"/proc/{node.process.pid}/status") as f:
        return next(int(line.split()[1]) for line in f if line.startswith("VmRSS")) / 1024


def descriptors(node):
    return len(os.listdir(f"/proc/{node.process.pid}/fd"))


def said(node, *words, event="cluster_problem"):
    """A line of its log with all these words, which is also to name a next step."""
    def look():
        return [r for r in node.records(event) if all(w in str(r) for w in words)]
    line = wait_until(look, 10, f"{event} with {words}")[-1]
    assert "next step" in str(line) or "next_step" in line, line
    return line


def whole(c, pids):
    """Nothing has died, and everybody is there."""
    c.settled(3, timeout=30)
    assert [n.process.pid for n in c.nodes] == pids and all(n.alive() for n in c.nodes)


def test_strangers_stay_out(three):
    """No key, or one of another cluster: not let in, on neither port, and the log says whence."""
    node = three["mx1"]
    before = sum(r["handshakes"] for r in node.records("peer_refused"))
    with Cluster(1, three.sink, name="other", start=False) as other:
        foreign = other["mx1"].init().start()
        knocks = [rogue(own, node, lane, "knock") for lane in (0, 1) for own in (None, foreign)]
        assert [ends(k)[0] for k in knocks] == ["out"] * 4
    wait_until(lambda: sum(r["handshakes"] for r in node.records("peer_refused")) >= before + 4, 10, "four refusals")
    line = said(node, "127.0.0.1", event="peer_refused")
    assert line["last_from"] == "127.0.0.1"
    assert set(node.members()) == {"mx1", "mx2", "mx3"}


def pour(address, seconds):
    """Garbage, with and without the greeting of ZeroMQ before it."""
    greeting = b"\xff" + bytes(8) + b"\x7f\x03\x00CURVE" + bytes(48)
    until, sent = time.monotonic() + seconds, 0
    while time.monotonic() < until:
        with socket.socket() as s:
            s.settimeout(1)
            try:
                s.connect(address)
                s.sendall(random.choice([b"", greeting]) + random.randbytes(65536))
                sent += 1
            except OSError:
                continue
    return sent


def test_garbage_of_strangers_harms_nobody(three):
    """Poured on both ports of a node: memory stays, and the cluster goes on."""
    victim, pids = three["mx2"], [n.process.pid for n in three.nodes]
    before = memory_mb(victim)
    with Load(three.nodes, rate=40) as load, concurrent.futures.ThreadPoolExecutor(4) as pool:
        poured = [pool.submit(pour, ("127.0.0.1", victim.port + i % 2), 2) for i in range(4)]
        load.wait_more(20)
        assert sum(p.result() for p in poured) > 20
        whole(three, pids)
        load.wait_more(20)
    assert memory_mb(victim) < before + 100
    three.balance(load)


def is_closed(s):
    """By its other end; the greeting may have come before."""
    try:
        while s.recv(4096, socket.MSG_DONTWAIT):
            pass
        return True
    except BlockingIOError:
        return False
    except ConnectionResetError:
        return True


def test_half_open_connections_are_few(three):
    """A thousand that connect and say nothing: a few hundred descriptors, and members come in meanwhile."""
    victim, pids = three["mx3"], [n.process.pid for n in three.nodes]
    memory, files = memory_mb(victim), descriptors(victim)
    strangers = []
    try:
        for i in range(1000):
            strangers.append(socket.create_connection(("127.0.0.1", victim.port + i % 2)))
        wait_until(lambda: sum(map(is_closed, strangers)) >= 1000 - 256 - 20, 5, "most of them to be closed")
        assert descriptors(victim) < files + 300
        more = memory_mb(victim) - memory
        print(f"1000 half-open: {descriptors(victim) - files} descriptors more, {more:.1f} MB more")
        assert more < 60
        assert ends(rogue(three["mx1"], victim, 0, "knock"))[0] == "in"
        said(victim, "127.0.0.1", event="peer_refused")
        whole(three, pids)
    finally:
        for s in strangers:
            s.close()


def garbage(count):
    """Frames in hex: noise, noise behind a sound first octet of each kind, and of several parts."""
    lines = []
    for _ in range(count):
        head = random.choice([b"", b"\x01", b"\x01\x08", b"\x01H", b"\x01Q", b"\x01J", b"\x02", b"\x03", b"\x63",
                              b"\x01\x08\x01\x10\x01\x1a\x10"])
        more = "+" if random.random() < 0.1 else ""
        lines.append(more + (head + random.randbytes(random.choice([0, 1, 20, 500, 20_000]))).hex())
    return "\n".join(lines + ["01ff"]) + "\n"


def test_garbage_of_a_member_is_refused(three):
    """Its key is right and what it says is noise, on both lanes."""
    node, pids = three["mx1"], [n.process.pid for n in three.nodes]
    before = memory_mb(node)
    for lane in (0, 1):
        assert ends(rogue(three["mx2"], node, lane, "frames"), garbage(300))[0:2] == ["in", 301]
    words = ("frames of member mx2 at 127.0.0.1:", "not of our protocol")

    def told():  # one line a minute for each member, and the minute may have begun before
        if any(all(w in str(r) for w in words) for r in node.records("cluster_problem")):
            return True
        ends(rogue(three["mx2"], node, 0, "frames"), garbage(300))
        return False
    wait_until(told, 90, "the complaint")
    said(node, *words)
    assert memory_mb(node) < before + 50
    whole(three, pids)


def envelope(version, needs, cluster, kind=1):
    """As much of an Envelope as is judged first."""
    return bytes([1, 0x08, version, 0x10, needs, 0x1a, 16]) + cluster + bytes([0x78, kind])


def test_other_clusters_and_versions(three):
    with open(os.path.join(three["mx1"].folder, "data", "cluster.member")) as f:
        ours = bytes.fromhex(f.read().split()[1])
    foreign = envelope(1, 1, bytes(16)).hex() + "\n"
    newer = envelope(9, 9, ours).hex() + "\n"
    assert ends(rogue(three["mx3"], three["mx1"], 0, "frames"), foreign)[0:2] == ["in", 1]
    said(three["mx1"], "frames of member mx3 at 127.0.0.1:", "another cluster")
    assert ends(rogue(three["mx3"], three["mx2"], 0, "frames"), newer)[0:2] == ["in", 1]
    said(three["mx2"], "frames of member mx3 at 127.0.0.1:", "a version that this one does not understand", "upgrade")


FLOODS = [(0, "parts", 65_536), (1, "parts", 1_000_000), (0, "flood", 64, "ping"), (0, "flood", 1_000_000),
          (1, "flood", 1_000_000, "ping")]


def test_floods_of_a_member_are_bounded(three):
    """As much as it can, of small and large frames, with heartbeats (which end a libzmq whose queue is full), and
    messages that never end. Mail goes on meanwhile."""
    node, pids = three["mx2"], [n.process.pid for n in three.nodes]
    with Load([three["mx1"], three["mx3"]], rate=20) as load:
        start = memory_mb(node)
        for lane, what, size, *more in FLOODS:
            before, peak = memory_mb(node), 0
            flood = rogue(three["mx1"], node, lane, what, 1, size, *more)
            while flood.poll() is None:
                peak = max(peak, memory_mb(node))
                load.stopping.wait(0.02)
            _, frames, sent, state = ends(flood)
            print(f"{what} {size} on {'bulk' if lane else 'control'}: {frames} frames, {sent / 1e6:.0f} MB, {state}; "
                  f"memory {before:.0f}, at most {peak:.0f} MB")
            assert what == "flood" or state == "closed", "a message that never ends was gathered"
        load.wait_more(10)
        assert memory_mb(node) < start + 300
        said(node, "127.0.0.1", "cut", event="peer_refused")
        whole(three, pids)
    three.balance(load, timeout=60)


def test_the_next_version_is_understood_and_understands(sink):
    """A rolling upgrade half done: a node of the next protocol version among two of this one."""
    with Cluster(3, sink, start=False) as c:
        c["mx2"].binary = os.path.join(TOOLS, "batond_next")
        c["mx1"].init().start()
        for n in c.nodes[1:]:
            n.join(c["mx1"])
        wait_until(lambda: all(sum(m["lease"] == "held" and m["view"] == "alive" for m in n.members().values()) == 3
                               for n in c.nodes), 30, "three nodes of two versions")
        with Load(c.nodes, rate=50) as load:
            load.wait_more(40)
        c.balance(load)
        assert not [r for n in c.nodes for r in n.records("cluster_problem") if "frames of member" in r["text"]]
