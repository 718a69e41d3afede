# SPDX-License-Identifier: Apache-2.0
"""batonctl and the probes in a cluster of real nodes: every node answers for all of them."""
import json
import os
import signal
import time
import urllib.error
import urllib.request

import pytest
from cluster import Cluster
from harness import wait_until
from sink import Sink


@pytest.fixture(scope="module")
def sink():
    with Sink() as s:
        yield s


@pytest.fixture(scope="module")
def three(sink):
    with Cluster(3, sink, retry="{first: 2s, max: 4s, give_up: 1h, delay_warning: 0s}") as c:
        c.settled(n_up=3)
        for n in c.nodes:
            wait_until(lambda n=n: {m["lease"] for m in n.status()["nodes"]} == {"held"}, 30, "leases")
        yield c


def get(node, path):
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{node.ports['api']}{path}", timeout=10) as r:
            return r.status, r.read().decode()
    except urllib.error.HTTPError as e:
        return e.code, e.read().decode()


def alarms(status):
    return {a["code"]: a for a in status["alarms"]}


def test_every_node_says_the_same(three):
    wanted = {"mx1", "mx2", "mx3"}
    for node in three.nodes:
        status = node.status()
        rows = {n["id"]: n for n in status["nodes"]}
        assert set(rows) == wanted and status["cluster"]["name"] == "test"
        assert {n["member"] for n in rows.values()} == {"up"}
        assert all(n["lease"] == "held" and n["lease_ms"] > 0 for n in rows.values())
        assert [rows[n]["address"] for n in sorted(wanted)] == [f"127.0.0.1:{n.port}" for n in three.nodes]
        assert {n["config"] for n in rows.values()} == {rows["mx1"]["config"]}
        assert {n["id"] for n in node.ctl_json("node", "ls")} == wanted
        assert node.ctl("status", check=False).stdout.startswith("test: ")
        assert not set(alarms(status)) & {"no_lease", "node_down", "no_answer", "settings_differ", "copies_short"}


def test_probes(three):
    node = three["mx2"]
    wait_until(lambda: get(node, "/readyz")[0] == 200, 20, "readiness")
    text = get(node, "/metrics")[1]
    values = {line.split()[0]: float(line.split()[1]) for line in text.splitlines() if line.startswith("baton_cluster")}
    assert values["baton_cluster_members"] == 3 and values["baton_cluster_members_dead"] == 0
    assert 1 <= values["baton_cluster_lease_seconds"] <= 15
    assert values["baton_cluster_frames_sent_total"] > 0 and values["baton_cluster_bytes_received_total"] > 0


def test_queue_and_trace_from_anywhere(three, sink):
    sink.rcpt = lambda *a: "451 4.3.0 later"
    try:
        ids = [three[f"mx{i % 3 + 1}"].send(to=f"u{i}@dest.test") for i in range(9)]
        owners = {ids[i]: f"mx{i % 3 + 1}" for i in range(9)}

        def all_deferred():
            rows = three["mx2"].ctl_json("queue", "ls")
            return len(rows) == 9 and all(r["recipients"][0]["state"] == "deferred" for r in rows)
        wait_until(all_deferred, 30, "nine deferred messages")
        for node in three.nodes:
            rows = node.ctl_json("queue", "ls")
            assert [r["id"] for r in rows] == sorted(ids)
            assert {r["id"]: r["node"] for r in rows} == owners
            assert {r["copies"] for r in rows} == {2}
            assert len(node.ctl_json("queue", "ls", "--limit", "4")) == 4
            assert {r["id"] for r in node.ctl_json("queue", "ls", "--node", "mx3")} == \
                {i for i in ids if owners[i] == "mx3"}
            shape = {r["domain"]: r for r in node.ctl_json("queue", "shape")}
            assert shape["TOTAL"]["units"] == 9 and shape["dest.test"]["recipients"] == 9
            (shown,) = node.ctl_json("queue", "show", ids[0])
            assert shown["node"] == "mx1" and shown["copies"] == 2
            wait_until(lambda n=node: n.status()["queue"]["messages"] == 9, 10, "the sum of all nodes")
            events = node.ctl_json("trace", ids[4])
            assert [e["event"] for e in events][:2] in (["received", "replicated"], ["replicated", "received"])
            assert events[-1]["event"] == "deferred" and events[0]["node"] == "mx2"
            last = node.ctl_json("events", "--last", "2000")
            assert {e["node"] for e in last} == {"mx1", "mx2", "mx3"}
            assert [e["time"] for e in last] == sorted(e["time"] for e in last)
    finally:
        sink.rcpt = lambda *a: None
    wait_until(lambda: not three["mx1"].ctl_json("queue", "ls"), 60, "an empty queue")
    rows = [e for e in three["mx3"].ctl_json("trace", ids[0]) if e["event"] == "delivered"]
    assert len(rows) == 1


def test_verbs_reach_every_node(three, sink):
    """Said to one node, done by each with its own mail, and known to those who have copies."""
    sink.rcpt = lambda a: "451 4.3.0 later" if a.startswith("v") else None
    try:
        ids = [three[f"mx{i % 3 + 1}"].send(to=f"v{i}@verbs.test") for i in range(9)]

        def states():
            return [r["recipients"][0]["state"] for r in three["mx1"].ctl_json("queue", "ls", "--domain", "verbs.test")]

        def done(node, verb, changed, *words):
            """Attempts come and go: until all that is meant has changed."""
            total = 0

            def say():
                nonlocal total
                (row,) = node.ctl_json("queue", verb, "--domain", "verbs.test", *words)
                assert {n["node"] for n in row["nodes"]} == {"mx1", "mx2", "mx3"} and row["failed"] == 0
                total += row["changed"]
                return total >= changed
            wait_until(say, 30, f"{verb} of {changed}")
            assert total == changed
        wait_until(lambda: states() == ["deferred"] * 9, 30, "nine deferred messages")
        (row,) = three["mx2"].ctl_json("queue", "drop", "--domain", "verbs.test", "--dry-run", "--reason", "x")
        assert (row["matched"], row["changed"]) == (9, 0) and len(row["nodes"]) == 3
        done(three["mx2"], "hold", 9, "--reason", "a look")
        assert all(r["held"] for r in three["mx3"].ctl_json("queue", "ls", "--domain", "verbs.test"))
        done(three["mx3"], "release", 3, "--node", "mx1")
        done(three["mx1"], "bounce", 1, "--to", "v1@verbs.test", "--reason", "the project is over")
        sink.wait_for(lambda m: m.sender == "" and b"the project is over" in m.data)
        done(three["mx1"], "drop", 8, "--reason", "tidy")
        for node in three.nodes:
            wait_until(lambda n=node: not n.ctl_json("queue", "ls"), 30, "an empty queue")
            # The copies have gone, too.
            wait_until(lambda n=node: {m["copies_held"] for m in n.status()["nodes"]} == {0}, 30, "no copies")
        assert [e["event"] for e in three["mx3"].ctl_json("trace", ids[0])][-1] == "dropped"
        said = [e for e in three["mx3"].ctl_json("events", "--last", "2000") if e["event"] == "operator"]
        assert any(e.get("command") == "queue drop" and e.get("by") == "mx1" for e in said)
    finally:
        sink.rcpt = lambda *a: None


def test_why_of_every_node(three, sink):
    rows = three["mx2"].ctl_json("why", "u@dest.test")
    assert {r["node"] for r in rows} == {"mx1", "mx2", "mx3"}
    assert all(r["hops"][0]["port"] == sink.port and r["blocked"] == [] for r in rows)


def test_a_node_that_hangs(three):
    """Within two seconds, by name, and the rest as always. Stopped for less than its lease."""
    hung = three["mx3"]
    os.kill(hung.process.pid, signal.SIGSTOP)
    try:
        started = time.monotonic()
        out = three["mx1"].ctl("status", "--json", check=False)
        took = time.monotonic() - started
    finally:
        os.kill(hung.process.pid, signal.SIGCONT)
    status = json.loads(out.stdout)
    assert took < 2.5 and out.returncode in (2, 3)
    assert "mx3 did not answer" in out.stderr
    assert "mx3 did not answer" in alarms(status)["no_answer"]["text"]
    rows = {n["id"]: n for n in status["nodes"]}
    assert rows["mx3"]["answered"] is False and rows["mx2"]["answered"] is True
    wait_until(lambda: "no_answer" not in alarms(three["mx1"].status()), 30, "its answer")


def test_settings_that_differ_are_named(three):
    node = three["mx2"]
    before = node.settings
    try:
        node.write_settings(before.replace("first: 2s", "first: 3s"))
        node.ctl("reload")
        text = alarms(three["mx1"].status())["settings_differ"]["text"]
        assert text == "settings of mx2 differ from mx1's: retry.first"
        wait_until(lambda: "settings_differ" in [r["code"] for r in three["mx1"].records("alarm")], 20, "the alarm")
    finally:
        node.write_settings(before)
        node.ctl("reload")
    wait_until(lambda: "settings_differ" not in alarms(three["mx1"].status()), 20, "agreement")


def test_what_is_refused(three):
    node = three["mx1"]
    for words, want in ((["drain", "mx9"], 'no member has the name "mx9"'),
                        (["force-fence", "mx2"], "only for a node that cannot run"),
                        (["force-config"], "wants their names"),
                        (["cluster", "token", "--for", "9d"], "from 1m to 7d")):
        out = node.ctl(*words, check=False)
        assert out.returncode == 1 and want in out.stderr, (words, out)
    audit = [r for r in node.records("operator") if r.get("command") == "force-fence"]
    assert audit and '"mx2"' in audit[-1]["args"]


def test_drain_ends_with_proof(three):
    """Last: afterwards the cluster has two members."""
    out = three["mx1"].ctl("drain", "mx3", "--wait")
    assert "mx3 holds nothing: no message and no copy is in its store; cluster test" in out.stdout
    assert {n["id"]: n["member"] for n in three["mx2"].ctl_json("node", "ls")}["mx3"] == "draining"
    assert get(three["mx3"], "/readyz")[0] == 503
    assert "on_the_move" in alarms(three["mx1"].status())
    three["mx3"].stop()
    # refused while it may still run: it was heard within the lease
    wait_until(lambda: three["mx1"].ctl("remove", "mx3", check=False).returncode == 0, 20, "the removal")
    wait_until(lambda: {n["id"] for n in three["mx2"].ctl_json("node", "ls")} == {"mx1", "mx2"}, 20, "two members")
    assert three["mx1"].status()["queue"]["copies_short"] == 0


def test_two_without_a_third_vote(sink):
    """One dies: the other goes on, says what to do, and takes over when it is told."""
    with Cluster(2, sink, retry="{first: 1s, max: 2s, give_up: 1h, delay_warning: 0s}") as c:
        c.settled(n_up=2)
        left, dead = c.nodes
        for n in c.nodes:
            wait_until(lambda n=n: n.status()["cluster"]["mode"] == "static", 30, "a cluster that needs no vote")
        sink.rcpt = lambda *a: "451 4.3.0 later"
        try:
            ident = dead.send()
            wait_until(lambda: [r["copies"] for r in left.ctl_json("queue", "ls")] == [2], 20, "two copies")
            dead.kill()
            wait_until(lambda: "peer_down_static" in alarms(left.status()), 30, "the alarm")
            assert "force-fence" in alarms(left.status())["peer_down_static"]["next_step"]
            (row,) = wait_until(lambda: left.ctl_json("queue", "ls"), 20, "what the holder knows")
            assert (row["id"], row["node"], row["waiting"]) == (ident, "mx2", True)  # not its own
            assert "waits for takeover: its node mx2" in left.ctl("queue", "ls").stdout
            queue = wait_until(lambda: [q for q in [left.status()["queue"]] if q["waiting"]], 20, "the figures")[0]
            assert (queue["messages"], queue["recipients"], queue["waiting"]) == (1, 1, 1)
            assert left.members()["mx2"]["queued"] == 1
            assert "1 waiting for takeover" in left.ctl("status", check=False).stdout
            (verb,) = left.ctl_json("queue", "drop", ident, "--reason", "x", check=False)
            assert (verb["matched"], verb["changed"], verb["waiting"]) == (1, 0, 1)
            assert left.ctl("force-fence", "mx2", "--i-have-powered-off", "mx1", check=False).returncode == 1
            left.ctl("force-fence", "mx2", "--i-have-powered-off", "mx2")
            wait_until(lambda: [(r["id"], r["node"]) for r in left.ctl_json("queue", "ls")] == [(ident, "mx1")], 30,
                       "the takeover")
            wait_until(lambda: "copies_short" in alarms(left.status()), 20, "the missing copy")
            assert left.ctl("status", check=False).returncode == 3
            assert "peer_down_static" not in alarms(left.status())
        finally:
            sink.rcpt = lambda *a: None
        wait_until(lambda: left.ctl_json("queue", "ls") == [], 60, "its delivery")


def test_a_hold_outlives_its_node(sink):
    """Whoever takes over has heard of it with its copy."""
    sink.rcpt = lambda a: "451 4.3.0 later" if a.startswith("held") else None
    try:
        with Cluster(3, sink, retry="{first: 2s, max: 4s, give_up: 1h, delay_warning: 0s}") as c:
            c.settled(n_up=3)
            ident = c["mx1"].send(to="held@dest.test")
            wait_until(lambda: c["mx2"].ctl_json("queue", "hold", ident, "--reason", "a look")[0]["changed"], 30, "a hold")
            sink.rcpt = lambda *a: None
            c["mx1"].kill()

            def heir():
                rows = c["mx2"].ctl_json("queue", "ls", check=False)
                return rows[0] if rows and rows[0]["node"] != "mx1" else None
            row = wait_until(heir, 60, "an heir")
            assert row["id"] == ident and row["held"] and row["hold_reason"] == "a look"
            before = len(sink.messages)
            wait_until(lambda: c["mx3"].ctl_json("queue", "release", ident, check=False)[0]["changed"], 30, "a release")
            sink.wait_for(lambda m: "held@dest.test" in m.recipients, 30)
            assert not any("held@dest.test" in m.recipients for m in sink.messages[:before])
    finally:
        sink.rcpt = lambda *a: None
