"""How much is measured, and for how long."""

from dataclasses import dataclass
from pathlib import Path

from benchmarks.load import Generator

SEEDED_FOLDER = Path(__file__).resolve().parent / "out" / "seeded"


@dataclass(frozen=True, slots=True)
class Options:
    """The size of a run; the defaults are those of `make bench`."""

    folder: Path
    generator: Generator
    seconds: int = 5
    rounds: int = 3
    batch_events: int = 20_000
    stored_events: int = 100_000
    index_rows: int = 200_000
    sample_events: int = 2_000
    offline_entries: int = 200_000
    proof_requests: int = 2_000
    lag_seconds: int = 30
    tenants: int = 64
    workers: tuple[int, ...] = (1, 2)
    query_sizes: tuple[int, ...] = (100_000, 1_000_000)
    # Where seeded logs are kept between runs; `folder` goes at the end of each.
    seeded_folder: Path = SEEDED_FOLDER


def quick(folder: Path, generator: Generator) -> Options:
    """A smoke run: everything is exercised, nothing is measured."""
    return Options(
        folder,
        generator,
        seconds=1,
        rounds=1,
        batch_events=1_000,
        stored_events=2_000,
        index_rows=4_000,
        sample_events=200,
        offline_entries=2_000,
        proof_requests=100,
        lag_seconds=6,
        tenants=8,
        workers=(1,),
        query_sizes=(20_000, 40_000),
    )
