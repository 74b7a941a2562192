"""What an archive costs: cores, memory over many videos, a killed worker, and what each engine adds.

    python benchmarks/bench_archive.py                     cores, memory, a killed worker
    python benchmarks/bench_archive.py dask ray spark      also what these engines add, where they are installed

Frames of the demo, 640x480 with two faces, as Motion-JPEG. Several calls in one run, so that ratios can be trusted
where times cannot. Tiny videos have three frames: what is left of a task when there is hardly a video.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import cv2

from edge_fer.archive import folder, task
from edge_fer.archive.inputs import find_videos
from edge_fer.config import DetectorSettings, ModelSettings
from edge_fer.model.bundle import Bundle
from edge_fer.sources.demo import DemoSource


def write_clips(home: Path, count: int, frames: int) -> Path:
    """So many equal clips, of the demo again and again."""
    home.mkdir()
    shown = [frame.picture() for frame in itertools.islice(DemoSource(), frames)]
    first = home / "00000.avi"
    writer = cv2.VideoWriter(str(first), cv2.VideoWriter.fourcc(*"MJPG"), 15, (640, 480))
    for picture in itertools.islice(itertools.cycle(shown), frames):
        writer.write(picture)
    writer.release()
    for number in range(1, count):
        os.link(first, home / f"{number:05}.avi")
    return home


def archive(videos: Path, output: Path, *options: str) -> dict[str, Any]:
    """Figures of one call, with what its process and children took."""
    command = [sys.executable, "-m", "edge_fer", "archive", str(videos), "-o", str(output), "--json", *options]
    since = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    wall_s = time.perf_counter() - since
    if done.returncode:
        return {"failed": done.stderr.strip().splitlines()[-1], "wall_s": wall_s}
    return {**json.loads(done.stdout.splitlines()[-1]), "wall_s": wall_s}


def files(output: Path) -> dict[str, bytes]:
    """All of its tables."""
    return {str(path.relative_to(output)): path.read_bytes() for path in output.glob("*/*.parquet")}


def rss_mb() -> float:
    """Resident memory of this process."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def measure_cores(home: Path) -> None:
    """Frames a second on one and on two cores."""
    videos = write_clips(home / "clips", 8, 960)
    one = archive(videos, home / "one", "-j", "1")
    two = archive(videos, home / "two", "-j", "2")
    for name, figures in (("one process", one), ("two processes", two)):
        rate = figures["frames"] / figures["seconds"]
        print(f"{name}: {figures['frames']} frames in {figures['seconds']} s, {rate:.1f} frames/s")
    same = files(home / "one") == files(home / "two")
    print(f"speed-up {one['seconds'] / two['seconds']:.2f}; the same bytes: {same}")


def measure_memory(home: Path, count: int) -> None:
    """Resident memory of a worker over many videos, each from its file to its tables."""
    videos, _ = find_videos([str(home / "tiny")])
    job = task.Job(home / "memory", DetectorSettings(), ModelSettings(), Bundle.load().metadata.model_sha256)
    folder.ArchiveFolder(job.folder).open(job.made_with())
    since = time.perf_counter()
    seen = []
    for number, video in enumerate(videos[:count], 1):
        assert task.process(job, video).kind == "done"
        if number in (1, count // 10) or number % (count // 5) == 0:
            seen.append(f"{rss_mb():.0f} MB after {number:,}")
    print(f"one worker, {count:,} tiny videos in {time.perf_counter() - since:.1f} s: {', '.join(seen)}")


def measure_death(home: Path) -> None:
    """The whole call is killed with SIGKILL in the middle, and called again."""
    output = home / "killed"
    command = [sys.executable, "-m", "edge_fer", "archive", str(home / "clips"), "-o", str(output), "-j", "2", "--json"]
    with subprocess.Popen(command, start_new_session=True, stdout=subprocess.DEVNULL) as child:
        while child.poll() is None and len(list(output.glob("videos/*.parquet"))) < 3:
            time.sleep(0.05)
        os.killpg(child.pid, signal.SIGKILL)
    left = len(list(output.glob("videos/*.parquet")))
    again = archive(home / "clips", output, "-j", "2")
    same = files(output) == files(home / "one")
    print(
        f"killed with {left} of 8 videos done; the next call did {again['done']}; the same bytes as undisturbed: {same}"
    )


def measure_engines(home: Path, count: int, engines: list[str]) -> None:
    """What an engine adds: its start with one tiny video, then each further one."""
    for name, many in (("first", 1), ("some", count)):
        (home / name).mkdir()
        for path in sorted((home / "tiny").iterdir())[:many]:
            os.link(path, home / name / path.name)
    for engine in ["loky", *engines]:
        first, some = (
            archive(home / name, home / f"{name}-{engine}", "-j", "2", "--backend", engine)
            for name in ("first", "some")
        )
        if reason := some.get("failed"):
            print(f"{engine}: {reason}")
            continue
        each_ms = (some["wall_s"] - first["wall_s"]) / (count - 1) * 1000
        same = files(home / f"some-{engine}") == files(home / "some-loky")
        print(
            f"{engine}: {first['wall_s']:.1f} s for one tiny video, {each_ms:.0f} ms more for each of {count}", end=""
        )
        print(f" with two workers; the same bytes as by loky: {same}")


def main() -> None:
    """Print all figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("engines", nargs="*", choices=["dask", "ray", "spark", []], help="to measure beside loky")
    parser.add_argument("--videos", type=int, default=1000, help="tiny ones (default: 1000)")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder_name:
        home = Path(folder_name)
        write_clips(home / "tiny", args.videos, 3)
        measure_memory(home, args.videos)
        measure_cores(home)
        measure_death(home)
        measure_engines(home, min(100, args.videos), args.engines)


if __name__ == "__main__":
    main()
