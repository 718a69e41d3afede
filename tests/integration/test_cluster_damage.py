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
    """Delivered whole by the holder; the owner has a good copy again. Of a size that goes to the disk as it comes."""
    body = "marker-of-rot\r\n" + ("z" * 70 + "\r\n") * 40_000
    with Cluster(2, sink) as c:
        stuck(sink)
        ident = c["mx1"].send(to="x@stuck.test", ident="rot", body=body)
        wait_until(lambda: [u["copies"] for u in c["mx1"].ctl_json("queue", "ls")] == [2], 10, "two copies")
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


def aside(cluster, node):
    return {u["id"]: u for u in cluster[node].ctl_json("quarantine", "ls") if u["node"] == node}


def queued_ids(node):
    return [u["id"] for u in node.ctl_json("queue", "ls")]


def rot_a_recipient(cluster, sink):
    """mx1 takes a message to two and stops; the row of one of them rots. Both rows are put aside at its start."""
    stuck(sink)
    mx1 = cluster["mx1"]
    cluster.settled(len(cluster.nodes))
    with mx1.smtp() as s:
        s.sendmail("a@source.test", ["good@stuck.test", "rotten@stuck.test"], b"X-Test-Id: aside\r\n\r\nhello\r\n")
    (ident,) = wait_until(lambda: queued_ids(mx1), 10, "the message")
    mx1.stop()
    rot(mx1, b"rotten@stuck.test")
    mx1.start()
    found = wait_until(lambda: aside(cluster, "mx1"), 30, "the quarantine")
    assert found[ident]["releasable"] and found[ident]["damaged"] == 1
    return ident


def test_what_was_put_aside_is_released_once(sink):
    """As a message of its own with its copies, to whom is readable; once, however often it is said."""
    with Cluster(1, sink) as c:
        ident = rot_a_recipient(c, sink)
        sink.dot = lambda *a: None
        c.settled(1)
        (row,) = c["mx1"].ctl_json("quarantine", "release", ident)
        assert (row["done"], row["recipients"], row["ended_elsewhere"]) == ("released", 1, 0)
        assert "possible_duplicate" not in row and row["as"] != ident
        sink.wait_for(lambda m: m.id() == "aside", 30)
        assert [m.recipients for m in sink.messages] == [["good@stuck.test"]]
        assert not aside(c, "mx1")
        assert c["mx1"].wait_log("released", id=ident)["as"] == row["as"]
        assert c["mx1"].wait_log("delivered", id=row["as"])["to"] == "good@stuck.test"
        again = c["mx1"].ctl("quarantine", "release", ident, check=False)
        assert again.returncode == 1 and f"it was released before, on mx1, as {row['as']}" in again.stderr


def test_release_asks_who_has_it_already(sink):
    """The other node has a copy of what is put aside here: it delivers it, and nobody else does."""
    with Cluster(2, sink) as c:
        ident = rot_a_recipient(c, sink)
        wait_until(lambda: [u["node"] for u in c["mx1"].ctl_json("queue", "ls")] == ["mx2"], 60, "the other owner")
        said = c["mx2"].ctl("quarantine", "release", ident, check=False)
        assert said.returncode == 1 and "mx2 has it, or a copy of it, in its queue" in said.stderr
        sink.dot = lambda *a: None
        sink.wait_for(lambda m: m.id() == "aside", 60)
        wait_until(lambda: not c.queued(), 30, "an empty queue")
        said = c["mx2"].ctl("quarantine", "release", ident, "--may-duplicate", check=False)
        assert said.returncode == 1 and "each of its recipients was delivered" in said.stderr, said.stderr
        wait_until(lambda: c["mx1"].status()["cluster"]["mode"] == "static", 30, "a cluster that needs no vote")
        c["mx2"].kill()
        said = c["mx1"].ctl("quarantine", "release", ident, check=False)
        assert said.returncode == 1 and "mx2 did not answer" in said.stderr and "--may-duplicate" in said.stderr
        (row,) = c["mx1"].ctl_json("quarantine", "release", ident, "--may-duplicate")
        assert row["possible_duplicate"] == "D6"
        assert c["mx1"].wait_log("delivered", id=row["as"])["possible_duplicate"] == "D6"
        assert len(sink.messages) == 2
