# SPDX-License-Identifier: Apache-2.0
"""The resolver against a signed tree on loopback (dnstree.py): every verdict, every failure."""

import json
import os
import pathlib
import subprocess
import time

import pytest

import dnstree

ROOT = pathlib.Path(__file__).resolve().parents[2]


def program(name):
    """From $BATON_BIN (a build folder), or the build that was made last."""
    build = os.environ.get("BATON_BIN")
    places = [pathlib.Path(build)] if build else sorted(ROOT.glob("build/*"))
    found = [p for place in places for p in place.glob("**/" + name) if os.access(p, os.X_OK)]
    assert found, f"{name} is not built (set BATON_BIN)"
    return str(max(found, key=lambda p: p.stat().st_mtime))


class Probe:
    def __init__(self, data_dir, *args):
        self.log = open(pathlib.Path(data_dir) / "log", "a+")
        self.process = subprocess.Popen(
            [program("resolver_probe"), "--data-dir", str(data_dir), *args],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.log, text=True)
        self.first = json.loads(self.process.stdout.readline())

    def read(self):
        line = self.process.stdout.readline()
        assert line, self.said()
        return json.loads(line)

    def __call__(self, *words):
        self.send(*words)
        return self.read()

    def send(self, *words):
        self.process.stdin.write(" ".join(words) + "\n")
        self.process.stdin.flush()

    def said(self):
        self.log.seek(0)
        return self.log.read()

    def close(self):
        self.process.stdin.close()
        status = self.process.wait(30)
        self.process.stdout.close()
        self.log.close()
        return status


def arguments(tree, anchor=None, **more):
    words = ["--anchor", anchor or tree.anchor()]
    for stub in more.get("stubs", tree.stubs()):
        words += ["--stub", f"{stub['zone']}={stub['address']}" +
                  (",insecure" if stub.get("insecure") else "")]
    return words


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    with dnstree.DnsTree(tmp_path_factory.mktemp("dns") / "tree") as t:
        yield t


@pytest.fixture(scope="module")
def probe(tree, tmp_path_factory):
    p = Probe(tmp_path_factory.mktemp("resolver"), *arguments(tree))
    assert p.first == {"started": True}, p.first
    yield p
    assert p.close() == 0


@pytest.fixture
def start(tmp_path):
    started = []

    def run(*args):
        started.append(Probe(tmp_path, *args))
        return started[-1]
    yield run
    for p in started:
        p.close()


def names(answer):
    return [h["name"] for h in answer["hosts"]]


@pytest.mark.parametrize("name, rrtype, result, security", [
    ("secure.test", "MX", "OK", "secure"),
    ("SECURE.Test.", "MX", "OK", "secure"),
    ("nsec3.test", "MX", "OK", "secure"),
    ("corp", "MX", "OK", "secure"),
    ("insecure.test", "MX", "OK", "insecure"),
    ("expired.test", "MX", "DNS_BOGUS", "bogus"),
    ("wrongkey.test", "MX", "DNS_BOGUS", "bogus"),
    ("stripped.test", "MX", "DNS_BOGUS", "bogus"),
    ("mx.half.test", "A", "OK", "secure"),
    ("mx.half.test", "AAAA", "DNS_BOGUS", "bogus"),
    ("gone.secure.test", "A", "DNS_NXDOMAIN", "secure"),
    ("gone.nsec3.test", "A", "DNS_NXDOMAIN", "secure"),
    ("gone.insecure.test", "A", "DNS_NXDOMAIN", "insecure"),
    ("nodata.secure.test", "MX", "OK", "secure"),
    ("lame.test", "MX", "DNS_SERVFAIL", "insecure"),
    ("loop1.secure.test", "A", "DNS_SERVFAIL", "insecure"),
    ("toinsecure.secure.test", "A", "OK", "insecure"),
    ("dangling.secure.test", "A", "DNS_NXDOMAIN", "secure"),
    ("192.0.2.25", "PTR", "OK", "insecure"),
    ("a.wild.secure.test", "MX", "OK", "secure"),
    ("bad name.test".replace(" ", "!"), "A", "DNS_BAD_NAME", "insecure"),
    ("a..test", "A", "DNS_BAD_NAME", "insecure"),
    ("x" * 64 + ".test", "A", "DNS_BAD_NAME", "insecure"),
])
def test_verdict(probe, name, rrtype, result, security):
    answer = probe("ask", name, rrtype)
    assert (answer["result"], answer["security"]) == (result, security), answer
    if result == "OK":
        assert answer["why"] == ""
    else:
        assert answer["why"].startswith(f"{rrtype} of {name.lower()}"), answer
        assert answer["records"] == []
    assert (answer["why_bogus"] != "") == (result == "DNS_BOGUS")


@pytest.mark.parametrize("name, reason", [
    ("expired.test", "signature expired"),
    ("wrongkey.test", "no keys have a DS"),
    ("stripped.test", "No DNSKEY"),
    ("lame.test", "REFUSED"),
])
def test_reason_is_said_and_kept(probe, name, reason):
    for _ in range(2):  # the second comes from the cache
        assert reason in probe("ask", name, "MX")["why"]


def test_records(probe):
    assert probe("ask", "secure.test", "TXT")["records"][0]["data"] == b"v=spf1 -all".hex()
    tlsa = probe("ask", "_25._tcp.mx1.secure.test", "TLSA")
    assert tlsa["records"][0]["data"] == "030101" + "ab" * 32
    assert tlsa["security"] == "secure"
    assert probe("ask", "mx1.secure.test", "AAAA")["records"][0]["ip"] == "::1"
    assert probe("ask", "192.0.2.25", "PTR")["records"][0]["name"] == "mail.secure.test"
    assert probe("ask", "secure.test", "NS")["records"][0]["name"] == "ns.secure.test"
    soa = probe("ask", "secure.test", "SOA")["records"][0]
    assert soa["name"] == "ns.secure.test"
    assert bytes.fromhex(soa["data"]).endswith(b"3600 600 86400 60")
    mx = probe("ask", "secure.test", "MX")
    assert sorted((r["preference"], r["name"]) for r in mx["records"]) == [
        (10, "mx1.secure.test"), (20, "mx2.secure.test"), (20, "mx3.secure.test")]
    assert 0 < mx["ttl"] <= 300


def test_canonical_name(probe):
    alias = probe("ask", "alias.secure.test", "A")
    assert alias["canonical"] == "implicit.secure.test" and alias["canonical_secure"]
    away = probe("ask", "toinsecure.secure.test", "A")
    assert away["canonical"] == "mx.insecure.test" and not away["canonical_secure"]
    # The first link alone is proven.
    link = probe("ask", "toinsecure.secure.test", "CNAME")
    assert link["security"] == "secure"
    assert link["records"][0]["name"] == "mx.insecure.test"


def test_negative_answers_have_a_lifetime(probe):
    assert 0 < probe("ask", "gone.secure.test", "MX")["ttl"] <= 60
    assert 0 < probe("ask", "nodata.secure.test", "MX")["ttl"] <= 60


# --- MX ---

def test_mx_in_order(probe):
    answer = probe("mx", "secure.test")
    assert names(answer)[0] == "mx1.secure.test"
    assert sorted(names(answer)[1:]) == ["mx2.secure.test", "mx3.secure.test"]
    assert answer["security"] == "secure"


def test_equal_preferences_are_shuffled(probe):
    firsts = {names(probe("mx", "equal.secure.test"))[0] for _ in range(60)}
    assert len(firsts) > 2


@pytest.mark.parametrize("domain, result, hosts", [
    ("nullmx.secure.test", "DNS_NULL_MX", []),
    ("nullmx.insecure.test", "DNS_NULL_MX", []),
    ("oddnull.secure.test", "OK", ["mx1.secure.test"]),
    ("implicit.secure.test", "OK", ["implicit.secure.test"]),
    ("alias.secure.test", "OK", ["implicit.secure.test"]),
    ("aliasmx.secure.test", "OK", ["cnamehost.secure.test"]),
    ("ipmx.secure.test", "OK", ["127.0.0.9"]),
    ("badmx.secure.test", "DNS_NO_ADDRESS", []),
    ("mixedmx.secure.test", "OK", ["mx1.secure.test"]),
    ("gone.secure.test", "DNS_NXDOMAIN", []),
    ("expired.test", "DNS_BOGUS", []),
    ("lame.test", "DNS_SERVFAIL", []),
    ("..", "DNS_BAD_NAME", []),
])
def test_mx(probe, domain, result, hosts):
    answer = probe("mx", domain)
    assert (answer["result"], names(answer)) == (result, hosts), answer
    assert (answer["why"] != "") == (result != "OK")
    implicit = domain in ("implicit.secure.test", "alias.secure.test")
    assert all(h["implicit"] == implicit for h in answer["hosts"])


def test_at_most_50_hosts(probe):
    answer = probe("mx", "big.secure.test")
    assert names(answer) == [f"m{i}.secure.test" for i in range(50)]


# --- addresses ---

@pytest.mark.parametrize("name, families, result, ips", [
    ("mx1.secure.test", "46", "OK", ["::1", "127.0.0.2"]),
    ("mx1.secure.test", "4", "OK", ["127.0.0.2"]),
    ("mx1.secure.test", "6", "OK", ["::1"]),
    ("cnamehost.secure.test", "46", "OK", ["::1", "127.0.0.2"]),
    ("v4only.secure.test", "46", "OK", ["127.0.0.2"]),
    ("v4only.secure.test", "6", "NO_USABLE_ADDRESS", []),
    ("v6only.secure.test", "4", "NO_USABLE_ADDRESS", []),
    ("nodata.secure.test", "46", "DNS_NO_ADDRESS", []),
    ("nodata.secure.test", "4", "DNS_NO_ADDRESS", []),
    ("gone.secure.test", "46", "DNS_NXDOMAIN", []),
    ("mx.expired.test", "46", "DNS_BOGUS", []),
    ("mx.lame.test", "46", "DNS_SERVFAIL", []),
    ("127.0.0.9", "46", "OK", ["127.0.0.9"]),
    ("127.0.0.9", "6", "NO_USABLE_ADDRESS", []),
])
def test_host(probe, name, families, result, ips):
    answer = probe("host", name, families)
    assert (answer["result"], answer["ips"]) == (result, ips), answer
    assert (answer["why"] != "") == (result != "OK")


@pytest.mark.parametrize("name, ip, failed", [
    ("mx.half.test", "127.0.0.2", "AAAA of mx.half.test"),
    ("other.half.test", "::1", "A of other.half.test"),
])
def test_one_bogus_family_does_not_spoil_the_other(probe, name, ip, failed):
    answer = probe("host", name, "46")
    assert answer["result"] == "OK" and answer["ips"] == [ip]
    assert answer["security"] == "secure"
    assert answer["why"].startswith(failed) and "other family is used" in answer["why"]


def test_addresses_are_shuffled_and_take_turns(probe):
    seen = set()
    for _ in range(40):
        ips = probe("host", "many.secure.test", "46")["ips"]
        assert ips[0] == "::1" and len(ips) == 4
        seen.add(tuple(ips))
    assert len(seen) > 2


# --- dead servers, load ---

def test_dead_servers_and_too_many_questions(tree, start):
    p = start(*arguments(tree))
    begin = time.monotonic()
    p.send("start", "closed.test", "MX")
    p.send("flood", "1049", "blackhole.test")
    refused = [p.read() for _ in range(50)]
    assert time.monotonic() - begin < 10  # at once
    assert {a["result"] for a in refused} == {"OVERLOADED"}
    rest = [p.read() for _ in range(1000)]
    assert time.monotonic() - begin < 35
    assert {a["result"] for a in rest} <= {"DNS_SERVFAIL", "DNS_TIMEOUT"}
    for answer in rest:
        assert answer["why"].startswith(f"{answer['type']} of {answer['name']}: name servers")
    # What was in the way is gone.
    begin = time.monotonic()
    assert p("ask", "secure.test", "MX")["result"] == "OK"
    assert time.monotonic() - begin < 5
    assert p("health")["under_way"] == 0


def test_end_with_questions_under_way(tree, tmp_path):
    p = Probe(tmp_path, *arguments(tree))
    p.send("start", "blackhole.test", "A")
    begin = time.monotonic()
    p.process.stdin.close()
    assert p.read()["result"] == "SHUTTING_DOWN"
    assert p.close() == 0
    assert time.monotonic() - begin < 5


# --- the self-test ---

def test_validation_is_proven(probe):
    assert probe("wait-health") == {"health": "validates", "text": "", "under_way": 0}


def test_bogus_name_is_found(tree, start):
    p = start(*arguments(tree), "--bogus-test", "mx.expired.test")
    assert p("wait-health")["health"] == "validates"


def test_bogus_name_that_is_not(tree, start):
    p = start(*arguments(tree), "--bogus-test", "mx.secure.test")
    health = p("wait-health")
    assert health["health"] == "failed" and "mx.secure.test" in health["text"]


def test_wrong_anchor_raises_the_alarm(tree, start, tmp_path):
    anchor = tmp_path / "wrong"
    anchor.write_text(tree.ds(tree.make_key("test")) + "\n")
    p = start(*arguments(tree, str(anchor)))
    health = p("wait-health")
    assert health["health"] == "failed"
    assert "zone test" in health["text"] and "clock" in health["text"]
    assert "alarm code=dnssec" in p.said()
    assert p("ask", "secure.test", "MX")["result"] == "DNS_BOGUS"


def test_insecure_anchor_refuses_to_start(tree, start):
    p = start(*arguments(tree, tree.anchor("test")), "--insecure", "test.")
    assert "zone test is insecure and has a trust anchor" in p.first["refused"]


def test_stripped_signatures_raise_the_alarm(tree, start):
    p = start(*arguments(tree, tree.anchor("stripped.test")))
    assert p("wait-health")["health"] == "failed"


def test_without_dnssec(tree, start):
    p = start(*arguments(tree), "--no-dnssec")
    assert p("health")["health"] == "no_dnssec"
    answer = p("ask", "expired.test", "MX")
    assert (answer["result"], answer["security"]) == ("OK", "insecure")


def test_recovery_clears_the_alarm(tree, start, tmp_path):
    anchor = tmp_path / "wrong"
    anchor.write_text(tree.ds(tree.make_key("test")) + "\n")
    p = start(*arguments(tree, str(anchor)))
    assert p("wait-health")["health"] == "failed"
    p.send("reload", "--data-dir", str(tmp_path), *arguments(tree))
    assert p("ask", "secure.test", "MX")["security"] == "secure"
    assert p("wait-health")["health"] == "validates"


def test_nobody_answers(tree, start):
    dead = [{"zone": ".", "address": f"127.0.0.1@{tree.closed_port}"}]
    p = start(*arguments(tree, stubs=dead))
    assert p("health")["health"] == "untested"


# --- the trust anchor ---

def test_anchor_is_copied_per_zone(probe, tree, start, tmp_path):
    p = start(*arguments(tree))
    assert p("wait-health")["health"] == "validates"
    for zone in ("test", "corp"):
        assert "DNSKEY" in (tmp_path / f"{zone}.key").read_text()  # RFC 5011 has been there


def test_copy_leads_until_the_source_changes(tree, start, tmp_path):
    anchor = tmp_path / "anchor"
    anchor.write_text(tree.ds(tree.key("test")) + "\n")
    p = start(*arguments(tree, str(anchor)))
    assert p("wait-health")["health"] == "validates"
    p.close()
    copy = tmp_path / "test.key"
    kept = copy.read_text()
    assert kept != anchor.read_text()
    p = start(*arguments(tree, str(anchor)))
    assert p("wait-health")["health"] == "validates"
    assert "VALID" in copy.read_text()
    p.close()
    copy.write_text("this is no anchor\n")  # unreadable: made anew
    p = start(*arguments(tree, str(anchor)))
    assert p("wait-health")["health"] == "validates"
    p.close()
    anchor.write_text(tree.ds(tree.make_key("test")) + "\n")  # another source: taken
    p = start(*arguments(tree, str(anchor)))
    assert p("wait-health")["health"] == "failed"


@pytest.mark.parametrize("text", [
    "", "; nothing\n", "test. IN A 127.0.0.1\n", "a..b DS 1 2 3 4\n"])
def test_bad_anchor_refuses_to_start(start, tree, tmp_path, text):
    anchor = tmp_path / "anchor"
    anchor.write_text(text)
    p = start(*arguments(tree, str(anchor)))
    assert str(anchor) in p.first["refused"]


def test_missing_anchor_refuses_to_start(start, tree):
    p = start(*arguments(tree, "/nonexistent/anchor"))
    assert "/nonexistent/anchor: No such file" in p.first["refused"]


def test_new_key_is_learned(tmp_path, start):
    """RFC 5011: a new key signing key is noted, and waits for its time."""
    with dnstree.DnsTree(tmp_path / "tree", zones={}) as own:
        anchor = own.anchor("test")
        p = start(*arguments(own, anchor))
        assert p("wait-health")["health"] == "validates"
        copy = tmp_path / "test.key"
        assert copy.read_text().count("VALID") == 1
        own.add_key()
        p.send("reload", "--data-dir", str(tmp_path), *arguments(own, anchor))  # tests again
        deadline = time.monotonic() + 20
        while "ADDPEND" not in copy.read_text():
            assert time.monotonic() < deadline, copy.read_text()
            p("ask", "test", "SOA")
        assert copy.read_text().count("VALID") == 1


# --- settings ---

def test_insecure_stub(tree, start):
    stubs = [dict(s, insecure=s["zone"] == "test.") for s in tree.stubs()]
    p = start(*arguments(tree, tree.anchor("corp"), stubs=stubs))
    assert p("ask", "expired.test", "MX")["result"] == "OK"
    assert p("ask", "corp", "MX")["security"] == "secure"


def test_insecure_zone(tree, start):
    p = start(*arguments(tree), "--insecure", "expired.test")
    answer = p("ask", "expired.test", "MX")
    assert (answer["result"], answer["security"]) == ("OK", "insecure")
    assert p("ask", "wrongkey.test", "MX")["result"] == "DNS_BOGUS"


def test_forwarder(tree, start):
    # NSD as a forwarder: it knows only its own zones, which is enough here.
    p = start("--anchor", tree.anchor("corp"), "--forward", f"127.0.0.1@{tree.corp.port}")
    assert p("ask", "corp", "MX")["security"] == "secure"


def test_reload_keeps_the_cache_unless_settings_change(tmp_path, start):
    with dnstree.DnsTree(tmp_path / "tree", zones={
            "kept.test": dnstree.Zone(["@ MX 10 mx", "mx A 127.0.0.2"])}) as own:
        args = ["--data-dir", str(tmp_path), *arguments(own)]
        p = start(*args[2:])
        assert p("wait-health")["health"] == "validates"
        assert p("ask", "kept.test", "MX")["result"] == "OK"
        own.main.stop()
        p.send("reload", *args)
        assert p("ask", "kept.test", "MX")["result"] == "OK"
        p.send("reload", *args, "--insecure", "other.test")
        assert p("ask", "kept.test", "MX")["result"] == "DNS_SERVFAIL"
        p.send("reload", *args, "--anchor", "/nonexistent")  # refused: the old ones stay
        assert p("ask", "kept.test", "MX")["result"] == "DNS_SERVFAIL"
        assert "keeps its old settings" in p.said()


def test_reload_with_questions_under_way(tree, start, tmp_path):
    p = start(*arguments(tree))
    p.send("start", "blackhole.test", "MX")
    p.send("reload", "--data-dir", str(tmp_path), *arguments(tree), "--insecure", "x.test")
    p.send("start", "secure.test", "MX")
    p.send("wait")
    first, second = p.read(), p.read()
    assert (first["name"], first["result"]) == ("secure.test", "OK")
    assert second["name"] == "blackhole.test"
    assert second["result"] in ("DNS_SERVFAIL", "DNS_TIMEOUT")
