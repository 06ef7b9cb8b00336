"""What every request goes through before its route."""

import inspect
from collections.abc import Iterator
from typing import Any

from fastapi.routing import APIRoute
from starlette.routing import BaseRoute

from audit_service.app import create_app
from audit_service.settings import Settings


def calls(dependant: Any) -> Iterator[Any]:
    """A route's function and all that it depends on."""
    yield dependant.call
    for needed in dependant.dependencies:
        yield from calls(needed)


def routes(of: list[BaseRoute]) -> Iterator[APIRoute]:
    """All routes, those of included routers too."""
    for route in of:
        if isinstance(route, APIRoute):
            yield route
        elif hasattr(route, "original_router"):
            yield from routes(route.original_router.routes)


def is_coroutine(call: Any) -> bool:
    """Whether a function, or an object that can be called, is awaited."""
    kinds = (inspect.iscoroutinefunction, inspect.isasyncgenfunction)
    return any(kind(call) for kind in kinds) or inspect.iscoroutinefunction(type(call).__call__)


def test_no_request_waits_for_a_thread_before_it_is_answered() -> None:
    """FastAPI calls a plain function in a thread: two switches, each of which may wait for the interpreter's lock."""
    app = create_app(Settings(database_url="postgresql://nobody@/nowhere"))
    found = [call for route in routes(app.routes) for call in calls(route.dependant)]
    assert len(found) > 60
    assert [call for call in found if not is_coroutine(call)] == []
