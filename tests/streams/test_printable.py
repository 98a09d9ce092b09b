"""What producers wrote never moves a terminal's cursor, and what is secret is never shown."""

import io
import json
import logging
import os
import unicodedata
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from kafka.errors import KafkaConnectionError
from thalweg.streams import warnings
from thalweg.streams.checkpoints.format import Checkpoint, CheckpointStore, Identity, header_of
from thalweg.streams.commands import consume_command, main
from thalweg.streams.configuration.loading import load
from thalweg.streams.kafka.refusals import refusing
from thalweg.streams.kafka.security import KafkaSection, credentials
from thalweg.streams.logs.errors import LogError
from thalweg.streams.logs.writer import LogWriter
from thalweg.streams.partition.seal import seal_of
from thalweg.streams.printable import printable, printable_bytes
from thalweg.streams.refusal import Refusal

from tests.streams.logs_for_tests import small

HARM = "\x00\x07\x1b[31m\x7f\x85\x9b2J\u061c\u200e\u202a\u202e\u2066\u2069\u2028\ud800\U000e0001"
SAFE = "plain ünï 漢字 👍\t|"
Patch = pytest.MonkeyPatch


@given(st.text(st.characters(codec=None)))
def test_only_what_is_printable_is_left(text: str) -> None:
    """No control character, no mark of direction and no half of a pair gets through, and JSON means what it meant."""
    shown = printable(text)
    assert all(char == "\t" or unicodedata.category(char) not in ("Cc", "Cf", "Cs", "Zl", "Zp") for char in shown)
    text = text.encode(errors="replace").decode()
    value = json.dumps(text, ensure_ascii=False)
    assert json.loads(printable(value)) == text


def test_what_is_printable_stays() -> None:
    """Letters of any script, pictures and tabs are left as they are, the ends of lines where they are wanted."""
    assert printable(SAFE) == SAFE
    assert printable("a\nb") == "a\\nb"
    assert printable_bytes(b"a\nb\xff\x1b") == b"a\nb\\xff\\u001b"


def test_errors_are_printable() -> None:
    """Whatever is put into a message, it is one line that a terminal takes for text."""
    for error in (Refusal(f"a{HARM}\nb"), LogError(f"a{HARM}\nb")):
        assert str(error).isprintable()
        assert str(error).startswith("a\\u0000")


class Terminal:
    """A pair of ends: what is written to `stdout` comes out at ours."""

    def __init__(self) -> None:
        self._ours, theirs = os.openpty()
        self.stdout = io.TextIOWrapper(open(theirs, "wb"), encoding="utf-8")  # noqa: PTH123, SIM115

    def sent(self) -> bytes:
        self.stdout.flush()
        os.set_blocking(self._ours, False)
        return os.read(self._ours, 1 << 16).replace(b"\r\n", b"\n")

    def close(self) -> None:
        self.stdout.close()
        os.close(self._ours)


LINE = msgspec.json.encode({"user": HARM.replace("\ud800", "")})


def test_lines_are_escaped_on_a_terminal_only(monkeypatch: Patch, tmp_path: Path) -> None:
    """Scores of `--out -` are escaped where somebody looks, and bytes stay as they are in a file."""
    with closing(Terminal()) as terminal, monkeypatch.context() as patch:
        patch.setattr("sys.stdout", terminal.stdout)
        write_lines(tmp_path)
        assert_harmless(terminal.sent())
    assert (tmp_path / "file").read_bytes() == LINE + b"\n"


def write_lines(tmp_path: Path) -> None:
    for name in ("-", str(tmp_path / "file")):
        with LogWriter(name) as log:
            log.write(LINE + b"\n")


def test_consume_is_escaped_on_a_terminal(monkeypatch: Patch) -> None:
    """Records of a topic are shown escaped, still as JSON."""

    def records(*told: Any, **named: Any) -> Iterator[Any]:
        yield SimpleNamespace(value=LINE)

    monkeypatch.setattr(consume_command, "check", lambda *told: 1)
    monkeypatch.setattr(consume_command, "consume", records)
    with closing(Terminal()) as terminal, monkeypatch.context() as patch:
        patch.setattr("sys.stdout", terminal.stdout)
        consume_command.command.main([], standalone_mode=False)
        assert_harmless(terminal.sent())


def assert_harmless(sent: bytes) -> None:
    line = sent.removesuffix(b"\n").decode()
    assert line.isprintable()
    assert msgspec.json.decode(line) == msgspec.json.decode(LINE)


def test_checkpoints_are_shown_escaped_and_without_secrets(tmp_path: Path) -> None:
    """What a header has of others is escaped, and of the model's arguments no secret is in any output."""
    c = small()
    header = header_of(Identity("interactions", 0, c), 3, HARM.replace("\ud800", ""))
    header.configuration["learner"]["model_arguments"] = {"api_key": "s3cr3t", "url": "http://ann:s3cr3t@host/"}
    CheckpointStore(tmp_path / "interactions-0").save(Checkpoint(header, {}))
    (tmp_path / "interactions-0" / "\x1b[31m\u202e.checkpoint").write_bytes(b"")
    for arguments in (["show", "--offset", "3"], ["list"], ["list", "--json"], ["verify", "--all"]):
        result = CliRunner().invoke(main, ["checkpoint", *arguments, "--set", f"checkpoint.directory={tmp_path}"])
        assert isinstance(result.exception, SystemExit | None), result.exception
        assert all(line.isprintable() for line in result.output.split("\n")), result.output
        assert "s3cr3t" not in result.output


def test_arguments_of_a_model_and_addresses_are_shown_without_secrets() -> None:
    """Neither the table of the configuration nor its JSON nor a refusal has a key, a password or a token."""
    flags = ["learner.model=river:linear_model.LogisticRegression", "kafka.bootstrap_servers=ann:s3cr3t@one:9092,two"]
    flags += [f"learner.model_arguments.{name}=s3cr3t" for name in ("api_key", "password", "auth_token", "passwd")]
    flags += ["learner.model_arguments.url=kafka://ann:s3cr3t@host/x?token=s3cr3t"]
    arguments = [part for flag in flags for part in ("--set", flag)]
    for more in ([], ["--json"], ["--set", "learner.l2=-1"]):
        result = CliRunner().invoke(main, ["config", "show", *arguments, *more])
        assert "s3cr3t" not in result.output
        assert "learner" in result.output
    with pytest.raises(Refusal) as refused:
        fail_to_connect(load(None, environment={}, flags=flags).kafka)
    assert "s3cr3t" not in refused.value.message
    assert "***@one:9092" in refused.value.message


def fail_to_connect(kafka: KafkaSection) -> None:
    with refusing(kafka):
        raise KafkaConnectionError("none")


def test_a_password_that_others_may_read_is_warned_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """PLAIN without TLS, and files of secrets that everybody may read, are told once, without the secret."""
    warnings.warn_once.cache_clear()
    key = tmp_path / "key"
    key.write_text("0123456789abcdef")
    kafka = KafkaSection(
        security_protocol="SASL_PLAINTEXT", sasl_mechanism="PLAIN", sasl_username="ann", sasl_password_file=str(key)
    )
    flags = ["learner.model=river:linear_model.LogisticRegression", "learner.allow_pickle=true"]
    loaded = load(None, environment={}, flags=[*flags, f"checkpoint.hmac_key_file={key}"])
    told = []
    with caplog.at_level(logging.WARNING):
        for mode in (0o600, 0o640, 0o644, 0o644):
            key.chmod(mode)
            caplog.clear()
            credentials(kafka, {})
            credentials(msgspec.structs.replace(kafka, security_protocol="SASL_SSL"), {})
            seal_of(loaded, {})
            told.append([record.getMessage().partition(":")[0].partition(" ")[0] for record in caplog.records])
            assert "0123456789abcdef" not in caplog.text
    assert told == [["kafka.sasl_mechanism"], [], ["kafka.sasl_password_file", "checkpoint.hmac_key_file"], []]
