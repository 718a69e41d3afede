# SPDX-License-Identifier: Apache-2.0
"""A body that rots on one node's disk: never delivered as it is; another node's copy takes its place, and
without one the mail is put aside for the operator."""
import mmap
import os

from cluster import Cluster
from harness import wait_until


def stuck(sink):
    """Mail stays queued, and each attempt reads the body."""
    sink.dot = lambda *a: "450 4.2.0 later"


def rot(node, marker):
    """Flips a bit of each place where the body lies in the queue of a node that does not run."""
    assert not node.alive()
    path = os.path.join(node.folder, "data", "queue", "data.mdb")
    found = 0
    with open(path, "r+b") as f, mmap.mmap(f.fileno(), 0) as m:
        at = m.find(marker)
        while at >= 0:
            m[at] ^= 1
            found += 1
            at = m.find(marker, at + 1)
        m.flush()
    assert found, f"{marker} is not in {path}"


def holders(cluster):
    return {n["id"]: n["copies_held"] for n in cluster["mx1"].status()["nodes"]}


def test_the_owners_copy_rots(sink):
    """Delivered whole by the holder; the owner has a good copy again."""
    body = "marker-of-rot\r\n"
    with Cluster(2, sink) as c:
        stuck(sink)
        ident = c["mx1"].send(to="x@stuck.test", ident="rot", body=body)
        wait_until(lambda: [u["copies"] for u in c["mx1"].ctl_json("queue", "ls")] == [2], 30, "two copies")
        c["mx1"].stop()
        rot(c["mx1"], b"marker-of-rot")
        c["mx1"].start()
        c["mx1"].wait_log("store_problem", timeout=60)
        assert "damaged" in str(c["mx1"].records("store_problem"))
        wait_until(lambda: [u["node"] for u in c["mx2"].ctl_json("queue", "ls")] == ["mx2"], 60, "the other owner")
        # Its copy is whole again: mx2 may die now, with its disk.
        wait_until(lambda: holders(c)["mx1"] == 1, 60, "the new copy")
        c.settled(2)
        sink.dot = lambda *a: None
        sink.wait_for(lambda m: m.id() == "rot", 60)
        assert all(b"marker-of-rot" in m.data and len(m.data) >= len(body) for m in sink.messages)
        assert len(sink.messages) == 1
        assert not c["mx1"].ctl_json("quarantine", "ls"), ident


def test_the_only_copy_rots(sink):
    """Put aside, with an alarm; never delivered."""
    with Cluster(1, sink) as c:
        stuck(sink)
        c.settled(1)
        ident = c["mx1"].send(to="x@stuck.test", ident="rot", body="marker-of-rot\r\n")
        c["mx1"].stop()
        rot(c["mx1"], b"marker-of-rot")
        sink.dot = lambda *a: None
        c["mx1"].start()
        aside = wait_until(lambda: c["mx1"].ctl_json("quarantine", "ls"), 60, "the quarantine")
        assert [u["id"] for u in aside] == [ident]
        wait_until(lambda: any(a["code"] == "quarantine" for a in c["mx1"].status()["alarms"]), 30, "the alarm")
        assert not c["mx1"].ctl_json("queue", "ls")
        assert not sink.messages
