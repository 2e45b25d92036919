"""The command line ``fpsim``: one verb a file, loaded when it is called."""

from __future__ import annotations

import argparse
import importlib
import os
import shutil
import signal
import sys
from collections.abc import Sequence
from typing import NoReturn

# What ``fpsim --help`` lists. A verb's module has add_arguments(parser) and run(args) -> exit code.
VERBS = {
    "scan": "measure where optimizers stop improving, width by width, beside proven bounds",
    "advise": "say before any training what a format will do to an optimizer, and what to change",
    "status": "show how far a study is, from another terminal",
    "verify": "hold every theorem against a study or random runs, check a certificate, list theorems",
    "questions": "answer open questions of the literature, each by the study that shows it",
    "figures": "build the figures of the gallery for a paper, each from stored results",
    "formats": "list the named number formats, or print the properties of one",
    "audit": "explain the log of fpsim.audit, which watches a PyTorch training loop: table, theorems, figure",
    "bench": "measure how fast the emulator is, beside a memory copy and other libraries",
    "selftest": "check that results are right on this machine, to the last bit",
}
INTERRUPTED = 130  # 128 + SIGINT, as shells report it


class UsageError(Exception):
    """Bad input: one line for stderr, exit code 2."""


class Parser(argparse.ArgumentParser):
    """argparse with errors of one line."""

    def error(self, message: str) -> NoReturn:
        message = message.removeprefix("argument ")
        raise UsageError(f"{self.prog}: error: {message} (see {self.prog} --help)")


class HelpFormatter(argparse.HelpFormatter):
    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=30, width=min(100, shutil.get_terminal_size((100, 24)).columns))


def main(argv: Sequence[str] | None = None) -> int:
    """Run a verb and return the exit code: 0 done, 1 something failed, 2 bad input, 130 interrupted."""
    code = _run(list(sys.argv[1:] if argv is None else argv))
    if argv is None and code == INTERRUPTED:
        # Pressed again while the interpreter waits for the last threads, Ctrl-C would print a traceback.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    return code


def _run(words: list[str]) -> int:
    try:
        code = _dispatch(words)
        sys.stdout.flush()  # here, where it can still fail in one line
        return code
    except UsageError as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("fpsim: interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:  # the reader of a pipe, head say, has seen enough
        _drop_output()
        return 1
    except OSError as error:  # the disk that stdout goes to is full, say
        _drop_output()
        print(f"fpsim: stopped: {' '.join(str(error).split())}", file=sys.stderr)
        return 1


def _drop_output() -> None:
    """Send what is left in the buffer of stdout nowhere, or the interpreter would fail on it at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _dispatch(words: list[str]) -> int:
    if not words or words[0] not in VERBS:
        _top_level().parse_args(words or ["--help"])
        raise AssertionError("the top level ends in help, version or an error")
    verb = words[0]
    module = importlib.import_module(f"experiments.cli.{verb}")
    parser = Parser(prog=f"fpsim {verb}", description=module.__doc__, formatter_class=HelpFormatter, allow_abbrev=False)
    module.add_arguments(parser)
    code: int = module.run(parser.parse_args(words[1:]))
    return code


def _top_level() -> Parser:
    parser = Parser(
        prog="fpsim",
        description="What low-precision arithmetic does to an optimizer: bit-exact simulation and proven bounds.",
        epilog="'fpsim VERB --help' explains a verb.",
        formatter_class=HelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="print the version and exit")
    verbs = parser.add_subparsers(title="verbs", metavar="VERB", required=True)
    for name, summary in VERBS.items():
        verbs.add_parser(name, help=summary)
    return parser


class _Version(argparse.Action):
    """Looks the version up only when asked: importlib.metadata takes a while to import."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        from importlib.metadata import PackageNotFoundError, version

        try:
            print(f"fpsim {version('fpsim')}")
        except PackageNotFoundError:
            print("fpsim (not installed)")
        parser.exit()
