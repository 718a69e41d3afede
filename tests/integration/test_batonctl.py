# SPDX-License-Identifier: Apache-2.0
"""batonctl against a node that says what the test wants: output, escaping, exit codes."""
import contextlib
import json
import os
import pty
import shutil
import socket
import subprocess
import tempfile
import threading

import pytest

from harness import BATONCTL, BATOND

ID = "01m8200shk000001r0000g0000"
STATUS = {
    "cluster": {"name": ""},
    "nodes": [{"id": "mx1", "member": "up", "view": "alive", "session": "none", "version": "0.1.0",
               "uptime_s": 93784, "lease": "held", "queued": 1204, "received_total": 120401,
               "delivered_total": 119000, "deferred_total": 12, "bounced_total": 3}],
    "queue": {"messages": 1204, "recipients": 1310, "due": 12, "deferred": 1180, "held": 0,
              "in_doubt": 0, "copies_short": 0, "quarantined": 0, "oldest_age_s": 183600,
              "used_bytes": 120000000, "quota_bytes": 20000000000, "intake_open": True},
    "rates": {"received_per_s": 1234.5, "delivered_per_s": 9.25, "deferred_per_s": 0.0,
              "bounced_per_s": 0.0},
    "egress": [],
    "alarms": [{"code": "overdue", "text": "mail is overdue", "next_step": "look at it",
                "severity": "degraded"}],
}
UNIT = {
    "id": ID, "from": "alice@a.example", "size": 41000, "received": "2026-11-22T16:04:24.755Z",
    "node": "mx1", "copies": 1, "unit": 0, "domain": "b.example", "held": False,
    "recipients": [{"to": "bob@b.example", "state": "deferred", "attempts": 3,
                    "next_due": "2126-11-22T16:04:24.755Z",
                    "last_reply": "451 \x1b[2Jcleared\nforged line \u202etxt"}],
}


class Node:
    """Answers each command with the lines of `answers`, keeps what it was asked."""

    def __init__(self, answers):
        self.answers, self.asked = answers, []
        self.folder = tempfile.mkdtemp(prefix="baton-", dir=os.environ.get("TMPDIR", "/var/tmp"))
        self.path = os.path.join(self.folder, "c.sock")

    def __enter__(self):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.bind(self.path)
        self.socket.listen()
        threading.Thread(target=self.serve, daemon=True).start()
        return self

    def __exit__(self, *_):
        self.socket.close()
        shutil.rmtree(self.folder)

    def serve(self):
        while True:
            try:
                connection, _ = self.socket.accept()
            except OSError:
                return
            with contextlib.suppress(BrokenPipeError), connection, connection.makefile("rw") as io:
                request = json.loads(io.readline())
                self.asked.append(request)
                for line in self.answers.get(request["command"], []):
                    io.write(line if isinstance(line, str) else json.dumps(line) + "\n")


def run(*args, env=None, control=None):
    environment = {k: v for k, v in os.environ.items() if k != "BATON_CONTROL"}
    environment.update(env or {})
    before = ["--control", control] if control else []
    return subprocess.run([BATONCTL, *before, *args], capture_output=True, text=True, timeout=60,
                          env=environment)


def end(code=0, **more):
    return {"end": True, "exit": code, **more}


@pytest.mark.parametrize("code", [0, 2, 3])
def test_status(code):
    with Node({"status": [STATUS, end(code)]}) as node:
        out = run("status", control=node.path)
    assert out.returncode == code
    assert out.stdout.startswith({0: "well", 2: "degraded", 3: "data at risk"}[code])
    for text in ("1,204 messages for 1,310 recipients", "1d2h", "1,235 in", "9.2 out", "mail is overdue",
                 "next: look at it", "120 MB of 20 GB"):
        assert text in out.stdout
    assert "\x1b" not in out.stdout


def test_json_is_passed_through():
    with Node({"status": [STATUS, end(2)], "queue ls": [UNIT, UNIT, end()]}) as node:
        one = run("status", "--json", control=node.path)
        lines = run("queue", "ls", "--json", control=node.path).stdout.splitlines()
    assert json.loads(one.stdout) == STATUS and one.returncode == 2
    assert [json.loads(line) for line in lines] == [UNIT, UNIT]


def test_peers_cannot_touch_the_terminal():
    show = dict(UNIT, header="Subject: \x1b]0;title\x07\r\nX: \x9b\r\n")
    event = {"time": "2026-11-22T16:04:24.755Z", "event": "deferred", "id": ID, "node": "mx1",
             "level": "info", "to": "bob@b.example\x1b[1m", "reply": "451 \x1b[2J\nx"}
    with Node({"queue ls": [UNIT, end()], "queue show": [show, end()], "trace": [event, end()],
               "events": [event, end()]}) as node:
        outs = [run(*words, control=node.path) for words in
                (["queue", "ls"], ["queue", "show", ID], ["trace", ID], ["events"])]
    for out in outs:
        assert out.returncode == 0, out.stderr
        assert "\\x1b" in out.stdout
        assert not set(out.stdout) & {chr(c) for c in [*range(0, 10), *range(11, 32), 0x7f, *range(0x80, 0xa0)]}
        assert "\u202e" not in out.stdout
    assert "\\nforged line" in outs[0].stdout


def test_queue_ls_filters():
    with Node({"queue ls": [end()]}) as node:
        out = run("queue", "ls", "--from", "<>", "--to=@b.example", "--domain", "b.example", "--older", "2h",
                  "--reason", "4.4.1", "--node", "mx1", "--limit", "7", control=node.path)
        assert node.asked == [{"command": "queue ls", "args": {
            "from": "<>", "to": "@b.example", "domain": "b.example", "older": "2h", "reason": "4.4.1",
            "node": "mx1", "limit": 7}}]
        assert out.stdout == "nothing in the queue matches\n"
        assert run("queue", "ls", control=node.path).stdout == "the queue is empty\n"


def test_errors_from_the_node():
    answer = [end(1, error="first\nsecond", next_step="try \x1b[1mharder")]
    with Node({"reload": answer}) as node:
        out = run("reload", control=node.path)
    assert out.returncode == 1 and out.stdout == ""
    assert out.stderr == "batonctl: first\nsecond\n  next: try \\x1b[1mharder\n"


@pytest.mark.parametrize("words", [
    ["nope"], ["queue", "nope"], ["queue", "ls", "--nope"], ["queue", "ls", "--limit", "0"], ["trace"],
    ["trace", "a", "b"], ["status", "extra"], ["--json"], ["queue", "ls", "--from"], ["log"], [],
    ["queue", "ls", "--egress", "x"], ["events", "--follow=yes"], ["trace", "x@y", "--limit", "many"]])
def test_wrong_usage(words):
    out = run(*words, control="/nonexistent/c.sock")
    assert out.returncode == 1


@pytest.mark.parametrize("words", [
    ["egress"], ["reputation"], ["suppress", "ls"],
    ["user", "add"], ["user", "passwd"]])
def test_not_built_is_refused_by_name(words):
    out = run(*words)
    assert out.returncode == 1 and "not built in this version" in out.stderr and words[0] in out.stderr


def test_no_answer(tmp_path):
    missing = str(tmp_path / "c.sock")
    out = run("status", control=missing)
    assert out.returncode == 4
    assert f"no answer at {missing}" in out.stderr and "systemctl status baton" in out.stderr
    with Node({"status": []}) as node:
        out = run("status", control=node.path)
    assert out.returncode == 4 and "hung up" in out.stderr
    with Node({"status": ["garbage\n", "{\"end\":tru"]}) as node:
        assert run("status", control=node.path).returncode == 4


def test_finding_the_socket(tmp_path):
    with Node({"status": [STATUS, end()]}) as node:
        config = tmp_path / "baton.yaml"
        config.write_text(f"hostname: h.example\ncontrol: {node.path}\n")
        assert run("-c", str(config), "status").returncode == 0
        assert run("status", env={"BATON_CONTROL": node.path}).returncode == 0
        assert run("status", "--control", node.path, env={"BATON_CONTROL": "/nonexistent"}).returncode == 0
    broken = tmp_path / "broken.yaml"
    broken.write_text("hostname: h.example\nnope: 1\n")
    out = run("-c", str(broken), "status")
    assert out.returncode == 1 and "broken.yaml:2: nope: unknown key" in out.stderr


def test_help_and_version():
    assert run("--version").stdout.startswith("batonctl 0.")
    assert "queue ls" in run("--help").stdout
    out = run("queue", "ls", "--help")
    assert out.returncode == 0 and "--older AGE" in out.stdout


def on_terminal(node, *words, env=None):
    main, other = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "NO_COLOR": "", **(env or {})}
    process = subprocess.Popen([BATONCTL, "--control", node.path, *words], stdout=other, stdin=other,
                               stderr=other, env=environment)
    os.close(other)
    text = b""
    while True:
        try:
            data = os.read(main, 4096)
        except OSError:
            break
        if not data:
            break
        text += data
    os.close(main)
    process.wait(timeout=60)
    return text.decode()


def test_colours_on_a_terminal_only():
    with Node({"status": [STATUS, end(3)]}) as node:
        assert "\x1b[31mdata at risk\x1b[0m" in on_terminal(node, "status")
        assert "\x1b" not in on_terminal(node, "status", env={"NO_COLOR": "1"})
        assert "\x1b" not in on_terminal(node, "status", env={"TERM": "dumb"})


def test_reader_that_goes_away():
    """`batonctl queue ls | head -1` ends without a word."""
    with Node({"queue ls": [UNIT] * 20000 + [end()]}) as node:
        script = f"set -o pipefail; {BATONCTL} --control {node.path} queue ls | head -1 >/dev/null"
        out = subprocess.run(["bash", "-c", script], capture_output=True, text=True, timeout=60)
    assert out.stderr == ""


def member(name, **more):
    return {"id": name, "member": "up", "view": "alive", "session": "open", "role": "node", "zone": "r1",
            "version": "0.1.0", "lease": "held", "view_age_s": 0, "uptime_s": 90, "queued": 12,
            "copies_held": 3456, "received_total": 7, "delivered_total": 8, "answered": True, **more}


def test_status_of_a_cluster():
    status = dict(STATUS, cluster={"name": "prod", "nodes": 3, "copies": 2, "min_copies": 2},
                  nodes=[member("mx1"), member("mx2", role="witness"),
                         {"id": "mx3", "member": "up", "view": "dead", "session": "fenced", "lease": "unknown",
                          "view_age_s": 93784, "answered": False}])
    with Node({"status": [status, end(2, not_answered=["mx3"])]}) as node:
        out = run("status", control=node.path)
    assert out.returncode == 2
    assert out.stdout.startswith("prod: degraded")
    rows = {line.split()[0]: line.split() for line in out.stdout.splitlines() if line.startswith("mx")}
    assert rows["mx1"] == ["mx1", "up", "alive", "open", "held", "r1", "0.1.0", "now", "1m30s", "12", "3,456",
                           "7", "8"]
    assert rows["mx2"][1] == "witness"
    assert rows["mx3"] == ["mx3", "up", "dead", "fenced", "unknown", "1d2h", "-", "-", "-", "-", "-"]
    assert "batonctl: mx3 did not answer" in out.stderr


def test_cluster_commands_say_what_they_want():
    text = {"text": "mx2 drains"}
    with Node({"drain": [text, end()], "force-fence": [end(1, error="no", next_step="power it off")],
               "force-config": [text, end()], "cluster token": [{"token": "ABC-_", "for_s": 7200}, end()],
               "node ls": [member("mx1"), end()]}) as node:
        assert run("drain", "mx2", control=node.path).stdout == "mx2 drains\n"
        refused = run("force-fence", "mx2", "--i-have-powered-off", "mx2", control=node.path)
        run("force-config", "--i-have-powered-off=mx2,mx3", control=node.path)
        token = run("cluster", "token", "--for", "2h", control=node.path)
        rows = run("node", "ls", control=node.path).stdout.splitlines()
    assert refused.returncode == 1 and "next: power it off" in refused.stderr
    assert token.stdout == "ABC-_\n" and token.stderr == ""
    assert [row.split()[0] for row in rows] == ["node", "mx1"]
    assert [asked["args"] for asked in node.asked] == [
        {"node": "mx2"}, {"node": "mx2", "powered_off": "mx2"}, {"powered_off": "mx2,mx3"}, {"for": "2h"}, {}]


def test_drain_waits_for_proof():
    class Draining(Node):
        def serve(self):
            self.steps = [[member("mx1"), member("mx2", member="draining", queued=5, copies_held=9, stored=14), end()],
                          [member("mx1"), {"id": "mx2", "member": "draining", "answered": False}, end()],
                          [member("mx2", queued=0, stored=0), end()], [member("mx2", queued=0, stored=1), end()],
                          [member("mx2", queued=0, stored=0), end()], [member("mx2", queued=0, stored=0), end()]]
            super().serve()

        @property
        def answers(self):
            nodes = self.steps.pop(0) if len(self.asked) > 1 and self.asked[-1]["command"] == "node ls" else []
            return {"drain": [{"text": "mx2 drains"}, end()], "node ls": nodes,
                    "status": [dict(STATUS, cluster={"name": "prod", "nodes": 1, "version": 4}), end()]}

        @answers.setter
        def answers(self, _):
            pass

    with Draining({}) as node:
        out = run("drain", "mx2", "--wait", control=node.path)
    assert out.returncode == 0
    assert out.stdout.splitlines() == [
        "mx2 drains", "mx2: 5 messages and 9 copies to hand over", "mx2 does not answer; it goes on when it is back",
        "mx2: 0 messages and 0 copies to hand over", "mx2: 0 messages and 1 copy to hand over",
        "mx2: 0 messages and 0 copies to hand over",
        "mx2 holds nothing: no message and no copy is in its store; cluster prod, configuration 4, 0 short of copies",
        "  next: stop batond there, then batonctl remove mx2; or batonctl undrain mx2"]


def test_cluster_init(tmp_path):
    config = tmp_path / "baton.yaml"
    alone = f"hostname: a.example\ndata_dir: {tmp_path}/data\n"
    config.write_text(alone)
    out = run("cluster", "init", "-c", str(config))
    assert out.returncode == 1 and "has no section cluster" in out.stderr
    config.write_text(alone + "cluster: {name: prod, node: mx1}\n")
    out = run("cluster", "init", "-c", str(config))
    assert out.returncode == 1 and f"{config}:3: cluster.listen: is missing" in out.stderr
    config.write_text(alone + "cluster: {name: prod, node: mx1, listen: '127.0.0.1:0'}\n")
    out = run("cluster", "init", "-c", str(config))
    assert out.returncode == 0 and "founds the cluster prod" in out.stdout and "cluster token" in out.stdout
    first = (tmp_path / "data" / "cluster.init").read_text()
    assert run("cluster", "init", "-c", str(config)).returncode == 0
    assert (tmp_path / "data" / "cluster.init").read_text() == first
    (tmp_path / "data" / "cluster.init").rename(tmp_path / "data" / "cluster.member")
    out = run("cluster", "init", "-c", str(config))
    assert out.returncode == 1 and "belongs to the cluster prod already" in out.stderr


def test_check_config_of_a_cluster(tmp_path):
    """What is unusual is said, and is no error; a token is looked at."""
    config, token = tmp_path / "baton.yaml", tmp_path / "token"
    head = (f"hostname: a.example\ndata_dir: {tmp_path}/data\nresolver: {{dnssec: false}}\ncluster:\n  name: prod\n"
            "  node: mx1\n  listen: 127.0.0.1:7420\n")

    def check(more=""):
        config.write_text(head + more)
        out = subprocess.run([BATOND, "-c", str(config), "--check-config"], capture_output=True, text=True, timeout=60)
        return out.returncode, out.stderr

    code, said = check()
    assert code == 0 and f"{config}:4: cluster: this node belongs to no cluster yet" in said
    assert "batonctl cluster init" in said and "batonctl cluster token" in said
    code, said = check("  in_doubt_hold: 5s\n")
    assert code == 0 and f"{config}:8: cluster.in_doubt_hold: under 180s" in said
    code, said = check(f"  join: {token}\n")
    assert code == 0 and f"{config}:8: cluster.join: {token} cannot be read" in said
    token.write_text("not a token\n")
    token.chmod(0o600)
    assert "is no token" in check(f"  join: {token}\n")[1]
    assert run("cluster", "init", "-c", str(config)).returncode == 0
    assert check() == (0, "")
    assert check("  lease: 4s\n")[0] == 1
