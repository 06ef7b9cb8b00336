"""A log that is filled and signed, on a database of the test's own."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.postgres import TestDatabase
from tests.support.signers import SignerLab, signer_lab


@pytest.fixture
async def lab(database: TestDatabase, tmp_path: Path) -> AsyncIterator[SignerLab]:
    """The log of the tenant `default`, with a signing folder of its own."""
    async with signer_lab(database, tmp_path / "signing") as made:
        yield made
