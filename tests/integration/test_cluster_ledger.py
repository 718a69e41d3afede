# SPDX-License-Identifier: Apache-2.0
"""The ledger: clients and a next hop that know nothing of the cluster, and a cluster that loses nodes with their
disks, is stopped, and dies as a whole. Everything acknowledged arrives; every second arrival has a cause that
a log names. tests/soak/cluster does it for hours. BATON_CLUSTER_ROUNDS: how often a node dies."""
import os

from cluster import LEASE
from rounds import World

ROUNDS = int(os.environ.get("BATON_CLUSTER_ROUNDS", "5"))


def test_ledger(tmp_path):
    with World(str(tmp_path), rate=150) as w:
        for _ in range(ROUNDS):
            print(w.kill())
        print(w.stop(LEASE + 3))
        print(w.everyone())
        print(w.close())
