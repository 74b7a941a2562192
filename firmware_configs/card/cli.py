"""The command line: arguments -> boards -> cards."""

from __future__ import annotations

import argparse
import contextlib
import getpass
import os
import sys
from pathlib import Path
from typing import NoReturn

from card.board import FIELDS, Board, make_board, read_fleet
from card.errors import CANNOT_WRITE, INTERRUPTED, NO_INPUT, USAGE, FlashError, hidden, megabytes, printable
from card.image import Progress, measured
from card.imager import manifest
from card.job import Job, Shown
from card.seed import Release, check_boot
from card.target import beside

_EXAMPLES = """examples:
  The card has been written with Raspberry Pi Imager, and its boot partition is mounted:
    python3 flash.py write /media/me/bootfs --hostname kitchen --wifi "My network" --country GB --camera picamera:0
  System and settings in one go, onto a card in a reader (Linux; lsblk names it):
    sudo python3 flash.py write /dev/sdX --image 2025-12-04-raspios-trixie-arm64-lite.img.xz --hostname kitchen
  Fifty boards, a row each in fleet.csv, one card after another, or as image files:
    sudo python3 flash.py write /dev/sdX --image raspios.img.xz --fleet fleet.csv
    python3 flash.py write "cards/{hostname}.img" --image raspios.img.xz --fleet fleet.csv
  What Raspberry Pi Imager 2 opens to customize an image of one's own:
    python3 flash.py manifest edge-fer.img.xz
"""

_FLEET = f"CSV file with a row a board and a header; columns: {', '.join(sorted(FIELDS))}"


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise FlashError(f"{hidden(message)}. See `flash.py --help`.", USAGE)


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    try:
        args = _parser().parse_args(arguments)
        args.act(args)
    except FlashError as error:
        print(f"flash.py: {error}", file=sys.stderr)
        return error.exit_code
    except OSError as error:
        about = f"{error.strerror}: {printable(str(error.filename))}" if error.filename else error.strerror
        print(f"flash.py: {about}. Is the card still there?", file=sys.stderr)
        return CANNOT_WRITE
    except (KeyboardInterrupt, EOFError):
        print("\nflash.py: stopped.", file=sys.stderr)
        return INTERRUPTED
    return 0


def _parser() -> _Parser:
    parser = _Parser(
        prog="flash.py",
        description="Prepare SD cards for Raspberry Pis that run edge-fer.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    verbs = parser.add_subparsers(required=True, metavar="VERB")
    card = verbs.add_parser("write", help="write a card, or many", description="Write a card, or many.")
    card.add_argument(
        "target",
        help="a mounted boot partition, an image file, or a disk as /dev/sdb; {hostname} in it stands for the board's",
    )
    card.add_argument(
        "--image", type=Path, help="system to write first: Raspberry Pi OS Lite (64-bit), Trixie; .img, .xz, .gz, .zip"
    )
    card.add_argument("--fleet", type=Path, help=f"{_FLEET}. Options are for boards that say nothing else")
    card.add_argument("--hostname", help="name of the board in the network")
    card.add_argument("--user", help="who logs in (default: pi)")
    card.add_argument(
        "--key", help="file with public SSH keys (default: ~/.ssh/id_ed25519.pub, id_ecdsa.pub or id_rsa.pub)"
    )
    card.add_argument("--wifi", metavar="NAME", help="wireless network; asks for its password")
    card.add_argument(
        "--wifi-password-file",
        metavar="FILE",
        type=Path,
        help="its password, instead of being asked; - is standard input",
    )
    card.add_argument("--country", help="where the board is, two letters: Wi-Fi needs it")
    card.add_argument("--camera", help="picamera:0 (ribbon cable), 0 (USB), /dev/v4l/by-id/..., rtsp://..., demo")
    card.add_argument("--mqtt", metavar="URL", help="broker: mqtt://USER@HOST:1883; asks for its password")
    card.add_argument("--mqtt-password-file", metavar="FILE", type=Path, help="its password, instead of being asked")
    card.add_argument(
        "--token-file", metavar="FILE", type=Path, help="what clients of the service must know (default: made anew)"
    )
    card.add_argument(
        "--release",
        type=Path,
        default=Path(__file__).parents[1],
        help="folder of an unpacked release (default: this one)",
    )
    card.add_argument("--dry-run", action="store_true", help="show what would be written, secrets hidden, and stop")
    card.add_argument("--yes", action="store_true", help="do not ask")
    card.add_argument("--yes-really", action="store_true", help="also a disk that is mounted, or larger than 512 GB")
    card.set_defaults(act=_write)
    imager = verbs.add_parser("manifest", help="write IMAGE.rpi-imager-manifest for Raspberry Pi Imager 2")
    imager.add_argument("image", type=Path, help=".img, or that as .xz, .gz or .zip")
    imager.add_argument("--url", default="", help="where people download it (default: the file as it lies here)")
    imager.add_argument(
        "--init-format", choices=["cloudinit-rpi", "cloudinit"], default="cloudinit-rpi", help="default: cloudinit-rpi"
    )
    imager.set_defaults(act=_manifest)
    return parser


def _manifest(args: argparse.Namespace) -> None:
    text = manifest(args.image, args.url, args.init_format, _progress(args.image.name))
    target = args.image.with_name(f"{args.image.name}.rpi-imager-manifest")
    with beside(target) as part:
        part.write_text(text, encoding="utf-8")
    print(f"{target} is written. Open it with Raspberry Pi Imager 2.")


def _write(args: argparse.Namespace) -> None:
    boards = _boards(args)
    release = Release(args.release)
    one_by_one = len(boards) > 1 and "{hostname}" not in args.target and not args.dry_run
    if one_by_one and not sys.stdin.isatty():
        raise FlashError("A fleet needs {hostname} in its target, or a terminal that asks for each card.", USAGE)
    with measured(args.image, _progress(args.image.name)) if args.image else contextlib.nullcontext() as image:
        if image:
            check_boot(image.boot(), printable(str(image.path)))
        for number, board in enumerate(boards):
            if one_by_one:
                place = f"{number + 1} of {len(boards)}"
                if input(
                    f"\nPut in the card for {board.hostname} ({place}) and press Enter, or s to skip it: "
                ).strip():
                    continue
            job = Job(
                board=board,
                release=release,
                target=Path(args.target.replace("{hostname}", board.hostname)),
                image=image,
                mode="show" if args.dry_run else "ask" if not args.yes and (one_by_one or number == 0) else "write",
                others=[] if one_by_one or number else [other.hostname for other in boards[1:]],
                yes_really=args.yes_really,
                progress=_progress(board.hostname),
            )
            with contextlib.suppress(Shown):
                job.run()
    if args.dry_run:
        print("\nNothing is written (--dry-run).")


def _boards(args: argparse.Namespace) -> list[Board]:
    values = {name: getattr(args, name) or "" for name in ("user", "wifi", "country", "camera", "mqtt")}
    values["user"] = values["user"] or "pi"
    values["key"] = args.key or _own_key()
    questions = {
        "wifi_password": f"Password of {args.wifi} (empty for an open network): " if args.wifi else "",
        "mqtt_password": f"Password for {hidden(args.mqtt)} (empty for none): " if args.mqtt else "",
    }
    values |= {name: _secret(getattr(args, f"{name}_file"), question) for name, question in questions.items()}
    if args.fleet is None:
        values |= {"hostname": args.hostname or "", "token": _secret(args.token_file, "")}
        return [make_board(values, "command line")]
    if args.hostname or args.token_file:
        raise FlashError("The fleet's file has hostnames and tokens: leave --hostname and --token-file out.", USAGE)
    return read_fleet(args.fleet, values)


def _home() -> Path:
    """Of the person, also with sudo."""
    return Path(f"~{os.environ.get('SUDO_USER', '')}").expanduser()


def _own_key() -> str:
    candidates = [_home() / ".ssh" / f"id_{kind}.pub" for kind in ("ed25519", "ecdsa", "rsa")]
    return next((str(path) for path in candidates if path.is_file()), "")


def _secret(file: Path | None, question: str) -> str:
    """A secret: a file's first line, or what a person types. Never an argument, which all of a computer can see."""
    if not file:
        return getpass.getpass(question) if question and sys.stdin.isatty() else ""
    try:
        text = sys.stdin.readline() if str(file) == "-" else file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is no text in UTF-8"
        raise FlashError(f"Cannot read {printable(str(file))}: {why}.", NO_INPUT) from None
    return text.splitlines()[0] if text else ""


def _progress(name: str) -> Progress:
    """Says on a terminal how far it is, once for each hundred megabytes."""
    shown = ("", -1)

    def show(what: str, done: int) -> None:
        nonlocal shown
        if sys.stderr.isatty() and (what, done // 10**8) != shown:
            shown = (what, done // 10**8)
            print(f"\r{what} {printable(name)}: {megabytes(done)}   ", end="", file=sys.stderr, flush=True)

    return show
