# SPDX-License-Identifier: Apache-2.0
"""Nodes whose addresses all changed at once find each other by cluster.seeds: names, over a name server."""
import socket
import time

import pytest

from cluster import Cluster, free_port_pair
from dnstree import Nameserver
from harness import wait_until

HOSTS = {"mx1": "127.0.0.11", "mx2": "::1", "mx3": "127.0.0.13"}


def zone(*records):
    return ("$ORIGIN mail.test.\n$TTL 1\n@ SOA ns hostmaster 1 3600 600 86400 1\n@ NS ns\nns A 127.0.0.1\n"
            + "\n".join(records) + "\n")


@pytest.fixture
def names(tmp_path):
    server = Nameserver(tmp_path / "dns")
    server.put("mail.test", zone("nodes A 127.0.0.1"))
    yield server.start()
    server.stop()


def free_everywhere():
    """A port that is free, with the next, on all of HOSTS."""
    for _ in range(100):
        port = free_port_pair("127.0.0.11")
        try:
            for host in HOSTS.values():
                for at in (port, port + 1):
                    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as s:
                        s.bind((host, at))
            return port
        except OSError:
            continue
    raise AssertionError("no port is free on all addresses")


def move(node, host, port):
    """Another address, as a pod has that starts again."""
    address = f'"[{host}]:{port}"' if ":" in host else f"{host}:{port}"
    text = node.settings.replace(f"listen: {node.host}:{node.port}", f"listen: {address}")
    assert text != node.settings
    node.settings, node.port = text, port
    node.write_settings(text.replace("hostname: mx.baton.test", f"hostname: {node.name}.baton.test", 1))
    return address.strip('"')


def whole(c):
    """Each node sees three that are up. How many of them vote does not matter here."""
    return all(sum((m["member"], m["view"], m["session"], m["lease"]) == ("up", "alive", "open", "held")
                   for m in n.members().values()) == 3 for n in c.nodes)


def alarms(node):
    return {a["code"]: a for a in node.status().get("alarms", [])}


def test_all_addresses_change_at_once(sink, names):
    """Behind one name with an address for each, as a headless service has; IPv4 and IPv6 mixed."""
    port = free_everywhere()
    resolver = f'resolver: {{dnssec: false, stubs: [{{zone: mail.test, address: "127.0.0.1@{names.port}"}}]}}\n'
    seeds = f'  seeds: ["nodes.mail.test:{port}", "gone.mail.test:7420"]\n'
    with Cluster(3, sink, extra=resolver, node_options=lambda i: {"cluster_extra": seeds}, start=False) as c:
        c["mx1"].init().start()
        for n in c.nodes[1:]:
            n.join(c["mx1"])
        wait_until(lambda: whole(c), 20, "three nodes")
        # A name that nobody knows is no reason not to start: the log and an alarm name key, host, reason, next step.
        for n in c.nodes:
            said = wait_until(lambda n=n: [r["text"] for r in n.records("cluster_problem")
                                           if "gone.mail.test" in r.get("text", "")], 10, "the complaint")[0]
            assert "cluster.seeds: gone.mail.test:7420 cannot be resolved" in said
            assert "NXDOMAIN" in said or "does not exist" in said
            assert "next step:" in said and n.config in said
        wait_until(lambda: "gone.mail.test" in alarms(c["mx1"]).get("seed_unknown", {}).get("text", ""), 5, "the alarm")

        sink.rcpt = lambda a: "450 4.2.0 later"
        waiting = {c["mx1"].send(ident=f"moved-{i}") for i in range(5)}
        for n in c.nodes:
            n.process.terminate()
        for n in c.nodes:
            n.process.wait(30)
        names.put("mail.test", zone("nodes A 127.0.0.11", "nodes A 127.0.0.13", "nodes AAAA ::1", "gone A 127.0.0.99"))
        names.restart()
        at = {n.name: move(n, HOSTS[n.name], port) for n in c.nodes}
        started = time.monotonic()
        for n in c.nodes:
            n.start()
        wait_until(lambda: whole(c), 30, "three nodes again")
        print(f"whole again after {time.monotonic() - started:.1f} s")
        # Found by a scout, and by nothing else: nobody knew an address that was still true.
        assert any("is found at" in r.get("text", "") for n in c.nodes for r in n.records("cluster"))
        assert waiting <= {u["id"] for u in c["mx3"].ctl_json("queue", "ls")}
        configured = lambda n: {r["text"] for r in n.records("cluster") if "by the configuration" in r.get("text", "")}
        others = lambda n: {f"member {m} is at {a} by the configuration" for m, a in at.items() if m != n.name}
        # The new addresses become the configuration's, for whoever comes later without seeds.
        wait_until(lambda: all(configured(n) >= others(n) for n in c.nodes), 30, "the new addresses everywhere")
        print(f"known to all after {time.monotonic() - started:.1f} s")
        wait_until(lambda: not any("seed_unknown" in alarms(n) for n in c.nodes), 10, "no alarm: the name is there")
