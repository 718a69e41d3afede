# SPDX-License-Identifier: Apache-2.0
"""Runs a real batond in a folder of its own, on ports that the kernel chooses."""
import json
import os
import shutil
import signal
import smtplib
import socket
import ssl
import subprocess
import tempfile
import time

BIN = os.environ.get("BATON_BIN") or os.path.join(
    os.path.dirname(__file__), "..", "..", "build", "dev")
BATOND, BATONCTL = os.path.join(BIN, "batond"), os.path.join(BIN, "batonctl")

DEFAULT_LISTENERS = """
listeners:
  - {name: mx, listen: ["127.0.0.1:0"], service: mx}
  - {name: submission, listen: ["127.0.0.1:0"], service: submission, tls: required}
  - {name: submissions, listen: ["127.0.0.1:0"], service: submission, tls: implicit}
  - {name: relay, listen: ["127.0.0.1:0"], service: submission, tls: optional}
"""


def wait_until(condition, timeout=30, what="the condition"):
    """Polls a condition that no event announces; fails loudly."""
    end = time.monotonic() + timeout
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise AssertionError(f"{what} did not come true in {timeout} s")
        time.sleep(0.02)


def make_certificate(folder, name="mx.baton.test", days=90):
    cert, key = os.path.join(folder, "tls.crt"), os.path.join(folder, "tls.key")
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
                    "-nodes", "-keyout", key, "-out", cert, "-days", str(days), "-subj", f"/CN={name}",
                    "-addext", f"subjectAltName=DNS:{name}"], check=True, capture_output=True)
    os.chmod(key, 0o600)
    return cert, key


class Baton:
    """`extra` is YAML added to the settings; `listeners` replaces the usual four."""

    def __init__(self, sink_port=None, extra="", listeners=DEFAULT_LISTENERS, users=None, folder=None,
                 retry="{first: 1s, max: 4s, give_up: 1h, delay_warning: 0s}", env=None, wrap=()):
        self.own = folder is None
        self.folder = folder or tempfile.mkdtemp(prefix="baton-", dir=os.environ.get("TMPDIR", "/var/tmp"))
        self.config = os.path.join(self.folder, "baton.yaml")
        self.control = os.path.join(self.folder, "c.sock")
        self.log_path = os.path.join(self.folder, "log")
        self.env, self.wrap = env or {}, list(wrap)
        self.process = None
        self.binary = BATOND
        self.ports = {}
        cert = os.path.join(self.folder, "tls.crt")
        if not os.path.exists(cert):
            make_certificate(self.folder)
        text = f"""
hostname: mx.baton.test
data_dir: {self.folder}/data
control: {self.control}
log: {{level: debug, format: json}}
postmaster: postmaster@baton.test
queue: {{quota: 2GB}}
stop_timeout: 5s
tls: {{certificate: {cert}, key: {self.folder}/tls.key}}
retry: {retry}
{listeners}
"""
        if users is not None:
            path = os.path.join(self.folder, "users")
            with open(path, "w") as f:
                f.writelines(f"{name}:{self.crypt(password)}\n" for name, password in users.items())
            os.chmod(path, 0o600)
            text += f"users: {{file: {path}}}\n"
        if sink_port and "routes:" not in extra:
            text += f'routes:\n  - {{domain: "*", next_hop: ["[127.0.0.1]:{sink_port}"]}}\n'
        if "resolver:" not in extra:
            # No name server: tests that need one bring their own tree.
            text += 'resolver: {dnssec: false, forward: ["127.0.0.1@9"]}\n'
        if "api:" not in extra:
            text += 'api: {listen: ["127.0.0.1:0"]}\n'
        self.settings = text + extra
        self.write_settings(self.settings)

    @staticmethod
    def crypt(password):
        out = subprocess.run(["openssl", "passwd", "-6", "-stdin"], input=password + "\n",
                             capture_output=True, text=True, check=True)
        return out.stdout.strip()

    def write_settings(self, text):
        with open(self.config, "w") as f:
            f.write(text)

    # --- life ---
    def __enter__(self):
        return self.start()

    def __exit__(self, kind, value, trace):
        self.stop()
        if kind is not None:
            print(f"--- log of {self.folder}\n" + self.tail())
        elif self.own:
            shutil.rmtree(self.folder, ignore_errors=True)

    def start(self, timeout=60):
        self.log_from = os.path.getsize(self.log_path) if os.path.exists(self.log_path) else 0
        log = open(self.log_path, "ab")
        self.process = subprocess.Popen([*self.wrap, self.binary, "-c", self.config], stdin=subprocess.DEVNULL,
                                        stdout=log, stderr=log, env={**os.environ, **self.env})
        log.close()
        self.wait_log("ready", timeout)
        for r in self.records():
            if r.get("event") == "listening":
                self.ports[r["listener"]] = int(r["address"].rsplit(":", 1)[1])
        return self

    def stop(self, timeout=30):
        if self.process and self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(timeout)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
                raise AssertionError("batond did not stop on SIGTERM\n" + self.tail())
        return self.process.returncode if self.process else None

    def kill(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def hup(self):
        self.process.send_signal(signal.SIGHUP)

    # --- log ---
    def records(self, event=None, since_start=True):
        out = []
        with open(self.log_path, "rb") as f:
            f.seek(self.log_from if since_start else 0)
            for line in f:
                if not line.endswith(b"\n"):
                    continue
                try:
                    r = json.loads(line)
                except ValueError:
                    continue
                if event is None or r.get("event") == event:
                    out.append(r)
        return out

    def tail(self, lines=60):
        with open(self.log_path, errors="replace") as f:
            return "".join(f.readlines()[-lines:])

    def wait_log(self, event, timeout=30, **match):
        def look():
            for r in self.records(event):
                if all(str(r.get(k)) == str(v) for k, v in match.items()):
                    return r
            if self.process.poll() is not None:
                raise AssertionError(f"batond ended with {self.process.returncode}\n" + self.tail())
            return None
        try:
            return wait_until(look, timeout, f"log event {event} {match}")
        except AssertionError as e:
            raise AssertionError(f"{e}\n{self.tail()}") from None

    # --- use ---
    def ctl(self, *args, check=True):
        p = subprocess.run([BATONCTL, "--control", self.control, *args], capture_output=True, text=True,
                           timeout=60)
        if check and p.returncode:
            raise AssertionError(f"batonctl {args}: {p.returncode} {p.stdout} {p.stderr}")
        return p

    def ctl_json(self, *args, check=True):
        """The objects that `batonctl ... --json` prints."""
        return [json.loads(line) for line in self.ctl(*args, "--json", check=check).stdout.splitlines()]

    def smtp(self, listener="relay", timeout=30):
        return smtplib.SMTP("127.0.0.1", self.ports[listener], timeout=timeout, local_hostname="client.test")

    def smtps(self, listener="submissions"):
        return smtplib.SMTP_SSL("127.0.0.1", self.ports[listener], timeout=30, local_hostname="client.test",
                                context=insecure())

    def raw(self, listener="relay"):
        return Raw(self.ports[listener])

    def send(self, to="b@dest.test", sender="a@source.test", body="hello\r\n", listener="relay", ident=None,
             **options):
        """One message; returns the id in the 250."""
        head = f"From: <{sender}>\r\nTo: <{to}>\r\nSubject: test\r\n"
        if ident:
            head += f"X-Test-Id: {ident}\r\n"
        with self.smtp(listener) as s:
            s.ehlo()
            code, text = s.mail(sender, options.get("mail_options", ()))
            assert code == 250, (code, text)
            for rcpt in [to] if isinstance(to, str) else to:
                code, text = s.rcpt(rcpt, options.get("rcpt_options", ()))
                assert code == 250, (code, text)
            code, text = s.data((head + "\r\n" + body).encode())
            assert code == 250, (code, text)
            return text.decode().rsplit(" ", 1)[1]


def insecure():
    ctx = ssl.create_default_context()
    ctx.check_hostname = False
    ctx.verify_mode = ssl.CERT_NONE
    return ctx


class Raw:
    """SMTP by hand, byte for byte."""

    def __init__(self, port, host="127.0.0.1"):
        self.s = socket.create_connection((host, port), 30)
        self.s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.f = self.s.makefile("rb")

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.f.close()
        self.s.close()

    def read(self):
        """One reply, its lines joined by newlines; '' at the end of the connection."""
        lines = []
        while True:
            line = self.f.readline()
            if not line:
                return "\n".join(lines)
            lines.append(line.decode("utf-8", "replace").rstrip("\r\n"))
            if line[3:4] != b"-":
                return "\n".join(lines)

    def send(self, data):
        self.s.sendall(data if isinstance(data, bytes) else data.encode())

    def ask(self, line):
        self.send(line + "\r\n" if isinstance(line, str) else line)
        return self.read()

    def starttls(self):
        assert self.ask("STARTTLS").startswith("220")
        self.f.close()
        self.s = insecure().wrap_socket(self.s)
        self.f = self.s.makefile("rb")
