"""`thalweg warm-up`: compile the fold beforehand."""

import click
from thalweg.streams.configuration.loading import Loaded, configuration_options
from thalweg.streams.refusal import Refusal


@click.command("warm-up")
@configuration_options
def command(loaded: Loaded) -> None:
    """Compile the fold, so that the next run starts at once, and print the folder where the machine code is kept.

    All configurations share the code; only another version of Thalweg, of Python or of numba, or another processor
    compiles it again. THALWEG_CACHE names the folder; by default it is ~/.cache/thalweg.

    \b
    Example:
      thalweg warm-up --config thalweg.toml
    """
    from rich.console import Console
    from thalweg.operators.machine.compiled import INTERPRETED
    from thalweg.operators.machine.progress import Progress
    from thalweg.streams.partition.partition import Partition
    from thalweg.streams.partition.readiness import make_ready

    if INTERPRETED:
        raise Refusal("THALWEG_INTERPRETED is 1: nothing is compiled")
    from thalweg.operators.machine.jit import CACHE_FOLDER

    seconds = make_ready(Partition(loaded.configuration), Console(stderr=True))
    what = f"compiled {Progress.functions} functions" if Progress.functions else "loaded from the cache"
    click.echo(f"Ready after {seconds:.1f} s: {what}. The machine code is in", err=True)
    click.echo(CACHE_FOLDER.path)
