# SPDX-License-Identifier: Apache-2.0
"""What an operator does to the queue: hold, release, retry, expire, bounce, drop."""
import email
import json
import threading

import pytest

from harness import Baton, wait_until
from sink import Sink

SLOW = "{first: 1h, max: 4h, give_up: 1d, delay_warning: 0s}"
VERBS = ["hold", "release", "retry", "expire", "bounce", "drop"]


@pytest.fixture
def stuck(sink):
    """A node whose next hop defers all but the sender's own mailbox; `stuck.deferred(n)` waits for them."""
    sink.rcpt = lambda a: None if a.startswith("a@source") else "450 4.2.1 mailbox busy"
    with Baton(sink_port=sink.port, retry=SLOW) as b:
        b.sink = sink

        def deferred(n):
            def look():
                rows = b.ctl_json("queue", "ls")
                ok = sum(r["state"] == "deferred" for row in rows for r in row["recipients"]) == n
                # The scheduler has them back, too: due is what is under way.
                return ok and b.ctl_json("status", check=False)[0]["queue"]["due"] == 0
            wait_until(look, what=f"{n} deferred recipients")
        b.deferred = deferred
        yield b
    sink.rcpt = lambda a: None


def verb(b, name, *args):
    (row,) = b.ctl_json("queue", name, *args)
    assert [n["node"] for n in row["nodes"]] == [row["nodes"][0]["node"]]
    return row["matched"], row["changed"], row["busy"], row["failed"]


def queue(b, *filters):
    return b.ctl_json("queue", "ls", *filters)


def test_refusals(stuck):
    stuck.send()
    stuck.deferred(1)
    for name in VERBS:
        p = stuck.ctl("queue", name, "--reason", "tidy" if name in ("expire", "bounce", "drop", "hold") else "",
                      check=False)
        assert p.returncode == 1 and "--all" in p.stderr, name
    for name in ("expire", "bounce", "drop"):
        p = stuck.ctl("queue", name, "--all", check=False)
        assert p.returncode == 1 and "wants a reason" in p.stderr and "--reason" in p.stderr
        p = stuck.ctl("queue", name, "--all", "--reason", "x" * 401, check=False)
        assert p.returncode == 1 and "fewer words" in p.stderr
    for words in (["--older", "soon"], ["not-an-id"], ["--egress", "e1"]):
        p = stuck.ctl("queue", "retry", *words, check=False)
        assert p.returncode == 1 and p.stderr, words
    assert len(queue(stuck)) == 1


def test_hold_and_release(stuck):
    one = stuck.send(to="b@one.test")
    stuck.send(to="b@two.test")
    stuck.deferred(2)
    assert verb(stuck, "hold", "--domain", "one.test", "--reason", "legal wants a look") == (1, 1, 0, 0)
    assert verb(stuck, "hold", "--domain", "one.test") == (1, 0, 0, 0)
    (row,) = queue(stuck, "--reason", "legal")
    assert row["id"] == one and row["held"] and row["hold_reason"] == "legal wants a look"
    assert stuck.wait_log("held", id=one)["reason"] == "legal wants a look"
    wait_until(lambda: stuck.ctl_json("status", check=False)[0]["queue"]["held"] == 1, what="the figure")
    # A held one is not tried, whatever is said of its time; it stays so over a restart.
    stuck.sink.rcpt = lambda a: None
    assert verb(stuck, "retry", "--all") == (2, 1, 0, 0)
    stuck.sink.wait(1)
    stuck.stop()
    stuck.start()
    assert [r["id"] for r in queue(stuck)] == [one] and queue(stuck)[0]["held"]
    assert verb(stuck, "release", one) == (1, 1, 0, 0)
    stuck.sink.wait(2)
    wait_until(lambda: not queue(stuck), what="an empty queue")


def test_retry_now(stuck):
    ident = stuck.send()
    stuck.send(to="b@other.test")
    stuck.deferred(2)
    stuck.sink.rcpt = lambda a: None
    assert verb(stuck, "retry", "--reason", "mailbox busy", "--to", "b@dest.test") == (1, 1, 0, 0)
    stuck.sink.wait(1)
    wait_until(lambda: [r["id"] for r in queue(stuck)] != [], what="the other")
    stuck.wait_log("delivered", id=ident)
    # The line is written when the next hop has it; the queue lets go with the commit after.
    wait_until(lambda: len(queue(stuck)) == 1, what="the delivered one gone")
    assert verb(stuck, "retry", "--to", "b@dest.test") == (0, 0, 0, 0)


def test_retry_ends_the_silence_of_a_dead_hop():
    """A destination that is down is asked at once, not when its time is over."""
    with Sink() as dead:
        port = dead.port
    with Baton(sink_port=port, retry=SLOW) as b:
        b.send()
        wait_until(lambda: queue(b)[0]["recipients"][0]["state"] == "deferred", what="a failed attempt")
        tries = queue(b)[0]["recipients"][0]["attempts"]
        wait_until(lambda: verb(b, "retry", "--all")[1] == 1, what="a retry")
        wait_until(lambda: queue(b)[0]["recipients"][0]["attempts"] > tries, what="another attempt")


@pytest.mark.parametrize("name,event", [("expire", "expired"), ("bounce", "bounced")])
def test_end_with_a_report(stuck, name, event):
    ident = stuck.send(to=["b@dest.test", "c@dest.test"])
    other = stuck.send(to="b@other.test")
    stuck.deferred(3)
    assert verb(stuck, name, "--domain", "dest.test", "--reason", "the project is over") == (1, 1, 0, 0)
    stuck.sink.wait(1)
    report = email.message_from_bytes(stuck.sink.messages[0].data)
    text = report.as_string()
    assert report.get_content_type() == "multipart/report"
    assert "the project is over" in text and "b@dest.test" in text and "c@dest.test" in text
    assert "Remote-MTA" not in text
    rows = [r for r in stuck.records(event) if r["id"] == ident]
    assert {r["to"] for r in rows} == {"b@dest.test", "c@dest.test"}
    assert all(r["reply"] == "the project is over" and r["by"] == "operator" for r in rows)
    stuck.wait_log("dsn", id=ident)
    wait_until(lambda: [r["id"] for r in queue(stuck)] == [other], what="the report gone")


def test_drop_makes_no_report(stuck):
    ident = stuck.send(to=["b@dest.test", "c@dest.test"])
    stuck.deferred(2)
    # One recipient alone; the other stays as it was, and is still known after a restart.
    assert verb(stuck, "drop", "--to", "c@dest.test", "--reason", "no such person") == (1, 1, 0, 0)
    (row,) = queue(stuck)
    assert [r["to"] for r in row["recipients"]] == ["b@dest.test"]
    assert [r["to"] for r in stuck.records("dropped")] == ["c@dest.test"]
    stuck.sink.rcpt = lambda a: None
    assert verb(stuck, "retry", ident) == (1, 1, 0, 0)
    stuck.sink.wait(1)
    wait_until(lambda: not queue(stuck), what="an empty queue")
    assert stuck.sink.messages[0].recipients == ["b@dest.test"]
    events = [e["event"] for e in stuck.ctl_json("trace", ident)]
    assert "dropped" in events and "delivered" in events
    assert not stuck.records("dsn")
    record = stuck.wait_log("operator", command="queue drop")
    assert json.loads(record["args"])["reason"] == "no such person" and "uid" in record


def test_dry_run_and_filters(stuck):
    for i in range(150):
        stuck.send(to=f"u{i}@{'even' if i % 2 == 0 else 'odd'}.test", sender=f"s{i % 3}@source.test")
    stuck.deferred(150)
    for name in VERBS:
        words = ["--reason", "why"] if name in ("expire", "bounce", "drop") else []
        assert verb(stuck, name, "--all", "--dry-run", *words) == (150, 0, 0, 0), name
    assert len(queue(stuck)) == 150
    for filters, count in [(["--from", "s1@source.test"], 50), (["--to", "@odd.test"], 75),
                           (["--domain", "even.test", "--from", "s0"], 25), (["--older", "1d"], 0),
                           (["--reply", "mailbox busy"], 150), (["--reply", "4.9.9"], 0),
                           (["--node", "nobody"], 0)]:
        assert verb(stuck, "drop", *filters, "--dry-run", "--reason", "why")[0] == count, filters
    # More than a batch.
    assert verb(stuck, "drop", "--to", "@odd.test", "--reason", "odd") == (75, 75, 0, 0)
    assert len(queue(stuck)) == 75 and not stuck.records("dsn")
    human = stuck.ctl("queue", "drop", "--all", "--reason", "the rest").stdout
    assert human == "75 matched, 75 dropped\n"
    assert not queue(stuck)


def test_an_attempt_under_way_wins(sink):
    at_dot, go = threading.Event(), threading.Event()
    sink.dot = lambda m: None if at_dot.set() or go.wait(20) else None
    with Baton(sink_port=sink.port, retry=SLOW) as b:
        try:
            b.send()
            assert at_dot.wait(20)
            assert verb(b, "drop", "--all", "--reason", "too late") == (1, 0, 1, 0)
            assert "busy" in b.ctl("queue", "hold", "--all").stdout
        finally:
            go.set()
        sink.wait(1)
        wait_until(lambda: not queue(b), what="an empty queue")
        assert not b.records("dropped")
