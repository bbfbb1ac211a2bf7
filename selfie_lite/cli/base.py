"""What every command shares: the group they belong to, where they print, the kinds of values that options take, and how
a result is written."""

import json
import math
import os
import sys
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from selfie_lite.errors import suggestion
from selfie_lite.files import write_file

out, err = Console(soft_wrap=True, highlight=False), Console(stderr=True, soft_wrap=True, highlight=False)


class Group(click.Group):
    """A group of commands that offers the nearest right name for a misspelt one."""

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        if args and not args[0].startswith("-") and args[0] not in self.commands:
            ctx.fail(f"no command '{args[0]}'.{suggestion(args[0], self.commands)}")
        return super().resolve_command(ctx, args)


@click.group(cls=Group, context_settings={"help_option_names": ["-h", "--help"], "show_default": True})
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
    """Text that is not empty."""

    name = "text"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        if not str(value).strip() or "\0" in str(value):
            self.fail("it is empty; leave the option out, or name something.", param, ctx)
        return str(value)


class Folder(Text):
    """A folder that can be written: one that is there, or one to be made."""

    name = "path"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:  # type: ignore[override]
        path = Path(super().convert(value, param, ctx))
        there = next((folder for folder in (path, *path.absolute().parents) if os.path.lexists(folder)), path)
        if not there.is_dir():
            self.fail(f"{there} is a file, not a folder.", param, ctx)
        if not os.access(there, os.W_OK):
            self.fail(f"{there.absolute()} cannot be written; name another place.", param, ctx)
        return path


class ResultFile(Folder):
    """Where a command writes its result: a new file, or one that the same command wrote before."""

    def __init__(self, command: str):
        self.command = command

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        path = Path(Text.convert(self, value, param, ctx))
        super().convert(path.absolute().parent, param, ctx)
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


def write_result(file: Path, result: dict) -> None:
    """A result as JSON, with the command that made it."""
    result = {"command": " ".join(["selfie-lite", *sys.argv[1:]])} | result
    write_file(file, json.dumps(result, indent=1) + "\n")
    out.print(f"written to {file}", markup=False)
