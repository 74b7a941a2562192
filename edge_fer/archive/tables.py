"""The two tables of an archive: one row a face and frame, one row a video."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from edge_fer.core import Expression
from edge_fer.events import Event

SCHEMA_VERSION = 1
"""Grows when a column goes away or changes its meaning."""


class Column(NamedTuple):
    """A column, as docs/scale.md lists it.

    Attributes:
        name: of it.
        kind: Arrow's name of its type.
        text: what stands in it.
    """

    name: str
    kind: str
    text: str


FACES = (
    Column("video", "string", "path of the file"),
    Column("seq", "int64", "number of the frame in its video, from 0"),
    Column("time_s", "double", "when it is shown, seconds"),
    Column("track", "int32", "number of the face in its video, from 1: where it was, never who it is"),
    Column("x", "double", "left edge of its box, fraction of the frame's width"),
    Column("y", "double", "upper edge, fraction of its height"),
    Column("w", "double", "width of its box, fraction of the frame's width"),
    Column("h", "double", "height of its box, fraction of its height"),
    Column("expression", "string", "what it shows, steadied over time"),
    Column("confidence", "double", "probability of that, 0-1"),
    Column("uncertain", "string", "why not to rely on it; null if there is no doubt"),
    Column("raw", "string", "most probable expression in this frame alone"),
    *(
        Column(f"p_{one}", "double", f"probability of {one}; null if the model does not report it")
        for one in Expression
    ),
    Column("intensity", "double", "0-1, a proxy"),
    Column("valence", "double", "-1 to 1, a proxy"),
    Column("arousal", "double", "-1 to 1, a proxy"),
    Column("stable_ms", "double", "for how long the expression has been the same, milliseconds"),
    Column("size_px", "int32", "shorter side of its box, pixels"),
    Column("blur", "double", "variance of the Laplacian: low is blurred"),
    Column("brightness", "double", "mean gray, 0-1"),
    Column("noise", "double", "sigma of the noise over that of the face's gray levels"),
    Column("eyes", "double", "contrast of the eyes' band over the face's"),
    Column("mouth", "double", "contrast of the mouth's band over the face's"),
    Column("turn", "double", "how far the head is turned; null where the detector gives no landmarks"),
)
"""One row a face and frame: what ``event.schema.json`` says of it."""

VIDEOS = (
    Column("video", "string", "path of the file"),
    Column("bytes", "int64", "its size"),
    Column("modified_ns", "int64", "when its content changed last, nanoseconds since 1970"),
    Column("width", "int32", "of its frames, pixels; null where none could be read"),
    Column("height", "int32", "of its frames, pixels; null where none could be read"),
    Column("fps", "double", "its nominal frame rate; null where it cannot be opened"),
    Column("duration_s", "double", "when the last frame that was looked at is shown, seconds"),
    Column("frames", "int64", "frames that were looked at"),
    Column("faces", "int64", "its rows in faces"),
    Column("tracks", "int32", "faces that were followed, those without a row included"),
    Column("error", "string", "why it could not be read, or not to its end; null if it was"),
    Column("warnings", "list<string>", "what else was wrong with it"),
    Column("model", "string", "name of the model"),
    Column("model_sha256", "string", "of its FlatBuffer, in hex"),
    Column("decision", "string", "the rule that made the answers of its logits"),
    Column("edge_fer", "string", "version of edge-fer"),
)
"""One row a video."""


def row_of(video: str, event: Event) -> dict[str, Any]:
    """The row of an event that is not an end."""
    x, y, w, h = event["box"]
    known: Mapping[str, float] = event["probabilities"]
    flat = {**event, **event["quality"], "video": video, "x": x, "y": y, "w": w, "h": h}
    flat |= {f"p_{one}": known.get(one.value) for one in Expression}
    return {column.name: flat[column.name] for column in FACES}


def schema_of(columns: Iterable[Column]) -> Any:
    """The ``pyarrow.Schema``."""
    import pyarrow as pa

    def kind(name: str) -> Any:
        return pa.list_(pa.string()) if name == "list<string>" else pa.type_for_alias(name)

    fields = [pa.field(name, kind(of)) for name, of, _ in columns]
    return pa.schema(fields, metadata={"edge_fer_schema": str(SCHEMA_VERSION)})
