"""What every command shares: the group they belong to, where they print, the kinds of values that options take, and how
a result is written."""

import json
import math
import os
import sys
from collections.abc import Callable, Iterable
from importlib import import_module
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from selfie_lite.errors import suggestion
from selfie_lite.files import write_file

out, err = Console(soft_wrap=True, highlight=False), Console(stderr=True, soft_wrap=True, highlight=False)
COMMANDS = {  # name: the file that has it, imported only when it is asked for, and what it does
    "walkthrough": ("workbook", "Run the notebooks of nbs/ in order, into web pages."),
    "pretrain": ("training", "Pretrain P on images without labels."),
    "finetune": ("training", "Train a classifier from P, or from scratch, on a part of the labels."),
    "evaluate": ("evaluation", "How much a frozen P knows of the classes."),
    "compare": ("evaluation", "Finished runs side by side."),
    "sweep": ("workbook", "A notebook, or training, for every combination of values."),
    "export": ("training", "Take the weights of a run elsewhere."),
    "inspect": ("inspect", "The patch inspector as a page of its own."),
    "data": ("data", "Bring images in, list them, check them."),
    "bench": ("bench", "How fast things are on this machine."),
    "reproduce": ("bench", "The evidence at full size, in the minutes that there are."),
}


class Group(click.Group):
    """A group of commands that offers the nearest right name for a misspelt one."""

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        names = self.list_commands(ctx)
        if args and not args[0].startswith("-") and args[0] not in names:
            ctx.fail(f"no command '{args[0]}'.{suggestion(args[0], names)}")
        return super().resolve_command(ctx, args)


class App(Group):
    """The group of all commands, which imports the one that is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name in COMMANDS:
            import_module(f"selfie_lite.cli.{COMMANDS[name][0]}")
        return super().get_command(ctx, name)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])


@click.group(cls=App, context_settings={"help_option_names": ["-h", "--help"], "show_default": True})
@click.version_option(package_name="selfie-lite")
def app() -> None:
    """Selfie: pretrain an image network by letting it pick hidden patches (arXiv 1906.02940)."""


class Number(click.ParamType):
    """A number as people write it (1e-3, 1_000), within bounds; whole if `kind` is int."""

    def __init__(self, kind: type, least: float = -math.inf, most: float = math.inf):
        self.kind, self.least, self.most, self.name = kind, least, most, "integer" if kind is int else "float"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int | float:
        try:
            number = float(value)
            fits = self.least <= number <= self.most and math.isfinite(number)
            if fits and (self.kind is float or number.is_integer()):
                return int(value if str(value).lstrip("+-").isdigit() else number) if self.kind is int else number
        except ValueError:
            pass
        kind = "a whole number" if self.kind is int else "a number"
        bounds = f" from {self.least:g}" if self.least > -math.inf else ""
        bounds += f" to {self.most:g}" if self.most < math.inf else " up" * bool(bounds)
        self.fail(f"'{value}' is not {kind}{bounds}.", param, ctx)


class Text(click.ParamType):
    """Text that is not empty; one of `choices`, if there are some."""

    name = "text"

    def __init__(self, choices: Iterable[str] = ()):
        self.choices = list(choices)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if not str(value).strip() or "\0" in str(value):
            self.fail("it is empty; leave the option out, or name something.", param, ctx)
        if self.choices and value not in self.choices:
            self.fail(f"there is no '{value}'.{suggestion(value, self.choices)}", param, ctx)
        return str(value)


class Place(Text):
    """A path, whatever is there."""

    name = "path"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        return Path(super().convert(value, param, ctx))


class Folder(Place):
    """A folder that can be written: one that is there, or one to be made."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        path = Path(super().convert(value, param, ctx))
        there = next((folder for folder in (path, *path.absolute().parents) if os.path.lexists(folder)), path)
        if not there.is_dir():
            self.fail(f"{there} is a file, not a folder.", param, ctx)
        if not os.access(there, os.W_OK):
            self.fail(f"{there.absolute()} cannot be written; name another place.", param, ctx)
        return path


class ResultFile(Place):
    """Where a command writes its result: a new file, or one that the same command wrote before."""

    def __init__(self, command: str):
        super().__init__()
        self.command = command

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        path = Path(super().convert(value, param, ctx))
        Folder().convert(path.absolute().parent, param, ctx)
        if path.is_dir():
            self.fail(f"{path} is a folder; name a file in it, {path / 'result.json'} say.", param, ctx)
        if os.path.lexists(path) and not self.wrote(path):
            self.fail(f"{path} is no result of {self.command}, so it stays; name another file.", param, ctx)
        return path

    def wrote(self, path: Path) -> bool:
        try:
            command = json.loads(path.read_bytes())["command"] if path.is_file() else None
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            return False
        return isinstance(command, str) and f"{command} ".startswith(f"selfie-lite {self.command} ")


def result_file(command: str, default: str) -> Callable:
    """The option --out of a command that measures something."""
    return click.option("--out", "file", type=ResultFile(command), default=Path(default), help="Where the result goes.")


def say(text: str) -> None:
    out.print(text, markup=False)


def warn(text: str) -> None:
    err.print(text, markup=False)


def write_result(file: Path, result: dict) -> None:
    """A result as JSON, with the command that made it."""
    result = {"command": " ".join(["selfie-lite", *sys.argv[1:]])} | result
    write_file(file, json.dumps(result, indent=1) + "\n")
    say(f"written to {file}")


def print_table(columns: Iterable[str], rows: Iterable[Iterable[object]], title: str | None = None) -> None:
    table = Table(*columns, title=title, title_justify="left")
    for row in rows:
        table.add_row(*map(str, row))
    out.print(table)
