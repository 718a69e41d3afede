#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""The books of a cluster under test, kept by processes that know nothing of it.

    ledger.py sink FILE       an SMTP server on a free port (printed): a line for each message that it took:
                              test id, queue id, who brought it, time. SIGUSR1: defer all; SIGUSR2: take again
    ledger.py clients FILE PORTS SESSIONS RATE
                              clients that hand mail to any port named in the file PORTS until SIGTERM: a line
                              "ack" for each 250, "again" for what got no answer; it is sent again after 15 s

Ledger is the side of the test: it starts both, reads what they wrote, and compares."""
import asyncio
import collections
import json
import os
import random
import re
import signal
import subprocess
import sys
import time

QUEUE_ID = re.compile(rb"\bid\s+([0-9a-z]{26})\b")


# --- the next hop ---

class Hop:
    def __init__(self, out):
        self.out, self.defers = out, False

    async def client(self, reader, writer):
        try:
            writer.write(b"220 sink.test\r\n")
            await self.session(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass
        finally:
            writer.close()

    async def session(self, reader, writer):
        helo, taken = "?", 0
        while True:
            line = await reader.readline()
            verb = line[:4].upper()
            if not line:
                return
            if verb == b"EHLO":
                helo = line[5:].decode("ascii", "replace").strip()
                writer.write(b"250-sink.test\r\n250-PIPELINING\r\n250 8BITMIME\r\n")
            elif verb == b"RCPT" and self.defers:
                writer.write(b"450 4.2.0 later\r\n")
            elif verb == b"RCPT":
                taken += 1
                writer.write(b"250 ok\r\n")
            elif verb == b"DATA" and not taken:
                writer.write(b"554 no recipients\r\n")
            elif verb == b"DATA":
                writer.write(b"354 go\r\n")
                await writer.drain()
                data = await reader.readuntil(b"\r\n.\r\n")
                taken = 0
                self.record(data, helo)
                writer.write(b"250 taken\r\n")
            elif verb == b"QUIT":
                writer.write(b"221 bye\r\n")
                return
            else:
                taken = 0 if verb in (b"MAIL", b"RSET") else taken
                writer.write(b"250 ok\r\n")
            await writer.drain()

    def record(self, data, helo):
        ident = re.search(rb"^X-Test-Id: (\S+)", data, re.M)
        queue = QUEUE_ID.search(data)
        line = f"{ident.group(1).decode() if ident else '?'} {queue.group(1).decode() if queue else '?'} " \
               f"{helo} {time.time():.3f}\n"
        os.write(self.out, line.encode())


async def serve(path):
    hop = Hop(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644))
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGUSR1, setattr, hop, "defers", True)
    loop.add_signal_handler(signal.SIGUSR2, setattr, hop, "defers", False)
    server = await asyncio.start_server(hop.client, "127.0.0.1", 0, limit=1 << 22, backlog=1000)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


# --- the clients ---

AGAIN = 15


class Unanswered(Exception):
    pass


class Clients:
    def __init__(self, out, ports, sessions, rate):
        self.out, self.ports_file, self.sessions = out, ports, sessions
        self.pause = sessions / rate if rate else 0
        self.stopping = asyncio.Event()
        self.owed, self.count = [], 0  # (when, test id)

    def ports(self):
        with open(self.ports_file) as f:
            return json.load(f)

    def note(self, what, ident):
        os.write(self.out, f"{what} {ident} {time.time():.3f}\n".encode())

    async def next(self, number):
        """What is to be sent: first what is owed since a while, and at the end nothing else."""
        while True:
            if self.owed and self.owed[0][0] < time.monotonic():
                return self.owed.pop(0)[1]
            if not self.stopping.is_set():
                break
            if not self.owed:
                return None
            await asyncio.sleep(0.1)
        self.count += 1
        return f"{os.getpid()}-{number}-{self.count}"

    async def session(self, number):
        ident = None
        while ident or self.owed or not self.stopping.is_set():
            ports = self.ports()
            try:
                reader, writer = await asyncio.open_connection("127.0.0.1", random.choice(ports))
            except (OSError, IndexError):
                await asyncio.sleep(0.05)
                continue
            try:
                await self.ask(reader, None, None)
                await self.ask(reader, writer, b"EHLO client.test\r\n")
                while True:
                    ident = ident or await self.next(number)
                    if ident is None:
                        return
                    if not await self.message(reader, writer, ident):
                        break
                    ident = None
                    await asyncio.sleep(self.pause)
            except Unanswered:
                self.note("again", ident)
                self.owed.append((time.monotonic() + AGAIN, ident))
                ident = None
            except (OSError, asyncio.IncompleteReadError, asyncio.TimeoutError):
                await asyncio.sleep(0.05)
            finally:
                writer.close()

    async def ask(self, reader, writer, line):
        """The last line of the reply; its first digits decide."""
        if writer:
            writer.write(line)
        while True:
            reply = await asyncio.wait_for(reader.readline(), 60)
            if not reply:
                raise asyncio.IncompleteReadError(b"", 1)
            if reply[3:4] != b"-":
                return reply

    async def message(self, reader, writer, ident):
        its = random.Random(ident)  # the same when it is sent again
        for line in (b"MAIL FROM:<a@source.test>\r\n", b"RCPT TO:<b@dest%d.test>\r\n" % its.randrange(5), b"DATA\r\n"):
            if (await self.ask(reader, writer, line))[:1] not in b"23":
                await asyncio.sleep(0.1)
                return False
        size = its.choice((500, 2000, 2000, 10_000, 100_000 if its.random() < 0.05 else 1000))
        text = f"From: <a@source.test>\r\nX-Test-Id: {ident}\r\n\r\n".encode() + (b"y" * 70 + b"\r\n") * (size // 72)
        try:
            reply = await self.ask(reader, writer, text + b".\r\n")
        except (OSError, asyncio.IncompleteReadError, asyncio.TimeoutError) as e:
            raise Unanswered from e
        if reply[:1] == b"2":
            self.note("ack", ident)
            return True
        await asyncio.sleep(0.05)
        return False


async def load(path, ports, sessions, rate):
    c = Clients(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644), ports, sessions, rate)
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, c.stopping.set)
    await asyncio.gather(*(c.session(i) for i in range(sessions)))


# --- the test's side ---

class Tail:
    """The whole lines of a growing file, each once."""

    def __init__(self, path):
        self.path, self.at = path, 0

    def lines(self):
        if not os.path.exists(self.path):
            return
        with open(self.path, "rb") as f:
            f.seek(self.at)
            for line in f:
                if not line.endswith(b"\n"):
                    return
                self.at += len(line)
                yield line


class Ledger:
    """`with Ledger(folder) as l`: l.port is the next hop's. Arrivals by test id, and by queue id."""

    def __init__(self, folder):
        self.folder = folder
        self.files = {what: os.path.join(folder, what) for what in ("arrived", "sent", "ports")}
        self.tails = {what: Tail(self.files[what]) for what in ("arrived", "sent")}
        self.acknowledged, self.again, self.ack_times = set(), set(), []
        self.arrived, self.by_queue = collections.Counter(), collections.Counter()
        self.queue_ids = collections.defaultdict(set)
        self.when, self.latest = {}, []  # latest: (time, who brought it), for the test to clear
        self.logs, self.named = {}, {}
        self.clients = None

    def __enter__(self):
        self.hop = subprocess.Popen([sys.executable, __file__, "sink", self.files["arrived"]],
                                    stdout=subprocess.PIPE, text=True)
        self.port = int(self.hop.stdout.readline())
        return self

    def __exit__(self, *exc):
        self.stop_load()
        self.hop.kill()
        self.hop.wait()
        self.hop.stdout.close()

    def defer(self, defers=True):
        self.hop.send_signal(signal.SIGUSR1 if defers else signal.SIGUSR2)

    def use(self, ports):
        """From now on clients hand mail to these."""
        with open(self.files["ports"] + ".new", "w") as f:
            json.dump(list(ports), f)
        os.replace(self.files["ports"] + ".new", self.files["ports"])

    def start_load(self, sessions=8, rate=0):
        self.clients = subprocess.Popen([sys.executable, __file__, "clients", self.files["sent"],
                                         self.files["ports"], str(sessions), str(rate)])

    def stop_load(self):
        if self.clients:
            self.clients.terminate()
            self.clients.wait(90)
            self.clients = None

    def read(self):
        for line in self.tails["sent"].lines():
            what, ident, at = line.decode().split()
            if what == "ack":
                self.acknowledged.add(ident)
                self.ack_times.append(float(at))
            elif what == "again":
                self.again.add(ident)
        for line in self.tails["arrived"].lines():
            ident, queue, helo, at = line.decode().split()
            self.arrived[ident] += 1
            self.by_queue[queue] += 1
            self.queue_ids[ident].add(queue)
            self.latest.append((float(at), helo))
            self.when[ident] = (*self.when.get(ident, ()), (float(at), helo))
        return self

    def read_logs(self, nodes):
        """What the logs name: queue id -> cause."""
        for n in nodes:
            for line in self.logs.setdefault(n.name, Tail(n.log_path)).lines():
                if b"possible_duplicate" in line:
                    r = json.loads(line)
                    self.named.setdefault(r["id"], set()).add(r["possible_duplicate"])

    def missing(self):
        self.read()
        return self.acknowledged - self.arrived.keys()

    def doubles(self):
        """(caused by a client's repetition, named by a log, by nobody)."""
        again, named, nobody = [], [], []
        for ident in [i for i, n in self.arrived.items() if n > 1]:
            several = [q for q in self.queue_ids[ident] if self.by_queue[q] > 1]
            unnamed = [q for q in several if q not in self.named]
            if unnamed or (len(self.queue_ids[ident]) > 1 and ident not in self.again):
                nobody.append(ident)
            else:
                (named if several else again).append(ident)
        return again, named, nobody


if __name__ == "__main__":
    if sys.argv[1] == "sink":
        asyncio.run(serve(sys.argv[2]))
    else:
        asyncio.run(load(sys.argv[2], sys.argv[3], int(sys.argv[4]), float(sys.argv[5])))
