"""The command line: selfie-lite walkthrough | pretrain | finetune | evaluate | sweep | compare | export | inspect |
data | bench."""

import sys

import click

from selfie_lite.cli import bench, data, evaluation, inspect, training, workbook  # noqa: F401  they add their commands
from selfie_lite.cli.base import app, err
from selfie_lite.errors import SelfieLiteError


def main() -> None:
    """Run the command line; a user's mistake is one message, never a traceback."""
    try:
        app(prog_name="selfie-lite", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except SelfieLiteError as error:
        err.print(f"error: {error}", markup=False)
        sys.exit(2)
    except (click.Abort, KeyboardInterrupt):
        err.print("stopped; nothing half-made was kept.")
        sys.exit(130)
