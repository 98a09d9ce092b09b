"""The Faust app that scores events: `faust -A thalweg.streams.app worker -l info`; `thalweg worker` is the same.

With `faust -A` the configuration is the file that THALWEG_CONFIG names, and THALWEG_SECTION__KEY over it.
"""

import asyncio
import gc
import logging
import os
import sys
import warnings
from pathlib import Path
from typing import Any, cast

from faust.exceptions import AlreadyConfiguredWarning
from rich.console import Console
from thalweg.operators.learner import BUILT_IN
from thalweg.schemas.events import EARLIEST_TS_MS, Request, encode_event
from thalweg.streams.configuration.loading import ConfigurationError, Loaded, load
from thalweg.streams.interrupts import interrupt_quietly
from thalweg.streams.kafka.blocks import BlockApp, BlockLimits, EndingLimits, block_app
from thalweg.streams.kafka.topics import check
from thalweg.streams.partition.knowledge import item_known, user_known
from thalweg.streams.partition.partition import Partition
from thalweg.streams.partition.readiness import make_ready
from thalweg.streams.partition.seal import seal_of
from thalweg.streams.refusal import Refusal
from thalweg.streams.serving.security import token_of, url_of
from thalweg.streams.serving.server import HttpServer
from thalweg.streams.serving.service import Service
from thalweg.streams.worker.live import LiveWorker
from thalweg.streams.worker.metrics import MetricsServer, new_registry
from thalweg.streams.worker.worker import Scoring

COLLECTION_THRESHOLDS = (10_000, 10, 10)
"""After so many new objects the garbage collector looks at them, and at older ones each tenth time.

Records and outputs on their way are objects by the ten thousand, and form no cycles. With Python's own 700 a backlog
with lessons spent a sixth of its time here.
"""
SWITCH_INTERVAL_S = 0.0005
"""How long a thread that reads or encodes a block keeps the interpreter while the event loop waits for it.

With Python's own 5 ms, one partition that catches up makes the opening of another, many short steps, a second longer.
"""

WARM_UP_TIMEOUT_S = 1.0

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
    live = LiveWorker(loaded, scoring, lambda: cast(Any, made.assignor).external_topics_metadata())
    questions = http_server(loaded, live) if loaded.http.enabled else None
    answered = {} if questions is None else questions.service.answered
    server = MetricsServer(loaded.metrics, new_registry(scoring, made, answered), made)

    def prepare() -> None:
        """Answer questions, look at the topics and compile, all before the group counts on this worker."""
        interrupt_quietly()
        sys.setswitchinterval(SWITCH_INTERVAL_S)
        server.start()
        if questions is not None:
            questions.start()
            live.url = url_of(loaded.http, questions.port)
            advertise(made, live.url)
            tell(f"questions at http://{loaded.http.host}:{questions.port}/rank")
        live.partitions = check(loaded.kafka, loaded.topics)
        partition = Partition(loaded.configuration, seal=seal_of(loaded))
        seconds = make_ready(partition, Console(stderr=True))
        if questions is not None:
            ask_once(partition)
        # What was loaded stays: each full collection would walk it for a tenth of a second, while events wait.
        gc.collect()
        gc.freeze()
        gc.set_threshold(*COLLECTION_THRESHOLDS)
        tell(f"ready after {seconds:.1f} s; joining group {loaded.worker.group!r}")
        if server.address:
            tell(f"metrics at http://{server.address}/metrics")

    made.prepare = prepare

    async def disconnect(sender: Any, **_: Any) -> None:
        await scoring.stop()
        if questions is not None:
            await asyncio.to_thread(questions.stop)

    cast(Any, made.on_before_shutdown).connect(disconnect)
    return made


def http_server(loaded: Loaded, live: LiveWorker) -> HttpServer:
    """Return the server of a worker's questions. Raises Refusal where its token is missing."""
    service = Service(loaded.http, loaded.configuration, live, token_of(loaded.http))
    return HttpServer(loaded.http, service)


def advertise(app: BlockApp, url: str) -> None:
    """Have the group's assignor give other workers a URL for this one; Faust has nothing else at that address."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", AlreadyConfiguredWarning)  # the port is known once the server listens
        app.conf.canonical_url = cast(Any, url)


def ask_once(partition: Partition) -> None:
    """Have all that questions need compiled, or loaded, before there is one."""
    user_known(partition, "nobody", WARM_UP_TIMEOUT_S)
    item_known(partition, "nothing", WARM_UP_TIMEOUT_S)
    if partition.configuration.learner.model == BUILT_IN:
        partition.answer(encode_event(Request("1", "nobody", ["nothing"], EARLIEST_TS_MS, {})))


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
