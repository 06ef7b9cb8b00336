"""A database server of the soak's own: unlike the run's, it may be killed."""

from collections.abc import Iterator

import pytest

from tests.support.postgres import Server, running_server


@pytest.fixture(scope="session")
def own_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that tests stop, pause and kill; each leaves it running."""
    with running_server(tmp_path_factory.mktemp("soak") / "data") as running:
        yield running
