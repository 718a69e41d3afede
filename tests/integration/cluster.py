# SPDX-License-Identifier: Apache-2.0
"""A cluster of real batond processes on loopback, its ledger, and what can go wrong with it.

    with Cluster(3, sink) as c:
        load = Load(c.nodes)
        ...
        c["mx2"].kill()
        load.stop(); c.balance(load)
"""
import mmap
import os
import random
import shutil
import smtplib
import socket
import struct
import tempfile
import threading
import time

from harness import BIN, Baton, wait_until

LEASE = 5
# Heirs of mail whose dot may have left wait so long: short, because no link here keeps a dot for minutes.
IN_DOUBT_HOLD = 4

LISTENERS = """
listeners:
  - {name: relay, listen: ["127.0.0.1:0"], service: submission, tls: optional}
  - {name: mx, listen: ["127.0.0.1:0"], service: mx}
"""


given_ports = set()  # a node binds its own only when it starts


def free_port_pair(host):
    """A port that is free together with the next one: control and bodies."""
    for _ in range(200):
        port = random.randrange(20000, 32000, 2)
        if port in given_ports:
            continue
        try:
            with socket.socket() as a, socket.socket() as b:
                a.bind((host, port))
                b.bind((host, port + 1))
                given_ports.add(port)
                return port
        except OSError:
            continue
    raise AssertionError(f"no free pair of ports on {host}")


class World:
    """Disk and wall clock of one process (tools/world.c): cells of int64 in a shared file."""
    CELLS = {"flush_ms": 0, "flush_errno": 1, "wall_seconds": 2, "allocate_errno": 3}

    def __init__(self, folder):
        self.path = os.path.join(folder, "world")
        with open(self.path, "wb") as f:
            f.write(bytes(8 * len(self.CELLS)))
        with open(self.path, "r+b") as f:
            self.map = mmap.mmap(f.fileno(), 8 * len(self.CELLS))

    def set(self, **cells):
        for name, value in cells.items():
            at = 8 * self.CELLS[name]
            self.map[at:at + 8] = struct.pack("=q", value)

    def env(self):
        library = os.path.join(BIN, "tests", "integration", "tools", "test_world.so")
        return {"LD_PRELOAD": library, "BATON_WORLD": self.path} if os.path.exists(library) else {}


class Node(Baton):
    """`net`: (a netrelay.Net, its endpoint): the node runs in that namespace and listens on that address; the sink
    then belongs on the network's own, Sink(host=net.address(0))."""

    def __init__(self, cluster, name, role="node", net=None, zone=None, cluster_extra=""):
        self.cluster, self.name, self.role = cluster, name, role
        self.host = net[0].address(net[1]) if net else "127.0.0.1"
        self.port = 7420 if net else free_port_pair("127.0.0.1")
        folder = os.path.join(cluster.folder, name)
        os.makedirs(folder, exist_ok=True)
        self.world = World(folder)
        extra = f"""
cluster:
  name: {cluster.name}
  node: {name}
  role: {role}
  listen: {self.host}:{self.port}
  lease: {cluster.lease}s
  in_doubt_hold: {IN_DOUBT_HOLD}s
  join: {folder}/join.token
  zone: {zone or name}
{cluster_extra}"""
        listeners = LISTENERS
        if net:
            extra += f'relay_clients: ["{net[0].subnet}.0/24"]\n'
            extra += f'routes:\n  - {{domain: "*", next_hop: ["[{net[0].address(0)}]:{cluster.sink.port}"]}}\n'
            listeners = LISTENERS.replace("127.0.0.1", self.host)
        super().__init__(sink_port=cluster.sink.port, extra=cluster.extra + extra, listeners=listeners,
                         folder=folder, retry=cluster.retry, env=self.world.env(),
                         wrap=net[0].wrap(net[1]) if net else [])
        self.write_settings(self.settings.replace("hostname: mx.baton.test", f"hostname: {name}.baton.test", 1)
                            .replace("level: debug", f"level: {cluster.log_level}", 1))

    def smtp(self, listener="relay", timeout=30):
        return smtplib.SMTP(self.host, self.ports[listener], timeout=timeout, local_hostname="client.test")

    def init(self):
        self.offline("cluster", "init")
        return self

    def offline(self, *args):
        """A batonctl command that works on the settings file of a node that does not run."""
        import subprocess
        from harness import BATONCTL
        p = subprocess.run([BATONCTL, "-c", self.config, *args], capture_output=True, text=True, timeout=60)
        assert p.returncode == 0, (args, p.stdout, p.stderr)
        return p

    def join(self, by):
        """With a token of node `by`."""
        token = by.ctl("cluster", "token").stdout.split("\n")
        line = max((t.strip() for t in token), key=len)
        path = os.path.join(self.folder, "join.token")
        with open(path, "w") as f:
            f.write(line + "\n")
        os.chmod(path, 0o600)
        return self.start()

    def status(self):
        p = self.ctl("status", "--json", check=False)
        import json
        return json.loads(p.stdout) if p.stdout.strip() else {}

    def members(self):
        return {n["id"]: n for n in self.status().get("nodes", [])}

    def alive(self):
        return self.process is not None and self.process.poll() is None

    def wipe(self):
        """Its disk is gone."""
        assert not self.alive()
        shutil.rmtree(os.path.join(self.folder, "data"), ignore_errors=True)


class Cluster:
    def __init__(self, count, sink, lease=LEASE, extra="", name="test", start=True, node_options=None,
                 retry="{first: 300ms, max: 2s, give_up: 1h, delay_warning: 0s}", log_level="debug"):
        self.sink, self.lease, self.extra, self.name, self.retry = sink, lease, extra, name, retry
        self.log_level = log_level
        self.folder = tempfile.mkdtemp(prefix="baton-cluster-", dir=os.environ.get("TMPDIR", "/var/tmp"))
        self.options = node_options or (lambda i: {})
        self.nodes = [Node(self, f"mx{i + 1}", **self.options(i)) for i in range(count)]
        self.start_now = start

    def __getitem__(self, name):
        return next(n for n in self.nodes if n.name == name)

    def __enter__(self):
        try:
            if self.start_now:
                self.form()
        except BaseException:
            self.__exit__(AssertionError, None, None)
            raise
        return self

    def __exit__(self, kind, value, trace):
        for n in self.nodes:
            if n.process and n.process.poll() is None:
                n.world.set(flush_ms=0, flush_errno=0)
                n.process.kill()
                n.process.wait()
        if kind is not None:
            for n in self.nodes:
                if os.path.exists(n.log_path):
                    print(f"--- log of {n.name}\n" + n.tail(40))
        if not os.environ.get("BATON_KEEP"):
            shutil.rmtree(self.folder, ignore_errors=True)

    def form(self):
        """The first node makes the cluster, the others join it."""
        first, *rest = self.nodes
        first.init().start()
        for n in rest:
            n.join(first)
            self.settled(n_up=self.nodes.index(n) + 1)

    def add(self, **options):
        n = Node(self, f"mx{len(self.nodes) + 1}", **options)
        self.nodes.append(n)
        return n

    def running(self):
        return [n for n in self.nodes if n.alive()]

    def settled(self, n_up=None, timeout=60, copies=True, voters=None):
        """All running nodes agree that all of them are up, and no copy is short."""
        want = n_up or len(self.running())

        def look():
            for n in self.running():
                s = n.status()
                up = [m for m in s.get("nodes", [])
                      if (m["member"], m["view"], m["session"]) == ("up", "alive", "open")
                      and m["lease"] in ("held", "static")]
                voting = sum(1 for m in s.get("nodes", []) if m.get("voter"))
                if len(up) < want or (copies and s["queue"]["copies_short"]):
                    return False
                # With two voters the loss of one stops everything: three make it safe to pull a plug.
                if len(up) >= 3 and (voting < 3 or s["cluster"]["mode"] != "quorum"):
                    return False
            return True
        wait_until(look, timeout, f"{want} nodes up, no copies short")

    def queued(self):
        """Message ids in any running node's queue."""
        return {u["id"] for n in self.running()[:1] for u in n.ctl_json("queue", "ls")}

    def balance(self, load, timeout=120, duplicates=None):
        """Every acknowledged message has arrived; every second arrival has a cause that a log names."""
        arrived = lambda: {m.id() for m in list(self.sink.messages)}
        wait_until(lambda: load.acknowledged <= arrived(), timeout,
                   "the arrival of all that was acknowledged")
        wait_until(lambda: not self.queued(), timeout, "an empty queue")
        ids = [m.id() for m in self.sink.messages]
        doubles = {i for i in ids if ids.count(i) > 1} if len(ids) != len(set(ids)) else set()
        self.takeovers_told_once()
        named = self.named_causes()
        sure = {d for d in doubles if d not in named and d not in load.retried}
        assert not sure, f"duplicates without a named cause: {sorted(sure)[:10]} of {len(doubles)}"
        if duplicates is not None:
            assert len(doubles) <= duplicates, (len(doubles), duplicates)
        print(f"acknowledged {len(load.acknowledged)}, arrived {len(set(ids))}, duplicates {len(doubles)}, lost 0")
        return len(doubles)

    def takeovers_told_once(self):
        """A unit's takeover is in its new owner's log once, whatever holds end and sessions begin afterwards."""
        for n in self.nodes:
            if os.path.exists(n.log_path):
                told = [(r["id"], r["unit"], r["term"]) for r in n.records("takeover", since_start=False)]
                assert len(told) == len(set(told)), (n.name, sorted(t for t in told if told.count(t) > 1)[:5])

    def named_causes(self):
        """Test ids of messages that some node logged with possible_duplicate=."""
        ids = {m.header("Message-ID"): m.id() for m in self.sink.messages}
        del ids
        by_queue_id = {}
        for m in list(self.sink.messages):
            received = m.header("Received") or ""
            for word in received.replace(";", " ").split():
                if len(word) == 26 and word.isalnum():
                    by_queue_id[word] = m.id()
        named = set()
        for n in self.nodes:
            if os.path.exists(n.log_path):
                for r in n.records(since_start=False):
                    if r.get("possible_duplicate"):
                        named.add(by_queue_id.get(r.get("id")))
        return named


class Load:
    """Clients that send to any node until told to stop, go to the next when one fails, and write down
    what was acknowledged. A message without an answer is sent again, as real clients do (`retried`)."""

    def __init__(self, nodes, sessions=6, rate=None, sizes=(500, 2000, 10_000), rcpt="b@dest.test"):
        self.nodes, self.stopping, self.lock = nodes, threading.Event(), threading.Lock()
        self.acknowledged, self.retried, self.times = set(), set(), []
        self.sizes, self.rate, self.rcpt = sizes, rate, rcpt
        self.threads = [threading.Thread(target=self.run, args=(i,), daemon=True) for i in range(sessions)]

    def __enter__(self):
        for t in self.threads:
            t.start()
        return self

    def __exit__(self, *exc):
        self.stop()

    def stop(self):
        self.stopping.set()
        for t in self.threads:
            t.join(60)

    def pick(self, number):
        up = [n for n in list(self.nodes) if n.alive()]
        return random.choice(up) if up else None

    def run(self, number):
        n, pending = 0, None
        while not self.stopping.is_set():
            node = self.pick(number)
            if node is None:
                self.stopping.wait(0.05)
                continue
            try:
                with node.smtp("relay", timeout=30) as s:
                    s.ehlo()
                    for _ in range(50):
                        if self.stopping.is_set():
                            return
                        if pending is None:
                            pending = f"{number}-{n}"
                            n += 1
                        if not self.one(s, pending):
                            break
                        pending = None
                        if self.rate:
                            self.stopping.wait(len(self.threads) / self.rate)
            except (OSError, smtplib.SMTPException, KeyError):
                self.stopping.wait(0.05)

    def one(self, s, ident):
        if s.mail("a@source.test")[0] != 250 or s.rcpt(self.rcpt)[0] != 250:
            self.stopping.wait(0.1)
            return False
        size = random.choice(self.sizes)
        body = f"X-Test-Id: {ident}\r\nFrom: <a@source.test>\r\n\r\n".encode() + (b"y" * 70 + b"\r\n") * (size // 72)
        try:
            code, _ = s.data(body)
        except (OSError, smtplib.SMTPException):
            with self.lock:
                self.retried.add(ident)  # no answer: D4
            raise
        if code == 250:
            with self.lock:
                self.acknowledged.add(ident)
                self.times.append(time.monotonic())
            return True
        self.stopping.wait(0.05)
        return False

    def count(self):
        with self.lock:
            return len(self.acknowledged)

    def wait_more(self, n, timeout=60):
        want = self.count() + n
        wait_until(lambda: self.count() >= want, timeout, f"{n} more acknowledged")

    def longest_pause(self):
        with self.lock:
            t = sorted(self.times)
        return max((b - a for a, b in zip(t, t[1:])), default=0)
