# SPDX-License-Identifier: Apache-2.0
import os
import sys

import pytest

sys.path.insert(0, os.path.dirname(__file__))


@pytest.fixture
def sink():
    from sink import Sink
    with Sink() as s:
        yield s


@pytest.fixture
def baton(sink):
    from harness import Baton
    with Baton(sink_port=sink.port) as b:
        yield b
