"""How to reach the brokers, and as whom: section `[kafka]`, and the arguments each of the three clients wants for it.

The password has no field: it comes from THALWEG_KAFKA_PASSWORD or from the file that `sasl_password_file` names, when
a client is made. No representation, log line or message shows it.
"""

import logging
import os
import ssl
from collections.abc import Mapping
from ipaddress import IPv6Address
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from thalweg.schemas.bounds import within
from thalweg.streams.printable import redacted
from thalweg.streams.refusal import Refusal
from thalweg.streams.warnings import warn_of_readers, warn_once

PASSWORD_VARIABLE = "THALWEG_KAFKA_PASSWORD"
KEY_PASSWORD_VARIABLE = "THALWEG_KAFKA_SSL_KEY_PASSWORD"
PORT = 9092
"""Of a bootstrap server that names none."""
RECONNECT_BACKOFF_MAX_MS = 1_000
"""As Kafka's own clients have it. kafka-python's default has a producer wait for half a minute beside a broker that is
back."""


class KafkaSection(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Section `[kafka]`: where the brokers are, and what they ask for; names are Kafka's own."""

    bootstrap_servers: str = "localhost:9092"
    """Brokers to ask first, `host:port`, separated by commas."""
    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = "PLAINTEXT"
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = "SCRAM-SHA-512"
    sasl_username: str = ""
    sasl_password_file: str = ""
    """File that holds the password and nothing else; THALWEG_KAFKA_PASSWORD goes before it."""
    ssl_ca_file: str = ""
    """PEM file of the authorities to trust; empty: the system's."""
    ssl_certificate_file: str = ""
    """PEM file of the client's own certificate, where the brokers ask for one."""
    ssl_key_file: str = ""
    """PEM file of the certificate's key; a password for it comes from THALWEG_KAFKA_SSL_KEY_PASSWORD."""
    ssl_check_hostname: bool = True
    connect_timeout_ms: Annotated[int, within(1, (1 << 31) - 1)] = 10_000
    """How long to look for a broker before giving up."""

    def __post_init__(self) -> None:
        """Raise ValueError where a bootstrap server is none, or an IPv6 address without brackets."""
        if not self.servers:
            raise ValueError("bootstrap_servers names no server: give HOST:PORT")
        for server in self.servers:
            host_and_port(server)

    @property
    def shown_servers(self) -> str:
        """Bootstrap servers as messages show them: without users and passwords."""
        return redacted(self.bootstrap_servers)

    @property
    def servers(self) -> list[str]:
        """Bootstrap servers one by one."""
        return [server.strip() for server in self.bootstrap_servers.split(",") if server.strip()]

    def reached_at(self, bootstrap_servers: str | None) -> "KafkaSection":
        """Return the same section for other bootstrap servers, where some are given."""
        if bootstrap_servers is None:
            return self
        try:
            return msgspec.structs.replace(self, bootstrap_servers=bootstrap_servers)
        except ValueError as error:
            raise Refusal(f"--bootstrap-servers: {error}") from None


def host_and_port(server: str) -> tuple[str, int]:
    """Return host and port of a bootstrap server, whatever user and password are before it.

    Raises ValueError, with the right form, where it is none.

    >>> host_and_port("[::1]:9093"), host_and_port("broker-1")
    (('::1', 9093), ('broker-1', 9092))
    """
    server = server.rpartition("@")[2].rpartition("//")[2]
    if server.startswith("["):
        host, closing, rest = server[1:].partition("]")
        port = (rest.removeprefix(":") or str(PORT)) if closing else ""
    elif server.count(":") > 1:
        raise ValueError(f"{server!r} is an IPv6 address without brackets: write {_bracketed(server)}")
    else:
        host, _, port = server.partition(":")
        port = port or str(PORT)
    if not host or not port.isdecimal() or not 0 < int(port) < 1 << 16:
        raise ValueError(f"{server!r} is no bootstrap server: write HOST:PORT, or [ADDRESS]:PORT for IPv6")
    return host, int(port)


def _bracketed(server: str) -> str:
    """Return an IPv6 address and perhaps a port as they are written; a last number of four digits or more is a port."""
    address, _, port = server.rpartition(":")
    for host, number in ((address, port), (server, str(PORT))):
        try:
            IPv6Address(host)
        except ValueError:
            continue
        if number.isdecimal() and len(number) >= 4:
            return f"[{host}]:{number}"
    return f"[ADDRESS]:{PORT}"


class Secret(str):
    """A string that a log line or a traceback shows as stars: clients log their arguments at DEBUG."""

    __slots__ = ()

    def __repr__(self) -> str:
        """Return stars, however long the secret is."""
        return "'********'"


def kafka_python_arguments(kafka: KafkaSection, environ: Mapping[str, str] = os.environ) -> dict[str, Any]:
    """Return the connection arguments of kafka-python's clients. Raises Refusal where a secret or file is missing."""
    arguments = aiokafka_arguments(kafka, environ)
    if "ssl_context" in arguments:
        arguments["ssl_check_hostname"] = kafka.ssl_check_hostname
    return arguments | {
        "bootstrap_timeout_ms": kafka.connect_timeout_ms,
        "reconnect_backoff_max_ms": RECONNECT_BACKOFF_MAX_MS,
    }


def aiokafka_arguments(kafka: KafkaSection, environ: Mapping[str, str] = os.environ) -> dict[str, Any]:
    """Return the connection arguments of aiokafka's clients. Raises Refusal where a secret or file is missing."""
    arguments: dict[str, Any] = {"bootstrap_servers": kafka.servers, "security_protocol": kafka.security_protocol}
    if kafka.security_protocol in ("SSL", "SASL_SSL"):
        arguments["ssl_context"] = ssl_context(kafka, environ)
    if kafka.security_protocol.startswith("SASL_"):
        _silence_authentication()
        arguments["sasl_mechanism"] = kafka.sasl_mechanism
        arguments["sasl_plain_username"], arguments["sasl_plain_password"] = credentials(kafka, environ)
    return arguments


def faust_settings(kafka: KafkaSection, environ: Mapping[str, str] = os.environ) -> dict[str, Any]:
    """Return Faust's settings `broker` and `broker_credentials`. Raises Refusal where a secret or file is missing."""
    import faust

    settings: dict[str, Any] = {"broker": [f"kafka://{server}" for server in kafka.servers]}
    context = ssl_context(kafka, environ) if kafka.security_protocol in ("SSL", "SASL_SSL") else None
    if kafka.security_protocol.startswith("SASL_"):
        _silence_authentication()
        username, password = credentials(kafka, environ)
        settings["broker_credentials"] = faust.SASLCredentials(
            username=username, password=password, ssl_context=context, mechanism=kafka.sasl_mechanism
        )
    elif context is not None:
        settings["broker_credentials"] = faust.SSLCredentials(context=context)
    return settings


def credentials(kafka: KafkaSection, environ: Mapping[str, str] = os.environ) -> tuple[str, Secret]:
    """Return SASL's user name and password. Raises Refusal, naming what to set, where one is missing."""
    if not kafka.sasl_username:
        raise Refusal(f"kafka.security_protocol is {kafka.security_protocol}: set kafka.sasl_username too")
    if kafka.security_protocol == "SASL_PLAINTEXT" and kafka.sasl_mechanism == "PLAIN":
        warn_once(
            "kafka.sasl_mechanism is PLAIN without TLS: anybody on the way to the brokers reads the password; set "
            "kafka.security_protocol to SASL_SSL, or the mechanism to SCRAM-SHA-512"
        )
    if password := environ.get(PASSWORD_VARIABLE):
        return kafka.sasl_username, Secret(password)
    if not kafka.sasl_password_file:
        raise Refusal(f"no password for {kafka.sasl_username!r}: set {PASSWORD_VARIABLE} or kafka.sasl_password_file")
    warn_of_readers("kafka.sasl_password_file", kafka.sasl_password_file)
    try:
        return kafka.sasl_username, Secret(Path(kafka.sasl_password_file).read_text(encoding="utf-8").strip("\r\n"))
    except (OSError, UnicodeDecodeError) as error:
        raise Refusal(f"kafka.sasl_password_file can't be read: {error}") from error


def ssl_context(kafka: KafkaSection, environ: Mapping[str, str] = os.environ) -> ssl.SSLContext:
    """Return the TLS context of every client. Raises Refusal where a certificate or key can't be loaded."""
    try:
        context = ssl.create_default_context(cafile=kafka.ssl_ca_file or None)
        context.check_hostname = kafka.ssl_check_hostname
        if kafka.ssl_certificate_file:
            # a password in any case: without one OpenSSL would ask at the terminal
            password = environ.get(KEY_PASSWORD_VARIABLE, "")
            context.load_cert_chain(kafka.ssl_certificate_file, kafka.ssl_key_file or None, password)
    except (OSError, ssl.SSLError) as error:
        raise Refusal(f"TLS files of section [kafka] can't be loaded: {error}") from error
    return context


def _silence_authentication() -> None:
    # These log the bytes of every request at DEBUG, of the one with the password too.
    for name in ("aiokafka.conn", "kafka.net.connection", "kafka.protocol.parser"):
        logger = logging.getLogger(name)
        if _is_above_debug not in logger.filters:
            logger.addFilter(_is_above_debug)


def _is_above_debug(record: logging.LogRecord) -> bool:
    return record.levelno > logging.DEBUG
