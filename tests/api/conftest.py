"""One database and one app for a whole module: its tests use ids of their own, and at its end the log must be intact."""

from collections.abc import AsyncIterator

import pytest

from tests.support.api import Api
from tests.support.apps import open_api
from tests.support.postgres import TestDatabase


@pytest.fixture(scope="module")
async def shared_api(module_database: TestDatabase) -> AsyncIterator[Api]:
    """The app on the module's database. Whatever the tests did to it, the log verifies in the end."""
    async with open_api(module_database) as opened:
        yield opened
        report = await opened.verify()
        assert (report["status"], report["breaks"]) == ("ok", [])
