"""Stub, being written by the lead."""
from fastapi import FastAPI
def create_app() -> FastAPI:
    app = FastAPI()
    @app.get("/healthz")
    async def healthz() -> dict[str, str]:
        return {"status": "ok"}
    return app
