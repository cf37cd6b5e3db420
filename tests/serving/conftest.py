"""A server that serves the registered version of the tests for real."""

from collections.abc import Iterator

import pytest
from support.servers import Running, serving


@pytest.fixture(scope="session")
def running(registered) -> Iterator[Running]:
    with serving(registered) as found:
        yield found
        assert found.process.poll() is None, "the server died"
