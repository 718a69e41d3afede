# SPDX-License-Identifier: Apache-2.0
"""Real clients hand mail to batond, and real servers take it from there."""
import os
import shutil
import subprocess

import pytest

from harness import Baton, wait_until
from peers import OpenSMTPD, Postfix
from sink import Sink


def run(*args, text=None):
    p = subprocess.run(args, input=text, capture_output=True, text=True, timeout=120)
    assert p.returncode == 0, f"{args}: {p.returncode}\n{p.stdout}\n{p.stderr}"
    return p.stdout


@pytest.fixture
def users():
    return {"anna": "pencil"}


@pytest.mark.parametrize("auth", ["PLAIN", "LOGIN"])
def test_swaks_with_starttls_and_auth(sink, users, auth):
    with Baton(sink_port=sink.port, users=users) as b:
        out = run("swaks", "--server", "127.0.0.1", "--port", str(b.ports["submission"]), "--tls", "--auth", auth,
                  "--auth-user", "anna", "--auth-password", "pencil", "--from", "anna@source.test",
                  "--to", "b@dest.test,c@dest.test", "--helo", "client.test")
        assert "queued as" in out
        assert sink.wait(1)[0].recipients == ["b@dest.test", "c@dest.test"]


def test_swaks_is_told_why_it_is_refused(sink):
    with Baton(sink_port=sink.port, extra='relay_clients: ["192.0.2.0/24"]\n') as b:
        p = subprocess.run(["swaks", "--server", "127.0.0.1", "--port", str(b.ports["mx"]), "--from", "a@a.test",
                            "--to", "b@dest.test", "--helo", "client.test"], capture_output=True, text=True)
        assert p.returncode == 24 and "550 5.7.1" in p.stdout


def test_swaks_xclient_and_proxy(sink):
    listeners = """
listeners:
  - {name: xclient, listen: ["127.0.0.1:0"], service: submission, xclient_from: ["127.0.0.0/8"]}
  - {name: proxy, listen: ["127.0.0.1:0"], service: submission, proxy_protocol: {from: ["127.0.0.0/8"]}}
"""
    with Baton(sink_port=sink.port, listeners=listeners,
               extra='relay_clients: ["127.0.0.0/8", "192.0.2.7/32"]\n') as b:
        run("swaks", "--server", "127.0.0.1", "--port", str(b.ports["xclient"]), "--xclient-addr", "192.0.2.7",
            "--xclient-helo", "far.test", "--from", "a@a.test", "--to", "b@dest.test", "--helo", "client.test")
        assert "192.0.2.7" in sink.wait(1)[0].header("Received")
        run("swaks", "--server", "127.0.0.1", "--port", str(b.ports["proxy"]), "--proxy-version", "1",
            "--proxy-family", "TCP4", "--proxy-source", "192.0.2.7", "--proxy-source-port", "4000",
            "--proxy-dest", "127.0.0.1", "--proxy-dest-port", "25",
            "--from", "a@a.test", "--to", "c@dest.test", "--helo", "client.test")
        assert "192.0.2.7" in sink.wait(2)[1].header("Received")


@pytest.mark.parametrize("auth", ["plain", "scram-sha-256"])
def test_msmtp(sink, tmp_path, auth):
    if auth.startswith("scram") and "SCRAM-SHA-256" not in run("msmtp", "--version"):
        auth = "plain"
    with Baton(sink_port=sink.port) as b:
        user_line = scram_user("anna", "pencil")
        users = os.path.join(b.folder, "users")
        with open(users, "w") as f:
            f.write(user_line)
        os.chmod(users, 0o600)
        b.stop()
        b.write_settings(b.settings + f"users: {{file: {users}}}\n")
        b.start()
        rc = tmp_path / "msmtprc"
        rc.write_text(f"""account default
host 127.0.0.1
port {b.ports['submission']}
tls on
tls_starttls on
tls_certcheck off
auth {auth}
user anna
password pencil
from anna@source.test
domain client.test
""")
        rc.chmod(0o600)
        run("msmtp", "-C", str(rc), "b@dest.test", text="Subject: hi\n\nhello\n.\ndot\n")
        assert sink.wait(1)[0].data.endswith(b"hello\r\n.\r\ndot\r\n")


def scram_user(name, password):
    """A line of the users file with a SCRAM-SHA-256 verifier (RFC 5803)."""
    import base64
    import hashlib
    import hmac
    salt, count = os.urandom(16), 4096
    salted = hashlib.pbkdf2_hmac("sha256", password.encode(), salt, count)
    client = hmac.new(salted, b"Client Key", "sha256").digest()
    stored = hashlib.sha256(client).digest()
    server = hmac.new(salted, b"Server Key", "sha256").digest()
    b64 = lambda x: base64.b64encode(x).decode()
    return f"{name}:{Baton.crypt(password)}:SCRAM-SHA-256${count}:{b64(salt)}${b64(stored)}:{b64(server)}\n"


@pytest.mark.skipif(not shutil.which("smtp-source"), reason="Postfix is not installed")
def test_smtp_source_thousand(baton, sink):
    run("smtp-source", "-s", "20", "-m", "1000", "-l", "2000", "-d", "-f", "a@source.test", "-t", "b@dest.test",
        f"127.0.0.1:{baton.ports['relay']}")
    sink.wait(1000, 60)
    wait_until(lambda: not baton.ctl_json("queue", "ls"), what="an empty queue")
    assert len(sink.messages) == 1000


@pytest.mark.parametrize("peer", [Postfix, OpenSMTPD])
def test_next_hop(peer, sink):
    if os.getuid() != 0:
        pytest.skip("starting a mail server needs root")
    with peer(sink.port) as hop, Baton(sink_port=hop.port) as b:
        body = "dots\r\n.\r\n..\r\n" + "x" * 900 + "\r\n"
        ident = b.send(body=body, to=["u1@dest.test", "u2@dest.test"])
        b.wait_log("delivered", id=ident, to="u2@dest.test")
        run("smtp-source", "-s", "10", "-m", "200", "-l", "20000", "-d", "-f", "a@source.test", "-t", "b@dest.test",
            f"127.0.0.1:{b.ports['relay']}")
        wait_until(lambda: not b.ctl_json("queue", "ls"), 60, "an empty queue")
        # What the peer took it passes on: the sink behind it has all of it, byte for byte.
        wait_until(lambda: sum(len(m.recipients) for m in sink.messages) >= 202, 90, "all behind the peer")
        m = sink.wait_for(lambda m: "u1@dest.test" in m.recipients)
        assert m.data.endswith(body.encode())
