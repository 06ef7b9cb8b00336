"""Probes and metrics: alive, ready, and how it goes. No credential, and nothing in them that needs one."""

import orjson
from fastapi import APIRouter
from fastapi.responses import Response
from prometheus_client import (
    CONTENT_TYPE_LATEST,
    REGISTRY,
    CollectorRegistry,
    generate_latest,
    multiprocess,
    values,
)
from sqlalchemy import text

from audit_service.api.dependencies import Service, ServiceOf
from audit_service.errors import NotFoundError, UnavailableError
from audit_service.store.engine import check_durability, connected, driver
from audit_service.store.failures import translated
from audit_service.store.migrate import newest_revision

router = APIRouter(tags=["operations"])
_MULTIPROCESS = values.ValueClass.__name__ == "MmapedValue"


@router.get("/healthz", response_model=None)
async def healthz() -> Response:
    """The process is alive. Says nothing about the database, so that an orchestrator does not restart what only waits."""
    return Response(b'{"status":"ok"}', media_type="application/json")


@router.get("/readyz", response_model=None)
async def readyz(service: ServiceOf) -> Response:
    """Events can be taken: the database is reachable, migrated and durable. 503 with the reason otherwise."""
    try:
        problems = await _problems(service)
    except UnavailableError:
        problems = ["the database is not reachable"]
    status = "ready" if not problems else "not ready"
    body = orjson.dumps({"status": status, "problems": problems})
    headers = {"Retry-After": "1"} if problems else {}
    return Response(body, 200 if not problems else 503, headers, "application/json")


async def _problems(service: Service) -> list[str]:
    async with translated(), connected(service.database.writes) as connection:
        problems = await check_durability(driver(connection))
        revision = await connection.scalar(text("SELECT version_num FROM audit.alembic_version"))
    if revision != newest_revision():
        problems.append(f"the schema is at revision {revision}, this version needs {newest_revision()}")
    return problems


@router.get("/metrics", response_model=None)
async def metrics(service: ServiceOf) -> Response:
    """Prometheus metrics, summed over the workers."""
    if not service.settings.metrics_enabled:
        raise NotFoundError("metrics are switched off")
    registry = REGISTRY
    if _MULTIPROCESS:
        registry = CollectorRegistry()
        multiprocess.MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)
