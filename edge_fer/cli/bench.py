"""``edge-fer bench``: how fast this board is. The figures of a board are one line of JSON."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from edge_fer.cli.verbs import Verbs, add_verb
from edge_fer.config import default_file, default_files
from edge_fer.config_file import update_file
from edge_fer.errors import UsageError
from edge_fer.layers import load_settings
from edge_fer.strict import read_toml

EXAMPLES = """examples:
  edge-fer bench                              on the faces of the demo
  edge-fer bench --camera clip.mp4 --frames 500
  edge-fer bench --json                       one line for the table of boards in docs/benchmarks.md
  edge-fer bench --tune --camera 0            try settings for up to a minute, and write the best to the configuration
"""

MOST_FRAMES = 1_000_000
"""That may be asked for: the times of each are kept."""


def add_bench(verbs: Verbs) -> None:
    """Add the verb."""
    bench = add_verb(verbs, "bench", "measure how fast this board is", EXAMPLES)
    bench.add_argument("--camera", metavar="SOURCE", default="demo", help="as for run (default: demo)")
    bench.add_argument("--frames", type=int, metavar="N", default=300, help="measure at most so many (default: 300)")
    bench.add_argument("--json", action="store_true", help="print one line of JSON")
    bench.add_argument("--tune", action="store_true", help="find the best settings and write them to the configuration")
    bench.add_argument(
        "--config", type=Path, metavar="TOML", help="configuration file to read, and to write with --tune"
    )
    bench.set_defaults(act=_bench)


def _bench(args: argparse.Namespace) -> None:
    if not 1 <= args.frames <= MOST_FRAMES:
        raise UsageError(f"--frames must be from 1 to {MOST_FRAMES}, not {args.frames}.")
    settings = load_settings(args.config, os.environ, {"camera.source": args.camera, "cameras": []})

    from edge_fer import measure

    if not args.tune:
        figures = measure.measure_settings(settings, args.frames)
        if args.json:
            print(json.dumps(figures))
        else:
            _print_figures(figures)
        return
    path = args.config or default_file() or default_files()[-1]
    with suppress(FileNotFoundError):
        read_toml(path)
        update_file(path, {})  # what cannot be read or written is refused now, not after a minute
    trials, best = measure.tune(settings)
    update_file(path, best)
    if args.json:
        print(json.dumps({"trials": trials, "best": best, "written_to": str(path)}))
    else:
        _print_trials(trials)
        print(f"{', '.join(f'{key} = {value}' for key, value in best.items())} written to {path}.")


def _print_figures(figures: Mapping[str, Any]) -> None:
    """What ``bench`` found, for people."""
    from rich.console import Console
    from rich.table import Table

    table = Table("stage", *(f"{name} ms" for name in ("mean", "p50", "p95", "p99")))
    rows = {**figures["stages_ms"], "frame, without decode": figures["frame_ms"]}
    if figures["latency_ms"]:
        rows["from capture to events"] = figures["latency_ms"]
    for stage, row in rows.items():
        table.add_row(stage, *(f"{value:.2f}" for value in row.values()))
    console = Console()
    console.print(f"{figures['board']}, {figures['cpu']}, {figures['cores']} cores; {figures['date']}", highlight=False)
    console.print(
        f"edge-fer {figures['edge_fer']}, Python {figures['python']}, OpenCV {figures['opencv']}, {figures['runtime']}",
        highlight=False,
    )
    console.print(table)
    heat = "temperature not told" if figures["temperature_c"] is None else f"at {figures['temperature_c']} °C"
    throttled = "not told" if figures["throttled"] is None else ", ".join(figures["throttled"]) or "none"
    console.print(
        f"{figures['frames']} frames of {figures['source']} at {figures['fps']} fps, {figures['cpu_ms']:.2f} ms CPU "
        f"each; peak RSS {figures['rss_peak_mb']} MB; CPU {heat}; throttling {throttled}",
        highlight=False,
    )


def _print_trials(trials: Sequence[Mapping[str, Any]]) -> None:
    """What ``tune`` tried, for people."""
    from rich.console import Console
    from rich.table import Table

    from edge_fer.measure import network_ms

    table = Table("threads", "min face px", "new face s", "network ms", "frame p50 ms", "p95 ms", "frames")
    for one in trials:
        figures = (network_ms(one), one["frame_ms"]["p50"], one["frame_ms"]["p95"])
        cells = (f"{value:.2f}" for value in figures)
        settings = (str(one[name]) for name in ("threads", "min_face_px", "new_face_s"))
        table.add_row(*settings, *cells, str(one["frames"]))
    Console().print(table)
