"""`thalweg worker`: score events from Kafka."""

import click
from thalweg.streams.configuration.loading import Loaded, configuration_options

LEVELS = ("debug", "info", "warn", "error")


@click.command("worker")
@click.option("--log-level", type=click.Choice(LEVELS), default="info", show_default=True, help="How much to tell.")
@configuration_options
@click.option("--bootstrap-servers", metavar="HOST:PORT,…", help="Brokers to ask first (kafka.bootstrap_servers).")
def command(log_level: str, bootstrap_servers: str | None, loaded: Loaded) -> None:
    """Score events from Kafka until SIGTERM or Ctrl-C, which drains, checkpoints and leaves the group.

    It reads the topic topics.interactions and writes scores, examples and dead letters to the partition of their
    input. Several workers of a group share the partitions, and need the same folder of checkpoints. `faust -A
    thalweg.streams.app worker -l info` is the same app, configured by THALWEG_CONFIG and THALWEG_SECTION__KEY.

    \b
    Example:
      thalweg worker --config thalweg.toml --set checkpoint.directory=/var/lib/thalweg
    """
    import dataclasses

    from thalweg.streams.app import make_app
    from thalweg.streams.kafka.blocks import BlockWorker

    app = make_app(dataclasses.replace(loaded, kafka=loaded.kafka.reached_at(bootstrap_servers)))
    app.finalize()
    BlockWorker(app, loglevel=log_level, quiet=True, redirect_stdouts=False).execute_from_commandline()
