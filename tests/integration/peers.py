# SPDX-License-Identifier: Apache-2.0
"""Real mail servers as next hops: each takes mail on a port and relays it to a sink."""
import os
import shutil
import socket
import subprocess
import tempfile

from harness import wait_until


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def greets(port):
    try:
        with socket.create_connection(("127.0.0.1", port), 2) as s:
            s.settimeout(5)
            return s.recv(3) == b"220"
    except OSError:
        return False


class Peer:
    """Ports of servers that cannot be asked for a free one: taken at random, tried again when lost."""

    def __init__(self, sink_port):
        self.sink_port = sink_port
        self.folder = tempfile.mkdtemp(prefix="peer-", dir=os.environ.get("TMPDIR", "/var/tmp"))
        os.chmod(self.folder, 0o755)

    def __enter__(self):
        self.port = free_port()
        self.start()
        wait_until(lambda: greets(self.port), 30, f"the banner of {type(self).__name__}")
        return self

    def __exit__(self, *exc):
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)


class Postfix(Peer):
    def start(self):
        etc, queue, data = (os.path.join(self.folder, x) for x in ("etc", "queue", "data"))
        for d in (etc, queue, data):
            os.mkdir(d)
        shutil.chown(data, "postfix")
        with open(os.path.join(etc, "main.cf"), "w") as f:
            f.write(f"""compatibility_level = 3.6
queue_directory = {queue}
data_directory = {data}
command_directory = /usr/sbin
daemon_directory = /usr/lib/postfix/sbin
mail_owner = postfix
setgid_group = postdrop
myhostname = postfix.test
mydestination =
mynetworks = 127.0.0.0/8
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
alias_maps =
alias_database =
local_recipient_maps =
multi_instance_directories =
relayhost = [127.0.0.1]:{self.sink_port}
disable_dns_lookups = yes
smtp_host_lookup = native
smtpd_peername_lookup = no
smtputf8_enable = yes
maillog_file = {self.folder}/log
maillog_file_prefixes = /
""")
        with open(os.path.join(etc, "master.cf"), "w") as f:
            f.write(f"127.0.0.1:{self.port} inet n - n - - smtpd\n")
            for name, line in (("pickup", "unix n - n 60 1 pickup"), ("cleanup", "unix n - n - 0 cleanup"),
                               ("qmgr", "unix n - n 300 1 qmgr"), ("tlsmgr", "unix - - n 1000? 1 tlsmgr"),
                               ("rewrite", "unix - - n - - trivial-rewrite"), ("bounce", "unix - - n - 0 bounce"),
                               ("defer", "unix - - n - 0 bounce"), ("trace", "unix - - n - 0 bounce"),
                               ("verify", "unix - - n - 1 verify"), ("flush", "unix n - n 1000? 0 flush"),
                               ("proxymap", "unix - - n - - proxymap"), ("smtp", "unix - - n - - smtp"),
                               ("relay", "unix - - n - - smtp"), ("error", "unix - - n - - error"),
                               ("retry", "unix - - n - - error"), ("anvil", "unix - - n - 1 anvil"),
                               ("scache", "unix - - n - 1 scache"), ("postlog", "unix-dgram n - n - 1 postlogd")):
                f.write(f"{name} {line}\n")
        self.etc = etc
        subprocess.run(["postfix", "-c", etc, "start"], check=True, capture_output=True)

    def stop(self):
        subprocess.run(["postfix", "-c", self.etc, "stop"], capture_output=True)


class OpenSMTPD(Peer):
    """Its package conflicts with Postfix, so it is unpacked into the folder; its paths are compiled in, so it
    runs in a mount namespace of its own."""

    def start(self):
        root = os.path.join(self.folder, "root")
        subprocess.run(["apt-get", "download", "-qq", "opensmtpd"], cwd=self.folder, check=True, capture_output=True)
        deb = next(x for x in os.listdir(self.folder) if x.endswith(".deb"))
        subprocess.run(["dpkg", "-x", os.path.join(self.folder, deb), root], check=True)
        for user in ("opensmtpd", "opensmtpq"):
            if subprocess.run(["getent", "passwd", user], capture_output=True).returncode:
                subprocess.run(["groupadd", "--system", user], capture_output=True)
                subprocess.run(["useradd", "--system", "-M", "-g", user, "-d", "/var/empty", "-s",
                                "/usr/sbin/nologin", user], check=True, capture_output=True)
        for d in ("spool", "run", "empty"):
            os.mkdir(os.path.join(self.folder, d))
        os.chmod(os.path.join(self.folder, "spool"), 0o711)
        with open(os.path.join(self.folder, "resolv.conf"), "w") as f:
            f.write("lookup file\n")
        with open(os.path.join(self.folder, "smtpd.conf"), "w") as f:
            f.write(f"""listen on 127.0.0.1 port {self.port} hostname opensmtpd.test
smtp max-message-size 50M
action "out" relay host "smtp://127.0.0.1:{self.sink_port}"
match from any for any action "out"
""")
        script = f"""set -e
mkdir -p /var/spool/smtpd /var/lib/opensmtpd/empty
mount --bind {self.folder}/spool /var/spool/smtpd
mount --bind {self.folder}/run /run
mount --bind {self.folder}/resolv.conf /etc/resolv.conf
exec {root}/usr/sbin/smtpd -d -f {self.folder}/smtpd.conf
"""
        self.log = open(os.path.join(self.folder, "log"), "w")
        self.process = subprocess.Popen(["unshare", "-m", "--propagation", "private", "sh", "-c", script],
                                        stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log)

    def stop(self):
        self.process.terminate()
        self.process.wait(10)
        self.log.close()
