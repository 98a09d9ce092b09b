"""A partition from its newest checkpoint, without a worker and without its log: for reading only."""

from thalweg.operators.configuration import Configuration
from thalweg.operators.edges.encoder import DETAILS
from thalweg.operators.learner import BUILT_IN
from thalweg.operators.machine.hashing import partitions_of
from thalweg.schemas.reasons import Reason
from thalweg.streams.checkpoints.folders import folder_of, partitions_at, store_at
from thalweg.streams.checkpoints.format import Checkpoint, CheckpointError, Identity, Store
from thalweg.streams.configuration.loading import CheckpointSection, Loaded
from thalweg.streams.partition.lessons import settled
from thalweg.streams.partition.partition import Partition
from thalweg.streams.printable import printable, redacted
from thalweg.streams.refusal import Refusal


def restored_partition(loaded: Loaded, section: CheckpointSection, user: str) -> Partition:
    """Return the partition that has a user, as its newest whole checkpoint in a section's folder has it.

    Raises Refusal where there is none, or it is of another configuration.
    """
    if loaded.configuration.learner.model != BUILT_IN:
        raise Refusal(DETAILS[Reason.REQUEST_UNSUPPORTED])
    topic = loaded.topics.interactions
    place = printable(redacted(folder_of(section)))
    try:
        found = partitions_at(section, topic)
        if not found:
            raise Refusal(f"there are no checkpoints of {topic} in {place}: see `thalweg checkpoint list`")
        first, configuration = _newest(loaded, store_at(section, topic, found[0]), found[0])
        partitions = first.header.partitions
        number = int(partitions_of([user.encode()], partitions)[0]) if partitions else found[0]
        if number not in found:
            raise Refusal(f"user {printable(user)} is in {topic}-{number}, which has no checkpoint in {place}")
        checkpoint = first
        if number != found[0]:
            checkpoint, configuration = _newest(loaded, store_at(section, topic, number), number)
        partition = Partition(
            configuration,
            topic=topic,
            partition=number,
            partitions=partitions,
            arrays=checkpoint.part(""),
            next_offset=checkpoint.header.next_offset,
        )
    except (CheckpointError, ValueError) as error:
        raise Refusal(str(error)) from None
    return partition


def _newest(loaded: Loaded, store: Store, number: int) -> tuple[Checkpoint, Configuration]:
    """Return a store's newest whole checkpoint and its configuration.

    What `lessons.enabled` is by default depends on who made it: a worker of several partitions, or a replay.
    """
    topic = loaded.topics.interactions
    refused: CheckpointError | None = None
    for has_others in (False, True):
        configuration = settled(loaded.configuration, has_others=has_others)
        try:
            checkpoint = store.load(Identity(topic, number, configuration))
        except CheckpointError as error:
            refused = refused or error
            continue
        if checkpoint is None:
            raise Refusal(f"{store.directory} has no checkpoint: see `thalweg checkpoint list`")
        return checkpoint, configuration
    assert refused is not None
    raise refused
