"""What several tests of the command line run against."""

from collections.abc import Iterator

import pytest

from epidote_loadgen.fakes import mock_thread
from epidote_loadgen.mock_server.law import LatencyLaw
from epidote_loadgen.mock_server.server import MockSettings


@pytest.fixture(scope="module")
def quick() -> Iterator[str]:
    """The address of a server that answers in some milliseconds."""
    law = LatencyLaw(ttft_s=0.002, itl_s=0.001)
    with mock_thread(MockSettings(law=law, num_tokens=3)) as (url, _):
        yield url
