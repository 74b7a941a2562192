"""Small data sets in the forms that users have, made of patterns that a tiny network can tell apart."""

from __future__ import annotations

from pathlib import Path

import numpy as np

VOTE_COLUMNS = "neutral,happiness,surprise,sadness,anger,disgust,fear,contempt,unknown,NF"
FER2013_TO_VOTE = (4, 5, 6, 1, 3, 2, 0)  # FER2013's code -> FER+'s column


def pattern(label: int, noise: np.random.Generator) -> np.ndarray:
    """A 48x48 uint8 image of a class: a bright bar whose place tells the label, in noise."""
    image = noise.integers(0, 80, (48, 48))
    image[6 * label : 6 * label + 8] += 150
    return image.astype(np.uint8)


def write_csvs(folder: Path, training: int = 140, public: int = 42, votes: bool = True) -> None:
    """Write fer2013.csv and fer2013new.csv with that many rows; labels go round."""
    noise = np.random.default_rng(3)
    rows, vote_rows = ["emotion,pixels,Usage"], [f"Usage,Image name,{VOTE_COLUMNS}"]
    for number in range(training + public):
        label, usage = number % 7, "Training" if number < training else "PublicTest"
        pixels = " ".join(map(str, pattern(label, noise).ravel()))
        rows.append(f"{label},{pixels},{usage}")
        counts = [0] * 10
        counts[FER2013_TO_VOTE[label]] = 8
        counts[8] = 2
        vote_rows.append(f"{usage},fer{number:07d}.png,{','.join(map(str, counts))}")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "fer2013.csv").write_text("\n".join(rows) + "\n")
    if votes:
        (folder / "fer2013new.csv").write_text("\n".join(vote_rows) + "\n")
