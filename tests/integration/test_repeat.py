# SPDX-License-Identifier: Apache-2.0
"""A client that did not see its 250 sends again: limits.repeat_window recognises that, if asked to."""
from cluster import LEASE, Cluster
from harness import Baton, Raw, wait_until

WINDOW = "limits: {repeat_window: 10m}\n"
MESSAGE = "Subject: once\r\nX-Test-Id: one\r\n\r\nhello\r\n"


def send(b, text=MESSAGE, sender="a@source.test", to=("b@dest.test",), cut=False):
    """By hand; `cut`: the connection goes right behind the dot. The last reply."""
    with Raw(b.ports["relay"]) as s:
        s.read()
        s.ask("EHLO client.test")
        s.ask(f"MAIL FROM:<{sender}>")
        for rcpt in to:
            assert s.ask(f"RCPT TO:<{rcpt}>").startswith("250")
        assert s.ask("DATA").startswith("354")
        s.send(text + ".\r\n")
        return None if cut else s.read()


def test_repetition_is_answered_and_not_delivered(sink):
    with Baton(sink_port=sink.port, extra=WINDOW) as b:
        send(b, cut=True)
        sink.wait(1)
        first = wait_until(lambda: b.records("received"), what="the commit")[0]["id"]
        again = send(b)
        assert again == f"250 2.0.0 queued as {first}"
        assert b.wait_log("repeated")["id"] == first
        # anything else about it makes it another message
        for n, change in enumerate([{"text": MESSAGE + "more\r\n"}, {"sender": "c@source.test"},
                                    {"to": ("b@dest.test", "d@dest.test")}, {"to": ("d@dest.test",)}]):
            reply = send(b, **change)
            assert reply.startswith("250") and first not in reply
            sink.wait(2 + n)
        # the order of the recipients does not
        known = send(b, to=("d@dest.test", "b@dest.test"))
        assert known.startswith("250")
        wait_until(lambda: len(b.records("repeated")) == 2, what="the line of the second repetition")
        wait_until(lambda: not b.ctl_json("queue", "ls"), what="an empty queue")
        assert len(sink.messages) == 5


def test_off_unless_asked_for(sink):
    with Baton(sink_port=sink.port) as b:
        first, again = send(b), send(b)
        assert first != again
        sink.wait(2)


def test_big_body(sink):
    """Rows that were written early go again."""
    with Baton(sink_port=sink.port, extra=WINDOW) as b:
        text = MESSAGE + ("y" * 70 + "\r\n") * 40_000
        first = send(b, text=text)
        assert send(b, text=text) == first
        sink.wait(1)
        wait_until(lambda: not b.ctl_json("queue", "ls"), what="an empty queue")
        assert len(sink.messages) == 1


def test_the_heir_knows_what_the_dead_node_took(sink):
    """The node dies before its client saw the 250; the client repeats to the node that took the mail over."""
    sink.rcpt = lambda a: "450 4.2.0 later"
    with Cluster(3, sink, extra=WINDOW) as c:
        first, second = send(c["mx1"], to=("x@dest.test",)), send(c["mx1"], text=MESSAGE + "2\r\n")
        c["mx1"].kill()

        def heirs():
            owner = {u["id"]: u["node"] for u in c["mx2"].ctl_json("queue", "ls")}
            return owner if len(owner) == 2 and "mx1" not in owner.values() else None
        owner = wait_until(heirs, 2 * LEASE + 20, "the takeover")
        assert send(c[owner[first.split()[-1]]], to=("x@dest.test",)) == first
        assert send(c[owner[second.split()[-1]]], text=MESSAGE + "2\r\n") == second
        assert send(c["mx2"], text=MESSAGE + "3\r\n") not in (first, second)
        sink.rcpt = lambda a: None
        sink.wait(3, timeout=60)
        wait_until(lambda: not c["mx2"].ctl_json("queue", "ls"), 30, "an empty queue")
        assert len(sink.messages) == 3


def test_any_node_knows(sink):
    """The client repeats to a node that neither took the mail nor holds a copy; and still when one of those who know
    is gone."""
    with Cluster(3, sink, extra=WINDOW) as c:
        first = [send(c["mx1"], text=MESSAGE + f"{i}\r\n") for i in range(6)]
        for name in ("mx2", "mx3"):
            assert [send(c[name], text=MESSAGE + f"{i}\r\n") for i in range(6)] == first
        sink.wait(6)
        wait_until(lambda: not c["mx2"].ctl_json("queue", "ls"), 30, "an empty queue")
        assert len(sink.messages) == 6
        # the two that keep it are two: 12 more, so that some are kept by the node that goes
        more = [send(c["mx1"], text=MESSAGE + f"{i}\r\n") for i in range(6, 18)]
        sink.wait(18)
        c["mx3"].kill()
        wait_until(lambda: c["mx2"].members()["mx3"]["view"] == "dead", 30, "the death to be known")
        assert [send(c["mx2"], text=MESSAGE + f"{i}\r\n") for i in range(6, 18)] == more
        assert len(sink.messages) == 18
