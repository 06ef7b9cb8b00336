"""Asking for exports and reading them."""

import csv
import io
from typing import Any

from tests.support.api import Api


async def exported(api: Api, **parameters: Any) -> Any:
    """The response of an export."""
    response = await api.client.get("/v1/export", params=parameters)
    assert response.status_code == 200, response.text
    return response


def rows_of(text: str) -> list[dict[str, str]]:
    """CSV as its readers see it."""
    return list(csv.DictReader(io.StringIO(text, newline="")))
