# SPDX-License-Identifier: Apache-2.0
"""Relay clients and locks of users that are said at run time: in force at once, kept, shared by all nodes."""
import json
import os
import smtplib

import pytest
from cluster import Cluster
from harness import Baton, wait_until
from sink import Sink

CLIENTS = 'relay_clients: ["192.0.2.1/32"]\n'


@pytest.fixture
def sink():
    with Sink() as s:
        yield s


def may_relay(node, listener="submission"):
    with node.smtp(listener) as s:
        s.ehlo()
        if s.mail("a@source.test")[0] != 250:
            return False
        return s.rcpt("b@dest.test")[0] == 250


def may_login(node, password="secret"):
    with node.smtps() as s:
        try:
            s.login("alice", password)
        except smtplib.SMTPAuthenticationError as e:
            assert e.smtp_code == 535
            return False
        return True


def test_allow(sink):
    listeners = 'listeners: [{name: submission, listen: ["127.0.0.1:0"], service: submission, tls: none}]'
    with Baton(sink.port, listeners=listeners, extra=CLIENTS) as node:
        assert not may_relay(node)
        for net, want in (("0.0.0.0/0", "wider than /8"), ("126.0.0.0/7", "wider than /8"), ("::/0", "wider than /32"),
                          ("nonsense", "not a network")):
            out = node.ctl("allow", "add", net, check=False)
            assert out.returncode == 1 and want in out.stderr
        assert not may_relay(node)
        node.ctl("allow", "add", "127.0.0.0/24", "--for", "1h")
        assert may_relay(node)
        (row,) = node.ctl_json("allow", "ls")
        assert row["net"] == "127.0.0.0/24" and row["until"]
        node.stop()
        node.start()
        assert may_relay(node)
        assert "127.0.0.0/24" in node.ctl("allow", "ls").stdout
        assert node.ctl("allow", "rm", "127.0.0.0/16", check=False).returncode == 1
        node.ctl("allow", "rm", "127.0.0.0/24")
        assert not may_relay(node) and node.ctl_json("allow", "ls") == []
        node.ctl("allow", "add", "127.0.0.1", "--for", "2s")
        assert may_relay(node)
        wait_until(lambda: not may_relay(node), 20, "its end")
        said = [r for r in node.records("operator") if r.get("command") == "allow add"]
        assert said and "127.0.0.1" in said[-1]["args"]


def test_broken_file_is_told(sink):
    with Baton(sink.port, extra=CLIENTS) as node:
        node.ctl("allow", "add", "127.0.0.1")
        node.stop()
        with open(os.path.join(node.folder, "data", "shared.json"), "w") as f:
            f.write('[{"kind": "allow"')
        node.start()
        assert any("shared.json" in r["text"] for r in node.records("config_problem"))
        assert not may_relay(node, "relay")


def test_user_lock(sink):
    with Baton(sink.port, users={"alice": "secret"}) as node:
        assert may_login(node) and not may_login(node, "wrong")
        node.ctl("user", "lock", "alice")
        assert not may_login(node)
        assert [r["user"] for r in node.ctl_json("user", "locks")] == ["alice"]
        assert node.ctl("user", "unlock", "bob", check=False).returncode == 1
        node.ctl("user", "unlock", "alice")
        assert may_login(node)


def test_all_nodes_of_a_cluster(sink):
    with Cluster(3, sink, extra=CLIENTS) as c:
        c.settled(n_up=3)
        assert not any(may_relay(n, "relay") for n in c.nodes)
        c["mx1"].ctl("allow", "add", "127.0.0.1")
        wait_until(lambda: all(may_relay(n, "relay") for n in c.nodes), 10, "all nodes")
        c["mx3"].stop()
        c["mx2"].ctl("allow", "rm", "127.0.0.1")
        wait_until(lambda: not may_relay(c["mx1"], "relay"), 10, "mx1")
        c["mx3"].start()  # and learns what it missed
        wait_until(lambda: c["mx3"].ctl_json("allow", "ls") == [], 40, "mx3")
        with open(os.path.join(c["mx3"].folder, "data", "shared.json")) as f:
            (row,) = json.load(f)
        assert row["gone"] is True and row["by"] == "mx2"
