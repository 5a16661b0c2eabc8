"""Commands about other people's training: where nnU-Net finds its trainer with tumors."""

from __future__ import annotations

import typer

from synthoma.cli.app import app


@app.command()
def nnunet() -> None:
    """Print the folder of SynthomaTrainer: export nnUNet_extTrainer="$(synthoma nnunet)"."""
    from synthoma.integrations.nnunet.finding import differing_builds, trainers_folder

    typer.echo(trainers_folder())
    if (told := differing_builds()) is not None:
        typer.echo(told, err=True)
