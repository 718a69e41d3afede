# SPDX-License-Identifier: Apache-2.0
"""What an operator does and sees: settings, reload, the command line, probes, clocks, limits."""
import json
import os
import subprocess
import urllib.error
import urllib.request

import pytest

from harness import BATOND, DEFAULT_LISTENERS, Baton, Raw, make_certificate, wait_until
from sink import Sink

DAY_MS = 86_400_000


def check(b, text):
    b.write_settings(text)
    return subprocess.run([BATOND, "-c", b.config, "--check-config"], capture_output=True, text=True)


@pytest.mark.parametrize("line,words", [
    ("relay_clients: [\"0.0.0.0/0\"]", ["relay_clients", "open relay"]),
    ("relay_clients: [\"0.0.0.0/1\", \"128.0.0.0/1\"]", ["relay_clients"]),
    ("relay_domains: [{domain: \"*\", next_hop: mx}]", ["relay_domains"]),
    ("relay_domains: [{domain: co.uk, next_hop: mx}]", ["relay_domains", "co.uk"]),
    ("hostnam: x.test", ["hostnam", "hostname"]),
    ("cluster: {name: prod}", ["cluster.node", "is missing"]),
    ("limits: {command_timeout: 5}", ["command_timeout"]),
    ("limits: {client_connections: 0}", ["client_connections"]),
    ("users: {file: /nonexistent/users}", ["users", "/nonexistent/users"]),
])
def test_bad_settings_are_refused_with_the_line(sink, line, words):
    b = Baton(sink_port=sink.port)
    text = "\n".join(x for x in b.settings.splitlines() if not x.startswith(line.split(":")[0] + ":")) + "\n" + line + "\n"
    number = len(text.splitlines())
    p = check(b, text)
    assert p.returncode == 1
    assert f"{b.config}:{number}:" in p.stderr, p.stderr
    for word in words:
        assert word in p.stderr


def test_print_config_reads_back(sink):
    b = Baton(sink_port=sink.port)
    first = subprocess.run([BATOND, "-c", b.config, "--print-config"], capture_output=True, text=True, check=True)
    b.write_settings(first.stdout)
    second = subprocess.run([BATOND, "-c", b.config, "--print-config"], capture_output=True, text=True, check=True)
    assert first.stdout == second.stdout and "client_connections: 50" in first.stdout


def test_reload_keeps_sessions_and_takes_new_routes(sink):
    with Baton(sink_port=sink.port) as b, Sink() as other:
        with b.raw() as c:
            c.read()
            c.ask("EHLO client.test")
            b.write_settings(b.settings.replace(str(sink.port), str(other.port)))
            b.ctl("reload")
            assert c.ask("MAIL FROM:<a@source.test>").startswith("250")
            c.ask("RCPT TO:<b@dest.test>")
            c.ask("DATA")
            assert c.ask(b"Subject: x\r\n\r\nx\r\n.\r\n").startswith("250")
        other.wait(1)
        assert not sink.messages


def test_a_bad_reload_changes_nothing(baton, sink):
    baton.write_settings(baton.settings + "nonsense: 1\n")
    p = baton.ctl("reload", check=False)
    assert p.returncode == 1 and "nonsense" in p.stdout + p.stderr
    baton.hup()
    baton.wait_log("config_problem")
    baton.send()
    sink.wait(1)


def test_status_and_exit_codes(baton, sink):
    # A certificate of two days is an alarm with its next step, so the node is degraded.
    make_certificate(baton.folder, days=2)
    baton.ctl("reload")
    baton.send()
    sink.wait(1)
    # The sink has it before its outcome is settled here.
    p = wait_until(lambda: (lambda p: p if json.loads(p.stdout)["nodes"][0]["delivered_total"] else None)(
        baton.ctl("status", "--json", check=False)), what="delivered_total")
    status = json.loads(p.stdout)
    assert {"cluster", "nodes", "queue", "egress", "alarms"} <= set(status)
    node = status["nodes"][0]
    assert node["received_total"] == 1 and node["delivered_total"] == 1
    assert p.returncode == 2 and status["alarms"][0]["next_step"]
    human = baton.ctl("status", check=False).stdout
    assert "certificate" in human and "\x1b" not in human
    q = subprocess.run([os.path.join(os.path.dirname(BATOND), "batonctl"), "--control", "/nonexistent", "status"],
                       capture_output=True, text=True)
    assert q.returncode == 4 and "batond" in q.stderr
    assert baton.ctl("nonsense", check=False).returncode == 1


def test_trace_by_id_and_by_address(baton, sink):
    ident = baton.send(to=["b@dest.test", "c@dest.test"])
    sink.wait(1)
    events = wait_until(lambda: (lambda e: e if sum(x["event"] == "delivered" for x in e) == 2 else None)(
        baton.ctl_json("trace", ident, check=False)), what="the history")
    assert events[0]["event"] == "received"
    assert [e["id"] for e in baton.ctl_json("trace", "C@DEST.test")] == [ident] * len(events)
    assert ident in baton.ctl("trace", ident).stdout


def test_queue_shape_and_show(sink):
    sink.rcpt = lambda a: "450 4.2.1 later\x07\x1b[31m" if a.startswith("b") else None
    with Baton(sink_port=sink.port, retry="{first: 1h, max: 4h, give_up: 1d}") as b:
        ident = b.send(to=["b@dest.test", "c@dest.test"])
        wait_until(lambda: b.ctl_json("queue", "ls")[0]["recipients"][0]["attempts"], what="an attempt")
        assert "\x1b" not in b.ctl("queue", "ls").stdout and "\x07" not in b.ctl("queue", "show", ident).stdout
        assert "dest.test" in b.ctl("queue", "shape").stdout
        assert b.ctl_json("queue", "ls", "--domain", "dest.test")
        assert not b.ctl_json("queue", "ls", "--domain", "other.test")
        assert not b.ctl_json("queue", "ls", "--older", "1h")
        show = b.ctl_json("queue", "show", ident)[0]
        states = {r["to"]: r["state"] for r in show["recipients"]}
        assert states["b@dest.test"] == "deferred"


def test_probes_and_metrics(baton, sink):
    def get(path):
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{baton.ports['api']}{path}", timeout=10) as r:
                return r.status, r.read().decode()
        except urllib.error.HTTPError as e:
            return e.code, e.read().decode()
    baton.send()
    sink.wait(1)
    assert get("/livez")[0] == 200 and get("/readyz")[0] == 200
    code, text = get("/metrics")
    assert code == 200 and "baton_received_total" in text
    wait_until(lambda: "baton_received_total 1" in get("/metrics")[1], what="the counter")
    wait_until(lambda: "baton_delivered_total 1" in get("/metrics")[1], what="the counter")
    assert get("/else")[0] == 404


def test_a_second_daemon_is_refused(baton):
    p = subprocess.run([BATOND, "-c", baton.config], capture_output=True, text=True, timeout=30)
    assert p.returncode != 0 and "data" in p.stderr and str(baton.process.pid) in p.stderr


def test_a_clock_that_jumps_expires_nothing(sink):
    sink.rcpt = lambda a: "450 4.2.1 later"
    b = Baton(sink_port=sink.port, retry="{first: 200ms, max: 400ms, give_up: 1h}")
    with b:
        ident = b.send()
        b.wait_log("deferred", id=ident)
        b.stop()
        b.env = {"BATON_TEST_WALL_OFFSET_MS": str(400 * DAY_MS)}
        b.start()
        b.wait_log("alarm", code="clock_untrusted")
        b.wait_log("deferred", id=ident)
        assert not b.records("expired")
        b.stop()
        b.env = {"BATON_TEST_WALL_OFFSET_MS": str(-400 * DAY_MS)}
        b.start()
        b.wait_log("alarm", code="clock_untrusted")
        assert not b.records("expired")
        b.stop()
        b.env = {"BATON_TEST_WALL_OFFSET_MS": str(DAY_MS // 2)}
        b.start()
        b.wait_log("expired", id=ident)


def test_limits_are_kept(sink):
    extra = "limits: {recipients: 100, errors: 5, message_size: 128KB, messages_per_connection: 3, " \
            "recipients_per_transaction: 10, client_connections: 1}\nrelay_clients: [\"192.0.2.1/32\"]\n" \
            "relay_domains:\n  - {domain: dest.test, next_hop: [\"[127.0.0.1]:%d\"], recipients: any}\n" % sink.port
    with Baton(extra=extra) as b:
        with b.raw("mx") as c:
            assert c.read().startswith("220")
            with b.raw("mx") as d:
                assert d.read().startswith("421 4.7.0")
            c.ask("EHLO client.test")
            assert c.ask("MAIL FROM:<a@source.test> SIZE=200000").startswith("552 5.3.4")
            c.ask("MAIL FROM:<a@source.test>")
            replies = [c.ask(f"RCPT TO:<u{i}@dest.test>") for i in range(101)]
            assert all(r.startswith("250") for r in replies[:100]) and replies[100].startswith("452 4.5.3")
            c.ask("DATA")
            assert c.ask(b"Subject: x\r\n\r\nx\r\n.\r\n").startswith("250")
            sink.wait(10)
            assert max(len(m.recipients) for m in sink.messages) == 10
            assert max(sum(1 for m in sink.messages if m.connection == k) for k in range(1, sink.connections + 1)) <= 3
            for _ in range(5):
                last = c.ask("NONSENSE")
            assert "421" in last or c.read().startswith("421")


def test_slow_clients_time_out(sink):
    with Baton(sink_port=sink.port, extra="limits: {command_timeout: 2s, data_timeout: 1s}\n") as b:
        with b.raw() as c:
            c.read()
            assert c.read().startswith("421 4.4.2")
        with b.raw() as c:
            c.read()
            c.ask("EHLO client.test")
            c.ask("MAIL FROM:<a@source.test>")
            c.ask("RCPT TO:<b@dest.test>")
            c.ask("DATA")
            c.send("never ending\r\n")
            assert c.read().startswith("421")
        assert not sink.messages and not b.ctl_json("queue", "ls")


def test_smuggling_is_refused(sink):
    relay = 'relay_domains:\n  - {domain: dest.test, next_hop: ["[127.0.0.1]:%d"], recipients: any}\n' % sink.port
    with Baton(extra=relay) as b:
        for end in (b"\n.\n", b"\n.\r\n", b"\r.\r", b"\r\n.\n", b"\r\n.\r"):
            with b.raw("mx") as c:
                c.read()
                c.ask("EHLO client.test")
                c.ask("MAIL FROM:<a@source.test>")
                c.ask("RCPT TO:<b@dest.test>")
                c.ask("DATA")
                c.send(b"Subject: x\r\n\r\nx" + end + b"MAIL FROM:<evil@source.test>\r\nRCPT TO:<b@dest.test>\r\nDATA\r\nevil\r\n.\r\n")
                assert c.read().startswith("5")
        assert not sink.messages


def test_port_80_speaks_smtp_not_http(baton):
    with Raw(baton.ports["mx"]) as c:
        c.read()
        assert c.ask("GET / HTTP/1.1")[:1] in "45"


def test_a_queue_that_is_full_says_so_and_recovers(sink):
    sink.rcpt = lambda a: "450 4.2.1 later"
    listeners = DEFAULT_LISTENERS
    b = Baton(sink_port=sink.port, listeners=listeners, retry="{first: 500ms, max: 1s, give_up: 1h}")
    b.write_settings(b.settings.replace("{quota: 2GB}", "{quota: 20MB}"))
    with b:
        body = "x" * 70 + "\r\n"
        refused, accepted = None, 0
        with b.raw() as c:
            c.read()
            c.ask("EHLO client.test")
            for _ in range(60):
                refused = c.ask("MAIL FROM:<a@source.test> SIZE=500000")
                if not refused.startswith("250"):
                    break
                c.ask("RCPT TO:<b@dest.test>")
                c.ask("DATA")
                refused = c.ask((body * 7000 + ".\r\n").encode())
                if not refused.startswith("250"):
                    break
                accepted += 1
            for _ in range(200):  # what is left, in small change
                if not c.ask("MAIL FROM:<a@source.test> SIZE=1000").startswith("250"):
                    break
                c.ask("RCPT TO:<b@dest.test>")
                c.ask("DATA")
                accepted += c.ask((body * 100 + ".\r\n").encode()).startswith("250")
        assert refused.startswith("452 4.3.1"), refused
        b.wait_log("alarm", code="queue_full")
        sink.rcpt = lambda a: None
        sink.wait(accepted, 60)
        b.wait_log("alarm_cleared", code="queue_full")
        b.send()
        sink.wait(accepted + 1, 60)
