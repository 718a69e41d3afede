# SPDX-License-Identifier: Apache-2.0
"""A signed DNS tree on loopback, served by NSD on ports that were free.

    with DnsTree(directory) as tree:
        tree.resolver_settings()    # the `resolver:` section for baton.yaml
        tree.set_zone("mail.test", ["@ MX 10 mx", "mx A 127.0.0.2"])   # now or before start

`test.` is signed and has the trust anchor; the zones in ZONES below hang under it, each with
a fault of its own (Zone.fault). `corp.` is a second signed tree on a second server with an
anchor of its own. Some zones have no server that answers: lame.test (refused), closed.test
(port closed), blackhole.test (nobody answers).

Needs nsd and ldnsutils (ldns-keygen, ldns-signzone)."""

import base64
import contextlib
import dataclasses
import os
import pathlib
import pwd
import signal
import socket
import subprocess
import time

import dns.exception
import dns.message
import dns.query
import dns.rcode

SECURE, INSECURE, EXPIRED, WRONG_KEY, STRIPPED = (
    "secure", "insecure", "expired", "wrong key", "stripped")


@dataclasses.dataclass
class Zone:
    """`fault` is what is true of the zone; `records` are lines of a zone file."""
    records: list
    fault: str = SECURE
    nsec3: bool = False
    # Owner and type of RRsets whose signature is broken.
    break_signatures: tuple = ()


ZONES = {
    "secure.test": Zone([
        "@ MX 20 mx2", "@ MX 10 mx1", "@ MX 20 mx3", '@ TXT "v=spf1 " "-all"',
        "mx1 A 127.0.0.2", "mx1 AAAA ::1", "mx2 A 127.0.0.3", "mx3 AAAA ::1",
        "_25._tcp.mx1 TLSA 3 1 1 " + "ab" * 32,
        "nullmx MX 0 .", "oddnull MX 0 .", "oddnull MX 10 mx1",
        "nodata TXT nothing", "implicit A 127.0.0.2", "implicit AAAA ::1",
        "alias CNAME implicit", "aliasmx MX 10 cnamehost", "cnamehost CNAME mx1",
        "toinsecure CNAME mx.insecure.test.", "dangling CNAME gone",
        "ipmx MX 10 127.0.0.9.", "badmx MX 10 foo\\032bar", "mixedmx MX 10 foo\\032bar",
        "mixedmx MX 20 mx1", "gonemx MX 10 gone",
        "v4only A 127.0.0.2", "v6only AAAA ::1", "many A 127.0.1.1", "many A 127.0.1.2",
        "many A 127.0.1.3", "many AAAA ::1", "loop1 CNAME loop2", "loop2 CNAME loop1",
        "*.wild MX 10 mx1",
    ] + [f"equal MX 10 e{i}" for i in range(6)] + [f"big MX {i} m{i}" for i in range(70)]),
    "nsec3.test": Zone(["@ MX 10 mx", "mx A 127.0.0.2"], nsec3=True),
    "insecure.test": Zone(
        ["@ MX 10 mx", "mx A 127.0.0.2", "mx AAAA ::1", "nullmx MX 0 ."], INSECURE),
    "expired.test": Zone(["@ MX 10 mx", "mx A 127.0.0.2"], EXPIRED),
    "wrongkey.test": Zone(["@ MX 10 mx", "mx A 127.0.0.2"], WRONG_KEY),
    "stripped.test": Zone(["@ MX 10 mx", "mx A 127.0.0.2"], STRIPPED),
    "half.test": Zone(
        ["@ MX 10 mx", "mx A 127.0.0.2", "mx AAAA ::1", "other A 127.0.0.2",
         "other AAAA ::1"],
        break_signatures=(("mx.half.test.", "AAAA"), ("other.half.test.", "A"))),
    "lame.test": Zone([], INSECURE),
    "closed.test": Zone([], INSECURE),
    "blackhole.test": Zone([], INSECURE),
}
UNSERVED = ("lame.test", "closed.test", "blackhole.test")


def free_port(address):
    """A port that is free for UDP and TCP now."""
    for _ in range(100):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp, \
                socket.socket(socket.AF_INET, socket.SOCK_STREAM) as tcp:
            udp.bind((address, 0))
            port = udp.getsockname()[1]
            with contextlib.suppress(OSError):
                tcp.bind((address, port))
                return port
    raise RuntimeError("no free port")


def run(*command, cwd):
    return subprocess.run(
        [str(c) for c in command], cwd=cwd, check=True, capture_output=True, text=True).stdout


class Nameserver:
    """One NSD in a directory of its own."""

    def __init__(self, directory, address="127.0.0.1"):
        self.directory = pathlib.Path(directory)
        self.directory.mkdir(parents=True)
        self.address = address
        self.port = 0
        self.zones = {}
        self.process = None

    def put(self, zone, text):
        (self.directory / f"{zone}.zone").write_text(text)
        self.zones[zone] = True

    def start(self):
        for _ in range(5):  # somebody may take the port between the look and the bind
            self.port = self.port or free_port(self.address)
            self._configure()
            log = open(self.directory / "out", "a")
            self.process = subprocess.Popen(
                ["/usr/sbin/nsd", "-d", "-c", str(self.directory / "nsd.conf")],
                stdout=log, stderr=log, start_new_session=True)
            log.close()
            if self._wait():
                return self
            self.stop()
            self.port = 0
        raise RuntimeError("nsd does not start: " + (self.directory / "out").read_text())

    def _configure(self):
        user = pwd.getpwuid(os.getuid()).pw_name
        d = self.directory
        lines = ["server:", f"  ip-address: {self.address}@{self.port}", "  server-count: 1",
                 f'  username: "{user}"', '  chroot: ""', f'  zonesdir: "{d}"',
                 '  database: ""', f'  pidfile: "{d}/pid"', f'  xfrdfile: "{d}/xfrd"',
                 f'  zonelistfile: "{d}/zonelist"', f'  xfrdir: "{d}"', "  hide-version: yes",
                 "  rrl-ratelimit: 0", "  tcp-count: 50",
                 "remote-control:", "  control-enable: no"]
        for zone in self.zones:
            lines += ["zone:", f'  name: "{zone}"', f'  zonefile: "{zone}.zone"']
        (d / "nsd.conf").write_text("\n".join(lines) + "\n")

    def serial(self, zone, timeout=0.5):
        query = dns.message.make_query(zone + ".", "SOA")
        try:
            answer = dns.query.udp(query, self.address, timeout=timeout, port=self.port)
        except (dns.exception.Timeout, OSError):
            return None
        if answer.rcode() != dns.rcode.NOERROR or not answer.answer:
            return None
        return answer.answer[0][0].serial

    def _wait(self, serial=None):
        zone = next(iter(self.zones))
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline and self.process.poll() is None:
            seen = self.serial(zone)
            if seen is not None and (serial is None or seen >= serial):
                return True
        return False

    def restart(self):
        """On the same port, with all zones as they are now."""
        self.stop()
        return self.start()

    def stop(self):
        if self.process and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                os.killpg(self.process.pid, signal.SIGKILL)
                self.process.wait()
        self.process = None


class DnsTree:
    def __init__(self, directory, zones=None):
        self.directory = pathlib.Path(directory)
        self.keys_dir = self.directory / "keys"
        self.keys_dir.mkdir(parents=True)
        self.zones = dict(ZONES if zones is None else zones)
        self.keys = {}  # zone -> [base name of a key]
        self.serial = 1
        self.main = Nameserver(self.directory / "main")
        self.corp = Nameserver(self.directory / "corp")
        self.hole = None
        self.extra_keys = []  # of test., published and not yet trusted (RFC 5011)

    # --- keys and signatures ---

    def key(self, zone):
        if zone not in self.keys:
            self.keys[zone] = self.make_key(zone)
        return self.keys[zone]

    def make_key(self, zone):
        return run("ldns-keygen", "-a", "ECDSAP256SHA256", "-k", "-r", "/dev/urandom", zone,
                   cwd=self.keys_dir).strip()

    def ds(self, key):
        # ldns-keygen leaves the DS beside the key.
        return (self.keys_dir / f"{key}.ds").read_text().strip()

    def dnskey(self, key):
        return (self.keys_dir / f"{key}.key").read_text().strip()

    def sign(self, zone, text, keys, expired=False, nsec3=False):
        plain = self.keys_dir / f"{zone}.plain"
        signed = self.keys_dir / f"{zone}.signed"
        plain.write_text(text)
        now = int(time.time())
        start, end = (now - 40 * 86400, now - 10 * 86400) if expired else (
            now - 3600, now + 30 * 86400)
        options = ["-n", "-t", "0"] if nsec3 else []
        run("ldns-signzone", "-i", start, "-e", end, *options, "-o", zone + ".",
            "-f", signed, plain, *[self.keys_dir / k for k in keys], cwd=self.keys_dir)
        return signed.read_text()

    @staticmethod
    def break_signature(text, owner, rrtype):
        """Turns one bit of the signature over (owner, type)."""
        lines = text.splitlines()
        for i, line in enumerate(lines):
            words = line.split()
            if words[:1] == [owner] and words[3:5] == ["RRSIG", rrtype]:
                signature = bytearray(base64.b64decode(words[12]))
                signature[10] ^= 1
                words[12] = base64.b64encode(signature).decode()
                lines[i] = " ".join(words)
                return "\n".join(lines) + "\n"
        raise ValueError(f"no signature over {owner} {rrtype}")

    # --- zones ---

    def head(self, zone):
        return (f"$ORIGIN {zone}.\n$TTL 300\n"
                f"@ SOA ns hostmaster {self.serial} 3600 600 86400 60\n"
                f"@ NS ns\nns A 127.0.0.1\n")

    def build_child(self, name, zone):
        text = self.head(name) + "\n".join(zone.records) + "\n"
        if zone.fault in (INSECURE, STRIPPED):
            return text
        text = self.sign(name, text, [self.key(name)], zone.fault == EXPIRED, zone.nsec3)
        for owner, rrtype in zone.break_signatures:
            text = self.break_signature(text, owner, rrtype)
        return text

    def build_apex(self):
        text = self.head("test") + "plain A 127.0.0.2\n"
        for name, zone in self.zones.items():
            label = name[:-len(".test")]
            text += f"{label} NS ns.{name}.\nns.{name}. A 127.0.0.1\n"
            if zone.fault == WRONG_KEY:
                text += self.ds(self.make_key(name)) + "\n"
            elif zone.fault != INSECURE:
                text += self.ds(self.key(name)) + "\n"
        for key in self.extra_keys:
            text += self.dnskey(key) + "\n"
        return self.sign("test", text, [self.key("test")] + self.extra_keys)

    def build(self):
        for name, zone in self.zones.items():
            if name not in UNSERVED:
                self.main.put(name, self.build_child(name, zone))
        self.main.put("test", self.build_apex())
        # A zone that libunbound thinks it owns.
        self.main.put("2.0.192.in-addr.arpa", self.head("2.0.192.in-addr.arpa") +
                      "25 PTR mail.secure.test.\n")

    def set_zone(self, name, records, fault=SECURE, **more):
        """A zone under test., new or in place of the old. Effective when it returns."""
        self.zones[name] = Zone(list(records), fault, **more)
        self.refresh()

    def add_key(self):
        """A second key signing key for test., as at the beginning of a roll."""
        self.extra_keys.append(self.make_key("test"))
        self.refresh()

    def refresh(self):
        self.serial += 1
        if self.main.process:
            self.build()
            self.main.restart()

    # --- life ---

    def start(self):
        self.build()
        self.main.start()
        text = self.head("corp") + "@ MX 10 mx\nmx A 127.0.0.2\n"
        self.corp.put("corp", self.sign("corp", text, [self.key("corp")]))
        self.corp.start()
        self.hole = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.hole.bind(("127.0.0.1", 0))
        self.closed_port = free_port("127.0.0.1")
        return self

    def stop(self):
        self.main.stop()
        self.corp.stop()
        if self.hole:
            self.hole.close()

    def __enter__(self):
        try:
            return self.start()
        except BaseException:
            self.stop()
            raise

    def __exit__(self, *exc):
        self.stop()

    # --- for baton.yaml ---

    def anchor(self, *zones):
        """A file with the trust anchors of these zones (default: test. and corp.)."""
        zones = zones or ("test", "corp")
        path = self.directory / ("-".join(zones) + ".anchor")
        path.write_text("".join(self.ds(self.key(z)) + "\n" for z in zones))
        return str(path)

    def stubs(self):
        main = f"127.0.0.1@{self.main.port}"
        corp = f"127.0.0.1@{self.corp.port}"
        at = {  # lame.test is not served there: REFUSED
            "lame.test": corp,
            "closed.test": f"127.0.0.1@{self.closed_port}",
            "blackhole.test": f"127.0.0.1@{self.hole.getsockname()[1]}",
        }
        # Each zone has its stub, not only the apex: an NS record that is in the cache would
        # lead to port 53, which is not ours.
        return [{"zone": "corp.", "address": corp}] + [
            {"zone": zone + ".", "address": at.get(zone, main)}
            for zone in ["test", "2.0.192.in-addr.arpa", *self.zones]]

    def resolver_settings(self):
        return {"dnssec": True, "trust_anchor": self.anchor(), "forward": [],
                "stubs": self.stubs(), "insecure": []}
