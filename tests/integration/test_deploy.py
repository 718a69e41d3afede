# SPDX-License-Identifier: Apache-2.0
"""What deploy/ hands to operators is valid: the compose file, the Kubernetes objects, the settings in them."""
import json
import os
import re
import subprocess

import kubernetes
import pytest
import yaml

from harness import BATOND

ROOT = os.path.join(os.path.dirname(__file__), "..", "..")
CONTAINER = os.path.join(ROOT, "deploy", "container")
MODELS = {"Service": "V1Service", "StatefulSet": "V1StatefulSet", "ConfigMap": "V1ConfigMap",
          "PodDisruptionBudget": "V1PodDisruptionBudget"}


def objects():
    with open(os.path.join(ROOT, "deploy", "kubernetes", "baton.yaml")) as f:
        return list(yaml.safe_load_all(f))


def find(kind):
    return next(o for o in objects() if o["kind"] == kind)


def test_compose_file_is_valid():
    p = subprocess.run(["docker-compose", "-f", os.path.join(CONTAINER, "compose.yaml"), "config", "-q"],
                       capture_output=True, text=True, timeout=60)
    assert p.returncode == 0, p.stderr


class Answer:
    def __init__(self, value):
        self.data = json.dumps(value)


@pytest.mark.parametrize("number", range(len(objects())))
def test_kubernetes_object_fits_its_model(number):
    """Read into the API's own types and written back: what they do not know would be missing."""
    value = objects()[number]
    client = kubernetes.client.ApiClient()
    model = client.deserialize(Answer(value), MODELS[value["kind"]])
    assert client.sanitize_for_serialization(model) == value


def test_statefulset_has_probes_and_a_drain_hook():
    pod = find("StatefulSet")["spec"]["template"]["spec"]
    baton = next(c for c in pod["containers"] if c["name"] == "baton")
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        assert baton[probe]["httpGet"]["port"] in {p["name"] for p in baton["ports"]}
    assert baton["lifecycle"]["preStop"]["exec"]["command"] == ["baton-stop"]
    assert find("StatefulSet")["spec"]["volumeClaimTemplates"]
    mounted = {m["name"] for c in pod["containers"] for m in c["volumeMounts"]}
    offered = {v["name"] for v in pod["volumes"]} | {"data"}
    assert mounted == offered


@pytest.mark.parametrize("where", ["compose", "kubernetes"])
def test_settings_pass_the_check(where, tmp_path):
    if where == "compose":
        with open(os.path.join(CONTAINER, "baton.yaml")) as f:
            text = f.read()
    else:
        text = find("ConfigMap")["data"]["baton.yaml"]
    assert "@HOSTNAME@" in text and "@ADDRESS@" in text
    template, settings, resolv = (tmp_path / n for n in ("template", "baton.yaml", "resolv.conf"))
    template.write_text(text)
    resolv.write_text("search mails.svc.cluster.local svc.cluster.local\nnameserver 10.96.0.10\nnameserver 10.96.0.11\n")
    # The entrypoint fills the template in; the daemon that it starts at last is not wanted here.
    (tmp_path / "batond").write_text(f'#!/bin/sh\ncase "$*" in *--check-config) exec {BATOND} "$@";; esac\n')
    (tmp_path / "batond").chmod(0o755)
    (tmp_path / "hostname").write_text("#!/bin/sh\necho mx1\n")
    (tmp_path / "hostname").chmod(0o755)
    (tmp_path / "join").write_text("token\n")
    template.write_text(text.replace("/run/baton-join/token", str(tmp_path / "join")))
    p = subprocess.run(["sh", os.path.join(CONTAINER, "entrypoint")], capture_output=True, text=True, timeout=60,
                       env={**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "POD_IP": "127.0.0.1",
                            "BATON_TEMPLATE": str(template), "BATON_SETTINGS": str(settings),
                            "BATON_RESOLV_CONF": str(resolv)})
    assert p.returncode == 0, p.stderr
    made = yaml.safe_load(settings.read_text())
    assert "@" not in str(made["cluster"]) + str(made["resolver"])
    assert made["cluster"]["listen"] == "127.0.0.1:7420" and made["cluster"]["node"] == "mx1"
    # Seeds are asked of the platform's own name server, which no root knows.
    zones = {s["zone"]: s["address"] for s in made["resolver"]["stubs"]}
    assert set(zones.values()) == {"10.96.0.10"}
    for seed in made["cluster"]["seeds"]:
        assert any(seed.rsplit(":", 1)[0].endswith("." + zone) for zone in zones), seed


def test_image_has_every_library_that_the_daemon_loads():
    """The runtime stage installs by name; a library that is missing there shows only when it starts."""
    with open(os.path.join(CONTAINER, "Dockerfile")) as f:
        runtime = f.read().split("FROM")[-1]
    needed = subprocess.run(["ldd", BATOND], capture_output=True, text=True, check=True).stdout
    direct = subprocess.run(["readelf", "-d", BATOND], capture_output=True, text=True, check=True).stdout
    for name in re.findall(r"NEEDED.*\[(lib[^\]]*)\]", direct):
        path = next(line.split("=>")[1].split()[0] for line in needed.splitlines() if name in line)
        owner = subprocess.run(["dpkg", "-S", os.path.realpath(path)], capture_output=True, text=True)
        if owner.returncode:
            owner = subprocess.run(["dpkg", "-S", os.path.realpath(path).replace("/lib", "/usr/lib", 1)],
                                   capture_output=True, text=True)
        package = owner.stdout.split(":")[0]
        if package and package not in ("libc6",):
            assert package in runtime, f"{name} comes from {package}, which the image lacks"
