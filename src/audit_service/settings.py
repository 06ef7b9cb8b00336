"""Every setting of the service: one frozen class, one prefix (`AUDIT_`), units in the names.

Only the top layer reads it; everything below gets plain values.
"""

import os
import re
import shlex
from ipaddress import ip_network
from pathlib import Path
from typing import Annotated, Any, Self, get_args
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, field_validator, model_validator
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, NoDecode, PydanticBaseSettingsSource, SettingsConfigDict

from audit_service.errors import AuditError
from audit_service.private_file import is_open_to_others

MEBIBYTE = 1024 * 1024
SECRET_FILE_LIMIT_BYTES = 64 * 1024


class SecretFileError(AuditError):
    """A file with a secret is missing, cannot be used as it is, or lies open to others."""


class _SecretFiles(PydanticBaseSettingsSource):
    """AUDIT_…_FILE for every secret setting: the file's first line is the secret. Raises SecretFileError, which never quotes the file."""

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        """The secret of one setting, None where no file is named."""
        name = f"AUDIT_{field_name.upper()}"
        named = os.environ.get(f"{name}_FILE") if _is_secret(field) else None
        if not named:
            return None, field_name, False
        if os.environ.get(name):
            raise SecretFileError(f"{name} and {name}_FILE are both set")
        return _read_secret(Path(named), f"{name}_FILE"), field_name, False

    def __call__(self) -> dict[str, Any]:
        """The secrets that come from files."""
        found = {name: self.get_field_value(field, name)[0] for name, field in self.settings_cls.model_fields.items()}
        return {name: value for name, value in found.items() if value is not None}


def _is_secret(field: FieldInfo) -> bool:
    return SecretStr in (field.annotation, *get_args(field.annotation))


def _read_secret(path: Path, setting: str) -> str:
    try:
        if is_open_to_others(path):
            raise SecretFileError(
                f"{setting}: {path} may be read by others: chmod 600 it, and think about who may have read it"
            )
        with path.open("rb") as file:
            text = file.read(SECRET_FILE_LIMIT_BYTES).decode()
    except (OSError, UnicodeError) as error:
        raise SecretFileError(f"{setting}: {path} cannot be read ({type(error).__name__})") from None
    secret, _, rest = text.partition("\n")
    if not secret.strip() or rest.strip():
        raise SecretFileError(f"{setting}: {path} must hold one line, the secret")
    return secret.rstrip("\r")


class Settings(BaseSettings):
    """Settings from the environment. An invalid one stops the start; nothing runs half-configured.

    Every secret can come from a file instead, named in the same setting with `_FILE` behind it.
    """

    model_config = SettingsConfigDict(env_prefix="AUDIT_", frozen=True, extra="ignore")

    service_name: str | None = Field(
        None, description="First part of every origin; generated once when unset, then immutable"
    )
    database_url: SecretStr | None = Field(
        None, description="postgresql://… of the serving role; unset: the embedded PostgreSQL"
    )
    migration_database_url: SecretStr | None = Field(
        None, description="postgresql://… of the owner role; default: the same as AUDIT_DATABASE_URL"
    )
    data_dir: Path = Field(Path("var"), description="Embedded database, keys and state")
    host: str = Field("127.0.0.1", description="Address to listen on")
    port: Annotated[int, Field(ge=0, le=65535)] = Field(8080, description="Port to listen on; 0 picks one")
    workers: Annotated[int, Field(ge=1, le=64)] = Field(1, description="Worker processes")
    trusted_proxies: Annotated[tuple[str, ...], NoDecode] = Field(
        (),
        description="Networks of proxies whose AUDIT_FORWARDED_HEADER is believed, comma-separated CIDRs; `unix`: a socket",
    )
    # Exactly one is read: a proxy that writes one of them passes on what a client made up in the other.
    forwarded_header: str = Field(
        "x-forwarded-for",
        pattern="^(x-forwarded-for|forwarded)$",
        description="Header in which the trusted proxies tell the client's address: `x-forwarded-for` or `forwarded`",
    )
    tls_cert_file: Path | None = Field(
        None, description="Certificate chain (PEM); set with AUDIT_TLS_KEY_FILE: HTTPS, TLS 1.2 or newer, and no HTTP"
    )
    tls_key_file: Path | None = Field(
        None, description="Private key (PEM) of AUDIT_TLS_CERT_FILE; nobody else may read it"
    )
    bootstrap_key: SecretStr | None = Field(
        None,
        description="32 to 200 visible characters; an admin key of the tenant `default` with every scope",
    )

    body_limit_bytes: Annotated[int, Field(ge=1024)] = Field(4 * MEBIBYTE, description="One request body")
    stream_limit_bytes: Annotated[int, Field(ge=1024)] = Field(1024 * MEBIBYTE, description="One NDJSON request body")
    batch_limit_events: Annotated[int, Field(ge=1, le=10_000)] = Field(1000, description="Events in one batch")
    pending_limit_events: Annotated[int, Field(ge=1)] = Field(
        10_000, description="Events waiting for the database, per worker; over it: 503"
    )
    depth_limit: Annotated[int, Field(ge=4, le=128)] = Field(32, description="Nesting depth of an event")
    string_limit_characters: Annotated[int, Field(ge=256)] = Field(
        65_536, description="One string inside rows, metadata or changes"
    )
    keys_limit: Annotated[int, Field(ge=16)] = Field(5_000, description="Object members and list elements in one event")
    changes_limit: Annotated[int, Field(ge=1)] = Field(2_000, description="Changes in one event")
    history_limit_events: Annotated[int, Field(ge=1)] = Field(
        50_000, description="Events read back to rebuild a target's fields; over it the answer says `capped`"
    )

    exports_limit: Annotated[int, Field(ge=1, le=64)] = Field(
        4,
        description="Exports and evidence running at a time, per worker, the last never for the same tenant; over it: a wait, then 503",
    )
    exports_limit_per_key: Annotated[int, Field(ge=1, le=64)] = Field(
        2, description="Of these for one key or viewer token, per worker; over it: a wait, then 429"
    )
    verifies_limit: Annotated[int, Field(ge=1, le=64)] = Field(
        2,
        description="Verifications asked for and running at a time, per worker, the last never for the same tenant; over it: a wait, 503",
    )
    verifies_limit_per_key: Annotated[int, Field(ge=1, le=64)] = Field(
        1, description="Of these for one key or viewer token, per worker; over it: a wait, then 429"
    )
    reads_limit_per_key: Annotated[int, Field(ge=0, le=200)] = Field(
        6,
        description="Searches, counts and histories of one key or viewer token under way at a time, per worker; others wait; 0: no limit",
    )
    # Token buckets hold ten seconds' worth, so that a burst passes.
    rate_limit_events_per_second: Annotated[int, Field(ge=0)] = Field(
        20_000, description="Events of one key, over all workers; over it: 429, and streams are slowed; 0: no limit"
    )
    rate_limit_requests_per_second: Annotated[int, Field(ge=0)] = Field(
        500, description="Other requests of one key, over all workers; over it: 429; 0: no limit"
    )
    rate_limit_viewer_requests_per_second: Annotated[int, Field(ge=0)] = Field(
        20, description="Requests of one viewer token, over all workers; over it: 429; 0: no limit"
    )
    rate_limit_address_per_second: Annotated[int, Field(ge=0)] = Field(
        100,
        description="Requests without a good credential from one address, over all workers; over it: 429; 0: no limit",
    )

    cors_origins: Annotated[tuple[str, ...], NoDecode] = Field(
        (),
        description="Origins whose pages may read with a viewer token, e.g. `https://panel.example.com`, comma-separated; no wildcards",
    )

    tlog_public: bool = Field(
        False, description="Serve /tlog/ (checkpoints, hash tiles, entry headers) to everybody, without a key"
    )

    keep_noop: bool = Field(False, description="Store events whose rows do not differ")
    ignored_fields: Annotated[tuple[str, ...], NoDecode] = Field(
        ("updated_at", "last_updated", "modified_at"),
        description="Names of columns whose change does not count, comma-separated",
    )
    link_templates: dict[str, str] = Field(
        default_factory=dict,
        description='JSON: target type → URL template, e.g. {"server":"https://p/s/{id}"}',
    )

    redact_words: Annotated[tuple[str, ...], NoDecode] = Field(
        (), description="More secret words or word pairs, comma-separated, e.g. `key,license key`"
    )
    redact_harmless_words: Annotated[tuple[str, ...], NoDecode] = Field(
        (), description="Words or word pairs that are never secret, comma-separated"
    )
    redact_patterns: tuple[str, ...] = Field((), description="JSON list of RE2 patterns of secret values")
    redact_exempt_paths: Annotated[tuple[str, ...], NoDecode] = Field(
        (),
        description="JSON Pointers into rows, changes and metadata alike that are never redacted by name, comma-separated",
    )
    redact_pointers: dict[str, tuple[str, ...]] = Field(
        default_factory=dict,
        description='JSON: target type (or `*`) → JSON Pointers always redacted, e.g. {"server":["/env/*/value"]}',
    )

    netbox_secret: SecretStr | None = Field(
        None, description="Shared secret of NetBox's webhooks; set: X-Hook-Signature is required"
    )

    sign: bool = Field(
        True, description="Run the signer under `serve`; false where `audit-service sign` runs by itself"
    )
    signing_database_url: SecretStr | None = Field(
        None,
        description="postgresql://… of the signing role; default: AUDIT_MIGRATION_DATABASE_URL, else AUDIT_DATABASE_URL",
    )
    signing_key_file: Path | None = Field(
        None, description="Signing key, made at the first start; default: `signing/key.json` in AUDIT_DATA_DIR"
    )
    signing_interval_seconds: Annotated[int, Field(ge=1, le=3600)] = Field(
        2, description="A log that grew is signed at least so often"
    )
    signing_heartbeat_seconds: Annotated[int, Field(ge=1)] = Field(
        600, description="A log that did not is signed again so often"
    )
    signing_overlap_days: Annotated[int, Field(ge=0, le=365)] = Field(
        7, description="Days that a succeeded signing key still signs beside the new one"
    )
    checkpoint_urls: Annotated[tuple[str, ...], NoDecode] = Field(
        (), description="URLs that every checkpoint is POSTed to as text/plain, comma-separated"
    )
    checkpoint_command: str | None = Field(
        None, description="Program, with arguments, that is run with every checkpoint on standard input"
    )

    retention_days: Annotated[int, Field(ge=1, le=36_500)] | None = Field(
        None, description="Days that events keep their content, by when they were recorded; unset: for ever"
    )
    retention_categories: dict[str, Annotated[int, Field(ge=1, le=36_500)]] = Field(
        default_factory=dict, description='JSON: category → days, before AUDIT_RETENTION_DAYS, e.g. {"auth":90}'
    )
    retention_interval_seconds: Annotated[int, Field(ge=60)] = Field(
        3600, description="Time between two runs of the retention policies"
    )
    retention_database_url: SecretStr | None = Field(
        None,
        description="postgresql://… of the retention role; default: AUDIT_MIGRATION_DATABASE_URL, else AUDIT_DATABASE_URL",
    )
    request_delay_seconds: Annotated[int, Field(ge=0)] = Field(
        86_400,
        description="Time in which a request to forget can still be refused before it is carried out; `requests run` does not wait",
    )

    verify_interval_seconds: Annotated[int, Field(ge=0)] = Field(
        3600, description="Time between two background verifications of what was added to each log; 0: none run"
    )
    verify_full_hours: Annotated[int, Field(ge=1)] = Field(
        168, description="Time between two background verifications of everything in each log"
    )

    oidc_issuer: str | None = Field(
        None,
        description="The panel's identity provider, as its tokens name it (`iss`); set: its bearer JWTs are accepted",
    )
    oidc_audience: str | None = Field(
        None, description="What `aud` of a token must hold; required with AUDIT_OIDC_ISSUER"
    )
    oidc_algorithms: Annotated[tuple[str, ...], NoDecode] = Field(
        ("RS256", "ES256", "EdDSA"),
        description="Signature algorithms accepted: RS, PS, ES with 256, 384 or 512, and EdDSA (Ed25519); comma-separated",
    )
    oidc_token_types: Annotated[tuple[str, ...], NoDecode] = Field(
        ("at+jwt",),
        description="Types (`typ`) of token accepted, comma-separated; `at+jwt,JWT` where access tokens are not typed",
    )
    oidc_jwks_url: str | None = Field(
        None, description="Where the provider's keys are; unset: as its `/.well-known/openid-configuration` says"
    )
    oidc_claims: dict[str, Any] = Field(
        default_factory=dict,
        description="JSON: which claims name tenant, scopes, servers and subject; required with AUDIT_OIDC_ISSUER",
    )
    oidc_max_scopes: Annotated[tuple[str, ...], NoDecode] = Field(
        ("read", "export", "verify"), description="Scopes a token can have at most, comma-separated"
    )
    oidc_leeway_seconds: Annotated[int, Field(ge=0, le=300)] = Field(
        30, description="How far the provider's clock may be off"
    )
    oidc_keys_seconds: Annotated[int, Field(ge=10, le=86_400)] = Field(
        300, description="Age at which the provider's keys are fetched anew; a withdrawn key is good until then"
    )
    oidc_keys_grace_seconds: Annotated[int, Field(ge=0, le=86_400)] = Field(
        3600, description="How much older keys are still used while the provider does not answer"
    )

    database_pool_connections: Annotated[int, Field(ge=2, le=200)] = Field(
        8,
        description="Database connections per worker for reads; as many for writes; one more for a long export, two for a verification",
    )
    statement_timeout_seconds: Annotated[int, Field(ge=1)] = Field(30, description="One statement of a read")
    shutdown_timeout_seconds: Annotated[int, Field(ge=1)] = Field(
        20, description="Time open requests get when the service stops"
    )
    log_reads: bool = Field(
        False, description="Note every read in the log too: who, which route and filters, never what was searched for"
    )
    docs_enabled: bool = Field(True, description="Serve /docs and /openapi.json")
    metrics_enabled: bool = Field(True, description="Serve /metrics")
    metrics_key: SecretStr | None = Field(
        None,
        description="32 to 200 visible characters that /metrics asks for as a bearer token; unset: nothing is asked",
    )
    log_level: str = Field("info", pattern="^(debug|info|warning|error)$", description="debug, info, warning or error")

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Arguments, files that the environment names, and the environment; nothing else."""
        del dotenv_settings, file_secret_settings
        # A file before the environment, where an env file may leave the secret empty; both together are refused.
        return init_settings, _SecretFiles(settings_cls), env_settings

    @field_validator(
        "ignored_fields",
        "redact_words",
        "redact_harmless_words",
        "redact_exempt_paths",
        "checkpoint_urls",
        "cors_origins",
        "oidc_algorithms",
        "oidc_token_types",
        "oidc_max_scopes",
        "trusted_proxies",
        mode="before",
    )
    @classmethod
    def _split(cls, value: object) -> object:
        if isinstance(value, str):
            return tuple(part.strip() for part in value.split(",") if part.strip())
        return value

    @field_validator("service_name")
    @classmethod
    def _origin_part(cls, value: str | None) -> str | None:
        # The origin is a line of the header and the key name of a signed note: C2SP forbids spaces and `+`.
        if value is not None and not re.fullmatch(r"[^\s+\x00-\x1f\x7f]{1,200}", value):
            raise ValueError("must be 1 to 200 characters without space, + or control characters")
        return value

    @field_validator("oidc_issuer", "oidc_audience", "oidc_jwks_url", mode="before")
    @classmethod
    def _unset(cls, value: object) -> object:
        return None if value == "" else value  # as env files leave a setting out

    @field_validator(
        "database_url", "migration_database_url", "signing_database_url", "retention_database_url", mode="before"
    )
    @classmethod
    def _url(cls, value: object) -> object:
        text = value.get_secret_value() if isinstance(value, SecretStr) else value
        if isinstance(text, str) and not text.strip():
            return None  # as env files leave a setting out
        if isinstance(text, str) and not re.match(r"postgres(ql)?(\+asyncpg)?://", text):
            raise ValueError("must start with postgresql://")
        return value

    @field_validator("checkpoint_urls")
    @classmethod
    def _endpoints(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for url in value:
            try:
                parts = urlsplit(url)
                usable = parts.scheme in {"http", "https"} and bool(parts.hostname)
            except ValueError:
                usable = False
            if not usable:
                raise ValueError("must be http:// or https:// URLs")
        return value

    @field_validator("cors_origins")
    @classmethod
    def _origins(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for origin in value:
            # As a browser spells it, for it is compared as it is.
            if not re.fullmatch(r"https?://(?:[a-z0-9.-]+|\[[0-9a-f:]+\])(?::[0-9]{1,5})?", origin, re.ASCII):
                raise ValueError("must be origins: https://host or https://host:port, lower-case, without a path or *")
            if (origin.startswith("https://") and origin.endswith(":443")) or (
                origin.startswith("http://") and origin.endswith(":80")
            ):
                raise ValueError("must be origins as browsers send them: without the scheme's own port")
        return value

    @field_validator("checkpoint_command")
    @classmethod
    def _program(cls, value: str | None) -> str | None:
        try:
            arguments = shlex.split(value or "")
        except ValueError:
            raise ValueError("must be a command line as a shell splits it") from None
        return value if arguments else None

    @field_validator("link_templates")
    @classmethod
    def _links(cls, value: dict[str, str]) -> dict[str, str]:
        for template in value.values():
            rest = template.replace("{id}", "")
            # A frontend makes these a link: a scheme of another kind would be a script, another placeholder a broken one.
            if not re.match(r"https?://|/(?!/)", template) or "{" in rest or "}" in rest:
                raise ValueError("a template starts with https://, http:// or / and has no placeholder but {id}")
        return value

    @field_validator("trusted_proxies")
    @classmethod
    def _networks(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for network in value:
            if network != "unix":
                ip_network(network)  # raises ValueError, also for a network with host bits
        return value

    @field_validator("bootstrap_key", "metrics_key")
    @classmethod
    def _visible(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and not re.fullmatch(r"[\x21-\x7e]{32,200}", value.get_secret_value()):
            raise ValueError("must be 32 to 200 visible ASCII characters")
        return value

    @model_validator(mode="after")
    def _migration_url(self) -> Self:
        if self.migration_database_url is not None and self.database_url is None:
            raise ValueError("AUDIT_MIGRATION_DATABASE_URL needs AUDIT_DATABASE_URL")
        return self

    @model_validator(mode="after")
    def _tls(self) -> Self:
        if (self.tls_cert_file is None) != (self.tls_key_file is None):
            raise ValueError("AUDIT_TLS_CERT_FILE and AUDIT_TLS_KEY_FILE go together")
        return self

    @property
    def signing_dir(self) -> Path:
        """Where the signer keeps what it signed last."""
        return self.data_dir / "signing"

    @property
    def signing_key_path(self) -> Path:
        """The signing key's file."""
        return self.signing_key_file or self.signing_dir / "key.json"

    @property
    def own_signing_url(self) -> SecretStr | None:
        """The signer's login on a PostgreSQL of one's own; None where the service runs its own."""
        return self.signing_database_url or self.migration_database_url or self.database_url

    @property
    def own_retention_url(self) -> SecretStr | None:
        """The login of whoever forgets, on a PostgreSQL of one's own; None where the service runs its own."""
        return self.retention_database_url or self.migration_database_url or self.database_url

    @property
    def embedded(self) -> bool:
        """Whether the service runs its own PostgreSQL."""
        return self.database_url is None


def secret_files() -> list[str]:
    """The names of the settings that name a file with a secret."""
    return [f"AUDIT_{name.upper()}_FILE" for name, field in Settings.model_fields.items() if _is_secret(field)]
