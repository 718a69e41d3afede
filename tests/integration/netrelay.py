# SPDX-License-Identifier: Apache-2.0
"""A network between processes that breaks as told: namespaces joined by a relay in user space (tools/netrelay.c).

    with Net(3) as net:
        Baton(wrap=net.wrap(1), ...)          # runs in namespace 1, its address is net.address(1)
        net.cut(1, 2)                         # both ways
        net.cut(1, 2, both=False)             # 1 does not reach 2
        net.split([1], [2, 3])                # as many groups as you like
        net.isolate(2)
        net.lose(30); net.delay(200)          # every link; or lose(30, 1, 2)
        net.hold(1, 2); net.release(1, 2)     # stall, then burst
        net.heal()

Endpoint 0 is where the test runs, at net.address(0): clients and next hops live there. The numbers are per direction:
delay(200) on both directions is a round trip of 400 ms. split() and isolate() leave endpoint 0 reachable, so that the
test goes on seeing all of them. Needs root and /dev/net/tun; `pytest.mark.skipif(not possible(), ...)`.
"""
import os
import random
import subprocess

from harness import BIN

RELAY = os.path.join(BIN, "tests", "integration", "tools", "netrelay")


def possible():
    return os.geteuid() == 0 and os.path.exists("/dev/net/tun") and os.path.exists(RELAY)


class Net:
    def __init__(self, nodes, seed=1):
        self.nodes = nodes
        self.all = range(nodes + 1)
        for _ in range(20):  # a subnet that no other test has at the moment
            self.subnet = f"10.{random.randrange(64, 128)}.{random.randrange(1, 255)}"
            routes = subprocess.run(["ip", "route"], capture_output=True, text=True, check=True).stdout
            if self.subnet + "." not in routes:
                break
        self.process = subprocess.Popen([RELAY, str(nodes), self.subnet, str(seed)], stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, text=True, bufsize=1)
        assert self.process.stdout.readline() == "ready\n", "netrelay did not start"
        self.namespaces = [self.say(f"ns {i}")[0] for i in self.all]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        self.process.stdin.close()
        self.process.stdout.close()
        assert self.process.wait(timeout=10) == 0

    def say(self, command):
        self.process.stdin.write(command + "\n")
        answer = self.process.stdout.readline().split()
        assert answer and answer[0] == "ok", (command, answer)
        return answer[1:]

    def address(self, which, six=False):
        host = which or 254
        _, b, c = self.subnet.split(".")
        return f"fd77:{int(b):x}:{int(c):x}::{host:x}" if six else f"{self.subnet}.{host}"

    def wrap(self, which):
        """The front of a command line that runs in that namespace."""
        return ["nsenter", f"--net={self.namespaces[which]}", "--"]

    def set(self, key, value, a="*", b="*", both=True):
        self.say(f"set {a} {b} {key} {value}")
        if both and (a, b) != ("*", "*"):
            self.say(f"set {b} {a} {key} {value}")

    def cut(self, a, b, both=True):
        self.set("cut", 1, a, b, both)

    def mend(self, a, b, both=True):
        self.set("cut", 0, a, b, both)

    def lose(self, percent, a="*", b="*", both=True):
        self.set("lose", percent, a, b, both)

    def delay(self, ms, a="*", b="*", both=True):
        self.set("delay", ms, a, b, both)

    def hold(self, a, b, both=True):
        self.set("hold", 1, a, b, both)

    def release(self, a, b, both=True):
        self.set("hold", 0, a, b, both)

    def isolate(self, which):
        self.split([which], [i for i in self.all if i not in (0, which)])

    def split(self, *groups):
        for group in groups:
            for other in groups:
                for a in group:
                    for b in other:
                        if group is not other:
                            self.cut(a, b, both=False)

    def heal(self):
        self.say("heal")

    def count(self, a, b):
        """Packets from a to b: passed, dropped."""
        return tuple(int(n) for n in self.say(f"count {a} {b}"))
