"""The other side of P1: a FastAPI application that takes the same bodies and stores nothing.

    python -m benchmarks.bare

Prints the port it listens on. Same server, event loop, HTTP parser and number of workers as the service, and a model of eight members
that leaves out everything else (rows, metadata): as little as a FastAPI endpoint with a model can do.
"""

import socket

import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel


class SmallActor(BaseModel):
    """Who."""

    type: str | None = None
    id: str | None = None
    name: str | None = None
    email: str | None = None


class SmallEvent(BaseModel):
    """An event without its rows."""

    action: str
    occurred_at: str | None = None
    server_id: str | None = None
    actor: SmallActor | None = None


app = FastAPI()


@app.post("/v1/events", status_code=201)
async def post(event: SmallEvent) -> dict[str, str]:
    """Answer and forget."""
    return {"action": event.action, "status": "accepted"}


def main() -> None:
    """Serve until terminated."""
    with socket.create_server(("127.0.0.1", 0), backlog=2048) as listener:
        print(listener.getsockname()[1], flush=True)
        configuration = uvicorn.Config(
            app,
            http="httptools",
            loop="uvloop",
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
        )
        uvicorn.Server(configuration).run(sockets=[listener])


if __name__ == "__main__":
    main()
