"""Evidence over HTTP: a part of the log as a file that proves itself."""

from collections.abc import Sequence
from urllib.parse import urlencode

from fastapi import APIRouter, Request
from fastapi.responses import Response

from audit_service.api import parameters, schemas
from audit_service.api.dependencies import ServiceOf, WholeExporter, documented_security
from audit_service.api.download import Download, in_place
from audit_service.api.noting import ending, filters_in, noted
from audit_service.core.sight import EVERYTHING, Sight
from audit_service.evidence import MEDIA_TYPE, Wanted, filename, make_evidence, plan_evidence

router = APIRouter(tags=["evidence"], dependencies=documented_security)
_RANGE = ("from_seq", "to_seq", "checkpoint_size")


@router.get(
    "/v1/evidence",
    openapi_extra={"parameters": schemas.EVIDENCE_PARAMETERS},
    responses=schemas.EVIDENCE_RESPONSES,
    response_model=None,
)
async def get_evidence(request: Request, service: ServiceOf, credential: WholeExporter) -> Response:
    """A range of the log as a bundle that anybody can check offline with `audit-service verify-file` and the log's public key. With
    filters it holds what they select, each entry proven to be in the log, but not that none was left out.

    For a credential that does not see the service's entries about itself, a whole range has them without their disclosures, and the
    verifier says that they were withheld and not checked; with filters they are left out.

    409 when the range is not signed yet, or something of it was forgotten since the checkpoint."""
    pairs = request.query_params.multi_items()
    wanted = evidence_wanted(pairs, await service.stored_form(credential), credential.sight)
    tree = await service.tree_of(credential.log_id, credential.log_key)
    plan = await plan_evidence(tree, wanted)
    filters = filters_in(request, *_RANGE)
    end = ending(
        request, credential, "audit.evidence.finished", from_seq=plan.from_seq, to_seq=plan.to_seq, filters=filters
    )
    stream = in_place(service.exports, request, credential, noted(end, make_evidence(tree, plan)))
    first = await anext(stream)  # a database that is away, or no free slot, gets a status of its own
    return Download(stream, first, media_type=MEDIA_TYPE, filename=filename(tree, plan))


def evidence_wanted(
    pairs: Sequence[tuple[str, str]], stored_form: parameters.StoredForm, sight: Sight = EVERYTHING
) -> Wanted:
    """What a query asks for. The service's entries about itself are in a whole range, whoever asks, for with holes it would prove nothing;
    their disclosures for a sight of them only. Filters find them for such a sight only: what a filter finds, it tells. Raises
    InvalidQueryError."""
    asked = parameters.Query(pairs, (*parameters.FILTERS, *_RANGE))
    selection = parameters.selection(asked, sight=sight, stored_form=stored_form)
    from_seq, to_seq, checkpoint_size = (
        parameters.whole_number(asked, name, default=0) if asked.has(name) else None for name in _RANGE
    )
    asked.finish()
    if selection.is_whole:
        return Wanted(from_seq, to_seq, checkpoint_size, own_entries=sight.own_entries)
    filters = urlencode([pair for pair in pairs if pair[0] not in _RANGE])
    return Wanted(from_seq, to_seq, checkpoint_size, selection, filters, sight.own_entries)
