"""``python -m datasets``: the expression data sets that people have on disk.

python -m datasets list               which sets are known, and by what
python -m datasets check ~/CK+        which set it is, whether it is whole, its duplicates and conflicting labels
python -m datasets check ~/x --quick  only count: images are not opened
python -m datasets show ~/CK+ -o sheet.png
python -m datasets augment ~/RAF-DB -o ~/RAF-DB-more --kinds rotation crops --seed 1
python -m datasets augment ~/CK+48 -o ~/fold3 --folds folds.json --fold 3
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from datasets import SIDE
from datasets.augment import KINDS, augment
from datasets.catalog import LAYOUTS
from datasets.check import check
from datasets.contact_sheet import show
from edge_fer.errors import OS_ERROR, EdgeFerError


def main(arguments: list[str] | None = None) -> int:
    """Do as told; returns the exit code."""
    args = _parser().parse_args(arguments)
    try:
        match args.verb:
            case "list":
                _list()
            case "check":
                check(args.folder, args.quick)
            case "augment":
                augment(args.folder, args.out, args.kinds, args.copies, args.seed, args.folds, args.fold, args.size)
                print(args.out)
            case "show":
                print(show(args.folder, args.out, args.columns))
    except EdgeFerError as error:
        print(f"datasets: {error}", file=sys.stderr)
        return error.exit_code
    except OSError as error:
        print(f"datasets: {error.filename or 'a file'}: {error.strerror or error}.", file=sys.stderr)
        return OS_ERROR
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m datasets", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    verbs.add_parser("list", help="which data sets are known, and by what")
    verb = verbs.add_parser("check", help="which set lies in a folder, and what is wrong with it")
    verb.add_argument("folder", type=Path, metavar="DIR")
    verb.add_argument("--quick", action="store_true", help="only count: images are not opened")
    verb = verbs.add_parser("show", help="draw a contact sheet")
    verb.add_argument("folder", type=Path, metavar="DIR")
    verb.add_argument("-o", "--out", type=Path, default=Path("sheet.png"), metavar="PNG", help="(sheet.png)")
    verb.add_argument("--columns", type=_positive, default=10, help="images of each label (10)")
    verb = verbs.add_parser("augment", help="write a set anew, with more images for training")
    verb.add_argument("folder", type=Path, metavar="DIR")
    verb.add_argument("-o", "--out", type=Path, required=True, metavar="NEW", help="a new folder")
    verb.add_argument("--kinds", nargs="+", choices=list(KINDS), default=list(KINDS), help="(all)")
    verb.add_argument("--copies", type=_positive, default=1, help="of each image and kind (1); crops are always ten")
    verb.add_argument("--seed", type=_natural, default=0, help="the same gives the same files (0)")
    verb.add_argument("--folds", type=Path, metavar="FILE", help="of `python -m evaluation folds --json`")
    verb.add_argument("--fold", type=_positive, default=1, help="which of them is the test (1)")
    verb.add_argument("--size", type=_positive, default=SIDE, help="side of the images in pixels (48)")
    return parser


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is no number from 1")
    return int(text)


def _natural(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text} is no number from 0")
    return int(text)


def _list() -> None:
    table = Table("name", "data set", "looks for", box=SIMPLE, pad_edge=False)
    table.add_column("whole set", justify="right")
    table.add_column("terms")
    for layout in LAYOUTS:
        counts = ", ".join(f"{count:,} {what}" for what, count in layout.counts.items())
        table.add_row(layout.name, layout.title, layout.wants, counts, layout.licence)
    Console(width=None if sys.stdout.isatty() else 200, highlight=False).print(table)


if __name__ == "__main__":
    sys.exit(main())
