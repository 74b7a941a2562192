"""Record the events of sources, or compare them with a recording: does a change of the code change an answer?

    python benchmarks/record_events.py record before/ demo clip.mp4 photos/
    python benchmarks/record_events.py compare before/ demo clip.mp4 photos/

Every source is read with both models of the package. Wall time, latency and the device's name are left out; all else is
compared to the last digit, so record and compare on the same machine. ``--tree DIR`` runs the code of another checkout.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from itertools import zip_longest
from pathlib import Path

MODELS = ("accurate", "nano")
VARYING = ("ts", "latency_ms", "device")


def events_of(source: str, model: str, tree: Path) -> list[str]:
    """The events of a source as normalized JSON lines, by a process of their own."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "events.jsonl"
        command = [sys.executable, "-m", "edge_fer", "run", "--camera", source, "--model", model]
        subprocess.run([*command, "--output", f"jsonl:{path}"], cwd=tree, check=True)
        events = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return [json.dumps({key: value for key, value in event.items() if key not in VARYING}) for event in events]


def main() -> int:
    """Run the command; returns 1 where an event differs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("verb", choices=["record", "compare"])
    parser.add_argument("folder", type=Path, help="of the recording")
    parser.add_argument("sources", nargs="+", help="what --camera takes")
    parser.add_argument("--tree", type=Path, default=Path.cwd(), help="checkout whose code is run (default: this one)")
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    different = 0
    for source in args.sources:
        where = source if source == "demo" else str(Path(source).resolve())
        for model in MODELS:
            events = events_of(where, model, args.tree)
            path = args.folder / f"{Path(source).name}.{model}.jsonl"
            if args.verb == "record":
                path.write_text("".join(f"{event}\n" for event in events), encoding="utf-8")
                print(f"{path}: {len(events)} events")
                continue
            before = path.read_text(encoding="utf-8").splitlines()
            pairs = [(one, other) for one, other in zip_longest(before, events) if one != other]
            different += len(pairs)
            print(f"{source} {model}: {len(pairs)} of {len(before)} events differ")
            if pairs:
                print(f"  before: {pairs[0][0]}\n  now:    {pairs[0][1]}")
    return int(different > 0)


if __name__ == "__main__":
    sys.exit(main())
