"""The Faust app that scores events: `faust -A thalweg.streams.app worker -l info`; `thalweg worker` is the same.

With `faust -A` the configuration is the file that THALWEG_CONFIG names, and THALWEG_SECTION__KEY over it.
"""

import gc
import logging
import os
import sys
from pathlib import Path
from typing import Any, cast

from rich.console import Console
from thalweg.streams.configuration.loading import ConfigurationError, Loaded, load
from thalweg.streams.interrupts import interrupt_quietly
from thalweg.streams.kafka.blocks import BlockApp, BlockLimits, EndingLimits, block_app
from thalweg.streams.kafka.topics import check
from thalweg.streams.partition.partition import Partition
from thalweg.streams.partition.readiness import make_ready
from thalweg.streams.partition.seal import seal_of
from thalweg.streams.refusal import Refusal
from thalweg.streams.worker.metrics import MetricsServer, new_registry
from thalweg.streams.worker.worker import Scoring

SWITCH_INTERVAL_S = 0.0005
"""How long a thread that reads or encodes a block keeps the interpreter while the event loop waits for it.

With Python's own 5 ms, one partition that catches up makes the opening of another, many short steps, a second longer.
"""

log = logging.getLogger("thalweg.worker")


def make_app(loaded: Loaded) -> BlockApp:
    """Return the app for a configuration. Raises Refusal where a secret or a certificate is missing."""
    scoring = Scoring(loaded, log=log)
    made = block_app(
        loaded.worker.group,
        kafka=loaded.kafka,
        source=loaded.topics.interactions,
        handler=scoring,
        limits=limits_of(loaded),
        broker_session_timeout=loaded.worker.session_timeout_ms / 1000,
        endings=EndingLimits(loaded.worker.silence_ms, loaded.worker.stop_timeout_ms),
        broker_heartbeat_interval=min(loaded.worker.session_timeout_ms / 5, loaded.worker.silence_ms / 3) / 1000,
    )
    # Ours answers from a thread of its own, before the loop runs and when it hangs.
    made.boot_strategy.enable_web = False
    server = MetricsServer(loaded.metrics, new_registry(scoring, made), made)

    def prepare() -> None:
        """Answer questions, look at the topics and compile, all before the group counts on this worker."""
        interrupt_quietly()
        sys.setswitchinterval(SWITCH_INTERVAL_S)
        server.start()
        check(loaded.kafka, loaded.topics)
        seconds = make_ready(Partition(loaded.configuration, seal=seal_of(loaded)), Console(stderr=True))
        # What was loaded stays: each full collection would walk it for a tenth of a second, while events wait.
        gc.collect()
        gc.freeze()
        tell(f"ready after {seconds:.1f} s; joining group {loaded.worker.group!r}")
        if server.address:
            tell(f"metrics at http://{server.address}/metrics")

    made.prepare = prepare

    async def disconnect(sender: Any, **_: Any) -> None:
        await scoring.stop()

    cast(Any, made.on_before_shutdown).connect(disconnect)
    return made


def limits_of(loaded: Loaded) -> BlockLimits:
    """Return the limits of blocks; an idle partition is looked at as often as transactions are to be committed."""
    worker = loaded.worker
    # Larger than a block of the fold: of what one fetch brings, one part is folded while others are read and written.
    limits = BlockLimits(
        worker.block_records_max,
        worker.block_bytes_max,
        worker.pending_bytes_max,
        fetch_pause_ms=worker.fetch_pause_ms,
    )
    if loaded.delivery.mode == "transactional":
        limits = limits._replace(idle_ms=min(limits.idle_ms, max(10, loaded.delivery.transaction_interval_ms)))
    return limits._replace(taken_over_ms=worker.session_timeout_ms)


def tell(message: str) -> None:
    """Report the progress of the start: Faust sets its log up later."""
    import click

    click.echo(f"thalweg worker: {message}", err=True)


def __getattr__(name: str) -> Any:
    """Make `app` when it is asked for: importing this module reads no configuration."""
    if name != "app":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    path = os.environ.get("THALWEG_CONFIG")
    try:
        made = make_app(load(Path(path) if path else None, environment=os.environ, flags=()))
    except ConfigurationError as error:
        raise Refusal(str(error)) from None
    globals()["app"] = made
    return made
