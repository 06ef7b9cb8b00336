"""Probes and metrics: alive, ready, and how it goes. No credential, and nothing in them that needs one."""

import hmac
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

import orjson
from fastapi import APIRouter, Depends, Request
from fastapi.responses import Response
from prometheus_client import (
    CONTENT_TYPE_LATEST,
    REGISTRY,
    CollectorRegistry,
    generate_latest,
    multiprocess,
    values,
)
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector
from sqlalchemy import text

from audit_service.api.dependencies import Service, ServiceOf, authorization_of, open_to_all
from audit_service.errors import NotFoundError, UnauthenticatedError, UnavailableError
from audit_service.store.checkpoints import Lag, fetch_lag
from audit_service.store.engine import bound, check_durability, connected, driver
from audit_service.store.failures import translated
from audit_service.store.migrate import newest_revision
from audit_service.store.segments import list_logs
from audit_service.verified import VerifiedLog

router = APIRouter(tags=["operations"])
_MULTIPROCESS = values.ValueClass.__name__ == "MmapedValue"
# Its own and that of `system`. With more, whoever knows the size of one log learns from a sum how much the others did.
LOGS_OF_ONE_TENANT = 2
# However often it is asked for.
LAGS_SECONDS = 2.0


@router.get("/healthz", response_model=None)
async def healthz() -> Response:
    """The process is alive. Says nothing about the database, so that an orchestrator does not restart what only waits."""
    return Response(b'{"status":"ok"}', media_type="application/json")


@router.get("/readyz", response_model=None, dependencies=[Depends(open_to_all)])
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
async def metrics(request: Request, service: ServiceOf) -> Response:
    """Prometheus metrics, summed over the workers. Asks for AUDIT_METRICS_KEY where that is set; where it is not, the sums of the sizes of
    logs are left out as soon as there is more than one tenant beside `system`."""
    if not service.settings.metrics_enabled:
        raise NotFoundError("metrics are switched off")
    await _require_metrics_key(request, service)
    registry = REGISTRY
    if _MULTIPROCESS:
        registry = CollectorRegistry()
        multiprocess.MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    signed = CollectorRegistry()
    lags, states = await _lags(service), await _verified(service)
    has_sizes = service.settings.metrics_key is not None or max(len(lags), len(states)) <= LOGS_OF_ONE_TENANT
    signed.register(_Checkpoints(lags, has_sizes=has_sizes))
    signed.register(_Verified(states, logs=len(lags), has_sizes=has_sizes))
    return Response(generate_latest(registry) + generate_latest(signed), media_type=CONTENT_TYPE_LATEST)


async def _require_metrics_key(request: Request, service: Service) -> None:
    key = service.settings.metrics_key
    if key is None:
        await open_to_all(request)
        return
    wanted = f"Bearer {key.get_secret_value()}".encode()
    if not hmac.compare_digest(authorization_of(request).encode("latin-1"), wanted):
        service.rates.note_failure(request.scope)
        raise UnauthenticatedError("send the metrics key: Authorization: Bearer …")
    service.rates.note_good(request.scope)


class _Checkpoints(Collector):
    """How far signing is behind, over all logs; a log's own figures are in its `/v1/chain`, for tenants are not everybody's to see."""

    def __init__(self, lags: Sequence[Lag], *, has_sizes: bool) -> None:
        self._lags, self._has_sizes = lags, has_sizes

    def collect(self) -> Iterator[GaugeMetricFamily]:
        ages = [lag.age_seconds for lag in self._lags if lag.age_seconds is not None]
        sizes = (
            ("audit_log_size", "Entries, over all logs", sum(lag.log_size for lag in self._lags)),
            (
                "audit_checkpoint_size",
                "Entries signed last, over all logs",
                sum(lag.checkpoint_size for lag in self._lags),
            ),
        )
        unsigned = ("audit_unsigned_logs", "Logs without any checkpoint", len(self._lags) - len(ages))
        for name, what, value in (*(sizes if self._has_sizes else ()), unsigned):
            yield GaugeMetricFamily(name, what, value=value)
        if ages:
            what = "Seconds since the last checkpoint, of the log signed longest ago"
            yield GaugeMetricFamily("audit_checkpoint_age_seconds", what, value=max(ages))


class _Verified(Collector):
    """What the background verification found, over all logs. One whose state is missing or was edited counts as unverified."""

    def __init__(self, states: Sequence[VerifiedLog], *, logs: int, has_sizes: bool) -> None:
        self._states, self._logs, self._has_sizes = states, logs, has_sizes

    def collect(self) -> Iterator[GaugeMetricFamily]:
        states, now = self._states, datetime.now(UTC)
        if self._has_sizes:
            size = sum(state.point.size for state in states if state.point is not None)
            what = "Entries up to which logs were found right, over all logs"
            yield GaugeMetricFamily("audit_verified_size", what, value=size)
        figures = (
            (
                "audit_verified_breaks",
                "Breaks in the logs that are broken, by the background verification",
                sum(state.last.breaks for state in states),
            ),
            ("audit_broken_logs", "Logs that do not verify", sum(state.broken for state in states)),
            ("audit_unverified_logs", "Logs never verified in the background", max(self._logs - len(states), 0)),
        )
        for name, what, value in figures:
            yield GaugeMetricFamily(name, what, value=value)
        ages = [(now - state.last.at).total_seconds() for state in states]
        if ages:
            what = "Seconds since the last background verification, of the log verified longest ago"
            yield GaugeMetricFamily("audit_verified_age_seconds", what, value=max(ages))
        full_ages = [(now - state.full_at).total_seconds() for state in states if state.full_at is not None]
        if full_ages:
            what = "Seconds since everything in a log was last verified, of the log where that is longest ago"
            yield GaugeMetricFamily("audit_verified_full_age_seconds", what, value=max(full_ages))


async def _verified(service: Service) -> list[VerifiedLog]:
    """Of every log of which something is known; none before the database was ever there, for its secret tells what to believe."""
    try:
        verified = await service.verified_logs()
    except UnavailableError:
        return []
    return [state for _, state in verified.read_all()]


async def _lags(service: Service) -> Sequence[Lag]:
    """Of every log; of none while the database is away, for the other metrics matter then. A transaction for each log, so whoever asks
    often, or with many others, is told what was found up to LAGS_SECONDS ago."""
    known = service.lags
    async with known.lock:
        if time.monotonic() - known.read_at >= LAGS_SECONDS:
            known.found, known.read_at = await _read_lags(service), time.monotonic()
    return known.found


async def _read_lags(service: Service) -> Sequence[Lag]:
    try:
        async with translated(), connected(service.database.reads) as connection:
            logs = await list_logs(connection)
        lags = []
        for log_id in logs:
            async with translated(), bound(service.database.reads, log_id) as connection:
                lags.append(await fetch_lag(connection, log_id))
    except UnavailableError:
        return []
    return lags
