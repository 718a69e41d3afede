# SPDX-License-Identifier: Apache-2.0
"""Attacks on a running node: whatever they hold or break, mail of others passes, and what they held comes back."""
import hashlib
import os
import random
import resource
import signal
import socket
import ssl
import struct
import subprocess
import sys
import threading

import pytest

from harness import Baton, Raw, insecure, make_certificate, wait_until
from sink import Sink
from test_hostile import Hop, routes, until

SLOW_CLIENTS = 40


def open_sessions(b):
    return sum(1 for r in b.records("connect")) - sum(1 for r in b.records("disconnect"))


def reset(s):
    """Closes with RST, as a machine that crashed and came back does."""
    s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    s.close()


def drip(port, stream, replies, number, gap=0.2):
    """Sends a byte at a time until the other side has had enough; keeps what it said."""
    said = b""
    with socket.create_connection(("127.0.0.1", port), 30) as s:
        s.settimeout(gap)
        try:
            for byte in stream:
                s.sendall(bytes([byte]))
                try:
                    piece = s.recv(4096)
                    said += piece
                    if not piece:
                        break
                except TimeoutError:
                    pass
        except OSError:
            pass
    replies[number] = said


def drip_all(port, stream):
    replies = {}
    threads = [threading.Thread(target=drip, args=(port, stream, replies, i)) for i in range(SLOW_CLIENTS)]
    for t in threads:
        t.start()
    return threads, replies


def test_slowloris_on_smtp(sink):
    """A byte now and then is no command: the time of a command is counted from its start."""
    with Baton(sink_port=sink.port, extra="limits: {command_timeout: 2s}\n") as b:
        threads, replies = drip_all(b.ports["mx"], b"EHLO " + b"a" * 400)
        b.send(ident="in between")
        assert sink.wait(1)[0].id() == "in between"
        for t in threads:
            t.join(60)
        assert len(replies) == SLOW_CLIENTS
        for said in replies.values():
            assert said.startswith(b"220") and b"421 4.4.2" in said, said


def http(b, request, timeout=30):
    """All that the other side says before it closes."""
    with socket.create_connection(("127.0.0.1", b.ports["api"]), timeout) as s:
        s.sendall(request)
        said = b""
        try:
            while piece := s.recv(65536):
                said += piece
        except ConnectionResetError:
            pass
    return said


def test_slowloris_on_http(baton):
    threads, replies = drip_all(baton.ports["api"], b"GET /livez HTTP/1.1\r\n" + b"X: y\r\n" * 400)
    wait_until(lambda: http(baton, b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n").startswith(b"HTTP/1.1 200"), what="an answer")
    for t in threads:
        t.join(60)  # each is cut off long before its 2,400 bytes are out
    assert len(replies) == SLOW_CLIENTS and not any(b" 200 " in r for r in replies.values())


@pytest.mark.parametrize("request_bytes", [
    b"\x00" * 100 + b"\r\n\r\n", b"GET\r\n\r\n", b"GET /livez\r\n\r\n", b"GET " + b"/" * 5000 + b" HTTP/1.1\r\n\r\n",
    b"GET /livez HTTP/1.1\r\nX: " + b"y" * 100_000 + b"\r\n\r\n", b"GET /livez HTTP/1.1\r\n" + b"X: y\r\n" * 20_000 + b"\r\n",
    b"POST /livez HTTP/1.1\r\nContent-Length: 99999999999999999999\r\n\r\n", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" * 800,
    b"GET /../../etc/passwd HTTP/1.1\r\n\r\n", b"GET /metrics%00 HTTP/1.1\r\n\r\n", b"EHLO x\r\nMAIL FROM:<>\r\n\r\n"],
    ids=["nul", "verb", "old", "path", "field", "fields", "length", "tls", "dots", "nul-path", "smtp"])
def test_http_garbage(baton, request_bytes):
    said = http(baton, request_bytes)
    assert said == b"" or said.startswith(b"HTTP/1.1 4") or said.startswith(b"HTTP/1.1 5"), said[:200]
    assert http(baton, b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n").startswith(b"HTTP/1.1 200")


def hello():
    """The first flight of a client, to be cut and spoilt."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = insecure().wrap_bio(incoming, outgoing, server_hostname="mx.baton.test")
    with pytest.raises(ssl.SSLWantReadError):
        tls.do_handshake()
    return outgoing.read()


def test_garbage_in_handshakes(sink):
    seed = int(os.environ.get("BATON_SEED", random.randrange(1 << 32)))
    print(f"BATON_SEED={seed}")
    rng, first = random.Random(seed), hello()
    with Baton(sink_port=sink.port, extra="limits: {client_connections: 1000}\n") as b:
        for i in range(60):
            implicit = i % 2 == 0
            s = socket.create_connection(("127.0.0.1", b.ports["submissions" if implicit else "mx"]), 30)
            if not implicit:
                until(s, b"220")
                s.sendall(b"EHLO x.test\r\n")
                until(s, b"250 ")
                s.sendall(b"STARTTLS\r\n")
                until(s, b"220 ")
            data = bytearray(first[:rng.randrange(1, len(first) + 1)])
            for _ in range(rng.randrange(0, 8)):
                data[rng.randrange(len(data))] = rng.randrange(256)
            s.sendall(bytes(data) if i % 5 else rng.randbytes(3000))
            if i % 3:
                reset(s)
            else:
                s.shutdown(socket.SHUT_WR)
                while s.recv(4096):
                    pass
                s.close()
        with b.smtps() as c:
            assert c.noop()[0] == 250
        b.send()
        sink.wait(1)
        wait_until(lambda: open_sessions(b) <= 0, what="the end of every session")


def test_next_hops_that_spoil_tls(tmp_path):
    """Whatever the hop does instead of TLS, mail that may go in the clear goes, once."""
    cert = make_certificate(str(tmp_path), "sink.test")
    seed = int(os.environ.get("BATON_SEED", random.randrange(1 << 32)))
    print(f"BATON_SEED={seed}")
    rng, got = random.Random(seed), []

    def spoil(c, kind):
        until(c, b"\x16\x03")
        if kind == 0:
            c.sendall(rng.randbytes(500))
        elif kind == 1:
            c.sendall(b"\x15\x03\x01\x00\x02\x02\x28")  # alert: handshake failure
        elif kind == 2:
            c.sendall(b"500 5.5.1 what?\r\n")
        elif kind == 3:
            c.sendall(b"\x16\x03\x03\x40\x00" + rng.randbytes(0x4000))
        if kind < 4:
            c.settimeout(5)
            while c.recv(4096):
                pass
        else:
            reset(c)

    def serve(c, number):
        c.sendall(b"220 hop\r\n")
        f = c.makefile("rb")
        for raw in f:
            line = raw.strip()
            if line.startswith(b"EHLO"):
                c.sendall(b"250-hop\r\n250 STARTTLS\r\n")
            elif line == b"STARTTLS":
                c.sendall(b"220 go\r\n")
                f.detach()
                spoil(c, rng.randrange(5))
                return
            elif line == b"DATA":
                c.sendall(b"354 go\r\n")
                while f.readline() != b".\r\n":
                    pass
                got.append(number)
                c.sendall(b"250 taken\r\n")
            else:
                c.sendall(b"221 bye\r\n" if line == b"QUIT" else b"250 ok\r\n")

    assert cert
    with Hop(serve) as hop, Baton(sink_port=hop.port) as b:
        for i in range(8):
            before = len(got)
            b.send(to=f"u{i}@dest.test")
            wait_until(lambda: len(got) > before, 60, "the message in the clear")
        wait_until(lambda: not b.ctl_json("queue", "ls"), 60, "an empty queue")
        assert len(got) == 8


CHILD = """
import hashlib, sys
sys.path.insert(0, sys.argv[1])
from sink import Sink
s = Sink()
s.data = lambda state: print("DATA", flush=True)
s.dot = lambda m: print("GOT", hashlib.sha256(m.data.split(b"\\r\\n\\r\\n", 1)[1]).hexdigest(), flush=True)
s.start()
print(s.port, flush=True)
sys.stdin.read()
"""


def test_a_hop_that_is_stopped_in_the_body_holds_up_nobody(sink):
    child = subprocess.Popen([sys.executable, "-c", CHILD, os.path.dirname(os.path.abspath(__file__))], text=True,
                             stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        port = int(child.stdout.readline())
        body = ("0123456789" * 7 + "\r\n") * 420_000  # 30 MB: more than the kernel takes on its own
        with Baton(extra=routes(stuck=[port], other=[sink.port])) as b:
            b.send(to="u@stuck.test", body=body)
            assert child.stdout.readline() == "DATA\n"
            child.send_signal(signal.SIGSTOP)
            for i in range(5):
                b.send(to=f"u{i}@other.test", ident=str(i))
            sink.wait(5)
            wait_until(lambda: len(b.ctl_json("queue", "ls")) == 1, what="only the stuck one")
            assert not b.records("deferred")
            child.send_signal(signal.SIGCONT)
            assert child.stdout.readline() == f"GOT {hashlib.sha256(body.encode()).hexdigest()}\n"
            wait_until(lambda: not b.ctl_json("queue", "ls"), what="an empty queue")
    finally:
        child.send_signal(signal.SIGCONT)
        child.stdin.close()
        child.wait(30)
        child.stdout.close()


def test_clients_that_reset_in_a_chunk(baton, sink):
    for i in range(30):
        c = baton.raw()
        c.read()
        c.ask("EHLO client.test")
        c.ask("MAIL FROM:<a@source.test>")
        c.ask("RCPT TO:<b@dest.test>")
        if i % 2:
            c.send(b"BDAT 1000\r\n" + b"x" * 1000)
            assert c.read().startswith("250")
        # The last is so big that rows of it are on disk already.
        c.send(b"BDAT 5000000 LAST\r\n" + b"y" * (2_000_000 if i == 29 else 100 * i))
        c.f.close()
        reset(c.s)
    wait_until(lambda: baton.ctl_json("status", check=False)[0]["queue"]["used_bytes"] < 1_000_000, what="the room back")
    assert not baton.ctl_json("queue", "ls") and not baton.records("received")
    baton.send(ident="after")
    assert sink.wait(1)[0].id() == "after" and len(sink.messages) == 1


def test_a_stop_in_the_middle_of_a_big_body(sink):
    """Rows of it are on disk: they are taken back, or swept at the next start."""
    with Baton(sink_port=sink.port, env={"ASAN_OPTIONS": "detect_leaks=0"}) as b:
        b.write_settings(b.settings.replace("stop_timeout: 5s", "stop_timeout: 1s"))
        b.ctl("reload")
        clients = [b.raw() for i in range(4)]
        for c in clients:
            c.read()
            c.ask("EHLO client.test")
            c.ask("MAIL FROM:<a@source.test>")
            c.ask("RCPT TO:<b@dest.test>")
            c.ask("DATA")
            c.send((b"x" * 70 + b"\r\n") * 60_000)
        assert b.stop() == 0
        for c in clients:
            c.f.close()
            c.s.close()
        b.start()
        assert not b.ctl_json("queue", "ls")
        wait_until(lambda: b.ctl_json("status", check=False)[0]["queue"]["used_bytes"] < 1_000_000, what="the room back")


def test_two_thousand_idle_connections(sink):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < 3000:
        pytest.skip("needs 3,000 descriptors")
    resource.setrlimit(resource.RLIMIT_NOFILE, (3000, hard))
    idle = []
    try:
        with Baton(sink_port=sink.port, extra="limits: {client_connections: 5000, client_rate: 100000/1m}\n") as b:
            before = memory(b)
            for i in range(2000):
                idle.append(socket.create_connection(("127.0.0.1", b.ports["mx"]), 30))
            for s in idle:
                until(s, b"220")
            taken = memory(b) - before
            with Raw(b.ports["relay"]) as c:
                assert c.read().startswith("220")
            b.send(ident="among them")
            assert sink.wait(1)[0].id() == "among them"
            # 10 KiB each, and what a sanitizer adds.
            assert taken < 20_000 or "asan" in os.environ.get("BATON_BIN", ""), taken
            for s in idle:
                reset(s)
            b.send(ident="after")
            sink.wait(2)
            assert b.stop() == 0
    finally:
        for s in idle:
            s.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def memory(b):
    """KiB of anonymous memory."""
    with open(f"/proc/{b.process.pid}/status") as f:
        return next(int(line.split()[1]) for line in f if line.startswith("RssAnon"))
