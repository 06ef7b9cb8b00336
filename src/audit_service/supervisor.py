"""`serve`: the process that parents PostgreSQL, the workers, the indexer, the signer, the keeper and the verifier.

1. Take the data directory: private, and locked against a second `serve`.
2. Bind the port, so that a taken one is known before anything is done.
3. Start the embedded PostgreSQL, unless a database is given.
4. Migrate and prepare the database under the migrating role, and note the start in the service's own log.
5. Listen, and start the children; they inherit the socket and get their settings, secrets included, on stdin.
6. Watch: what dies is started again, PostgreSQL without touching the workers (they answer 503 meanwhile).
7. On SIGTERM or SIGINT let the workers finish, note the stop, then stop PostgreSQL; a second signal hurries the workers.

Children live in sessions of their own, so that a Ctrl-C reaches them through here, and die when we do.
"""

import asyncio
import contextlib
import errno
import fcntl
import json
import os
import shutil
import signal
import socket
import sys
import time
from asyncio.subprocess import PIPE, Process
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

import asyncpg
from pydantic import SecretStr
from sqlalchemy.exc import SQLAlchemyError

from audit_service.app import rules_of, token_rules_of
from audit_service.core.vkey import format_vkey
from audit_service.embedded import LOGIN_ROLES, EmbeddedDatabaseError, EmbeddedPostgres, make_private_dir
from audit_service.errors import AuditError
from audit_service.lifeline import pause
from audit_service.provision import origins, prepare
from audit_service.service_life import ServiceLife
from audit_service.settings import Settings, secret_files
from audit_service.signing.keyfile import KeyFileError, ensure_keys, read_keys
from audit_service.signing.public_keys import publish_keys
from audit_service.store.migrate import upgrade
from audit_service.tls import TlsError, make_context

EXIT_STOPPED, EXIT_FAILED, EXIT_REFUSED = 0, 1, 2

# A closed terminal stops the service like the rest; under nohup, SIGHUP stays ignored.
_STOP_SIGNALS = (
    signal.SIGTERM,
    signal.SIGINT,
    *((signal.SIGHUP,) if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN else ()),
)
# A child that ends by itself so often without a healthy life in between will never work.
_BROKEN_LIVES = 5
# Fewer different characters than this are hardly chance.
_VARIED_CHARACTERS = 10
_BIND_PATIENCE_SECONDS = 5.0
_BACKLOG_CONNECTIONS = 2048
_WATCH_SECONDS = 0.2
# A child that lived this long has started well: its next failure is a first one.
_HEALTHY_SECONDS = 30.0
_CHILD_DELAYS_SECONDS = (0.0, 0.5, 1.0, 2.0, 4.0, 8.0, 10.0)
# The last one for ever: with the start itself, the service is back within ten seconds of whatever was mended.
_DATABASE_DELAYS_SECONDS = (0.0, 0.5, 1.0, 2.0, 5.0)
# Beyond the time for open requests, a worker gets this for writing what it has yet to note, and for closing its pools.
_CLOSING_SECONDS = 4.0


class ServeRefusedError(AuditError):
    """`serve` may not run here: another one does."""


class _StopRequestedError(KeyboardInterrupt):
    """A stop signal before the watching began; of the one kind that event loops let pass at once."""


@dataclass(frozen=True, slots=True)
class Child:
    """A Python module run as a child process: what it gets on stdin, and the descriptors it inherits."""

    name: str
    module: str
    settings_line: bytes = field(repr=False)
    descriptors: tuple[int, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    essential: bool = True  # without it there is no service

    @property
    def command(self) -> tuple[str, ...]:
        """The command line; -P keeps the working folder out of the import path."""
        return (sys.executable, "-P", "-m", self.module, *map(str, self.descriptors))


def serve(settings: Settings) -> int:
    """Run the service until a signal stops it. Returns the exit code: 0 stopped, 1 failed, 2 refused."""
    _open_standard_descriptors()
    settings = settings.model_copy(update={"data_dir": settings.data_dir.resolve()})
    # Before anything is made: nothing runs half-configured.
    if (reason := _unusable(settings)) is not None:
        _say(f"audit-service: {reason}")
        return EXIT_REFUSED
    _warn_of_unknown_settings()
    postgres = _embedded(settings) if settings.embedded else None
    try:
        with (
            _stop_signals_raise(),
            _locked(settings.data_dir),
            _bound(settings.host, settings.port) as listener,
        ):
            try:
                serving = _ready_database(settings, postgres)
                life = _begin_life(settings, serving)
                _listen(listener, "http" if settings.tls_cert_file is None else "https")
                return asyncio.run(_Watch(_children(serving, listener), postgres, settings, life).run())
            finally:
                _ignore_stop_signals()
                if postgres is not None:
                    postgres.stop()
    except _StopRequestedError:
        return EXIT_STOPPED
    except OSError as error:
        _say(f"audit-service: {error.strerror}: {error.filename or settings.data_dir}")
        return EXIT_FAILED
    except AuditError as error:
        _say(f"audit-service: {error.detail}")
        return EXIT_REFUSED if isinstance(error, ServeRefusedError) else EXIT_FAILED


def _unusable(settings: Settings) -> str | None:
    """Why the service cannot run with these settings; None: it can."""
    try:
        rules_of(settings)
    except ValueError as error:
        return f"AUDIT_REDACT_…: {error}"
    try:
        token_rules_of(settings)
        if settings.tls_cert_file is not None and settings.tls_key_file is not None:
            make_context(settings.tls_cert_file, settings.tls_key_file)
    except ValueError as error:
        return str(error)
    except TlsError as error:
        return error.detail
    return None


# -- steps 1 to 5 --------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _locked(data_dir: Path) -> Iterator[None]:
    make_private_dir(data_dir)
    lock = os.open(data_dir / "serve.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        raise ServeRefusedError(
            f"another `serve` already runs on {data_dir}; stop it or set AUDIT_DATA_DIR to another folder"
        ) from None
    else:
        yield
    finally:
        os.close(lock)


@contextlib.contextmanager
def _bound(host: str, port: int) -> Iterator[socket.socket]:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except OSError as error:
        raise AuditError(f"AUDIT_HOST {host} is no address of this machine ({error.strerror})") from error
    with socket.socket(family, kind, protocol) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        deadline = time.monotonic() + _BIND_PATIENCE_SECONDS
        while True:
            try:
                listener.bind(address)
                break
            except OSError as error:
                # Workers of a killed `serve` may hold the port for a moment.
                if error.errno != errno.EADDRINUSE or time.monotonic() > deadline:
                    raise _taken(f"{host}:{port}", error) from error
            time.sleep(0.05)
        yield listener


def _listen(listener: socket.socket, scheme: str) -> None:
    """Take connections: from here on a client waits for a worker instead of being turned away."""
    try:
        listener.listen(_BACKLOG_CONNECTIONS)
    except OSError as error:
        raise _taken(_address(listener, scheme), error) from error
    _say(f"audit-service listening on {_address(listener, scheme)}")


def _taken(place: str, error: OSError) -> AuditError:
    return AuditError(f"cannot listen on {place} ({error.strerror}); set AUDIT_HOST or AUDIT_PORT")


def _embedded(settings: Settings) -> EmbeddedPostgres:
    # Each worker has a pool for reads and one for writes; the rest is for the CLI and for operators.
    children = settings.exports_limit + 2 * settings.verifies_limit
    connections = settings.workers * (2 * settings.database_pool_connections + children) + 40
    options = {"max_connections": str(connections)} if connections > 200 else {}
    return EmbeddedPostgres(settings.data_dir, options=options, report=_say)


def _ready_database(settings: Settings, postgres: EmbeddedPostgres | None) -> Settings:
    """Start, migrate and prepare the database. Returns the children's settings: the serving role only."""
    passwords = {}
    if postgres is not None:
        postgres.start()
        migration_url, serving_url = postgres.url("postgres"), postgres.url("audit_serving")
        passwords = {role: postgres.password(role) for role in LOGIN_ROLES}
        _say("embedded PostgreSQL ready")
    else:
        given = settings.database_url or SecretStr("")
        serving_url = given.get_secret_value()
        migration_url = (settings.migration_database_url or given).get_secret_value()
    try:
        upgrade(migration_url)
        key = prepare(settings, migration_url, passwords=passwords)
    except (OSError, SQLAlchemyError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        raise AuditError(f"the database cannot be prepared: {_first_line(error)}") from error
    _say("database migrated")
    if key is not None:
        _say(f"admin API key, shown only this once: {key}")
    if settings.bootstrap_key is not None and len(set(settings.bootstrap_key.get_secret_value())) < _VARIED_CHARACTERS:
        _say("warning: AUDIT_BOOTSTRAP_KEY can be guessed from its hash, which is in every dump; use 32 random bytes")
    if settings.sign:
        _make_signing_key(settings, migration_url)
    _publish_keys(settings)
    secret = SecretStr(serving_url)
    own = settings.own_signing_url
    signing_url = own.get_secret_value() if own is not None else postgres.url("audit_signing") if postgres else ""
    own = settings.own_retention_url
    retention_url = own.get_secret_value() if own is not None else postgres.url("audit_retention") if postgres else ""
    return settings.model_copy(
        update={
            "database_url": secret,
            "migration_database_url": None,
            "bootstrap_key": None,
            "signing_database_url": SecretStr(signing_url),
            "retention_database_url": SecretStr(retention_url),
        }
    )


def _begin_life(settings: Settings, serving: Settings) -> ServiceLife:
    """What the service was given, as `settings`, and the login that may write into its own log, in `serving`."""
    assert serving.database_url is not None  # noqa: S101 - `_ready_database` fills it in
    life = ServiceLife(settings, serving.database_url.get_secret_value())
    if not asyncio.run(life.started()):
        _say("warning: the start could not be entered in the service's own log")
    return life


def _make_signing_key(settings: Settings, migration_url: str) -> None:
    """At the first start: the signing key, and what whoever wants to verify a checkpoint needs of it."""
    try:
        if not ensure_keys(settings.signing_key_path):
            return
    except KeyFileError as error:
        _say(f"audit-service: {error.detail}")  # the signer will say so too; events are taken without it
        return
    _say(f"signing key, made only this once; keep a copy elsewhere: {settings.signing_key_path}")
    keys = read_keys(settings.signing_key_path)
    for tenant, origin in asyncio.run(origins(migration_url)):
        _say(f"vkey of the log of tenant {tenant!r}: {format_vkey(keys.signing[0].verifier(origin))}")


def _publish_keys(settings: Settings) -> None:
    """What the children may know of the signing keys: the public parts. Where the key file is not ours to read, nothing."""
    with contextlib.suppress(KeyFileError, OSError):
        publish_keys(settings.signing_dir, read_keys(settings.signing_key_path))


def _children(settings: Settings, listener: socket.socket) -> list[Child]:
    environment = {}
    if settings.workers > 1:
        # Where the workers share their counters, so that /metrics of any of them is the sum.
        folder = settings.data_dir / "metrics"
        shutil.rmtree(folder, ignore_errors=True)
        make_private_dir(folder)
        environment["PROMETHEUS_MULTIPROC_DIR"] = str(folder.resolve())
    # Each gets no login but its own.
    unsigned = {"signing_database_url": None, "checkpoint_urls": (), "checkpoint_command": None}
    serving = {"database_url": None, "netbox_secret": None, "metrics_key": None}
    keeping = {"retention_database_url": None}
    line = _settings_line(settings.model_copy(update=unsigned | keeping))
    workers = [
        Child(f"worker {number}", "audit_service.worker", line, (listener.fileno(),), environment)
        for number in range(1, settings.workers + 1)
    ]
    children = [*workers, Child("indexer", "audit_service.indexer", line, essential=False)]
    line = _settings_line(settings.model_copy(update=unsigned | serving))
    children.append(Child("keeper", "audit_service.keeper", line, essential=False))
    if settings.verify_interval_seconds:
        line = _settings_line(
            settings.model_copy(update=unsigned | keeping | {"netbox_secret": None, "metrics_key": None})
        )
        children.append(Child("verifier", "audit_service.verifier", line, essential=False))
    if settings.sign:
        line = _settings_line(settings.model_copy(update=serving | keeping))
        children.append(Child("signer", "audit_service.signer", line, essential=False))
    return children


def _settings_line(settings: Settings) -> bytes:
    return json.dumps({"parent": os.getpid(), "settings": dict(settings)}, default=_plain).encode() + b"\n"


def _plain(value: object) -> str:
    if isinstance(value, SecretStr):
        return value.get_secret_value()
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"a setting of type {type(value).__name__} cannot be handed to a child")


# -- steps 6 and 7 -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Ending:
    """How a child's life ended."""

    how: str
    by_itself: bool
    refused: bool = False  # it must not run here, and starting it again is of no use


class _Watch:
    """Keeps the children and PostgreSQL alive until it is told to stop."""

    def __init__(
        self, children: Sequence[Child], postgres: EmbeddedPostgres | None, settings: Settings, life: ServiceLife
    ) -> None:
        self._children = children
        self._life = life
        self._postgres = postgres
        self._grace_seconds = settings.shutdown_timeout_seconds + _CLOSING_SECONDS
        self._running: dict[str, Process] = {}
        self._stopping = asyncio.Event()
        self._hurry = asyncio.Event()

    async def run(self) -> int:
        loop = asyncio.get_running_loop()
        for number in _STOP_SIGNALS:
            loop.add_signal_handler(number, self._on_signal)
        keepers = [asyncio.create_task(self._keep(child)) for child in self._children]
        database = asyncio.create_task(self._keep_database())
        stopped = asyncio.create_task(self._stopping.wait())
        await asyncio.wait((*keepers, database, stopped), return_when=asyncio.FIRST_COMPLETED)
        code = EXIT_STOPPED if self._stopping.is_set() else EXIT_FAILED
        self._stopping.set()
        if self._postgres is not None:
            self._postgres.cancel()
        await self._stop_children(keepers)
        await asyncio.gather(*keepers, database, stopped)
        if not await self._life.stopped(in_order=code == EXIT_STOPPED):
            _say("the stop could not be entered in the service's own log")
        if self._postgres is not None:
            await asyncio.to_thread(self._postgres.stop)
        _say("audit-service stopped")
        return code

    def _on_signal(self) -> None:
        if self._stopping.is_set():
            self._hurry.set()
        else:
            _say("stopping; open requests may finish")
            self._stopping.set()

    async def _keep(self, child: Child) -> None:
        failures = broken = 0
        while not self._stopping.is_set():
            began = time.monotonic()
            ending = await self._live(child)
            if self._stopping.is_set():
                return
            lived_seconds = time.monotonic() - began
            failures = 0 if lived_seconds > _HEALTHY_SECONDS else failures
            # Killed is not broken: only a child that ends by itself, again and again, will never work.
            broken = broken + 1 if ending.by_itself and lived_seconds < _HEALTHY_SECONDS else 0
            if ending.refused and not child.essential:
                _say(
                    f"{child.name} refuses to run, as it says above; the service goes on without it until the next start"
                )
                await self._stopping.wait()
                return
            if broken == _BROKEN_LIVES and child.essential:
                _say(f"{child.name} {ending.how} {broken} times in a row; giving up")
                return
            delay = _CHILD_DELAYS_SECONDS[min(failures, len(_CHILD_DELAYS_SECONDS) - 1)]
            failures += 1
            _say(f"{child.name} {ending.how}; starting it again in {delay:g} s")
            await pause(self._stopping, delay)

    async def _live(self, child: Child) -> _Ending:
        """One life of a child."""
        try:
            process = await _spawn(child)
        except OSError as error:
            return _Ending(f"could not be started ({error.strerror})", by_itself=False)
        self._running[child.name] = process
        if self._stopping.is_set():  # a stop that came while it was being started has not reached it
            process.terminate()
        status = await process.wait()
        return _Ending(f"ended with status {status}", by_itself=status > 0, refused=status == EXIT_REFUSED)

    async def _keep_database(self) -> None:
        if self._postgres is None:
            await self._stopping.wait()
            return
        while not self._stopping.is_set():
            if self._postgres.is_running():
                await pause(self._stopping, _WATCH_SECONDS)
                continue
            _say("PostgreSQL ended; starting it again")
            await self._restart_database(self._postgres)

    async def _restart_database(self, postgres: EmbeddedPostgres) -> None:
        """Try until it starts: a full disk may stay full for hours, and meanwhile the workers say 503."""
        failures = 0
        while not self._stopping.is_set():
            await pause(self._stopping, _DATABASE_DELAYS_SECONDS[min(failures, len(_DATABASE_DELAYS_SECONDS) - 1)])
            if self._stopping.is_set():
                return
            try:
                await asyncio.to_thread(postgres.start)
            except EmbeddedDatabaseError as error:
                failures += 1
                _say(f"audit-service: {error.detail}")
            else:
                _say("embedded PostgreSQL ready")
                return

    async def _stop_children(self, keepers: Sequence[asyncio.Task[None]]) -> None:
        self._signal_children(signal.SIGTERM)
        gone = asyncio.gather(*keepers)
        hurry = asyncio.create_task(self._hurry.wait())
        await asyncio.wait((gone, hurry), timeout=self._grace_seconds, return_when=asyncio.FIRST_COMPLETED)
        hurry.cancel()
        self._signal_children(signal.SIGKILL)

    def _signal_children(self, number: signal.Signals) -> None:
        for process in self._running.values():
            if process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    process.send_signal(number)


async def _spawn(child: Child) -> Process:
    """Start a child and hand it its settings. Its stdin stays open: its end is the sign that we are gone."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("AUDIT_")}
    environment |= child.environment
    process = await asyncio.create_subprocess_exec(
        *child.command, stdin=PIPE, pass_fds=child.descriptors, env=environment, start_new_session=True
    )
    assert process.stdin is not None  # noqa: S101 - it was asked for
    with contextlib.suppress(ConnectionError):  # it died at once; `wait` tells
        process.stdin.write(child.settings_line)
        await process.stdin.drain()
    return process


# -- small things --------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _stop_signals_raise() -> Iterator[None]:
    """Let a stop signal interrupt the steps before the watching, whatever they wait for."""

    def interrupt(*_: object) -> NoReturn:
        _ignore_stop_signals()
        raise _StopRequestedError

    before = [signal.signal(number, interrupt) for number in _STOP_SIGNALS]
    try:
        yield
    finally:
        for number, handler in zip(_STOP_SIGNALS, before, strict=True):
            signal.signal(number, handler)


def _ignore_stop_signals() -> None:
    for number in _STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def _address(listener: socket.socket, scheme: str) -> str:
    host, port = listener.getsockname()[:2]
    return f"{scheme}://[{host}]:{port}" if listener.family == socket.AF_INET6 else f"{scheme}://{host}:{port}"


def _open_standard_descriptors() -> None:
    """A closed standard descriptor would become the next file that is opened, and what we say would be written into it."""
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number: this one
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123, SIM115 - for the life of the process


def _warn_of_unknown_settings() -> None:
    """A misspelt setting does nothing; say so, because nobody notices a redaction word that does nothing."""
    known = {f"AUDIT_{name.upper()}" for name in Settings.model_fields} | set(secret_files())
    for name in sorted(name for name in os.environ if name.startswith("AUDIT_") and name not in known):
        _say(f"warning: {name} is not a setting of this version")


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def _say(line: str) -> None:
    with contextlib.suppress(OSError):  # nobody reads any more; the service goes on
        sys.stderr.write(f"{line}\n")
        sys.stderr.flush()
