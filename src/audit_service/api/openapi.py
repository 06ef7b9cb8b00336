"""The OpenAPI document: FastAPI's, plus the schemas that routes name only by reference."""

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import TypeAdapter

from audit_service.api.new_credentials import NewKey, NewToken, Renewal
from audit_service.api.routes import ingest
from audit_service.api.routes.retention import AskedErasure, AskedRetention
from audit_service.api.routes.tenants import NewTenant
from audit_service.api.schemas import EXTRA_SCHEMAS

_REFERENCES = "#/components/schemas/{model}"


def install(app: FastAPI) -> None:
    """Make `app.openapi()` answer the whole document, built once."""

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _document(app)
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]


def _document(app: FastAPI) -> dict[str, Any]:
    document = get_openapi(
        title=app.title,
        version=app.version,
        description=app.description,
        routes=[*ingest.documentation.routes, *app.routes],
    )
    schemas = document["components"]["schemas"]
    for extra in (*EXTRA_SCHEMAS, NewKey, NewToken, Renewal, NewTenant, AskedRetention, AskedErasure):
        schema = TypeAdapter(extra).json_schema(ref_template=_REFERENCES)
        schemas.update(schema.pop("$defs", {}))
        schemas[extra.__name__] = schema
    # FastAPI adds its own 422 to routes with path parameters; ours are problem documents.
    for path in document["paths"].values():
        for operation in path.values():
            answer = operation["responses"].get("422", {})
            if "HTTPValidationError" in str(answer):
                del operation["responses"]["422"]
    for unused in ("HTTPValidationError", "ValidationError"):
        schemas.pop(unused, None)
    return document
