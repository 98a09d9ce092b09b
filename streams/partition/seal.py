"""A key that authenticates checkpoints: what would run on loading is verified under it before.

All of a checkpoint is numbers, except for the pickle of a River classifier that replaces the learner. An attacker
who may write into the folder of checkpoints could run any code by such a pickle. So each carries an HMAC-SHA256.
"""

import hashlib
import hmac
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from thalweg.operators.learner import BUILT_IN
from thalweg.streams.refusal import Refusal
from thalweg.streams.warnings import warn_of_readers

if TYPE_CHECKING:
    from thalweg.streams.configuration.loading import Loaded

KEY_VARIABLE = "THALWEG_CHECKPOINT_HMAC_KEY"
KEY_BYTES_MIN = 16


class SignedHeader(Protocol):
    """What a checkpoint's header has that a signature covers: whose state it is, where it stands, and its digest."""

    @property
    def application(self) -> str:
        """The application that wrote it."""

    @property
    def topic(self) -> str:
        """The input topic."""

    @property
    def partition(self) -> int:
        """The input's partition."""

    @property
    def next_offset(self) -> int:
        """The first record that is not in the state."""

    @property
    def digest(self) -> str:
        """The state's digest."""


class Seal:
    """Signs parts of a checkpoint, and verifies that they were signed under the same key; never shows the key."""

    def __init__(self, key: bytes, header: SignedHeader | None = None) -> None:
        """Sign under a key, for the checkpoint with a header; None: for one that never leaves the process."""
        self._key = key
        self.digest = None if header is None else header.digest
        self._header: tuple[bytes, ...] = ()
        if header is not None:
            told = (header.application, header.topic, header.partition, header.next_offset, header.digest)
            self._header = tuple(str(part).encode() for part in told)

    def bound(self, header: SignedHeader | None) -> "Seal":
        """Return a seal under the same key whose signatures are good for the checkpoint with this header alone."""
        return Seal(self._key, header)

    def sign(self, *parts: bytes) -> bytes:
        """Return the HMAC-SHA256 of parts, 32 bytes; none of them can lend bytes to its neighbour."""
        mac = hmac.new(self._key, b"thalweg river model", hashlib.sha256)
        for part in (*self._header, *parts):
            mac.update(len(part).to_bytes(8, "little") + part)
        return mac.digest()

    def verifies(self, signature: bytes, *parts: bytes) -> bool:
        """Return whether parts were signed under this key, in a time that tells nothing."""
        return hmac.compare_digest(signature, self.sign(*parts))


def seal_of(
    loaded: "Loaded", environ: Mapping[str, str] = os.environ, *, header: SignedHeader | None = None
) -> Seal | None:
    """Return the seal that checkpoints of a configuration need; None: they hold nothing that could be run.

    `header`: that of the checkpoint which is loaded.

    Raises Refusal where the configuration's model needs a key and there is none, or its pickle is not allowed.
    """
    learner = loaded.configuration.learner
    if learner.model == BUILT_IN:
        return None
    if not learner.allow_pickle:
        raise Refusal(
            f"a checkpoint of learner.model = {learner.model!r} holds a pickle, which runs code when it is loaded: set "
            f"learner.allow_pickle = true and a key in {KEY_VARIABLE}, or keep no checkpoint"
        )
    key = environ.get(KEY_VARIABLE, "").encode() or _key_in(loaded.checkpoint.hmac_key_file)
    if not key:
        raise Refusal(
            f"learner.model = {learner.model!r} needs a key for its checkpoints: set {KEY_VARIABLE}, or "
            "checkpoint.hmac_key_file, to a secret such as `openssl rand -hex 32` gives"
        )
    if len(key) < KEY_BYTES_MIN:
        raise Refusal(f"the key of checkpoints has {len(key)} bytes: at least {KEY_BYTES_MIN} are wanted")
    return Seal(key, header)


def _key_in(path: str) -> bytes:
    if not path:
        return b""
    warn_of_readers("checkpoint.hmac_key_file", path)
    try:
        return Path(path).read_bytes().strip(b"\r\n")
    except OSError as error:
        raise Refusal(f"checkpoint.hmac_key_file can't be read: {error.strerror}: {path}") from None
