"""Brokers' errors, each as one line with the reason and a remedy.

Errors are judged by their type. Where a client only reports a failed connection, `why_unreachable` connects once
itself: a refused handshake, a refused login and a closed port are different errors there.
"""

import asyncio
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import aiokafka.errors as aiokafka_errors
from kafka import errors
from thalweg.streams.printable import redacted
from thalweg.streams.refusal import Refusal

if TYPE_CHECKING:
    from thalweg.streams.kafka.security import KafkaSection


class InvalidRecordError(aiokafka_errors.BrokerResponseError):  # type: ignore[misc]
    """aiokafka's missing class for error code 87."""

    errno = 87
    message = "INVALID_RECORD"
    description = "the topic does not take this record"


# aiokafka knows no such code, and would call it "an unexpected server error".
aiokafka_errors.kafka_errors.setdefault(InvalidRecordError.errno, InvalidRecordError)

UNREACHABLE = (
    errors.KafkaConnectionError,
    errors.KafkaTimeoutError,
    errors.NodeNotReadyError,
    aiokafka_errors.KafkaConnectionError,
    aiokafka_errors.KafkaTimeoutError,
    aiokafka_errors.NodeNotReadyError,
    aiokafka_errors.RequestTimedOutError,
    TimeoutError,
)
LOGIN = (
    errors.SaslAuthenticationFailedError,
    errors.UnsupportedSaslMechanismError,
    errors.IllegalSaslStateError,
    aiokafka_errors.AuthenticationFailedError,
    aiokafka_errors.SaslAuthenticationFailed,
    aiokafka_errors.UnsupportedSaslMechanismError,
    aiokafka_errors.IllegalSaslStateError,
)
FORBIDDEN = (
    errors.AuthorizationError,
    aiokafka_errors.TopicAuthorizationFailedError,
    aiokafka_errors.GroupAuthorizationFailedError,
    aiokafka_errors.ClusterAuthorizationFailedError,
    aiokafka_errors.TransactionalIdAuthorizationFailed,
)
ABSENT = (errors.UnknownTopicOrPartitionError, aiokafka_errors.UnknownTopicOrPartitionError)
TOO_LARGE = (
    errors.MessageSizeTooLargeError,
    errors.RecordListTooLargeError,
    aiokafka_errors.MessageSizeTooLargeError,
    aiokafka_errors.RecordListTooLargeError,
)
INVALID = (errors.InvalidRecordError, InvalidRecordError)
ADVICE = {
    LOGIN: "check kafka.sasl_mechanism, kafka.sasl_username and the password (THALWEG_KAFKA_PASSWORD)",
    FORBIDDEN: "give the user of section [kafka] the right, see docs/kafka.md",
    ABSENT: "the topic is not there: run `thalweg topics create`",
    TOO_LARGE: "the record is too large for the topic: raise its max.message.bytes",
    INVALID: "a compacted topic takes no record without a key: set its cleanup.policy to delete",
}
CODECS = ("none", "gzip", "snappy", "lz4", "zstd")
_READING = "_unpack_records"
"""The function of both clients in which a fetched batch is read; its locals tell which batch it was."""


def one_line(error: BaseException) -> str:
    """Return an error's name and text on one line, and not a long one."""
    name = type(error).__name__
    text = " ".join(str(error).split())
    for prefix in (f"[Error {getattr(error, 'errno', None)}] ", f"{name}: "):
        text = text.removeprefix(prefix)
    text = redacted(text)
    return f"{name}: {text[:200]}" if text else name


def explained(error: BaseException) -> str:
    """Return an error on one line, with a remedy where its type has one."""
    advice = next((advice for kinds, advice in ADVICE.items() if isinstance(error, kinds)), "")
    return f"{one_line(error)}: {advice}" if advice else one_line(error)


@contextmanager
def refusing(kafka: "KafkaSection") -> Iterator[None]:
    """Turn what a client raises when brokers can't be reached, or refuse something, into a refusal of one line."""
    try:
        yield
    except Exception as error:
        refusal = refusal_of(error, kafka)
        if refusal is None:
            raise
        raise refusal from error


def refusal_of(error: BaseException, kafka: "KafkaSection") -> Refusal | None:
    """Return what to tell of an error of a client, None where it is no client's; may ask the brokers why."""
    if isinstance(error, Refusal):
        return error
    if (unreadable := unreadable_batch(error)) is not None:
        return unreadable
    if isinstance(error, UNREACHABLE):
        return Refusal(why_unreachable(kafka))
    if isinstance(error, LOGIN):
        return Refusal(f"the brokers at {kafka.shown_servers} refuse the login: {explained(error)}")
    if isinstance(error, FORBIDDEN):
        return Refusal(f"the brokers at {kafka.shown_servers} forbid it: {explained(error)}")
    if isinstance(error, errors.KafkaError | aiokafka_errors.KafkaError):
        return Refusal(f"Kafka at {kafka.shown_servers}: {explained(error)}")
    return None


def unreadable_batch(error: BaseException) -> Refusal | None:
    """Return what to tell of a batch of records that a client could not read, None where the error is another.

    A batch can be unreadable in many ways, each with an exception of its codec's library. What they have in common is
    the function that they were raised in.
    """
    trace = error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_name == _READING:
            return _of_frame(trace.tb_frame.f_locals, error)
        trace = trace.tb_next
    return None


def _of_frame(names: dict[str, Any], error: BaseException) -> Refusal | None:
    place, batch = names.get("tp"), names.get("next_batch", names.get("batch"))
    if place is None or batch is None:
        return None
    codec = CODECS[code] if (code := int(batch.compression_type)) < len(CODECS) else f"codec {code}"
    what = f"{place.topic}-{place.partition}: the batch at offset {batch.base_offset}, compression {codec},"
    if isinstance(error, errors.UnsupportedCodecError | aiokafka_errors.UnsupportedCodecError):
        return Refusal(f"{what} can't be read: its library is missing; install thalweg with its dependencies again")
    return Refusal(
        f"{what} can't be read ({one_line(error)}): it is damaged; restore the partition from a replica or a backup"
    )


def why_unreachable(kafka: "KafkaSection") -> str:
    """Connect once to each bootstrap server and return why none answers, and what to do."""
    told = ""
    for server in kafka.servers:
        found = _outcome(kafka, server, redacted(server))
        if found is None:
            return (
                f"the broker at {redacted(server)} answers, but those that it names, or the topics' leaders, do not: "
                "check its advertised.listeners, and whether all brokers run"
            )
        told = told or found
    return told


def _outcome(kafka: "KafkaSection", server: str, shown: str) -> str | None:
    """Return why one server does not serve us, None where it does; `shown` is what messages call it."""
    try:
        within_thread(_connect, kafka, server)
    except ssl.SSLCertVerificationError as error:
        return (
            f"TLS: the certificate of {shown} is not trusted ({error.verify_message}): set kafka.ssl_ca_file to its "
            "authority, or kafka.bootstrap_servers to a name that it is for"
        )
    except LOGIN as error:
        return f"{shown} refuses the login: {explained(error)}"
    except (OSError, aiokafka_errors.KafkaError, TimeoutError) as error:
        return _no_answer(kafka, shown, error)
    return None


def _no_answer(kafka: "KafkaSection", shown: str, error: BaseException) -> str:
    cause = error.__cause__ or error
    uses_tls = kafka.security_protocol in ("SSL", "SASL_SSL")
    if uses_tls and isinstance(cause, ssl.SSLError):
        whose = "the client certificate" if kafka.ssl_certificate_file else "us, as we show no client certificate"
        return (
            f"TLS: {shown} refuses {whose} ({cause.reason or one_line(cause)}): set kafka.ssl_certificate_file and "
            "kafka.ssl_key_file to a pair that the brokers trust"
        )
    if isinstance(error, OSError) and not isinstance(error, ConnectionResetError | ssl.SSLError):
        return (
            f"no broker answers at {shown}: start one (`make live`, `docker compose up`), or set "
            "--bootstrap-servers, or kafka.bootstrap_servers"
        )
    return (
        f"{shown} ends the connection: kafka.security_protocol is {kafka.security_protocol}, check whether that port "
        f"speaks {'TLS' if uses_tls else 'plain text'}"
    )


def within_thread(connect: Any, kafka: "KafkaSection", server: str) -> None:
    """Run a coroutine function to its end in a new event loop, also where this thread has one."""
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(1) as pool:
        pool.submit(lambda: asyncio.run(connect(kafka, server))).result()


async def _connect(kafka: "KafkaSection", server: str) -> None:
    from aiokafka.conn import create_conn
    from thalweg.streams.kafka.security import aiokafka_arguments, host_and_port

    arguments = aiokafka_arguments(kafka)
    del arguments["bootstrap_servers"]
    host, port = host_and_port(server)
    async with asyncio.timeout(kafka.connect_timeout_ms / 1000):
        connection = await create_conn(host, port, request_timeout_ms=kafka.connect_timeout_ms, **arguments)
    connection.close()
