"""What every command shares: the group they belong to, where they print, and how a result is written."""

import json
import sys
from pathlib import Path

import click
from rich.console import Console

from selfie_lite.errors import suggestion

out, err = Console(soft_wrap=True, highlight=False), Console(stderr=True, soft_wrap=True, highlight=False)


class Group(click.Group):
    """A group of commands that offers the nearest right name for a misspelt one."""

    def resolve_command(self, context, arguments):
        if arguments and not arguments[0].startswith("-") and arguments[0] not in self.commands:
            context.fail(f"no command '{arguments[0]}'.{suggestion(arguments[0], self.commands)}")
        return super().resolve_command(context, arguments)


@click.group(cls=Group, context_settings={"help_option_names": ["-h", "--help"], "show_default": True})
@click.version_option(package_name="selfie-lite")
def app():
    """Selfie: pretrain an image network by letting it pick hidden patches (arXiv 1906.02940)."""


def write_result(file: Path, result: dict) -> None:
    """A result as JSON, with the command that made it."""
    file.parent.mkdir(parents=True, exist_ok=True)
    result = {"command": " ".join(["selfie-lite", *sys.argv[1:]])} | result
    file.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    out.print(f"written to {file}", markup=False)
