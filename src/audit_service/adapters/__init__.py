"""Adapters: other people's protocols, each a thin mapper onto our event, on its own path. None has a write path of its own.

To add one: a module with `records` (framing) and `event` (mapping of one record), an `ADAPTER`, and its name in the tuple below.
"""

from typing import Any, Final

from audit_service.adapters import elasticsearch, netbox, otlp, pelican, splunk, wings
from audit_service.adapters.adapter import Adapter, Answer, Delivery, Refusal, Result
from audit_service.adapters.draft import Draft

__all__ = ["ADAPTERS", "Adapter", "Answer", "Delivery", "Draft", "Refusal", "Result"]

# Any: each adapter has records of a type of its own, which nothing outside of it looks into.
ADAPTERS: Final[tuple[Adapter[Any], ...]] = (
    otlp.ADAPTER,
    elasticsearch.ADAPTER,
    splunk.ADAPTER,
    wings.ADAPTER,
    pelican.ADAPTER,
    netbox.ADAPTER,
)
