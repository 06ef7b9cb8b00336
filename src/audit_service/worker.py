"""One worker: the web application on the socket the supervisor listens on.

python -m audit_service.worker <descriptor of the listening socket>
"""

import gc
import socket
import sys

import uvicorn

from audit_service.api.logs import configure as configure_logs
from audit_service.app import create_app
from audit_service.http_protocol import GuardedProtocol
from audit_service.lifeline import read_settings
from audit_service.settings import Settings
from audit_service.tls import make_context

GC_THRESHOLD_OBJECTS = 50_000


def main() -> None:
    """Serve until SIGTERM, or until the supervisor is gone."""
    settings = read_settings()
    configure_logs(settings.log_level)
    listener = socket.socket(fileno=int(sys.argv[1]))
    configuration = _configuration(settings)
    _tune_collector()
    uvicorn.Server(configuration).run(sockets=[listener])


def _configuration(settings: Settings) -> uvicorn.Config:
    configuration = uvicorn.Config(
        create_app(settings),
        http=GuardedProtocol,
        loop="uvloop",
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=settings.shutdown_timeout_seconds,
    )
    if settings.tls_cert_file is not None and settings.tls_key_file is not None:
        configuration.load()
        configuration.ssl = make_context(settings.tls_cert_file, settings.tls_key_file)
    return configuration


def _tune_collector() -> None:
    """What was loaded until now stays: never look through it again. Requests leave few cycles, and many objects at once: the default of
    700 would look for cycles several times in every batch."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(GC_THRESHOLD_OBJECTS, 10, 10)


if __name__ == "__main__":
    main()
