"""Commands about reading: annotate and rate cases in the browser, look at what a study says, take results out."""

from __future__ import annotations

import webbrowser
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import typer

from synthoma.cli.app import Out, Overrides, app, finish, input_facts

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
    from synthoma.evaluation.pairing import open_predictions
    from synthoma.reading import open_dataset
    from synthoma.recipe import read_recipe
    from synthoma.review import annotation
    from synthoma.review.recipes import AnnotateRecipe
    from synthoma.review.serving import Address, open_study, serve

    settings = read_recipe(AnnotateRecipe, recipe, changes)
    address = Address(host, port, certificate, key, public)
    address.check()
    dataset = open_dataset(data)
    proposed = None if proposals is None else open_predictions(proposals.absolute(), dataset)
    inputs = input_facts(dataset)
    inputs |= {} if proposed is None else {"proposals": str(proposed.root)}
    inputs |= {} if validation is None else {"validation": str(validation.resolve())}
    with open_study(out, annotation.KIND, settings, 0, inputs) as store:
        for note in annotation.create_study(store, dataset, proposed, settings, validation):
            typer.echo(note, err=True)
        for fault in (*dataset.faults, *(proposed.faults if proposed else ())):
            typer.echo(f"left out: {fault}", err=True)
        kind = annotation.AnnotationKind(store, dataset, settings)
        serve(kind, out, address, once=True, tell=lambda links: _tell(links, browser))
    typer.echo(f"The answers are in {out}; the same command opens the study again.")


def _tell(links: Sequence[tuple[str, str]], browser: bool) -> None:
    for name, link in links:
        typer.echo(f"{name}: {link}")
    typer.echo("Ctrl-C ends the server.", err=True)
    if browser and len(links) == 1:
        webbrowser.open(links[0][1])


@review.command()
def turing(
    real: Annotated[Path, typer.Argument(help="Data set with real lesions, in any known layout.", metavar="REAL")],
    synthetic: Annotated[Path, typer.Argument(help="Output folder of synthesize.", metavar="SYNTHETIC")],
    out: Out,
    readers: Annotated[int, typer.Option("--readers", min=1, max=100, help="How many; each gets a link.")] = 1,
    seed: Annotated[int, typer.Option("--seed", help="Of the lesions chosen and of every reader's order.")] = 0,
    recipe: RecipeFile = None,
    changes: Overrides = [],  # noqa: B006
    host: Host = "127.0.0.1",
    port: Port = 0,
    certificate: Certificate = None,
    key: Key = None,
    public: Public = None,
    browser: Browser = True,
) -> None:
    """A blinded study: can readers tell synthetic lesions from real ones?"""
    from synthoma.reading import open_dataset
    from synthoma.recipe import read_recipe
    from synthoma.review import turing as study
    from synthoma.review.recipes import TuringRecipe
    from synthoma.review.serving import Address, open_study, serve

    settings = read_recipe(TuringRecipe, recipe, changes)
    address = Address(host, port, certificate, key, public)
    address.check()
    arms = [open_dataset(real), open_dataset(synthetic)]
    inputs = {"real": str(arms[0].root), "synthetic": str(arms[1].root), "readers": str(readers)}
    with open_study(out, study.KIND, settings, seed, inputs) as store:
        for note in study.create_study(store, out, arms[0], arms[1], settings, readers, seed):
            typer.echo(note)
        kind = study.TuringKind(store, out, settings)
        serve(kind, out, address, once=False, tell=lambda links: _tell(links, browser))
    typer.echo(f"The answers are in {out}; the same command opens the study again.")


@review.command()
def browse(
    synthesis: Annotated[Path, typer.Argument(help="Output folder of synthesize.", metavar="OUT")],
    out: Annotated[Path | None, typer.Option("--out", help="Folder of the judgements [NAME-review beside it].")] = None,
    data: Annotated[Path | None, typer.Option("--data", help="The healthy scans, if they were moved.")] = None,
    host: Host = "127.0.0.1",
    port: Port = 0,
    certificate: Certificate = None,
    key: Key = None,
    public: Public = None,
    browser: Browser = True,
) -> None:
    """Look through a synthesis: tumors before and after, accepted or dropped."""
    from synthoma.recipe import Recipe
    from synthoma.review import browsing
    from synthoma.review.serving import Address, open_study, serve

    address = Address(host, port, certificate, key, public)
    address.check()
    synthesis = synthesis.resolve()
    folder = out or synthesis.with_name(f"{synthesis.name}-review")
    with open_study(folder, browsing.KIND, Recipe(), 0, {"synthesis": str(synthesis)}) as store:
        browsing.create_study(store, synthesis)
        kind = browsing.BrowseKind(store, synthesis, data)
        serve(kind, folder, address, once=True, tell=lambda links: _tell(links, browser))
    typer.echo(f"The judgements are in {folder}; the same command opens them again.")


@review.command()
def report(
    study: Annotated[Path, typer.Argument(help="Output folder of a review command.", metavar="STUDY")],
    out: Out,
    data: Annotated[Path | None, typer.Option("--data", help="The data set, if it was moved.")] = None,
) -> None:
    """What a study says so far, as a page with statistics."""
    from synthoma import runs
    from synthoma.recipe import Recipe
    from synthoma.review.outcome import opened, write_report

    with opened(study) as (_, store):
        answers = store.state()
    with runs.open_run(out, "review-report", Recipe(), inputs={"study": str(study.resolve()), "answers": answers}):
        page = write_report(study, out, data)
    typer.echo(f"report: {page}")


@review.command()
def export(
    study: Annotated[Path, typer.Argument(help="Output folder of review annotate or browse.", metavar="STUDY")],
    out: Out,
    to: Annotated[Literal["nnunet", "msd", "abdomenatlas"], typer.Option("--to", help="Layout.")] = "abdomenatlas",
    data: Annotated[Path | None, typer.Option("--data", help="The data set, if it was moved.")] = None,
    changes: Overrides = [],  # noqa: B006
) -> None:
    """The finished annotations as a data set, on exactly the scans' grids; exit 1 if cases are left out.

    Of a synthesis that was looked through: its manifest without the tumors that were dropped.
    """
    from synthoma import runs
    from synthoma.datasets.conversion import ConvertRecipe, convert_case, finish_conversion, plan_conversion
    from synthoma.engine import mapping
    from synthoma.errors import RunError
    from synthoma.recipe import read_recipe
    from synthoma.review.annotation import AnnotationKind
    from synthoma.review.browsing import BrowseKind, write_kept
    from synthoma.review.outcome import accepted, kind_of, opened

    settings = read_recipe(ConvertRecipe, None, changes)
    with opened(study) as (record, store):
        kind = kind_of(record, store, study, data)
        if isinstance(kind, BrowseKind):
            with runs.open_run(out, "review-export", settings, inputs={"study": str(study.resolve())}):
                kept, dropped = write_kept(kind, out)
            typer.echo(f"{kept} tumors stay, {dropped} are dropped: {out}; synthoma replay makes the data set of it")
            return
        if not isinstance(kind, AnnotationKind):
            raise RunError(f"{study} is a blinded study", fix="review report tells what it says")
        found = accepted(kind)
        conversion = plan_conversion(found.dataset, to, out, settings)
        inputs = {"study": str(study.resolve()), "answers": store.state(), "to": to}
        with runs.open_run(out, "review-export", settings, inputs=inputs) as run:
            records = mapping.map_cases(
                partial(convert_case, conversion=conversion), found.dataset.cases, run=run, title="export"
            )  # fmt: skip
            finish_conversion(conversion, [each.result for each in records if each.status == "done"])
            run.note(left_out=[str(error) for error in found.left_out])
    finish(records, out, found.left_out)
