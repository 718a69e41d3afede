# SPDX-License-Identifier: Apache-2.0
"""Peers that do their worst: next hops that break off where it hurts, clients that never stop."""
import socket
import threading
import time

import pytest

from harness import Baton, wait_until
from sink import Sink


class Hop:
    """A next hop made of one function: hop(connection, its number)."""

    def __init__(self, serve):
        self.serve, self.connections, self.open = serve, 0, []
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=500)
        self.port = self.listener.getsockname()[1]

    def __enter__(self):
        threading.Thread(target=self._run, daemon=True).start()
        return self

    def __exit__(self, *exc):
        self.listener.close()
        for c in self.open:
            c.close()

    def _run(self):
        while True:
            try:
                c, _ = self.listener.accept()
            except OSError:
                return
            self.connections += 1
            self.open.append(c)
            threading.Thread(target=self._one, args=(c, self.connections), daemon=True).start()

    def _one(self, c, number):
        try:
            self.serve(c, number)
        except OSError:
            pass


def until(c, *words):
    """Reads until one of the words has come; what was read."""
    data = b""
    while not any(w in data for w in words):
        piece = c.recv(65536)
        if not piece:
            raise ConnectionError
        data += piece
    return data


def hang(c):
    while c.recv(65536):
        pass


def greet(c):
    c.sendall(b"220 hop\r\n")
    until(c, b"EHLO")
    c.sendall(b"250 hop\r\n")


def routes(**hops):
    lines = [f'  - {{domain: {domain}.test, next_hop: [{", ".join(chr(34) + f"[127.0.0.1]:{p}" + chr(34) for p in ports)}]}}'
             for domain, ports in hops.items()]
    return "routes:\n" + "\n".join(lines) + "\n"


def is_empty(b):
    return not b.ctl_json("queue", "ls")


# --- next hops ---

def test_who_has_no_connection_gets_one_when_others_close():
    """The node's limit of connections is used up by one destination: the other is served behind it."""
    gate = threading.Event()
    with Sink() as slow, Sink() as other:
        slow.dot = lambda m: gate.wait(20) and None
        extra = routes(slow=[slow.port], other=[other.port]) + \
            "limits: {delivery_connections: 1, idle_connection: 60s}\n"
        with Baton(extra=extra) as b:
            b.send(to="x@slow.test")
            wait_until(lambda: any(c[1].startswith("DATA") for c in slow.commands), what="DATA")
            b.send(to="x@other.test")
            gate.set()
            slow.wait(1)
            other.wait(1)
            b.send(to="y@slow.test")
            slow.wait(2)


def ready_and_gone(c, number):
    c.sendall(b"220 hop\r\n")
    until(c, b"EHLO")
    c.sendall(b"250 hop\r\n421 4.3.2 not today\r\n")
    c.close()


def ready_and_gone_a_moment_later(c, number):
    greet(c)
    c.shutdown(socket.SHUT_RDWR)
    c.close()


@pytest.mark.parametrize("serve", [ready_and_gone, ready_and_gone_a_moment_later])
def test_a_hop_that_leaves_before_mail_is_not_hammered(serve):
    with Hop(serve) as hop:
        with Baton(sink_port=hop.port, retry="{first: 1h, max: 2h, give_up: 5h}") as b:
            for i in range(20):
                b.send(to=f"u{i}@d{i % 4}.test")
            wait_until(lambda: len({r["id"] for r in b.records("deferred")}) == 20, what="every message deferred")
            assert hop.connections <= 45
            assert b.stop() == 0
            b.start()  # and the same from disk
            assert len(b.ctl_json("queue", "ls")) == 20


def test_mail_read_from_disk_survives_a_hop_that_leaves(sink):
    gone = [True]

    def serve(c, number):
        if gone[0]:
            ready_and_gone_a_moment_later(c, number)

    with Hop(serve) as hop:
        with Baton(extra=routes(two=[hop.port, sink.port])) as b:
            sink.connect = lambda n: "421 not yet"
            for i in range(8):
                b.send(to=f"u{i}@two.test")
            wait_until(lambda: len({r["id"] for r in b.records("deferred")}) == 8, what="every message deferred")
            sink.connect = lambda n: None
            sink.wait(8)
            wait_until(lambda: is_empty(b), what="an empty queue")


def test_a_limit_of_connections_delays_nothing():
    """421 to the third connection: the mail meant for it goes over the two that work."""
    seat = threading.Semaphore(2)
    with Sink() as sink:
        def relay(c, number):
            if not seat.acquire(blocking=False):
                c.sendall(b"421 4.7.0 too many connections\r\n")
                c.close()
                return
            with socket.create_connection(("127.0.0.1", sink.port)) as far:
                threading.Thread(target=pipe, args=(far, c), daemon=True).start()
                pipe(c, far)
            seat.release()

        with Hop(relay) as hop:
            with Baton(sink_port=hop.port, retry="{first: 1h, max: 2h, give_up: 5h}") as b:
                with b.smtp() as s:
                    for i in range(150):
                        s.sendmail("a@source.test", [f"u{i}@dest.test"], f"Subject: {i}\r\n\r\nx\r\n")
                sink.wait(150, 30)
                wait_until(lambda: is_empty(b), what="an empty queue")
                wait_until(lambda: len(b.records("delivered")) == 150, what="150 lines")
                assert not b.records("deferred")


def pipe(a, b):
    try:
        while data := a.recv(65536):
            b.sendall(data)
        b.shutdown(socket.SHUT_WR)
    except OSError:
        pass


def breaks_off_in_the_transaction(c, number):
    greet(c)
    until(c, b"MAIL")
    c.shutdown(socket.SHUT_RDWR)
    c.close()


def test_a_stop_between_two_hops_loses_nothing_and_ends():
    """The first hop broke off under the message, the second has not greeted yet."""
    with Hop(breaks_off_in_the_transaction) as first, Hop(lambda c, n: hang(c)) as second:
        with Baton(extra=routes(two=[first.port, second.port])) as b:
            b.send(to="u@two.test")
            wait_until(lambda: second.connections, what="the second hop")
            start = time.monotonic()
            assert b.stop() == 0
            assert time.monotonic() - start < 15
            b.start()
            assert len(b.ctl_json("queue", "ls")) == 1


def test_no_second_copy_when_the_hop_leaves_between_two_transactions():
    """Half of the recipients have theirs when the connection goes: only the others are tried again."""
    taken = []

    def serve(c, number):
        c.sendall(b"220 hop\r\n")
        f = c.makefile("rb")
        rcpts = []
        for raw in f:
            line = raw.strip()
            if line.startswith(b"EHLO"):
                c.sendall(b"250-hop\r\n250 PIPELINING\r\n")
            elif line.startswith(b"MAIL") and number == 1 and taken:
                c.shutdown(socket.SHUT_RDWR)
                return
            elif line.startswith(b"RCPT"):
                rcpts.append(line)
                c.sendall(b"250 ok\r\n")
            elif line == b"DATA":
                c.sendall(b"354 go\r\n")
                while f.readline() != b".\r\n":
                    pass
                taken.extend(rcpts)
                rcpts = []
                c.sendall(b"250 taken\r\n")
            elif line == b"QUIT":
                c.sendall(b"221 bye\r\n")
                return
            else:
                c.sendall(b"250 ok\r\n")

    with Hop(serve) as hop:
        with Baton(sink_port=hop.port, extra="limits: {recipients_per_transaction: 10}\n") as b:
            b.send(to=[f"u{i}@dest.test" for i in range(20)])
            wait_until(lambda: len(taken) >= 20, what="20 recipients")
            wait_until(lambda: is_empty(b), what="an empty queue")
            assert len(taken) == len(set(taken)) == 20


def test_a_reload_reaches_mail_whose_route_is_being_looked_up(sink):
    silent = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    silent.bind(("127.0.0.1", 0))
    dns = f'resolver: {{dnssec: false, forward: ["127.0.0.1@{silent.getsockname()[1]}"]}}\n'
    with Baton(extra=dns, retry="{first: 1s, max: 2s, give_up: 5h}") as b:
        b.send(to="u@example.net")
        silent.settimeout(10)
        silent.recv(4096)
        b.write_settings(b.settings + f'routes:\n  - {{domain: "*", next_hop: ["[127.0.0.1]:{sink.port}"]}}\n')
        b.hup()
        b.wait_log("config")
        sink.wait(1, 40)
    silent.close()


def test_a_stop_while_routes_are_looked_up():
    silent = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    silent.bind(("127.0.0.1", 0))
    silent.settimeout(10)
    dns = f'resolver: {{dnssec: false, forward: ["127.0.0.1@{silent.getsockname()[1]}"]}}\n'
    # A question of the intake may be open, too: what waits for that goes with the process.
    with Baton(extra=dns, env={"ASAN_OPTIONS": "detect_leaks=0"}) as b:
        b.send(to="u@example.net")
        silent.recv(4096)
        assert b.stop() == 0
    silent.close()


def test_a_destination_without_mail_is_forgotten():
    free = socket.create_server(("127.0.0.1", 0))
    port = free.getsockname()[1]
    free.close()
    with Baton(sink_port=port) as b:
        b.wait_log("deferred", id=b.send())
        assert b.stop() == 0  # under a leak checker: the one that is down goes, too


def test_a_stop_while_clients_wait_for_dns():
    """Their answers come back to loops that have ended, and must find them."""
    silent = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    silent.bind(("127.0.0.1", 0))
    silent.settimeout(10)
    dns = f'resolver: {{dnssec: false, forward: ["127.0.0.1@{silent.getsockname()[1]}"]}}\n'
    with Baton(extra=dns, env={"ASAN_OPTIONS": "detect_leaks=0"}) as b:
        clients = [b.raw() for i in range(6)]
        for i, c in enumerate(clients):
            c.read()
            c.ask("EHLO client.test")
            c.send(f"MAIL FROM:<a@s{i}.example.net>\r\nRCPT TO:<u@e{i}.example.net>\r\nRCPT TO:<u@f{i}.example.net>\r\n")
        silent.recv(4096)
        assert b.stop() == 0
    silent.close()
