"""Proofs over HTTP: that an entry is in the log, that the log only grew, and one event's proof as a file."""

import re

from fastapi import APIRouter, Request
from fastapi.responses import Response

from audit_service.api import listing, parameters, schemas
from audit_service.api.dependencies import Reader, ServiceOf, Verifier, documented_security, raw_path
from audit_service.api.routes.events import find_seq, get_event
from audit_service.proofs import make_consistency, make_inclusion, make_proof_file
from audit_service.stored_tree import Signed

router = APIRouter(tags=["proofs"], dependencies=documented_security)
WAIT_LIMIT_SECONDS = 10
_FILENAME_CHARACTERS = 100


@router.get(
    "/v1/chain/inclusion",
    openapi_extra={"parameters": schemas.INCLUSION_PARAMETERS},
    responses=schemas.INCLUSION_RESPONSES,
    response_model=None,
)
async def prove_inclusion(request: Request, service: ServiceOf, credential: Verifier) -> Response:
    """That an entry is at its place in the tree of a size (RFC 6962). Checked before it is answered; to believe it, check it against a
    checkpoint whose signature you have checked."""
    asked = parameters.Query(request.query_params.multi_items(), ("seq", "size"))
    seq = parameters.required_number(asked, "seq")
    size = parameters.whole_number(asked, "size", default=-1)
    asked.finish()
    tree = await service.tree_of(credential.log_id, credential.log_key)
    proof = await make_inclusion(tree, seq, None if size < 0 else size)
    return listing.answer(
        {
            "seq": proof.seq,
            "size": proof.size,
            "leaf": proof.leaf.hex(),
            "hashes": [one.hex() for one in proof.hashes],
            "root": proof.root.hex(),
            "checkpoint": _note(proof.signed),
        }
    )


@router.get(
    "/v1/chain/consistency",
    openapi_extra={"parameters": schemas.CONSISTENCY_PARAMETERS},
    responses=schemas.CONSISTENCY_RESPONSES,
    response_model=None,
)
async def prove_consistency(request: Request, service: ServiceOf, credential: Verifier) -> Response:
    """That the tree of one size begins with the tree of another: nothing before was changed, taken out or put in (RFC 6962)."""
    asked = parameters.Query(request.query_params.multi_items(), ("from_size", "to_size"))
    from_size = parameters.required_number(asked, "from_size")
    to_size = parameters.whole_number(asked, "to_size", default=-1)
    asked.finish()
    tree = await service.tree_of(credential.log_id, credential.log_key)
    proof = await make_consistency(tree, from_size, None if to_size < 0 else to_size)
    return listing.answer(
        {
            "from_size": proof.from_size,
            "to_size": proof.to_size,
            "hashes": [one.hex() for one in proof.hashes],
            "from_root": proof.from_root.hex(),
            "to_root": proof.to_root.hex(),
            "checkpoint": _note(proof.signed),
        }
    )


@router.get(
    "/v1/events/{event_id:path}/proof",
    openapi_extra={"parameters": schemas.PROOF_PARAMETERS},
    responses=schemas.PROOF_RESPONSES,
    response_model=None,
)
async def get_proof(event_id: str, request: Request, service: ServiceOf, credential: Reader) -> Response:
    """One event's proof as a file (C2SP tlog-proof): its header, its place in the tree and the signed checkpoint. `verify-file` checks it
    offline. An event whose id ends in `/proof` is `…%2Fproof`. Whoever sees the event may have its proof; it tells how many entries the
    log has."""
    if not raw_path(request).endswith(b"/proof"):
        return await get_event(f"{event_id}/proof", request, service, credential)
    asked = parameters.Query(request.query_params.multi_items(), ("wait",))
    wait = parameters.whole_number(asked, "wait", default=0)
    if wait > WAIT_LIMIT_SECONDS:
        asked.fail("wait", f"must be 0 to {WAIT_LIMIT_SECONDS} seconds")
    asked.finish()
    seq = await find_seq(event_id, service, credential)
    tree = await service.tree_of(credential.log_id, credential.log_key)
    text = await make_proof_file(tree, seq, wait_seconds=wait)
    # An id may hold anything; a header and a file name may not.
    name = re.sub(r"[^A-Za-z0-9._-]", "_", event_id).lstrip(".")[:_FILENAME_CHARACTERS] or "event"
    headers = {"Cache-Control": "no-store", "Content-Disposition": f'attachment; filename="{name}.tlog-proof"'}
    return Response(text, headers=headers, media_type="text/plain; charset=utf-8")


def _note(signed: Signed | None) -> str | None:
    return None if signed is None else signed.note
