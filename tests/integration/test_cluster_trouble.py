# SPDX-License-Identifier: Apache-2.0
"""What must happen when a cluster of real processes is in trouble. Short forms, for every run;
the deaths of nodes are in test_cluster_ledger.py."""
import os
import shutil
import time
import urllib.request

import pytest

from cluster import LEASE, Cluster, Load
from harness import wait_until
from sink import Sink

# Ownership moves within the lease and what finding out takes.
TAKEOVER = LEASE + 6


@pytest.fixture
def three(sink):
    with Cluster(3, sink) as c:
        yield c


def stuck(sink, domain="stuck.test"):
    """A destination that defers, so that mail stays queued."""
    sink.rcpt = lambda a: "450 4.2.0 later" if a.endswith(domain) else None


def owners(cluster, node):
    return {u["id"]: u["node"] for u in node.ctl_json("queue", "ls")}


def test_250_means_two_disks(three):
    stuck(three.sink)
    ids = [n.send(to="x@stuck.test", ident=f"two-{n.name}").rsplit(" ", 1)[-1] for n in three.nodes]
    rows = {u["id"]: u for u in three["mx1"].ctl_json("queue", "ls")}
    for ident in ids:
        assert rows[ident]["copies"] == 2
    # each message has one holder that is not its owner
    wait_until(lambda: sum(n["copies_held"] for n in three["mx1"].status()["nodes"]) == 3, 5, "three copies held")


def test_any_node_answers_for_all(three):
    stuck(three.sink)
    ident = three["mx1"].send(to="x@stuck.test")
    for n in three.nodes:
        assert set(n.members()) == {"mx1", "mx2", "mx3"}
        assert ident in {u["id"] for u in n.ctl_json("queue", "ls")}
        assert any(e["event"] == "received" for e in n.ctl_json("trace", ident))


def test_takeover_in_time(three):
    """Mail of a dead owner is in another node's hands within lease + 6 s, and goes out."""
    stuck(three.sink)
    for i in range(30):
        three["mx1"].send(to="x@stuck.test", ident=f"t{i}")
    started = time.monotonic()
    three["mx1"].kill()
    heirs = [three["mx2"], three["mx3"]]
    wait_until(lambda: set(owners(three, heirs[0]).values()) <= {"mx2", "mx3"}, TAKEOVER + 3, "the takeover")
    took = time.monotonic() - started
    three.sink.rcpt = lambda a: None
    wait_until(lambda: {m.id() for m in three.sink.messages} >= {f"t{i}" for i in range(30)}, 30, "their delivery")
    print(f"takeover took {took:.1f} s")
    assert took <= TAKEOVER + 1


def test_rolling_restart_moves_nothing(three):
    """No takeover of mail whose node said that it will be back, and no copy storm."""
    stuck(three.sink)
    for n in three.nodes:
        for i in range(10):
            n.send(to="x@stuck.test", ident=f"{n.name}-{i}")
    before = owners(three, three["mx1"])
    now = lambda: {i: node for i, node in owners(three, three["mx1"]).items() if i in before}
    with Load(three.nodes, rate=60) as load:
        for n in three.nodes:
            load.wait_more(30)
            n.stop()
            n.start()
            three.settled(3, timeout=60)
        load.wait_more(30)
    assert now() == before
    assert not [r for n in three.nodes for r in n.records("takeover", since_start=False)]
    three.sink.rcpt = lambda a: None
    assert load.longest_pause() < 2 + 0.5
    three.balance(load)


def test_two_nodes_and_one_dies(sink):
    """Accepts (copies short, shown), delivers its own at once, takes over only when told."""
    with Cluster(2, sink) as c:
        stuck(sink)
        a, b = c.nodes
        wait_until(lambda: all(n.status()["cluster"]["mode"] == "static" for n in c.nodes), 30, "static mode")
        mine = b.send(to="x@stuck.test", ident="of-the-dead")
        b.kill()
        killed = time.monotonic()
        a.send(ident="while-alone")
        sink.wait_for(lambda m: m.id() == "while-alone", 15)
        # a copy is waited for 2 s, as long as nobody is known to be dead
        assert time.monotonic() - killed < 4
        status = a.ctl("status", "--json", check=False)
        assert status.returncode in (2, 3)
        stuck(sink, "late.test")
        a.send(to="x@late.test", ident="short")
        wait_until(lambda: a.status()["queue"]["copies_short"] >= 1, 10, "copies short shown")
        # not told: it stays the dead one's, as the holder of its copy shows
        wait_until(lambda: owners(c, a).get(mine) == "mx2", 20, "the dead one's mail")
        assert not any(m.id() == "of-the-dead" for m in sink.messages)
        # refused while it may still live: it was heard within the lease
        fence = lambda: a.ctl("force-fence", "mx2", "--i-have-powered-off", "mx2", check=False).returncode == 0
        wait_until(fence, 2 * LEASE + 5, "the fence")
        sink.wait_for(lambda m: m.id() == "of-the-dead", 30)


def test_one_grows_to_three_and_shrinks(sink):
    with Cluster(1, sink) as c:
        with Load(c.nodes, rate=80) as load:
            load.wait_more(50)
            for _ in range(2):
                c.add().join(c["mx1"])
                c.settled(len(c.nodes), timeout=90)
                load.wait_more(50)
            gone = c["mx3"]
            load.nodes = c.nodes[:2]
            c["mx1"].ctl("drain", "mx3", "--wait")
            gone.stop()
            # refused while it may still run: it was heard within the lease
            remove = lambda: c["mx1"].ctl("remove", "mx3", check=False).returncode == 0
            wait_until(remove, 2 * LEASE + 5, "the removal")
            load.wait_more(50)
            c.settled(2, timeout=60)
        assert load.longest_pause() < 2.5
        c.balance(load)


def alarm_of(cluster, node, code, names):
    """As any other node's status tells it: of which nodes, and what to do."""
    def look():
        for a in cluster[node].status()["alarms"]:
            if a["code"] == code and names in (*a["nodes"], *a["text"].split()):
                return a
    return wait_until(look, 60, f"the alarm {code} about {names}")


def test_slow_disk_steps_aside(three):
    """Flushes that take 10 s: the node takes no more mail and no copies by itself, and the cluster goes on; its own
    mail still arrives; status says why."""
    stuck(three.sink)
    for i in range(5):
        three["mx3"].send(to="x@stuck.test", ident=f"slow-{i}")
    with Load(three.nodes, rate=40) as load:
        load.wait_more(40)
        victim = three["mx3"]
        load.nodes = three.nodes[:2]
        victim.world.set(flush_ms=10_000)
        load.wait_more(80, timeout=60)
        alarm = alarm_of(three, "mx1", "storage_slow", "mx3")
        assert "disk" in alarm["text"] and alarm["next_step"]
        three.sink.rcpt = lambda a: None
        if os.environ.get("BATON_CLUSTER_ALL"):  # after half a minute of it, others have its mail
            wait_until(lambda: {f"slow-{i}" for i in range(5)} <= {m.id() for m in three.sink.messages}, 60, "its mail")
        victim.world.set(flush_ms=0)
    three.settled(3, timeout=90)
    three.balance(load)
    assert len([m for m in three.sink.messages if m.id().startswith("slow-")]) == 5


def test_failing_disk_ends_the_node(three):
    """EIO on a flush: nobody knows what is on disk, so the process ends, and says so."""
    with Load(three.nodes, rate=40) as load:
        load.wait_more(40)
        victim = three["mx3"]
        victim.world.set(flush_errno=5)
        assert victim.process.wait(20) != 0
        assert "error" in victim.tail(5).lower()
        load.wait_more(80)
        assert alarm_of(three, "mx1", "node_down", "mx3")["next_step"]
        victim.world.set(flush_errno=0)
        victim.start()
        three.settled(3, timeout=90)
    three.balance(load)


def test_full_disk_refuses_and_the_others_go_on(sink):
    """It takes no more mail and no more copies, by itself; status says why; nothing is lost, and it goes on when there
    is room."""
    stuck(sink)
    with Cluster(3, sink, start=False) as c:
        for n in c.nodes:
            n.write_settings(n.settings.replace("quota: 2GB", "quota: 64MB"))
        c.form()
        full, mine = c["mx3"], []
        full.world.set(allocate_errno=28)

        def refused():
            try:
                mine.append(full.send(to="x@stuck.test", ident=f"full-{len(mine)}", body=("z" * 70 + "\r\n") * 3000))
                return False
            except AssertionError as e:
                return "452" in str(e) or "451" in str(e)
        with Load(c.nodes[:2], rate=40) as load:
            wait_until(refused, 60, "a refusal")
            assert "disk is full" in alarm_of(c, "mx1", "queue_full", "mx3")["text"]
            load.wait_more(40)
            full.world.set(allocate_errno=0)
            wait_until(lambda: not refused(), 30, "room")
            wait_until(lambda: "queue_full" not in {a["code"] for a in c["mx1"].status()["alarms"]}, 30, "no alarm")
        sink.rcpt = lambda a: None
        c.settled(3, timeout=60)
        c.balance(load)
        assert len([m for m in sink.messages if m.id().startswith("full-")]) == len(mine)


@pytest.mark.parametrize("years", [14, -56])
def test_wall_clock_of_one_node_jumps(three, years):
    """To 2040 or 1970: nothing expires, nothing is put aside, an alarm."""
    stuck(three.sink)
    for n in three.nodes:
        n.send(to="x@stuck.test", ident=f"clock-{n.name}")
    three["mx2"].world.set(wall_seconds=years * 365 * 86400)
    wait_until(lambda: any("clock" in a["code"] for a in three["mx1"].status()["alarms"]), 30, "the alarm")
    wait_until(lambda: three["mx1"].status()["queue"]["messages"] == 3, 5, "three messages")
    assert three["mx1"].status()["queue"]["quarantined"] == 0
    assert not [r for n in three.nodes for r in n.records("expired")]
    three["mx2"].world.set(wall_seconds=0)
    three.sink.rcpt = lambda a: None
    for n in three.nodes:
        three.sink.wait_for(lambda m, n=n: m.id() == f"clock-{n.name}", 30)


def tombstones(node):
    with urllib.request.urlopen(f"http://127.0.0.1:{node.ports['api']}/metrics", timeout=10) as r:
        text = r.read().decode()
    return sum(float(line.split()[1]) for line in text.splitlines() if line.startswith("baton_cluster_tombstones "))


def test_node_back_after_a_week_delivers_nothing_stale(three):
    """Its old queue was taken over and delivered meanwhile, and the others have forgotten that. The peers' clocks
    tell it that a week is over: it trusts its own, and puts its copies aside. All goes on for new mail."""
    stuck(three.sink)
    for i in range(10):
        three["mx1"].send(to="x@stuck.test", ident=f"old-{i}")
    three["mx1"].kill()
    three.sink.rcpt = lambda a: None
    heirs = [three["mx2"], three["mx3"]]
    three.sink.wait(10, timeout=2 * TAKEOVER + 30)
    wait_until(lambda: not heirs[0].ctl_json("queue", "ls"), 30, "an empty queue")
    for n in three.nodes:
        n.world.set(wall_seconds=7 * 86400)
    for n in heirs:  # a week in a second is no time that passes
        n.ctl("clock", "accept")
    for n in heirs:
        wait_until(lambda n=n: tombstones(n) == 0, 40, "what is forgotten")
    with Load(heirs, rate=20) as load:
        load.wait_more(20)
        three["mx1"].start()
        three.settled(3, timeout=90)
        assert not [a for a in three["mx1"].status()["alarms"] if a["code"] == "clock_untrusted"]
        load.wait_more(20)
    three.balance(load)
    aside = lambda: [u for u in three["mx1"].ctl_json("quarantine", "ls") if u["node"] == "mx1"]
    wait_until(lambda: len(aside()) == 10, 30, "ten put aside")
    assert len([m for m in three.sink.messages if m.id().startswith("old-")]) == 10


def test_a_used_token_lets_nobody_in(sink):
    """Whoever has a token that another has used is a stranger: it becomes no member, and says so."""
    with Cluster(2, sink) as c:
        first = c["mx1"]
        stranger = c.add()
        shutil.copy(os.path.join(c["mx2"].folder, "join.token"), os.path.join(stranger.folder, "join.token"))
        stranger.start()
        wait_until(lambda: any(a["code"] == "not_a_member" for a in stranger.status().get("alarms", [])), 40,
                   "the stranger's alarm")
        assert set(first.members()) == {"mx1", "mx2"}
        assert all(m["view"] == "alive" for m in first.members().values())
