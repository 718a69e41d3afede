# SPDX-License-Identifier: Apache-2.0
"""What `batonctl why` says of mail that is stuck, or would be."""
import json

import pytest

from dnstree import DnsTree
from harness import Baton, wait_until
from sink import Sink

SLOW = "{first: 1h, max: 4h, give_up: 1d, delay_warning: 0s}"


def why(b, *words):
    (row,) = b.ctl_json("why", *words)
    return row


def test_the_way_by_a_route(baton, sink):
    row = why(baton, "B@Dest.test")
    line = next(i for i, x in enumerate(baton.settings.splitlines(), 1) if 'domain: "*"' in x)
    assert (row["source"], row["entry"], row["line"]) == ("routes", "*", line)
    assert row["domain"] == "dest.test" and row["result"] == why(baton, "dest.test")["result"]
    assert row["hops"][0]["port"] == sink.port and row["hops"][0]["addresses"] == ["127.0.0.1"]
    assert row["security"] is None and row["by_mx"] is False and row["blocked"] == []
    assert row["queue"]["messages"] == 0 and row["queue"]["oldest"] is None
    human = baton.ctl("why", "b@dest.test").stdout
    assert f"line {line} of the settings" in human and "nothing is in its way" in human


@pytest.mark.parametrize("address", ["", "@", "a@", "a b@c.test", "x" * 300 + "@dest.test", "a@[1.2.3]"])
def test_no_address(baton, address):
    p = baton.ctl("why", address, check=False)
    assert p.returncode == 1 and "no address" in p.stderr and "user@example.org" in p.stderr


def test_a_route_by_sender(sink):
    routes = ('routes:\n  - {sender: "@special.test", next_hop: ["[127.0.0.1]:4"]}\n'
              f'  - {{domain: ".dest.test", next_hop: ["[127.0.0.1]:{sink.port}"]}}\n')
    with Baton(sink_port=sink.port, extra=routes) as b:
        assert why(b, "x@deep.dest.test")["entry"] == ".dest.test"
        row = why(b, "x@deep.dest.test", "--from", "me@special.test")
        assert row["entry"] == "*" and row["hops"][0]["port"] == 4


def test_held_deferred_and_escaped(sink):
    sink.rcpt = lambda a: "450 4.2.1 later\x1b[31m"
    with Baton(sink_port=sink.port, retry=SLOW) as b:
        b.send()
        wait_until(lambda: why(b, "b@dest.test")["queue"]["last_reply"], what="an attempt")
        row = why(b, "b@dest.test")
        assert "later" in row["queue"]["last_reply"] and row["queue"]["messages"] == 1 and row["queue"]["oldest"]
        wait_until(lambda: b.ctl_json("queue", "hold", "--all")[0]["changed"], what="a hold")
        row = why(b, "b@dest.test")
        assert row["queue"]["held"] == 1 and "queue release" in row["blocked"][0]
        human = b.ctl("why", "dest.test").stdout
        assert "held" in human and "\x1b" not in human
        assert why(b, "b@other.test")["queue"]["messages"] == 0


def test_a_hop_that_is_down():
    with Sink() as dead:
        port = dead.port
    with Baton(sink_port=port, retry=SLOW) as b:
        b.send()
        row = wait_until(lambda: (lambda r: r if r["destination"] and r["destination"]["down_ms"] else None)(
            why(b, "b@dest.test")), what="a destination that is down")
        assert row["destination"]["failures"] == 1 and "refused" in row["destination"]["last_failure"].lower()
        assert any("did not answer" in x for x in row["blocked"])
        assert "blocked" in b.ctl("why", "b@dest.test").stdout


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    with DnsTree(tmp_path_factory.mktemp("dns")) as t:
        t.set_zone("mail.test", ["@ MX 10 a", "@ MX 20 b", "a A 127.0.0.2", "b A 127.0.0.3",
                                 "nomx A 127.0.0.4", "nullmx MX 0 .", "us MX 10 mx.baton.test."])
        yield t


@pytest.fixture(scope="module")
def by_dns(tree):
    with Baton(extra="resolver: " + json.dumps(tree.resolver_settings()) + "\ndelivery: {ipv6: false}\n"
               "relay_domains:\n  - {domain: us.mail.test, next_hop: mx}\n") as b:
        yield b


def test_the_way_by_dns(by_dns):
    row = why(by_dns, "u@mail.test")
    assert (row["source"], row["by_mx"], row["security"], row["blocked"]) == ("dns", True, "secure", [])
    assert [(h["name"], h["preference"]) for h in row["hops"]] == [("a.mail.test", 10), ("b.mail.test", 20)]
    assert row["hops"][0]["addresses"] == ["127.0.0.2"]
    assert "DNSSEC    secure" in by_dns.ctl("why", "u@mail.test").stdout
    row = why(by_dns, "nomx.mail.test")
    assert row["hops"][0]["implicit"] and row["hops"][0]["addresses"] == ["127.0.0.4"]


@pytest.mark.parametrize("domain,words,source", [
    ("nullmx.mail.test", "null MX", "dns"), ("missing.mail.test", "does not exist", "dns"),
    ("us.mail.test", "", "relay_domains")])
def test_no_way_by_dns(by_dns, domain, words, source):
    row = why(by_dns, "u@" + domain)
    assert row["source"] == source and row["hops"] == [] and row["why"]
    assert words.lower() in row["blocked"][0].lower() and row["why"] in row["blocked"][0]
