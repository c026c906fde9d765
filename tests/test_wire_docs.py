"""The clients in docs/wire.md run as they are printed."""

import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from rtdecode import hostclock
from rtdecode.wire.clock import clock_id, utc_anchor
from rtdecode.wire.framing import DTYPES
from rtdecode.wire.messages import Description, Ledger, Retrieval, Window
from rtdecode.wire.publisher import Publisher

PAGE = (Path(__file__).parents[1] / "docs" / "wire.md").read_text()
CLIENTS = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


@pytest.mark.parametrize("client", CLIENTS, ids=["subscriber", "bare"])
def test_the_printed_clients_read_a_real_publisher(client: str) -> None:
    with Publisher("tcp://127.0.0.1:*") as publisher:
        publisher.describe(
            Description(
                seq=0,
                pipeline="gaze",
                source="a test",
                sfreq=100.0,
                channels=(),
                conditioned_sfreq=100.0,
                group_delay=0.0,
                bundle="0123456789ab",
                engine={},
                clock=hostclock.CLOCK_NAME,
                clock_id=clock_id(),
                utc_anchor=utc_anchor(),
            )
        )
        code = client.replace("tcp://127.0.0.1:5555", publisher.endpoint)
        code = code.replace("timeout=10", "timeout=1").replace("10_000", "1000")
        assert code != client
        publisher.send(
            "gaze.retrieval",
            Window(
                seq=0,
                kind="retrieval",
                pipeline="gaze",
                bundle="0123456789ab",
                window="sliding",
                segment=0,
                start=300,
                length=100,
                sfreq=100.0,
                status="ok",
                retrieval=Retrieval(indices=(0,), names=("cup",), scores=(0.5,), margin=0.5),
                ledger=Ledger(stamp=hostclock.now()),
            ),
            {"embedding": np.zeros(1024, np.float32)},
        )
        end = time.monotonic() + 30
        with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as process:
            while process.poll() is None:
                assert time.monotonic() < end, "the client did not end"
                publisher.socket.poll(20)
                publisher.service()
            assert process.stdout is not None
            said = process.stdout.read()
        assert process.returncode == 0
    assert "300 cup" in said
    assert "(1024,)" in said


def test_the_page_names_every_dtype() -> None:
    sentence = re.search(r"The dtypes are `([^`]*)`", PAGE)
    assert sentence is not None
    assert set(sentence[1].split()) == DTYPES
