"""The names of fields in their places, as bytes."""

import numpy as np
import numpy.typing as npt
from thalweg.schemas.limits import NAME_BYTES_MAX

NAME_BYTES = NAME_BYTES_MAX + 1


def field_names(names: npt.NDArray[np.uint8]) -> list[str]:
    """Return the fields' names in their places, up to the first place without one."""
    texts = [bytes(row).split(b"\0", 1)[0].decode() for row in names]
    return texts[: texts.index("")] if "" in texts else texts


def write_name(names: npt.NDArray[np.uint8], place: int, name: str) -> None:
    """Write a field's name to its place."""
    raw = name.encode()
    names[place, : len(raw)] = np.frombuffer(raw, np.uint8)
