"""Greedy readers, as a process of their own: so many exports and so many verifications under way at a time, by one key, for ever.

    python -m benchmarks.readers URL EXPORTS VERIFIES < key

Whoever is refused comes again after a pause far shorter than it was told. Ends with its stdin, and says what it got as a JSON line.
"""

import asyncio
import json
import sys
from collections import Counter
from urllib.parse import urlsplit

PAUSE_SECONDS = 0.25
PATHS = {"export": "/v1/export?format=csv", "verify": "/v1/chain/verify"}
_PIECE_BYTES = 256 * 1024


async def _read(host: str, port: int, key: str, kind: str, tally: Counter[str]) -> None:
    while True:
        reader, writer = await asyncio.open_connection(host, port)
        request = (
            f"GET {PATHS[kind]} HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {key}\r\nConnection: close\r\n\r\n"
        )
        writer.write(request.encode())
        status = (await reader.readline())[9:12].decode()
        tally[f"{kind} begun {status}"] += 1
        received = 0
        while piece := await reader.read(_PIECE_BYTES):
            received += len(piece)
        tally[f"{kind} ended {status}"] += 1
        tally[f"{kind} bytes"] += received if status == "200" else 0
        writer.close()
        if status != "200":
            await asyncio.sleep(PAUSE_SECONDS)


async def _run(url: str, key: str, exports: int, verifies: int) -> Counter[str]:
    place, tally = urlsplit(url), Counter[str]()
    kinds = ["export"] * exports + ["verify"] * verifies
    readers = [asyncio.create_task(_read(str(place.hostname), place.port or 80, key, kind, tally)) for kind in kinds]
    stop = asyncio.ensure_future(asyncio.to_thread(sys.stdin.read))
    await asyncio.wait((stop, *readers), return_when=asyncio.FIRST_COMPLETED)
    failed = [reader.exception() for reader in readers if reader.done()]
    for reader in readers:
        reader.cancel()
    await asyncio.gather(*readers, return_exceptions=True)
    for error in failed:
        if error is not None:
            raise error
    return tally


def main() -> None:
    """Read until stdin ends."""
    url, exports, verifies = sys.argv[1:]
    key = sys.stdin.readline().strip()
    print(json.dumps(asyncio.run(_run(url, key, int(exports), int(verifies)))))


if __name__ == "__main__":
    main()
