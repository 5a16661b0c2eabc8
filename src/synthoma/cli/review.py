"""Commands about reading: annotate and rate cases in the browser, look at what a study says, take results out."""

from __future__ import annotations

import webbrowser
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from synthoma.cli.app import Out, Overrides, app, input_facts

review = typer.Typer(
    no_args_is_help=True, help="Annotation and blinded reader studies, in the browser on this machine."
)
app.add_typer(review, name="review")

Host = Annotated[str, typer.Option("--host", help="Address to listen on; others than this machine need TLS.")]
Port = Annotated[int, typer.Option("--port", min=0, max=65535, help="0 takes a free one.")]
Certificate = Annotated[Path | None, typer.Option("--certificate", help="Of TLS (PEM), with --key.")]
Key = Annotated[Path | None, typer.Option("--key", help="Of TLS (PEM).")]
Public = Annotated[str | None, typer.Option("--public", help="https://NAME of the proxy in front of the server.")]
Browser = Annotated[bool, typer.Option("--browser/--no-browser", help="Open the page.")]
RecipeFile = Annotated[Path | None, typer.Option("--recipe", help="What the study asks for (TOML).")]


@review.command()
def annotate(
    data: Annotated[Path, typer.Argument(help="Data set, in any known layout.", metavar="DATA")],
    out: Out,
    proposals: Annotated[Path | None, typer.Option(help="Masks of a model: an output folder of segment.")] = None,
    validation: Annotated[
        Path | None, typer.Option(help="evaluate run whose FROC says where proposals are cut.")
    ] = None,
    recipe: RecipeFile = None,
    changes: Overrides = [],  # noqa: B006 (typer reads the default, nobody writes it)
    host: Host = "127.0.0.1",
    port: Port = 0,
    certificate: Certificate = None,
    key: Key = None,
    public: Public = None,
    browser: Browser = True,
) -> None:
    """Accept, reject and refine a model's proposals; nothing leaves this machine."""
    from synthoma.reading import open_dataset
    from synthoma.recipe import read_recipe
    from synthoma.review import annotation
    from synthoma.review.recipes import AnnotateRecipe
    from synthoma.review.serving import Address, open_study, serve

    settings = read_recipe(AnnotateRecipe, recipe, changes)
    address = Address(host, port, certificate, key, public)
    address.check()
    dataset = open_dataset(data)
    proposed = None if proposals is None else open_dataset(proposals)
    inputs = input_facts(dataset)
    inputs |= {} if proposed is None else {"proposals": str(proposed.root)}
    inputs |= {} if validation is None else {"validation": str(validation.resolve())}
    with open_study(out, annotation.KIND, settings, 0, inputs) as store:
        for note in annotation.create_study(store, dataset, proposed, settings, validation):
            typer.echo(note, err=True)
        kind = annotation.AnnotationKind(store, dataset, settings)
        serve(kind, out, address, once=True, tell=lambda links: _tell(links, browser))
    typer.echo(f"The answers are in {out}; the same command opens the study again.")


def _tell(links: Sequence[tuple[str, str]], browser: bool) -> None:
    for name, link in links:
        typer.echo(f"{name}: {link}")
    typer.echo("Ctrl-C ends the server.", err=True)
    if browser and len(links) == 1:
        webbrowser.open(links[0][1])
