"""What an archive holds, on one HTML page that needs nothing else: expressions, doubt, and files that were bad."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from stat import S_ISDIR
from typing import Any

from edge_fer.archive.folder import ArchiveFolder
from edge_fer.archive.tables import FACES, VIDEOS, schema_of
from edge_fer.core import Expression
from edge_fer.draw import COLORS
from edge_fer.errors import InputMissingError
from edge_fer.files import mode_of, write_atomically

BINS = 20
"""Parts of a video's length over which the course of expressions is drawn."""
MOST_VIDEOS = 50
MOST_BAD = 200

QUERIES = {
    "totals": """
        SELECT count(*) AS videos, count(error) AS bad, sum(duration_s) / 3600 AS hours, sum(frames) AS frames,
               sum(faces) AS faces, sum(tracks)::BIGINT AS tracks, min(model) AS model, min(edge_fer) AS edge_fer
        FROM videos""",
    "expressions": """
        SELECT expression, count(*) AS n FROM faces WHERE uncertain IS NULL GROUP BY expression ORDER BY n DESC""",
    "doubt": """
        SELECT uncertain, count(*) AS n FROM faces WHERE uncertain IS NOT NULL GROUP BY uncertain ORDER BY n DESC""",
    "course": f"""
        SELECT least({BINS - 1}, floor({BINS} * f.time_s / greatest(v.duration_s, 1e-3)))::INT AS part,
               f.expression, count(*) AS n
        FROM faces f JOIN videos v USING (video) WHERE f.uncertain IS NULL GROUP BY ALL ORDER BY ALL""",
    "videos": f"""
        WITH most AS (SELECT video FROM videos ORDER BY faces DESC, video LIMIT {MOST_VIDEOS})
        SELECT video, expression, count(*) AS n FROM faces SEMI JOIN most USING (video)
        WHERE uncertain IS NULL GROUP BY video, expression
        ORDER BY sum(count(*)) OVER (PARTITION BY video) DESC, video, expression""",
    "bad": f"SELECT video, error FROM videos WHERE error IS NOT NULL ORDER BY video LIMIT {MOST_BAD}",
}
"""In DuckDB's SQL, over the views ``faces`` and ``videos``."""

_PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>Expressions in {title}</title>
<style>
body {{ font: 15px/1.5 system-ui, sans-serif; max-width: 60em; margin: 2em auto; padding: 0 1em }}
body {{ color: #222; background: #fff }}
h1 {{ font-size: 1.5em }} h2 {{ font-size: 1.15em; margin-top: 2em }}
table {{ border-collapse: collapse }} td, th {{ padding: .15em .8em .15em 0; text-align: left; vertical-align: top }}
td.n {{ text-align: right; font-variant-numeric: tabular-nums }} td.path {{ word-break: break-all; max-width: 32em }}
.swatch {{ display: inline-block; width: .9em; height: .9em; margin-right: .4em }}
.swatch {{ border: 1px solid #0003; vertical-align: -.1em }}
svg {{ display: block }} p.note {{ color: #555 }}
</style>
<h1>Expressions in {title}</h1>
<p>{totals}</p>
<p class="note">An expression is what a face shows, not what somebody feels. A row is one face in one frame; whoever is
longer in the picture counts more. Answers with a stated doubt are left out of the shares.</p>
{parts}
</html>
"""


def write_report(output: Path) -> Path:
    """Write ``report.html`` into an archive.

    Args:
        output: folder of the archive.

    Returns:
        The path of the page.

    Raises:
        InputMissingError: there is no archive, or nothing in it.
        OutputError: the page cannot be written.
    """
    import duckdb
    from pyarrow import dataset

    folder = ArchiveFolder(output)
    if not S_ISDIR(mode_of(folder.videos)) or not folder.done():
        raise InputMissingError(
            f"There is no archive in {output}. Make one first: edge-fer archive videos/ -o {output}."
        )
    with duckdb.connect() as base:
        for name, place, columns in (("faces", folder.faces, FACES), ("videos", folder.videos, VIDEOS)):
            # Not DuckDB's own reader, to which a folder's name may be a pattern.
            base.register(name, dataset.dataset(place, schema=schema_of(columns), format="parquet"))
        found = {name: _rows(base.execute(query)) for name, query in QUERIES.items()}
    path = output / "report.html"
    write_atomically(path, _page(output.absolute().name, found).encode("utf-8", "backslashreplace"))
    return path


def _rows(result: Any) -> list[dict[str, Any]]:
    names = [column[0] for column in result.description]
    return [dict(zip(names, row, strict=True)) for row in result.fetchall()]


def _page(title: str, found: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    (totals,) = found["totals"]
    text = (
        f"{totals['videos']:,} videos ({totals['hours'] or 0:,.1f} hours), {totals['bad']:,} of them bad; "
        f"{totals['frames']:,} frames looked at, {totals['faces']:,} rows of {totals['tracks']:,} faces that were "
        f"followed. Model {escape(totals['model'] or 'none')}, edge-fer {escape(totals['edge_fer'])}."
    )
    certain = sum(row["n"] for row in found["expressions"])
    parts = [f"<h2>Shares of {certain:,} rows without doubt</h2>", _table(found["expressions"], "expression")]
    if found["course"]:
        parts += ["<h2>From the beginning to the end of the videos</h2>", _course(found["course"])]
    if found["videos"]:
        shown = len({row["video"] for row in found["videos"]})
        parts += [f"<h2>The {shown} videos with the most rows</h2>", _per_video(found["videos"])]
    if found["doubt"]:
        doubtful = sum(row["n"] for row in found["doubt"])
        parts += [f"<h2>Why {doubtful:,} rows are in doubt</h2>", _table(found["doubt"], "uncertain")]
    if found["bad"]:
        rows = "".join(f"<tr><td class=path>{escape(one['video'])}<td>{escape(one['error'])}" for one in found["bad"])
        more = "" if len(found["bad"]) == totals["bad"] else f", the first {MOST_BAD}"
        parts += [f"<h2>{totals['bad']:,} files that could not be read, or not to their end{more}</h2>"]
        parts += [f"<table>{rows}</table>"]
    return _PAGE.format(title=escape(title), totals=text, parts="\n".join(parts))


def _table(rows: Sequence[Mapping[str, Any]], key: str) -> str:
    whole = sum(row["n"] for row in rows) or 1
    lines = []
    for row in rows:
        name, share = str(row[key]), row["n"] / whole
        bar = _stacked([(name, share)], 300, 14)
        lines.append(f"<tr><td>{_named(name)}<td class=n>{row['n']:,}<td class=n>{share:.1%}<td>{bar}")
    return f"<table>{''.join(lines)}</table>"


def _named(name: str) -> str:
    color = _color(name)
    return f'<span class="swatch" style="background:{color}"></span>{escape(name)}'


def _color(name: str) -> str:
    return COLORS[Expression(name)] if name in Expression.__members__.values() else "#888"


def _stacked(shares: Sequence[tuple[str, float]], width: float, height: float) -> str:
    """A bar of shares, each with its name and percentage where the mouse rests."""
    pieces, at = [], 0.0
    for name, share in shares:
        title = f"<title>{escape(name)} {share:.1%}</title>"
        place = f'x="{at * width:.1f}" width="{share * width:.1f}" height="{height:g}"'
        pieces.append(f'<rect {place} fill="{_color(name)}">{title}</rect>')
        at += share
    return f'<svg width="{width:g}" height="{height:g}" role="img">{"".join(pieces)}</svg>'


def _shares(rows: Sequence[Mapping[str, Any]]) -> list[tuple[str, float]]:
    """Of each expression, in the order of the vocabulary, so that bars can be compared."""
    whole = sum(row["n"] for row in rows) or 1
    counts = {row["expression"]: row["n"] / whole for row in rows}
    return [(one.value, counts[one.value]) for one in Expression if one.value in counts]


def _course(rows: Sequence[Mapping[str, Any]]) -> str:
    """One stacked column for each part of the videos' length."""
    width, height = 36.0, 180.0
    columns = []
    for part in range(BINS):
        at = height
        for name, share in _shares([row for row in rows if row["part"] == part]):
            at -= share * height
            columns.append(
                f'<rect x="{part * width:g}" y="{at:.1f}" width="{width - 2:g}" height="{share * height:.1f}" '
                f'fill="{_color(name)}"><title>{escape(name)} {share:.1%}</title></rect>'
            )
    size = f'viewBox="0 0 {BINS * width:g} {height:g}" width="100%"'
    return f'<svg {size} role="img" aria-label="shares of expressions by part of the video">{"".join(columns)}</svg>'


def _per_video(rows: Sequence[Mapping[str, Any]]) -> str:
    by_video: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        by_video.setdefault(row["video"], []).append(row)
    lines = []
    for video, own in by_video.items():
        bar = _stacked(_shares(own), 300, 14)
        lines.append(f"<tr><td class=path>{escape(video)}<td class=n>{sum(row['n'] for row in own):,}<td>{bar}")
    return f"<table>{''.join(lines)}</table>"
