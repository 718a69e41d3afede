# SPDX-License-Identifier: Apache-2.0
"""An SMTP server for tests: records every message, and misbehaves exactly as told.

    with Sink() as sink:
        sink.port, sink.messages, sink.wait(5)
        sink.rcpt = lambda address: "450 4.2.0 later" if ... else None
"""
import asyncio
import ssl
import threading
import time


class Message:
    def __init__(self, sender, recipients, data, params, tls, helo, connection):
        self.sender, self.recipients, self.data = sender, recipients, data
        self.params, self.tls, self.helo, self.connection = params, tls, helo, connection
        self.at = time.time()

    def header(self, name):
        head = self.data.split(b"\r\n\r\n", 1)[0].replace(b"\r\n ", b" ").replace(b"\r\n\t", b" ")
        for line in head.split(b"\r\n"):
            if line.lower().startswith(name.lower().encode() + b":"):
                return line.split(b":", 1)[1].strip().decode("utf-8", "replace")
        return None

    def id(self):
        """The test's own id of the message, in the header field X-Test-Id."""
        return self.header("X-Test-Id")


class Sink:
    """Hooks return a reply line, or None for the usual answer; "close" cuts the connection."""

    def __init__(self, host="127.0.0.1", port=0, tls=None, extensions=None, banner="220 sink.test"):
        self.host, self.port, self.banner = host, port, banner
        self.extensions = ["PIPELINING", "8BITMIME", "SMTPUTF8", "DSN", "SIZE 100000000",
                           "ENHANCEDSTATUSCODES", "CHUNKING"] if extensions is None else extensions
        self.tls = tls                                # (certificate, key) or None
        self.messages, self.connections, self.refused = [], 0, 0
        self.commands = []                            # (connection, line)
        self.connect = self.ehlo = self.mail = self.rcpt = self.data = self.dot = lambda *a: None
        self.delay = 0
        self._cond = threading.Condition()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    # --- for the test ---
    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *exc):
        self.stop()

    def start(self):
        self._thread.start()
        self._ready.wait(10)
        return self

    def stop(self):
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stop.set_result, None)
            self._thread.join(10)

    def wait(self, count, timeout=30):
        """Until `count` messages have arrived; the list of them."""
        with self._cond:
            if not self._cond.wait_for(lambda: len(self.messages) >= count, timeout):
                raise AssertionError(f"{len(self.messages)} of {count} messages arrived in {timeout} s")
            return list(self.messages)

    def wait_for(self, predicate, timeout=30):
        with self._cond:
            if not self._cond.wait_for(lambda: any(predicate(m) for m in self.messages), timeout):
                raise AssertionError(f"no such message in {timeout} s; there are {len(self.messages)}")
            return next(m for m in self.messages if predicate(m))

    # --- the server ---
    def _run(self):
        asyncio.run(self._serve())

    async def _serve(self):
        self._loop = asyncio.get_running_loop()
        self._stop = self._loop.create_future()
        server = await asyncio.start_server(self._client, self.host, self.port, limit=1 << 20, backlog=500)
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        await self._stop
        server.close()

    def _context(self):
        ctx = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        ctx.load_cert_chain(*self.tls)
        return ctx

    async def _client(self, reader, writer):
        self.connections += 1
        number = self.connections
        try:
            await self._session(number, reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError, ssl.SSLError, asyncio.LimitOverrunError):
            pass
        finally:
            writer.close()

    async def _session(self, number, reader, writer):
        state = {"sender": None, "rcpts": [], "params": {}, "helo": "", "tls": False}

        async def say(line):
            if self.delay:
                await asyncio.sleep(self.delay)
            if line == "close":
                raise ConnectionError
            writer.write(line.encode() + b"\r\n")
            await writer.drain()
            return line

        first = await say(self.connect(number) or self.banner)
        if first[0] in "45":
            return
        chunks = b""
        while True:
            raw = await reader.readline()
            if not raw:
                return
            line = raw.rstrip(b"\r\n").decode("utf-8", "replace")
            self.commands.append((number, line))
            verb = line[:4].upper()
            if verb in ("EHLO", "HELO"):
                state["helo"] = line[5:]
                special = self.ehlo(line)
                ext = list(self.extensions)
                if self.tls and not state["tls"]:
                    ext.append("STARTTLS")
                if special:
                    await say(special)
                elif verb == "HELO":
                    await say("250 sink.test")
                else:
                    lines = ["sink.test"] + ext
                    await say("\r\n".join(f"250{'-' if i < len(lines) - 1 else ' '}{x}"
                                          for i, x in enumerate(lines)))
            elif verb == "STAR" and self.tls:
                await say("220 go")
                await writer.drain()
                transport = await self._loop.start_tls(
                    writer.transport, writer.transport.get_protocol(), self._context(), server_side=True)
                writer._transport = transport
                reader._transport = transport
                state["tls"] = True
            elif verb == "MAIL":
                reply = self.mail(line) or "250 2.1.0 ok"
                if reply.startswith("2"):
                    state["sender"] = line.split("<", 1)[1].split(">", 1)[0]
                    state["params"] = {"MAIL": line.split(">", 1)[1].strip()}
                    state["rcpts"] = []
                await say(reply)
            elif verb == "RCPT":
                address = line.split("<", 1)[1].rsplit(">", 1)[0]
                reply = self.rcpt(address) or "250 2.1.5 ok"
                if reply.startswith("2"):
                    state["rcpts"].append(address)
                    state["params"][address] = line.rsplit(">", 1)[1].strip()
                await say(reply)
            elif verb == "DATA":
                reply = self.data(state) or ("354 go" if state["rcpts"] else "554 5.5.1 no recipients")
                await say(reply)
                if not reply.startswith("354"):
                    continue
                data = await self._read_data(reader)
                await self._finish(number, state, data, say)
            elif verb == "BDAT":
                size, _, last = line[5:].partition(" ")
                chunks += await reader.readexactly(int(size))
                if last.upper() == "LAST":
                    data, chunks = chunks, b""
                    await self._finish(number, state, data, say)
                else:
                    await say("250 2.0.0 chunk")
            elif verb == "RSET":
                state["sender"], state["rcpts"] = None, []
                await say("250 2.0.0 ok")
            elif verb == "QUIT":
                await say("221 2.0.0 bye")
                return
            elif verb == "NOOP":
                await say("250 2.0.0 ok")
            else:
                await say("500 5.5.1 what?")

    async def _read_data(self, reader):
        lines = []
        while True:
            raw = await reader.readuntil(b"\n")
            if raw == b".\r\n":
                return b"".join(lines)
            lines.append(raw[1:] if raw.startswith(b".") else raw)

    async def _finish(self, number, state, data, say):
        message = Message(state["sender"], list(state["rcpts"]), data, dict(state["params"]),
                          state["tls"], state["helo"], number)
        reply = self.dot(message) or "250 2.0.0 taken"
        if reply.startswith("2") or reply == "close-after":
            with self._cond:
                self.messages.append(message)
                self._cond.notify_all()
        state["sender"], state["rcpts"] = None, []
        await say("close" if reply == "close-after" else reply)
