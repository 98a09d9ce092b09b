"""Where the checkpoints of each partition are: a folder for each generation, a folder in it for each partition.

    DIRECTORY/TOPIC-PARTITION                     generation 0
    DIRECTORY/generation-N/TOPIC-PARTITION        generation N

A generation is one configuration's. After a change of configuration the state is rebuilt from the log, in a
new generation. The one before stays as it is, for a way back.

    DIRECTORY/starts/TOPIC-PARTITION/TOPIC-OTHER  what another partition had learned where this one began

The log names such a state, so it stays whatever the generation is, and no worker removes it.
"""

import re
from collections.abc import Callable
from pathlib import Path

import msgspec
from thalweg.streams.checkpoints.disk import Disk, LocalDisk
from thalweg.streams.checkpoints.format import CheckpointError, CheckpointStore, Store, refusing, said
from thalweg.streams.checkpoints.objects import ObjectCheckpointStore, is_remote, names_in, opened, refusing_files
from thalweg.streams.configuration.loading import CheckpointSection
from thalweg.streams.kafka.topic_names import RULE, is_topic

STARTS = "starts"
KEPT_FOR_EVER = 1 << 30


def folder_of(section: CheckpointSection) -> str:
    """Return the folder or URL of a section's generation."""
    directory = section.directory
    if "://" in directory and not is_remote(directory):
        directory = opened(directory)[1]
    if not section.generation:
        return directory
    return f"{directory.rstrip('/')}/generation-{section.generation}"


def store_at(
    section: CheckpointSection,
    topic: str,
    partition: int,
    *,
    on_damage: Callable[[str], object] = lambda message: None,
    disk: Disk | None = None,
) -> Store:
    """Return the store of one partition; `disk` is what a folder lies on, if not this machine's.

    Raises CheckpointError where the folder is a URL that no file system is known for, or the topic's name is none that
    Kafka takes: it becomes a folder's.
    """
    if not is_topic(topic):
        raise CheckpointError(f"{said(repr(topic))} is no topic's name, which has {RULE}")
    folder = f"{folder_of(section).rstrip('/')}/{topic}-{partition}"
    if is_remote(folder):
        return ObjectCheckpointStore(folder, section.keep, on_damage=on_damage)
    return CheckpointStore(Path(folder), section.keep, on_damage=on_damage, disk=disk)


def starts_at(section: CheckpointSection, topic: str, partition: int, other: int, *, disk: Disk | None = None) -> Store:
    """Return the store of what another partition had learned where one began; it keeps all of them.

    Raises CheckpointError as `store_at` does.
    """
    return store_at(starts_of(section, topic, partition), topic, other, disk=disk)


def starts_of(section: CheckpointSection, topic: str, partition: int) -> CheckpointSection:
    """Return the section of what other partitions had learned where one began."""
    folder = f"{folder_of(msgspec.structs.replace(section, generation=0)).rstrip('/')}/{STARTS}/{topic}-{partition}"
    return msgspec.structs.replace(section, generation=0, directory=folder, keep=KEPT_FOR_EVER)


def partitions_at(section: CheckpointSection, topic: str, *, disk: Disk | None = None) -> list[int]:
    """Return the partitions of a topic that have a folder. Raises CheckpointError where it can't be looked at."""
    folder = folder_of(section)
    if is_remote(folder):
        files, path = opened(folder)
        with refusing_files(folder):
            names = names_in(files, path)
    else:
        with refusing(Path(folder)):
            names = (disk or LocalDisk()).names(Path(folder))
    found = (re.fullmatch(rf"{re.escape(topic)}-([0-9]{{1,9}})", name) for name in names)
    return sorted(int(match[1]) for match in found if match)
