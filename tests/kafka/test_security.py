"""SASL and TLS for every client, and secrets that nothing shows."""

import asyncio
import json
import logging
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from aiokafka.errors import KafkaTimeoutError
from click.testing import CliRunner
from thalweg.schemas.records import Cause, Output, Outputs
from thalweg.streams.commands import main
from thalweg.streams.kafka.consume import consume
from thalweg.streams.kafka.delivery import Delivery, tail
from thalweg.streams.kafka.produce import produce
from thalweg.streams.kafka.refusals import refusal_of
from thalweg.streams.kafka.security import (
    PASSWORD_VARIABLE,
    KafkaSection,
    aiokafka_arguments,
    credentials,
    faust_settings,
    kafka_python_arguments,
)
from thalweg.streams.kafka.topics import TopicsSection, check, create
from thalweg.streams.refusal import Refusal

from examples.live.events import events
from tests.kafka.broker import GUEST, GUEST_PASSWORD, PASSWORD, USERNAME, Broker
from tests.kafka.fleet import Fleet, committed, wait_until
from tests.kafka.scoring import Workers

Unique = Callable[[str], str]
GIVEN = ("security_protocol", "sasl_mechanism", "sasl_username", "ssl_ca_file")


def secured(broker: Broker, mechanism: str = "SCRAM-SHA-256") -> KafkaSection:
    return KafkaSection(
        bootstrap_servers=broker.secure_bootstrap_servers,
        security_protocol="SASL_SSL",
        sasl_mechanism=mechanism,  # type: ignore[arg-type]
        sasl_username=USERNAME,
        ssl_ca_file=str(broker.certificate),
        connect_timeout_ms=5000,
    )


@pytest.mark.broker
@pytest.mark.parametrize("mechanism", ["SCRAM-SHA-256", "PLAIN"])
def test_all_clients_over_sasl_ssl(
    own_broker: Broker,
    unique: Unique,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    mechanism: str,
) -> None:
    """Admin, producer, consumer and both sides of the worker's own clients get in, and none logs the password."""
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv(PASSWORD_VARIABLE, PASSWORD)
    kafka = secured(own_broker, mechanism)
    topics = TopicsSection(
        interactions=unique("in"),
        scores=unique("scores"),
        examples=unique("examples"),
        dead_letters=unique("dlq"),
        rankings=unique("rankings"),
        lessons=unique("lessons"),
    )
    create(kafka, topics)
    assert check(kafka, topics) == 1
    produce(kafka, topics.interactions, [b'{"user": "u1"}', b'{"user": "u2"}'])
    assert len(list(consume(kafka, topics.interactions))) == 2

    async def deliver() -> dict[str, int]:
        async with Delivery(kafka, topics) as delivery:
            score = b'{"cause": "%b-0-0:0"}' % topics.interactions.encode()
            await delivery.send(0, Outputs([Output(Cause(0, 0), score)], [], [], [], []))
            return await delivery.flush(0)

    assert asyncio.run(deliver()) == {topics.scores: 1}
    assert asyncio.run(tail(kafka, topics.scores, 0, 0, topics.interactions)).cause == Cause(0, 0)
    assert PASSWORD not in caplog.text


@pytest.mark.broker
def test_worker_over_sasl_ssl(
    own_broker: Broker, unique: Unique, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Faust's consumer gets in with a password from a file, and its log does not show it."""
    password = tmp_path / "password"
    password.write_text(PASSWORD + "\n")
    monkeypatch.setenv(PASSWORD_VARIABLE, PASSWORD)
    kafka = secured(own_broker)
    topics = TopicsSection(
        interactions=unique("secure"),
        scores=unique("s"),
        examples=unique("e"),
        dead_letters=unique("d"),
        rankings=unique("r"),
        lessons=unique("l"),
    )
    create(kafka, topics)
    produce(kafka, topics.interactions, [b'{"user": "u1"}'] * 10)
    monkeypatch.delenv(PASSWORD_VARIABLE)
    from_file = {name: getattr(kafka, name) for name in kafka.__struct_fields__} | {"sasl_password_file": str(password)}
    with Fleet(kafka.bootstrap_servers, topics.interactions, tmp_path / "fleet", kafka=json.dumps(from_file)) as fleet:
        worker = fleet.start()
        wait_until(lambda: fleet.folded() == 10, "all events folded")
        assert fleet.stop(worker) == 0
        assert PASSWORD not in fleet.log(worker)


@pytest.mark.broker
@pytest.mark.parametrize("mode", ["suppress", "transactional"])
def test_a_worker_that_tells_all_does_not_tell_the_password(
    own_broker: Broker, unique: Unique, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    """The whole worker, which hands the password itself over, shows it in no log of all it does, nor when asked."""
    monkeypatch.setenv(PASSWORD_VARIABLE, PASSWORD)
    kafka = secured(own_broker, "PLAIN")
    given = {f"KAFKA__{name.upper()}": getattr(kafka, name) for name in GIVEN}
    with Workers(kafka.bootstrap_servers, unique, tmp_path / "workers", DELIVERY__MODE=mode, **given) as workers:
        workers.produce(list(events(500)))
        worker = workers.start(by="thalweg, verbose")
        servers = own_broker.bootstrap_servers
        workers.wait(lambda: committed(servers, workers.group, workers.source) == {0: 500}, "all events are done with")
        assert workers.stop(worker) == 0
        assert "[DEBUG]" in workers.log(worker)
        assert PASSWORD not in workers.log(worker)
        told = CliRunner().invoke(main, ["config", "show"], env=workers.environ)
        assert (told.exit_code, USERNAME in told.output, PASSWORD in told.output) == (0, True, False)


@pytest.mark.broker
def test_a_wrong_password_is_refused(own_broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    """Brokers that turn us away are a refusal of one line, soon."""
    monkeypatch.setenv(PASSWORD_VARIABLE, "wrong")
    with pytest.raises(Refusal) as refusal:
        check(secured(own_broker), TopicsSection())
    assert "\n" not in refusal.value.message
    assert PASSWORD_VARIABLE in refusal.value.message
    assert "wrong" not in refusal.value.message


@pytest.mark.broker
def test_every_refusal_says_which_it_was(own_broker: Broker, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """TLS, client certificate, login, rights and what is no broker at all are told apart, each in one line."""
    for name, text in (("right", PASSWORD), ("wrong", "guess"), ("guest", GUEST_PASSWORD)):
        (tmp_path / name).write_text(text)
    plain: dict[str, Any] = {"connect_timeout_ms": 2_000}
    tls = plain | {"security_protocol": "SSL", "ssl_ca_file": str(own_broker.certificate)}
    mutual = tls | {"bootstrap_servers": own_broker.mutual_bootstrap_servers}
    sasl = tls | {
        "security_protocol": "SASL_SSL",
        "bootstrap_servers": own_broker.secure_bootstrap_servers,
        "sasl_mechanism": "SCRAM-SHA-256",
        "sasl_username": USERNAME,
        "sasl_password_file": str(tmp_path / "right"),
    }
    wrong = {"sasl_password_file": str(tmp_path / "wrong")}
    guest = {"sasl_mechanism": "PLAIN", "sasl_username": GUEST, "sasl_password_file": str(tmp_path / "guest")}
    refused = {
        "refuses the login: SaslAuthenticationFailed: .*THALWEG_KAFKA_PASSWORD": sasl | wrong,
        "refuses the login: UnsupportedSaslMechanismError.*sasl_mechanism": sasl | {"sasl_mechanism": "SCRAM-SHA-512"},
        "TLS: the certificate of .* is not trusted .*ssl_ca_file": sasl | {"ssl_ca_file": ""},
        "TLS: .* refuses us, as we show no client certificate .*ssl_certificate_file": mutual,
        "TLS: .* refuses the client certificate": mutual | pair(own_broker, "stranger"),
        "ends the connection: .* PLAINTEXT, check whether that port speaks plain text": plain
        | {"bootstrap_servers": own_broker.secure_bootstrap_servers},
        "ends the connection: .* SSL, check whether that port speaks TLS": tls
        | {"bootstrap_servers": own_broker.bootstrap_servers},
        "no broker answers at 127.0.0.1:9: start one": plain | {"bootstrap_servers": "127.0.0.1:9"},
    }

    answered = {
        "forbid it: TopicAuthorizationFailedError: [a-z.]+: give the user": sasl | guest,
        "topics are not there: .*run `thalweg topics create`": mutual | pair(own_broker, "friend"),
    }
    messages = {
        pattern: str(refusal_of(KafkaTimeoutError(), KafkaSection(**section))) for pattern, section in refused.items()
    }
    for pattern, section in answered.items():
        with pytest.raises(Refusal) as refusal:
            check(KafkaSection(**section), TopicsSection())
        messages[pattern] = refusal.value.message
    for pattern, message in messages.items():
        assert re.search(pattern, message), message
        assert "\n" not in message
        assert "guess" not in message + caplog.text


def pair(broker: Broker, name: str) -> dict[str, str]:
    certificate, key = broker.client(name)
    return {"ssl_certificate_file": str(certificate), "ssl_key_file": str(key)}


@pytest.mark.parametrize(
    ("server", "right"),
    [("::1:9092", "[::1]:9092"), ("fe80::1", "[fe80::1]:9092"), ("2001:db8::7:19092", "[2001:db8::7]:19092")],
)
def test_an_address_without_brackets_is_refused(server: str, right: str) -> None:
    """An IPv6 address is refused with the form that it must have, by flag and by setting; others as what they are."""
    with pytest.raises(Refusal, match=re.escape(f"{server!r} is an IPv6 address without brackets: write {right}")):
        KafkaSection().reached_at(server)
    ran = CliRunner().invoke(main, ["config", "show", "--set", f"kafka.bootstrap_servers={server}"])
    assert (ran.exit_code, ran.stderr.count("\n"), f"write {right}" in ran.stderr) == (1, 1, True)
    assert KafkaSection(bootstrap_servers=right).servers == [right]
    for bad in ("host:port", "host:0", "[::1", ":9092", ","):
        with pytest.raises(Refusal, match=r"no bootstrap server|names no server"):
            KafkaSection().reached_at(bad)


def test_secrets_come_from_environment_or_file_and_are_never_shown(tmp_path: Path) -> None:
    """The environment goes before the file, a missing secret names what to set, and no representation shows one."""
    section = KafkaSection(security_protocol="SASL_PLAINTEXT", sasl_mechanism="PLAIN", sasl_username="reader")
    with pytest.raises(Refusal, match=f"set {PASSWORD_VARIABLE} or kafka.sasl_password_file"):
        credentials(section, {})
    password = tmp_path / "password"
    password.write_text("from the file\n")
    section = KafkaSection(
        security_protocol="SASL_PLAINTEXT",
        sasl_mechanism="PLAIN",
        sasl_username="reader",
        sasl_password_file=str(password),
    )
    assert credentials(section, {}) == ("reader", "from the file")
    given = {PASSWORD_VARIABLE: "from the environment"}
    assert credentials(section, given) == ("reader", "from the environment")
    for arguments in (aiokafka_arguments, kafka_python_arguments, faust_settings):
        assert "from the" not in repr(arguments(section, given))
        assert "from the" not in str(arguments(section, given))


def test_what_is_missing_is_refused(tmp_path: Path) -> None:
    """No user name, no password file, no certificate: each is a refusal that names its key."""
    sasl = KafkaSection(security_protocol="SASL_SSL")
    with pytest.raises(Refusal, match=r"set kafka\.sasl_username"):
        aiokafka_arguments(sasl, {})
    with pytest.raises(Refusal, match=r"kafka\.sasl_password_file can't be read"):
        credentials(KafkaSection(sasl_username="u", sasl_password_file=str(tmp_path / "none")), {})
    with pytest.raises(Refusal, match="TLS files"):
        aiokafka_arguments(KafkaSection(security_protocol="SSL", ssl_ca_file=str(tmp_path / "none")), {})
