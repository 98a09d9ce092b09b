"""A real broker for tests and for `make live`: one KRaft node from Apache Kafka's own jars, without Docker.

    python -m tests.kafka.broker            run one in the foreground, on port 9092, until Ctrl-C

The jars come from Maven once, into a cache outside the tree; later starts need no network. Ports are random and free,
data lie in a temporary folder. `kill` is SIGKILL and `restart` goes on with the same ports and data, for fault tests.
"""

import argparse
import contextlib
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

KAFKA_VERSION = "4.4.0"
READY_TIMEOUT_S = 90.0
COMMAND_TIMEOUT_S = 120.0
USERNAME, PASSWORD = "thalweg", "correct horse"
GUEST, GUEST_PASSWORD = "guest", "let me in"
BOOTSTRAP_VARIABLE = "THALWEG_TEST_BOOTSTRAP"

_HERE = Path(__file__).parent
_LOGGING = """\
status = error
appender.console.type = Console
appender.console.name = console
appender.console.layout.type = PatternLayout
appender.console.layout.pattern = %d{HH:mm:ss.SSS} %p %c{1} %m%n
rootLogger.level = warn
rootLogger.appenderRef.console.ref = console
"""


class BrokerUnavailableError(Exception):
    """No broker can be had on this machine; the text says what to install."""


def cache_folder() -> Path:
    """Where the jars of this version are kept between runs."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "thalweg" / f"kafka-{KAFKA_VERSION}"


def jars() -> Path:
    """Return the folder of the broker's jars, fetched by Maven the first time.

    Raises BrokerUnavailableError where Java or Maven is missing, or Maven fails.
    """
    folder = cache_folder()
    if shutil.which("java") is None:
        raise BrokerUnavailableError("no `java` on the PATH")
    if folder.is_dir():
        return folder
    if shutil.which("mvn") is None:
        raise BrokerUnavailableError("no `mvn` on the PATH")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        fetched = Path(scratch) / "jars"
        command = ["mvn", "-B", "-q", "-f", str(_HERE / "pom.xml"), "dependency:copy-dependencies"]
        run = subprocess.run([*command, f"-DoutputDirectory={fetched}"], capture_output=True, text=True, check=False)
        if run.returncode != 0:
            raise BrokerUnavailableError(
                f"Maven could not fetch Apache Kafka {KAFKA_VERSION}: {run.stdout.strip()[:500]}"
            )
        # another run may have come first; whoever renames first wins, and both folders hold the same
        with contextlib.suppress(OSError):
            fetched.rename(folder)
    return folder


def free_ports(count: int) -> list[int]:
    """Return ports that were free a moment ago."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def answers(port: int) -> bool:
    """Whether something on this port answers an ApiVersions request, which a broker does once it can serve."""
    request = struct.pack(">hhih", 18, 0, 1, -1)
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=2) as connection:
            connection.sendall(struct.pack(">i", len(request)) + request)
            return len(connection.recv(8)) == 8
    except OSError:
        return False


class Running(NamedTuple):
    """A broker that serves; `node` is None where somebody else runs it."""

    bootstrap_servers: str
    node: "Broker | None" = None


class Broker:
    """One Kafka node on this machine; a context manager that starts and stops it.

    `secure` adds a SASL_SSL listener (SCRAM-SHA-256 and PLAIN, a self-signed certificate for localhost) and an SSL
    listener that asks for a client's certificate. The user GUEST may log in, and may do nothing.
    """

    def __init__(self, *, secure: bool = False, port: int | None = None, memory: str = "256m") -> None:
        ports = free_ports(4)
        self.port = port or ports[0]
        self._controller_port = ports[1]
        self.secure_port = ports[2] if secure else None
        self.mutual_port = ports[3] if secure else None
        self._memory = memory
        self._jars = jars()
        self.folder = Path(tempfile.mkdtemp(prefix="thalweg-broker-"))
        self.log = self.folder / "broker.log"
        self._process: subprocess.Popen[bytes] | None = None
        self._configure()

    @property
    def bootstrap_servers(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def secure_bootstrap_servers(self) -> str:
        assert self.secure_port is not None, "the broker was made without secure=True"
        return f"localhost:{self.secure_port}"

    @property
    def mutual_bootstrap_servers(self) -> str:
        """The listener that asks for a client's certificate."""
        assert self.mutual_port is not None, "the broker was made without secure=True"
        return f"localhost:{self.mutual_port}"

    @property
    def pid(self) -> int:
        """The node's process, which must run."""
        assert self._process is not None
        return self._process.pid

    @property
    def is_running(self) -> bool:
        """Whether the node's process is there."""
        return self._process is not None and self._process.poll() is None

    def last_words(self, size: int = 3000) -> str:
        """Return the end of the node's log."""
        if not self.log.exists():
            return "(no log)"
        return self.log.read_bytes()[-size:].decode(errors="replace") or "(it said nothing)"

    @property
    def certificate(self) -> Path:
        """The certificate that clients of the secure listener trust."""
        return self.folder / "certificate.pem"

    def client(self, name: str) -> tuple[Path, Path]:
        """Certificate and key of a client of the mutual listener: "friend", which it trusts, or "stranger"."""
        return self.folder / f"{name}.pem", self.folder / f"{name}-key.pem"

    def start(self) -> None:
        """Start the node and wait until it serves. Raises BrokerUnavailableError, with its log, if it does not."""
        with self.log.open("ab") as log:
            command = self._java("kafka.Kafka", str(self.folder / "server.properties"))
            # a session of its own: the terminal's Ctrl-C is for those who use it, and end it when they are done
            self._process = subprocess.Popen(
                command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True
            )
        deadline = time.monotonic() + READY_TIMEOUT_S
        while not answers(self.port):
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.kill()
                raise BrokerUnavailableError(f"the broker did not start:\n{self.last_words()}")
            time.sleep(0.1)

    def stop(self) -> None:
        """Stop the node in order, if it runs."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """Stop the node with SIGKILL, if it runs."""
        self._end(signal.SIGKILL)

    def restart(self) -> None:
        """Stop the node if it runs, and start it with the same ports and data."""
        self.stop()
        self.start()

    def __enter__(self) -> "Broker":
        try:
            self.start()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _end(self, number: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(number)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def _java(self, main: str, *arguments: str) -> list[str]:
        logging = f"-Dlog4j2.configurationFile={self.folder / 'log4j2.properties'}"
        # the second compiler takes half of the processor time of a broker that lives for seconds, and delays it
        flags = [f"-Xmx{self._memory}", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", logging]
        return ["java", *flags, "-cp", f"{self._jars}/*", main, *arguments]

    def _configure(self) -> None:
        (self.folder / "log4j2.properties").write_text(_LOGGING)
        properties = self.folder / "server.properties"
        settings = self._settings()
        scram: list[str] = []
        if self.secure_port is not None:
            self._make_certificates()
            settings |= self._secure_settings()
            scram = ["--add-scram", f"SCRAM-SHA-256=[name={USERNAME},password={PASSWORD}]"]
        properties.write_text("".join(f"{name}={value}\n" for name, value in settings.items()))
        cluster = uuid.uuid4().hex[:22]
        command = self._java("kafka.tools.StorageTool", "format", "-t", cluster, "-c", str(properties), *scram)
        run = subprocess.run(command, capture_output=True, text=True, check=False, timeout=COMMAND_TIMEOUT_S)
        if run.returncode != 0:
            raise BrokerUnavailableError(
                f"the broker's storage could not be formatted: {run.stderr[-2000:] or run.stdout}"
            )

    def _settings(self) -> dict[str, str]:
        plain, controller = f"PLAINTEXT://127.0.0.1:{self.port}", f"CONTROLLER://127.0.0.1:{self._controller_port}"
        return {
            "process.roles": "broker,controller",
            "node.id": "1",
            "controller.quorum.voters": f"1@127.0.0.1:{self._controller_port}",
            "controller.listener.names": "CONTROLLER",
            "listeners": f"{plain},{controller}",
            "advertised.listeners": plain,
            "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,SASL_SSL:SASL_SSL,SSL:SSL",
            "log.dirs": str(self.folder / "data"),
            "offsets.topic.num.partitions": "1",
            "transaction.state.log.num.partitions": "1",
            "group.initial.rebalance.delay.ms": "0",
            # clients must not conjure topics up: what refuses absent topics has to see them absent
            "auto.create.topics.enable": "false",
            "num.network.threads": "2",
            "num.io.threads": "2",
            # one node: nothing can be replicated
            "offsets.topic.replication.factor": "1",
            "transaction.state.log.replication.factor": "1",
            "transaction.state.log.min.isr": "1",
            "share.coordinator.state.topic.replication.factor": "1",
            "share.coordinator.state.topic.min.isr": "1",
            # looked at every 10 s by default
            "transaction.abort.timed.out.transaction.cleanup.interval.ms": "500",
            # a killed node may register again only when its old session is over, 9 s by default
            "broker.session.timeout.ms": "3000",
            "broker.heartbeat.interval.ms": "500",
        }

    def _secure_settings(self) -> dict[str, str]:
        listeners = self._settings()
        addresses = f"SASL_SSL://localhost:{self.secure_port},SSL://localhost:{self.mutual_port}"
        plain_users = (
            "org.apache.kafka.common.security.plain.PlainLoginModule required "
            f'username="{USERNAME}" password="{PASSWORD}" user_{USERNAME}="{PASSWORD}" user_{GUEST}="{GUEST_PASSWORD}";'
        )
        return {
            "listeners": f"{listeners['listeners']},{addresses}",
            "advertised.listeners": f"{listeners['advertised.listeners']},{addresses}",
            "inter.broker.listener.name": "PLAINTEXT",
            "sasl.enabled.mechanisms": "SCRAM-SHA-256,PLAIN",
            "listener.name.sasl_ssl.scram-sha-256.sasl.jaas.config": (
                "org.apache.kafka.common.security.scram.ScramLoginModule required;"
            ),
            "listener.name.sasl_ssl.plain.sasl.jaas.config": plain_users,
            "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
            "super.users": f"User:ANONYMOUS;User:{USERNAME};User:CN=friend",
            "listener.name.ssl.ssl.client.auth": "required",
            "listener.name.ssl.ssl.truststore.type": "PEM",
            "listener.name.ssl.ssl.truststore.location": str(self.client("friend")[0]),
            "ssl.keystore.type": "PEM",
            "ssl.keystore.location": str(self.folder / "keystore.pem"),
        }

    def _make_certificates(self) -> None:
        key = self.folder / "key.pem"
        _make_certificate("localhost", self.certificate, key, "subjectAltName=DNS:localhost,IP:127.0.0.1")
        (self.folder / "keystore.pem").write_text(key.read_text() + self.certificate.read_text())
        for name in ("friend", "stranger"):
            _make_certificate(name, *self.client(name), "extendedKeyUsage=clientAuth")


def _make_certificate(name: str, certificate: Path, key: Path, extension: str) -> None:
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", f"/CN={name}"]
    command += ["-addext", extension, "-keyout", str(key), "-out", str(certificate)]
    run = subprocess.run(command, capture_output=True, text=True, check=False, timeout=COMMAND_TIMEOUT_S)
    if run.returncode != 0:
        raise BrokerUnavailableError(f"openssl made no certificate: {run.stderr[-500:]}")


@contextlib.contextmanager
def compose_broker() -> Iterator[str]:
    """Run the broker of docker-compose.yml, give its bootstrap servers. Raises BrokerUnavailableError if it can't."""
    if shutil.which("docker") is None:
        raise BrokerUnavailableError("no `docker` on the PATH")
    compose = ["docker", "compose", "-f", str(_HERE.parents[1] / "docker-compose.yml"), "-p", "thalweg-tests"]
    run = subprocess.run([*compose, "up", "-d", "--wait", "broker"], capture_output=True, text=True, check=False)
    if run.returncode != 0:
        raise BrokerUnavailableError(f"docker compose could not start a broker: {run.stderr.strip()[:300]}")
    try:
        yield "localhost:9092"
    finally:
        subprocess.run([*compose, "down", "-v"], capture_output=True, check=False)


@contextlib.contextmanager
def bootstrap_servers() -> Iterator[str]:
    """Give a broker's bootstrap servers; see `running`."""
    with running() as broker:
        yield broker.bootstrap_servers


@contextlib.contextmanager
def running() -> Iterator[Running]:
    """Give a broker: the environment's, else Maven's jars, else docker compose.

    Raises BrokerUnavailableError, saying what to install, where none of them can be had.
    """
    if given := os.environ.get(BOOTSTRAP_VARIABLE):
        yield Running(given)
        return
    with contextlib.ExitStack() as stack:
        try:
            node = stack.enter_context(Broker())
            broker = Running(node.bootstrap_servers, node)
        except BrokerUnavailableError as no_jars:
            try:
                broker = Running(stack.enter_context(compose_broker()))
            except BrokerUnavailableError as no_docker:
                raise BrokerUnavailableError(
                    f"no Kafka broker for the tests ({no_jars}; {no_docker}): install Java 17 and Maven, or Docker "
                    f"with the compose plugin, or set {BOOTSTRAP_VARIABLE} to a broker's address"
                ) from None
        yield broker


def main() -> int:
    """Run one broker in the foreground until it is interrupted."""
    parser = argparse.ArgumentParser(prog="python -m tests.kafka.broker", description=main.__doc__)
    parser.add_argument("--port", type=int, default=9092)
    parser.add_argument("--secure", action="store_true", help="add a SASL_SSL listener on a random port")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    try:
        with Broker(port=options.port, secure=options.secure, memory="512m") as broker:
            sys.stderr.write(f"broker ready on {broker.bootstrap_servers}, log in {broker.log}; Ctrl-C ends it\n")
            signal.pause()
    except BrokerUnavailableError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    except KeyboardInterrupt:
        sys.stderr.write("broker stopped\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
