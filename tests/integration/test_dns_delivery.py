# SPDX-License-Identifier: Apache-2.0
"""Delivery by DNS, against a signed tree: which host gets it, and what becomes of it when none can."""
import json

import pytest

from dnstree import DnsTree
from harness import Baton, wait_until
from sink import Sink

HOSTS = ["127.0.0.2", "127.0.0.3", "127.0.0.4"]


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    with DnsTree(tmp_path_factory.mktemp("dns")) as t:
        t.set_zone("mail.test", ["@ MX 10 a", "@ MX 20 b", "a A 127.0.0.2", "b A 127.0.0.3",
                                 "third MX 10 c", "c A 127.0.0.4",
                                 "tenant1 MX 10 c", "tenant2 MX 10 c",
                                 "dead MX 10 gone", "gone A 127.0.0.9", "dead MX 20 b",
                                 "alldead MX 10 gone",
                                 "us MX 10 mx.baton.test.", "second MX 10 a", "second MX 20 mx.baton.test.",
                                 "second MX 30 b", "nomx A 127.0.0.4", "nullmx MX 0 .", "nothing TXT x"])
        yield t


@pytest.fixture
def sinks():
    started = [Sink(HOSTS[0]).start()]
    for host in HOSTS[1:]:
        started.append(Sink(host, port=started[0].port).start())
    yield started
    for s in started:
        s.stop()


def node(tree, sinks, extra="", **options):
    return Baton(extra="resolver: " + json.dumps(tree.resolver_settings()) + f"\ndelivery: {{port: {sinks[0].port}, ipv6: false}}\n"
                 "limits: {connect_timeout: 2s}\n" + extra, **options)


def test_the_best_mx_gets_it(tree, sinks):
    with node(tree, sinks) as b:
        ident = b.send(to="u@mail.test")
        sinks[0].wait(1)
        assert b.wait_log("delivered", id=ident)["mx"] == "a.mail.test"
        assert not sinks[1].messages


def test_the_next_mx_when_the_best_refuses(tree, sinks):
    sinks[0].connect = lambda n: "554 5.7.1 listed"
    with node(tree, sinks) as b:
        ident = b.send(to="u@mail.test")
        sinks[1].wait(1)
        assert b.wait_log("delivered", id=ident)["mx"] == "b.mail.test"
        assert not b.records("bounced")


@pytest.mark.parametrize("phase", ["ehlo", "connect"])
def test_5xx_before_mail_never_bounces(tree, sinks, phase):
    for s in sinks:
        setattr(s, phase, lambda *a: "554 5.7.1 your address is blocked")
    with node(tree, sinks) as b:
        ident = b.send(to="u@mail.test")
        r = b.wait_log("deferred", id=ident)
        assert "blocked" in r["reply"] and r["dsn"].startswith("4.")
        assert not b.records("bounced")


def test_the_next_mx_when_the_best_is_dead(tree, sinks):
    with node(tree, sinks) as b:
        b.send(to="u@dead.mail.test")
        sinks[1].wait(1)


def test_all_dead_defers(tree, sinks):
    with node(tree, sinks) as b:
        ident = b.send(to="u@alldead.mail.test")
        assert "refused" in b.wait_log("deferred", id=ident)["reply"]


def test_no_mx_means_the_address(tree, sinks):
    with node(tree, sinks) as b:
        b.send(to="u@nomx.mail.test")
        sinks[2].wait(1)


def test_tenants_of_one_host_share_a_connection(tree, sinks):
    with node(tree, sinks) as b:
        b.send(to="u@tenant1.mail.test")
        wait_until(lambda: not b.ctl_json("queue", "ls"), what="a settled outcome")  # the connection is free
        b.send(to="u@tenant2.mail.test")
        first, second = sinks[2].wait(2)
        assert first.connection == second.connection


@pytest.mark.parametrize("domain,status", [("nullmx.mail.test", "5.1.10"), ("nosuch.mail.test", "5.1.2"),
                                           ("nothing.mail.test", "5.1.2"), ("us.mail.test", "5.4.6")])
def test_what_cannot_be_bounces(tree, sinks, domain, status):
    # Taken as a relay domain: submission would refuse some of them at RCPT already.
    extra = f"relay_domains:\n  - {{domain: {domain}, next_hop: mx, recipients: any}}\n" \
        if domain != "us.mail.test" else ""
    with node(tree, sinks, extra) as b:
        with b.smtp("relay") as s:
            s.ehlo()
            s.mail("a@third.mail.test")
            code, text = s.rcpt("u@" + domain)
            if code != 250:
                assert code in (550, 556, 554) and status.encode() in text
                return
            code, text = s.data(b"Subject: x\r\n\r\nx\r\n")
            assert code == 250
        r = b.wait_log("bounced")
        assert r["dsn"] == status
        dsn = sinks[2].wait(1)[0]
        assert dsn.sender == "" and status.encode() in dsn.data


def test_backup_mx_only_tries_better_hosts(tree, sinks):
    extra = "relay_domains:\n  - {domain: second.mail.test, next_hop: mx, recipients: any}\n"
    with node(tree, sinks, extra) as b:
        b.send(to="u@second.mail.test", listener="mx")
        sinks[0].wait(1)
        sinks[0].mail = lambda line: "421 4.3.2 down"
        wait_until(lambda: not b.ctl_json("queue", "ls"), what="an empty queue")
        b.send(to="v@second.mail.test", listener="mx")
        b.wait_log("deferred", to="v@second.mail.test")
        assert not sinks[1].messages


@pytest.mark.parametrize("zone,word", [("expired.test", "DNSSEC"), ("lame.test", "fail"), ("closed.test", "")])
def test_bogus_and_broken_dns_defer(tree, sinks, zone, word):
    with node(tree, sinks) as b:
        ident = b.send(to="u@" + zone)
        r = b.wait_log("deferred", 60, id=ident)
        assert word in r["reply"] and zone in r["reply"]


def test_address_literal(tree, sinks):
    with node(tree, sinks) as b:
        b.send(to="u@[127.0.0.4]")
        sinks[2].wait(1)


def test_verdicts_on_the_command_line(tree, sinks):
    with node(tree, sinks) as b:
        assert b.ctl_json("resolve", "mail.test", "MX")[0]["security"] == "secure"
        assert b.ctl_json("resolve", "insecure.test", "MX")[0]["security"] == "insecure"
        bogus = b.ctl_json("resolve", "expired.test", "MX", check=False)[0]
        assert bogus["security"] == "bogus" and bogus["why_bogus"]
