"""Any bit of any entry, flipped, is found at its seq."""

from hypothesis import assume, given, settings
from hypothesis import strategies as st

from audit_service.core.entry import GROUPS
from tests.support.tampering import SIZE, Lab, is_clean

BYTES = ("prev_hash", "body_hash", "hash", *(f"d_{group}" for group in GROUPS))


@settings(max_examples=150)
@given(seq=st.integers(0, SIZE - 1), column=st.sampled_from(BYTES), place=st.floats(0, 1, exclude_max=True))
async def test_any_flipped_bit_of_hashes_and_disclosures_is_found(
    built: Lab, seq: int, column: str, place: float
) -> None:
    """At its seq, wherever it is."""
    before = (await built.rows())[seq][column]
    assume(before is not None)
    flipped = bytearray(before)
    bit = int(place * len(flipped) * 8)
    flipped[bit // 8] ^= 1 << bit % 8
    await found_and_put_back(built, seq, column, bytes(flipped), before)


@settings(max_examples=100)
@given(seq=st.integers(0, SIZE - 1), place=st.floats(0, 1, exclude_max=True))
async def test_any_flipped_bit_of_a_body_is_found(built: Lab, seq: int, place: float) -> None:
    """Every one that still is a text PostgreSQL can hold."""
    before = (await built.rows())[seq]["body"]
    flipped = bytearray(before.encode())
    bit = int(place * len(flipped) * 8)
    flipped[bit // 8] ^= 1 << bit % 8
    try:
        after = flipped.decode()
    except UnicodeDecodeError:
        assume(False)
    assume("\x00" not in after)
    await found_and_put_back(built, seq, "body", after, before)


@settings(max_examples=60)
@given(seq=st.integers(0, SIZE - 1), column=st.sampled_from(["epoch", "at_us", "kind"]), bit=st.integers(0, 30))
async def test_any_flipped_bit_of_the_other_header_lines_is_found(built: Lab, seq: int, column: str, bit: int) -> None:
    """Epoch, time and kind; the seq itself is a matter of rows."""
    before = (await built.rows())[seq][column]
    if column == "kind":
        flipped = bytearray(before.encode())
        flipped[bit % len(flipped)] ^= 1 << bit % 7
        assume(0 not in flipped)
        await found_and_put_back(built, seq, "kind", flipped.decode(), before)
    elif column == "epoch":
        await found_and_put_back(built, seq, "epoch", before ^ (1 << bit), before)
    else:
        time = "'epoch'::timestamptz + {} * interval '1 microsecond'"
        await built.edit(seq, f"recorded_at = {time.format(before ^ (1 << bit))}")
        report = await built.report()
        await built.edit(seq, f"recorded_at = {time.format(before)}")
        assert (report.status, report.breaks[0].seq) == ("broken", seq)


async def found_and_put_back(lab: Lab, seq: int, column: str, after: object, before: object) -> None:
    """With the changed value the log is broken first at this seq; with the old one it is clean."""
    await lab.edit(seq, f"{column} = $3", after)
    report = await lab.report()
    await lab.edit(seq, f"{column} = $3", before)
    assert (report.status, report.breaks[0].seq) == ("broken", seq)
    assert await is_clean(lab)
