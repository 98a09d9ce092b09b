"""What a topic may be called: Kafka's rule, before a name goes to a broker or becomes that of a folder."""

import re
from typing import Annotated

import click
import msgspec

RULE = "1 to 249 letters, digits, '.', '_' and '-', and neither '.' nor '..'"
PATTERN = r"^(?!\.{1,2}\Z)[A-Za-z0-9._-]{1,249}\Z"

TopicName = Annotated[str, msgspec.Meta(pattern=PATTERN, description=f"a topic's name has {RULE}")]


def is_topic(name: str) -> bool:
    r"""Return whether a topic may have this name.

    >>> [is_topic(name) for name in ("interactions.dlq", "..", "a/b", "a\n", "")]
    [True, False, False, False, False]
    """
    return re.match(PATTERN, name) is not None


def topic_option(ctx: click.Context, param: click.Parameter, name: str | None) -> str | None:
    """Return what was given for an option that names a topic. Raises BadParameter where it is no topic's name."""
    if name is not None and not is_topic(name):
        raise click.BadParameter(f"a topic's name has {RULE}", ctx, param)
    return name
