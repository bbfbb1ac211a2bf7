"""selfie-lite inspect: the patch inspector as a page of its own."""

from functools import partial

import click

from selfie_lite.cli.base import Number, Text, app, err


@app.command()
@click.option("--model", type=Text(), default="additive", help="A bundled model, a run, or the folder of a checkpoint.")
@click.option("--compare", type=Text(), help="A second one beside it.")
@click.option("--data", type=Text(), default="sample", help="A data set, a folder of images, or one image.")
@click.option(
    "--port", type=Number(int, 0, 65535), help="Of the page; 0 for any.  [default: 8866, or the next free one]",
    show_default=False,
)  # fmt: skip
@click.option("--browser/--no-browser", default=True, help="Open a browser.")
def inspect(model, compare, data, port, browser):
    """Open the patch inspector alone, as a page (Voilà). Ctrl-C ends it."""
    from selfie_lite.inspector import PatchInspector
    from selfie_lite.inspector.page import choose_port, serve

    choose_port(port)
    call = repr(PatchInspector(model, data, compare=compare))  # a mistake is told here, not in the page
    serve(call, port, browser, partial(err.print, markup=False))
