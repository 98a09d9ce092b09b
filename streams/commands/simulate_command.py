"""`thalweg simulate`: run workers in a made-up world, all of whose faults are drawn from a seed."""

from typing import Any

import click


@click.command("simulate")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, metavar="S", help="The first run's seed.")
@click.option("--runs", type=click.IntRange(1), default=1, show_default=True, metavar="N", help="Seeds S to S + N - 1.")
@click.option(
    "--processes", type=click.IntRange(1), default=1, show_default=True, metavar="N", help="Run on so many cores."
)
@click.option(
    "--mode",
    type=click.Choice(["suppress", "transactional", "changing"]),
    help="How outputs are delivered, or now one way and now the other. Without it each seed draws one.",
)
@click.option("--lessons", is_flag=True, help="With partitions that learn from each other; in one process.")
def command(seed: int, runs: int, processes: int, mode: Any, lessons: bool) -> None:
    """Run workers through crashes, losses of power, rebalances and bad disks, and compare with the undisturbed fold.

    It needs no Kafka: brokers, disk and time are simulated, the worker's code is the real one. The same seed always
    runs the same way. Ends with status 1 and the seed if any output is lost, duplicated or changed.

    \b
    Example:
      thalweg simulate --runs 100
    """
    from thalweg.streams.refusal import Refusal
    from thalweg.streams.simulation.run import simulate_all
    from thalweg.streams.simulation.teaching import simulate_teaching

    if lessons and (mode == "changing" or processes > 1):
        raise click.UsageError("--lessons needs one process and one mode, suppress or transactional")
    seeds = range(seed, seed + runs)
    worlds = (simulate_teaching(each, mode) for each in seeds) if lessons else simulate_all(seeds, processes, mode)
    deaths = done = 0
    for simulated in worlds:
        done += 1
        deaths += simulated.deaths
        if simulated.wrong:
            raise Refusal(simulated.message)
        if done % 1_000 == 0:
            click.echo(f"{done} of {runs} runs, {deaths} deaths", err=True)
    click.echo(f"{done} runs, {deaths} deaths: 0 lost, 0 twice, 0 different", err=True)
