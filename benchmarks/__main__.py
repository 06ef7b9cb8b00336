"""The numbers the project promises, measured here: `make bench`.

    python -m benchmarks                     everything
    python -m benchmarks p1 p2               some of it
    python -m benchmarks --quick             a smoke run: does it all work? (no measurement)
    python -m benchmarks p7 --rows 1000000   the full size of P7
    python -m benchmarks p5 --events 100000 --events 10000000

Ratios, because only they travel from machine to machine: both sides run in turn, in the same run, on the same server. Every side does all
of its work: the service runs as a user starts it, with its own PostgreSQL and that one's durable settings, in a temporary folder.
A missed goal is printed as such. Everything also goes to `benchmarks/out/results.json`.
"""

import argparse
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.batch import measure_p2
from benchmarks.exporting import measure_beside, measure_p4, measure_p6
from benchmarks.forgetting import measure_forgetting
from benchmarks.greedy import measure_greedy
from benchmarks.indexes import measure_p7
from benchmarks.lag import measure_lag
from benchmarks.load import choose_generator, describe_generator
from benchmarks.machine import describe_machine, describe_versions, is_busy
from benchmarks.offline import measure_offline
from benchmarks.options import Options, quick
from benchmarks.proving import measure_proofs
from benchmarks.queries import measure_p5
from benchmarks.reading import measure_p3
from benchmarks.report import BenchmarkError, Section, format_section, format_verdicts, write_json
from benchmarks.search import measure_search
from benchmarks.single import measure_load, measure_p1
from benchmarks.steps import measure_steps

OUT = Path(__file__).resolve().parent / "out" / "results.json"
SECTIONS: dict[str, Callable[[Options], Section]] = {
    "p1": measure_p1,
    "load": measure_load,
    "p2": measure_p2,
    "steps": measure_steps,
    "p3": measure_p3,
    "p4": measure_p4,
    "beside": measure_beside,
    "greedy": measure_greedy,
    "forgetting": measure_forgetting,
    "p5": measure_p5,
    "p6": measure_p6,
    "p7": measure_p7,
    "search": measure_search,
    "proofs": measure_proofs,
    "lag": measure_lag,
    "offline": measure_offline,
}


def main() -> int:
    """Measure what is asked for; exit 0 when it could be measured, whether or not the goals were reached."""
    arguments = _arguments()
    # So that a stop unwinds: no server and no folder stays behind.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with tempfile.TemporaryDirectory(prefix="audit-bench-", dir=arguments.folder) as folder:
        try:
            _measure(arguments, Path(folder))
        except BenchmarkError as error:
            print(f"benchmarks: {error}", file=sys.stderr)
            return 1
    return 0


def _measure(arguments: argparse.Namespace, folder: Path) -> None:
    options = _options(arguments, folder)
    facts = _facts(arguments, options)
    _print_facts(facts)
    sections = []
    for name in arguments.sections or SECTIONS:
        print(f"… {name}", file=sys.stderr, flush=True)
        began = time.monotonic()
        sections.append(SECTIONS[name](options))
        print(format_section(sections[-1]), flush=True)
        print(f"… {name} took {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
        write_json(arguments.out, facts, sections)  # after each, so that a stop loses nothing
    print(format_verdicts(sections))
    if arguments.quick:
        print("\nA smoke run (--quick): too short to say anything about speed.")
    print(f"\nJSON: {arguments.out}")


def _facts(arguments: argparse.Namespace, options: Options) -> dict[str, Any]:
    sizes = (
        "seconds",
        "rounds",
        "batch_events",
        "stored_events",
        "index_rows",
        "sample_events",
        "tenants",
        "workers",
        "query_sizes",
    )
    return {
        "started_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "quick": arguments.quick,
        "machine": describe_machine(options.folder),
        "versions": describe_versions(),
        "load_generator": describe_generator(options.generator),
        "options": {name: getattr(options, name) for name in sizes},
    }


def _print_facts(facts: dict[str, Any]) -> None:
    machine = facts["machine"]
    print(f"# audit-service benchmarks, {facts['started_at']}\n")
    print(f"Machine: {machine['cpu']}, {machine['cores']} cores, {machine['memory_gib']} GiB, {machine['system']}")
    print(f"Disk: {machine['file_system']}, {machine['flush_microseconds']} µs to flush 8 KiB")
    print("Versions: " + ", ".join(f"{name} {number}" for name, number in facts["versions"].items()))
    print(f"Load generator: {facts['load_generator']}")
    if machine["file_system"] == "tmpfs":
        print("Warning: the data lies in memory, so a flush costs nothing; name a folder on a disk with --folder.")
    if is_busy(machine):
        print(
            f"Warning: the machine was busy at the start (load {machine['load_at_start']}): the figures are not of it alone."
        )


def _options(arguments: argparse.Namespace, folder: Path) -> Options:
    generator = choose_generator(arguments.generator)
    options = quick(folder, generator) if arguments.quick else Options(folder, generator)
    if arguments.folder is not None:
        options = replace(options, seeded_folder=arguments.folder / "seeded")
    if arguments.rows is not None:
        options = replace(options, index_rows=arguments.rows)
    return replace(options, query_sizes=tuple(arguments.events)) if arguments.events else options


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description="Both sides of every ratio, on this machine."
    )
    parser.add_argument("sections", nargs="*", metavar="SECTION", help=f"some of {', '.join(SECTIONS)} (default: all)")
    parser.add_argument("--quick", action="store_true", help="a smoke run of less than a minute: no measurement")
    parser.add_argument(
        "--events",
        type=_positive,
        action="append",
        help="size of a log, once for each: of P5, proofs (the largest), forgetting (the smallest); default: 100000 and 1000000",
    )
    parser.add_argument("--rows", type=_positive, help="rows of P7 (default: 200000; the goal is set at 1000000)")
    parser.add_argument(
        "--generator",
        choices=("auto", "wrk", "python"),
        default="auto",
        help="load generator (default: wrk if installed)",
    )
    parser.add_argument(
        "--folder", type=Path, help="folder on the disk to measure (default: the system's for temporary files)"
    )
    parser.add_argument("--out", type=Path, default=OUT, help="JSON file (default: benchmarks/out/results.json)")
    arguments = parser.parse_args()
    unknown = sorted(set(arguments.sections) - set(SECTIONS))
    if unknown:
        parser.error(f"there is no section {', '.join(unknown)}; choose from {', '.join(SECTIONS)}")
    return arguments


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return number


if __name__ == "__main__":
    sys.exit(main())
