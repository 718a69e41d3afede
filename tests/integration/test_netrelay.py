# SPDX-License-Identifier: Apache-2.0
"""The bad network itself: each way of breaking breaks that and nothing else."""
import os
import socket
import subprocess
import sys
import time

import pytest

from netrelay import Net, possible

pytestmark = pytest.mark.skipif(not possible(), reason="needs root, /dev/net/tun and the built netrelay")

# Answers each datagram on both families; "connect ADDRESS PORT" on standard input tries TCP from there.
ECHO = """
import select, socket, sys
a = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); a.bind(("0.0.0.0", 7))
b = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM); b.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
b.bind(("::", 7))
t = socket.create_server(("0.0.0.0", 7))
print("ready", flush=True)
while True:
    for s in select.select([a, b, t, sys.stdin], [], [])[0]:
        if s is sys.stdin:
            words = s.readline().split()
            if not words:
                sys.exit(0)
            try:
                with socket.create_connection((words[1], 7), timeout=1) as c:
                    c.settimeout(5)
                    print("yes", c.recv(100).decode(), flush=True)
            except OSError:
                print("no", flush=True)
        elif s is t:
            c, who = t.accept()
            c.sendall(who[0].encode()); c.close()
        else:
            data, who = s.recvfrom(2000); s.sendto(data, who)
"""


class Echo:
    def __init__(self, net, which):
        self.process = subprocess.Popen([*net.wrap(which), sys.executable, "-c", ECHO], stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, text=True, bufsize=1)
        assert self.process.stdout.readline() == "ready\n"

    def connect(self, address):
        self.process.stdin.write(f"connect {address}\n")
        return self.process.stdout.readline().split()

    def close(self):
        self.process.stdin.close()
        self.process.wait(timeout=10)
        self.process.stdout.close()


@pytest.fixture
def net():
    with Net(3) as n:
        n.echoes = [None] + [Echo(n, i) for i in (1, 2, 3)]
        yield n
        for echo in n.echoes[1:]:
            echo.close()


def ask(net, which, count=1, six=False, wait=0.5):
    """How many of `count` datagrams come back, and how long the first took."""
    family = socket.AF_INET6 if six else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as s:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        start, took, back = time.monotonic(), None, 0
        for i in range(count):
            s.sendto(b"%d" % i, (net.address(which, six), 7))
        s.settimeout(wait)
        try:
            while back < count:
                s.recv(2000)
                took = took or time.monotonic() - start
                back += 1
        except TimeoutError:
            pass
        return back, took


def reaches(net, a, b):
    return net.echoes[a].connect(net.address(b))[0] == "yes"


def test_whole(net):
    for i in (1, 2, 3):
        assert ask(net, i)[0] == 1
        assert ask(net, i, six=os.path.exists("/proc/sys/net/ipv6"))[0] == 1
    # a node is seen under its own address
    assert net.echoes[1].connect(net.address(2)) == ["yes", net.address(1)]
    assert all(reaches(net, a, b) for a in (1, 2, 3) for b in (1, 2, 3) if a != b)
    assert net.count(1, 2)[0] > 0 and net.count(1, 2)[1] == 0


def test_cut_split_isolate(net):
    net.cut(1, 2)
    assert not reaches(net, 1, 2) and not reaches(net, 2, 1)
    assert reaches(net, 1, 3) and reaches(net, 3, 2) and ask(net, 1)[0] == 1
    net.mend(1, 2)
    assert reaches(net, 1, 2)
    net.isolate(3)
    assert reaches(net, 1, 2) and not reaches(net, 3, 1) and not reaches(net, 2, 3) and ask(net, 3)[0] == 1
    net.heal()
    net.split([1], [2], [3])
    assert not any(reaches(net, a, b) for a in (1, 2, 3) for b in (1, 2, 3) if a != b)
    net.heal()
    assert reaches(net, 3, 1)


def test_one_way(net):
    net.cut(0, 1, both=False)
    before = net.count(1, 0)
    assert ask(net, 1)[0] == 0
    assert net.count(1, 0) == before  # it never heard the question
    net.heal()
    net.cut(1, 0, both=False)
    assert ask(net, 1)[0] == 0
    assert net.count(1, 0)[1] == before[1] + 1  # it answered
    assert net.count(0, 1)[1] == 1


def test_delay_keeps_order_and_ends(net):
    net.delay(200)
    back, took = ask(net, 1, count=20, wait=3)
    assert back == 20 and 0.4 <= took < 2
    net.delay(0)
    assert ask(net, 1)[1] < 0.2


def test_lose(net):
    net.lose(30, 0, 1, both=False)
    ask(net, 1, count=1000, wait=1)
    passed, dropped = net.count(0, 1)
    assert passed + dropped >= 1000
    assert 0.24 < dropped / (passed + dropped) < 0.36
    net.lose(100, 0, 1, both=False)
    assert ask(net, 1)[0] == 0


def test_hold(net):
    net.hold(0, 2, both=False)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        for i in range(10):
            s.sendto(b"%d" % i, (net.address(2), 7))
        s.settimeout(0.5)
        with pytest.raises(TimeoutError):
            s.recv(100)
        net.release(0, 2, both=False)
        s.settimeout(5)
        assert [s.recv(100) for _ in range(10)] == [b"%d" % i for i in range(10)]


def test_two_at_once_and_nothing_left():
    # Other tests come and go with interfaces of their own: ours are the ones that the two nets name.
    with Net(1) as a, Net(2) as b:
        assert a.subnet != b.subnet
        pid = a.process.pid
    assert not os.path.exists(f"/proc/{pid}")
    links = subprocess.run(["ip", "link"], capture_output=True, text=True, check=True).stdout
    assert f"bt{pid}:" not in links


def test_wrong_commands(net):
    for line in ("set 1 9 cut 1", "set 1 2 cut", "set 1 2 nothing 1", "set 1 2 cut -1", "ns 7", "bogus", "count * 1"):
        with pytest.raises(AssertionError):
            net.say(line)
    assert reaches(net, 1, 2)
