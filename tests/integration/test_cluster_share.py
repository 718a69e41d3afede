# SPDX-License-Identifier: Apache-2.0
"""A destination that one node cannot reach and another can: the mail changes hands and goes out."""
import socket

from cluster import Cluster
from harness import wait_until

RETRY = "{first: 6s, max: 8s, give_up: 1h, delay_warning: 0s}"


def closed_port():
    """Bound and not listening: every connection is refused as long as it lives."""
    s = socket.socket()
    s.bind(("127.0.0.1", 0))
    return s


def test_unreachable_from_one_node_only(sink):
    with closed_port() as closed, Cluster(2, sink, retry=RETRY, start=False) as c:
        cut = c["mx1"]
        cut.write_settings(cut.settings.replace("hostname: mx.", "hostname: mx1.", 1).replace(
            f"[127.0.0.1]:{sink.port}", f"[127.0.0.1]:{closed.getsockname()[1]}"))
        c.form()
        ids = [cut.send(to=f"x{i}@dest.test", ident=f"cut-{i}") for i in range(5)]
        sink.wait(5, timeout=60)
        assert {m.id() for m in sink.messages} == {f"cut-{i}" for i in range(5)}
        wait_until(lambda: not c.queued(), 30, "an empty queue")
        assert len(sink.messages) == 5
        assert {r["id"] for r in c["mx2"].records("takeover")} == set(ids)
        assert all("mx2" in m.helo for m in sink.messages)
        assert not c["mx1"].records("takeover") and len(c["mx2"].records("takeover")) == 5
