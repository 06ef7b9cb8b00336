# syntax=docker/dockerfile:1
# Two stages: the first builds a virtual environment from the hashed lock file, the second holds nothing else.

FROM python:3.13-slim-bookworm AS build
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python -m venv /opt/audit-service
WORKDIR /src
COPY requirements.lock ./
RUN /opt/audit-service/bin/pip install --require-hashes -r requirements.lock
COPY pyproject.toml README.md LICENSE ./
COPY src ./src
COPY migrations ./migrations
RUN /opt/audit-service/bin/pip install --no-deps --no-build-isolation .

FROM python:3.13-slim-bookworm
LABEL org.opencontainers.image.title="audit-service" org.opencontainers.image.licenses="MIT"
# A fixed uid, so that a volume made for one container fits the next.
RUN groupadd --gid 10001 audit && useradd --uid 10001 --gid audit --no-create-home --home-dir /var/lib/audit-service audit \
    && install -d -o audit -g audit -m 0700 /var/lib/audit-service
COPY --from=build /opt/audit-service /opt/audit-service
ENV PATH=/opt/audit-service/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    AUDIT_HOST=0.0.0.0 \
    AUDIT_PORT=8080 \
    AUDIT_DATA_DIR=/var/lib/audit-service
USER audit
WORKDIR /var/lib/audit-service
VOLUME /var/lib/audit-service
EXPOSE 8080
# Ready means: the database is reachable, migrated and durable. The start period covers crash recovery.
HEALTHCHECK --interval=10s --timeout=5s --start-period=120s --retries=3 \
    CMD ["python", "-c", "import os, urllib.request as r; r.urlopen(f'http://127.0.0.1:{os.environ[\"AUDIT_PORT\"]}/readyz', timeout=4)"]
# SIGTERM lets open requests finish; give `docker stop` more time than AUDIT_SHUTDOWN_TIMEOUT_SECONDS.
STOPSIGNAL SIGTERM
ENTRYPOINT ["audit-service"]
CMD ["serve"]
