"""A worker's answers over HTTP, without brokers: routes, limits, problems, and forwarding to the owner."""

import asyncio
import http.client
import re
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from thalweg.operators.machine.hashing import partition_of
from thalweg.schemas.outputs import Answer, decode_answer, decode_ranking
from thalweg.schemas.records import LogRecord
from thalweg.streams.client import Client, WorkerError
from thalweg.streams.configuration.loading import HttpSection
from thalweg.streams.partition.knowledge import user_known
from thalweg.streams.partition.partition import Partition
from thalweg.streams.refusal import Refusal
from thalweg.streams.serving.openapi import document
from thalweg.streams.serving.page import PAGE
from thalweg.streams.serving.problems import Problem
from thalweg.streams.serving.security import token_of
from thalweg.streams.serving.server import HttpServer
from thalweg.streams.serving.service import Service

from tests.fold.logs import generated
from tests.streams.logs_for_tests import small

EVENTS = 400
WANTED = {"user": "u1", "candidates": ["i1", "i2", "i3", "new"], "context": {}}
TOKEN = "correct-horse-battery-staple"
NOW_MS = 1_700_000_000_000
decode_problem = msgspec.json.Decoder(Problem, strict=True).decode


class World:
    """What a worker would be: open partitions, others' URLs, and an input."""

    def __init__(self, opened: dict[int, Partition], partitions: int = 1) -> None:
        self.partitions, self._opened = partitions, opened
        self.urls: dict[int, str] = {}
        self.appended: list[tuple[int, bytes, bytes]] = []
        self.fails = False

    def opened(self) -> dict[int, Partition]:
        return self._opened

    def url_of(self, partition: int) -> str | None:
        return self.urls.get(partition)

    async def append(self, partition: int, key: bytes, record: bytes) -> int:
        if self.fails:
            raise OSError("the input does not take the request: KafkaConnectionError")
        self.appended.append((partition, key, record))
        return 4711

    async def close(self) -> None:
        return None


@pytest.fixture(scope="module")
def partition() -> Partition:
    """A partition behind some events."""
    partition = Partition(small())
    partition.process(generated(EVENTS))
    user_known(partition, "u1", 1.0)  # compiles what a worker compiles before it answers
    partition.answer(msgspec.json.encode({"type": "request", "id": "1", "ts": NOW_MS, **WANTED}))
    return partition


Serve = Callable[..., str]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Start servers, which end with the test; each gives its host and port."""
    servers = []

    def start(world: World, token: str = "", **settings: Any) -> str:
        section = HttpSection(port=0, **settings)
        server = HttpServer(section, Service(section, small(), world, token))
        server.start()
        servers.append(server)
        return f"127.0.0.1:{server.port}"

    yield start
    for server in servers:
        server.stop()


@pytest.fixture
def client() -> Iterator[Callable[..., Client]]:
    """Make clients, whose connections are closed with the test."""
    made: list[Client] = []

    def make(address: str, **settings: Any) -> Client:
        made.append(Client(f"http://{address}", **settings))
        return made[-1]

    yield make
    for each in made:
        each.close()


def send(
    address: str, method: str, target: str, body: bytes | None = None, headers: dict[str, str] | None = None
) -> tuple[int, dict[str, str], bytes]:
    """Return status, headers and body of an answer."""
    connection = http.client.HTTPConnection(address, timeout=20)
    given = headers if headers is not None else {} if body is None else {"Content-Type": "application/json"}
    connection.request(method, target, body, given)
    answer = connection.getresponse()
    found = answer.status, dict(answer.headers), answer.read()
    connection.close()
    return found


def asked(user: str = "u1", **more: Any) -> bytes:
    return msgspec.json.encode({**WANTED, "user": user, **more})


def test_a_ranking_is_what_the_fold_would_answer(serve: Serve, partition: Partition) -> None:
    """The answer has the items and scores of a request at its offset, and the state stays as it was."""
    before = partition.digest()
    status, headers, body = send(serve(World({0: partition})), "POST", "/rank", asked(id="7", ts=NOW_MS, context={}))
    assert (status, headers["Content-Type"]) == (200, "application/json")
    answer = decode_answer(body)
    assert (answer.id, answer.ts, answer.offset) == ("7", NOW_MS, EVENTS)
    assert partition.digest() == before
    other = Partition(small(), arrays=partition.snapshot())
    record = msgspec.json.encode({"type": "request", **msgspec.json.decode(asked(id="7", ts=NOW_MS, context={}))})
    ranking = decode_ranking(other.process([LogRecord(EVENTS, record)]).rankings[0].value or b"")
    assert ranking.items == answer.items
    status, _, body = send(serve(World({0: partition})), "POST", "/score", asked())
    assert [each.item for each in decode_answer(body).items] == ["i1", "i2", "i3", "new"]


def test_what_is_known_of_a_user_and_an_item(serve: Serve, partition: Partition, client: Callable[..., Client]) -> None:
    """Counts are those of the log: exposures of the user, and the item's key among the user's behaviours."""
    address = serve(World({0: partition}))
    log = [msgspec.json.decode(record.value or b"") for record in generated(EVENTS)]
    acted = [event for event in log if event["type"] == "feedback"]
    user = acted[-1]["user"]
    known = client(address).user(user)
    assert (known["user"], known["known"], known["offset"]) == (user, True, EVENTS)
    [shown] = [int(partition.state.visits.shown[row]) for row in [row_of(partition, user)]]
    assert known["exposures"] == shown > 0
    item = client(address).item(acted[-1]["item"])["partitions"][0]
    assert item["known"]
    assert item["value"]["exposures"] >= item["value"]["positives"] >= 0
    newest = known["behaviors"]["acted"]["last"][0]
    assert newest == {"item_key": item["item_key"], "ts": newest["ts"]}
    assert known["behaviors"]["acted"]["count"] >= len(known["behaviors"]["acted"]["last"]) > 0
    stranger = client(address).user("no/body?")
    assert (stranger["user"], stranger["known"]) == ("no/body?", False)
    assert not client(address).item("never")["partitions"][0]["known"]


def test_what_facts_are_known(serve: Serve, partition: Partition, client: Callable[..., Client]) -> None:
    """The facts of users and items are shown as they were sent, whether anything else is known of them or not."""
    own = Partition(small(), arrays=partition.snapshot())
    facts = {"author": "a3", "tags": ["x", "y\u00e9"], "price": 2.5}
    events: list[dict[str, Any]] = [
        {"type": "item", "id": "f1", "item": "fresh", "ts": NOW_MS, "fields": facts},
        {"type": "user", "id": "f2", "user": "u1", "ts": NOW_MS, "fields": {"plan": "free"}},
    ]
    own.process([LogRecord(EVENTS + n, msgspec.json.encode(event)) for n, event in enumerate(events)])
    asking = client(serve(World({0: own})))
    found = asking.item("fresh")["partitions"][0]
    assert (found["known"], found["facts"], "value" in found) == (True, facts, False)
    assert asking.user("u1")["facts"] == {"plan": "free"}
    assert "facts" not in asking.item("i1")["partitions"][0]


def row_of(partition: Partition, user: str) -> int:
    """Return a user's row, found by comparing keys."""
    from thalweg.operators.machine.hashing import field_seed, key_of

    [rows] = (partition.state.users.key == key_of(user, field_seed("user", small().seed))).nonzero()
    return int(rows[0])


@pytest.mark.parametrize(
    ("method", "target", "body", "headers", "status", "detail"),
    [
        ("GET", "/nothing", None, {}, 404, "here are /rank"),
        ("GET", "/rank", None, {}, 405, "GET is not possible"),
        ("POST", "/users/u", b"{}", {}, 405, "POST is not possible"),
        ("POST", "/rank", b"{}", {}, 415, "Content-Type: application/json"),
        ("POST", "/rank", b"{}", {"Content-Type": "text/plain"}, 415, "Content-Type: application/json"),
        ("POST", "/rank", b"x", {"Content-Type": "application/json", "Content-Encoding": "gzip"}, 415, "as it is"),
        ("POST", "/rank", b'{"user":', None, 400, "not JSON"),
        ("POST", "/rank", b"[]", None, 400, "a list"),
        ("POST", "/rank", b'{"candidates":[]}', None, 400, "user"),
        ("POST", "/rank", asked(top=0), None, 400, "top"),
        ("POST", "/score", asked(top=1), None, 400, "every candidate is scored"),
        ("POST", "/score", asked(shown=1), None, 400, "every candidate is scored"),
        ("POST", "/rank", asked(shown=1), None, 400, "shown needs ?log=true"),
        ("POST", "/rank", asked(), {"Content-Type": "application/json", "Expect": "x"}, 417, "100-continue"),
        ("GET", "//[u", None, {}, 400, "no URL"),
        ("GET", "/users/%FF", None, {}, 400, "not UTF-8"),
        ("POST", "/rank?log=perhaps", asked(), None, 400, "log is true or false"),
        ("POST", "/rank", msgspec.json.encode({"user": "u", "candidates": ["v"] * 2_000}), None, 413, "candidates"),
        ("POST", "/rank", b"x" * 70_000, None, 413, "limits.record_bytes"),
        ("GET", "/users/u", None, {"Host": "evil.example"}, 421, "names of this machine"),
        ("GET", "/users/u?" + "&".join(f"a{n}=1" for n in range(20)), None, {}, 400, "at most 16 fields"),
    ],
)
def test_problems_are_documents(
    serve: Serve,
    partition: Partition,
    method: str,
    target: str,
    body: bytes | None,
    headers: dict[str, str] | None,
    status: int,
    detail: str,
) -> None:
    """Whatever is wrong is one JSON problem document with its status, and the OpenAPI document lists the status."""
    found, sent, answer = send(serve(World({0: partition})), method, target, body, headers)
    assert (found, sent["Content-Type"]) == (status, "application/problem+json")
    problem = decode_problem(answer)
    assert problem.status == status
    assert detail in problem.detail
    if status not in (404, 405) and not target.startswith("//"):
        path = target.partition("?")[0].replace("/u", "/{id}") if "/users" not in target else "/users/{id}"
        documented = msgspec.json.decode(document())["paths"][path][method.lower()]["responses"]
        assert str(status) in documented


def test_what_is_no_http_is_a_problem_too(serve: Serve, partition: Partition) -> None:
    """Broken requests and headers that are too large are refused as documents, and the connection ends."""
    address = serve(World({0: partition}), header_bytes_max=1_024)
    for raw in (b"NONSENSE\r\n\r\n", b"GET /ui HTTP/1.1\r\nHost: localhost\r\nX: " + b"y" * 5_000 + b"\r\n\r\n"):
        with socket.create_connection(address.split(":"), timeout=10) as client:
            client.sendall(raw)
            received = b""
            while more := client.recv(65_536):
                received += more
        assert b" 400 " in received.splitlines()[0]
        assert decode_problem(received.partition(b"\r\n\r\n")[2]).status == 400


def test_a_token_is_asked_for(serve: Serve, partition: Partition, client: Callable[..., Client]) -> None:
    """Without the token nothing of a user is told; the page and the document are for everybody."""
    address = serve(World({0: partition}), token=TOKEN)
    for target in ("/users/u", "/items/v"):
        status, headers, body = send(address, "GET", target)
        assert (status, headers["WWW-Authenticate"], decode_problem(body).status) == (401, "Bearer", 401)
    assert send(address, "POST", "/rank", asked())[0] == 401
    assert send(address, "GET", "/users/u", None, {"Authorization": f"Bearer {TOKEN}x"})[0] == 401
    assert send(address, "GET", "/users/u", None, {"Authorization": f"Bearer {TOKEN}", "Host": "any.example"})[0] == 200
    assert send(address, "GET", "/ui")[0] == send(address, "GET", "/openapi.json")[0] == 200
    assert client(address, token=TOKEN).user("u")["known"] is False
    for given, status in ((f"bearer {TOKEN}", 200), (f"Basic {TOKEN}", 401), ("Bearer \xff", 401), ("\xff", 401)):
        assert send(address, "GET", "/users/u", None, {"Authorization": given})[0] == status


def test_a_client_that_waits_to_send_its_body_is_told_to(serve: Serve, partition: Partition) -> None:
    """With `Expect: 100-continue` the body comes only after that answer, and a body too large is refused before."""
    address = serve(World({0: partition}))
    body = asked()
    head = b"POST /rank HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nExpect: 100-continue\r\n"
    for size, first in ((len(body), b"HTTP/1.1 100 Continue"), (1 << 20, b"HTTP/1.1 413")):
        with socket.create_connection(address.split(":"), timeout=10) as connection:
            connection.sendall(head + b"Content-Length: %d\r\n\r\n" % size)
            assert connection.recv(65_536).startswith(first)
            if size == len(body):
                connection.sendall(body)
                assert connection.recv(65_536).startswith(b"HTTP/1.1 200 OK")


def test_tokens_are_read_from_a_file(tmp_path: Path) -> None:
    """A token that is short or missing is refused, and so is an address for others without one."""
    path = tmp_path / "token"
    path.write_text(f"{TOKEN}\n")
    assert token_of(HttpSection(host="0.0.0.0", token_file=str(path))) == TOKEN
    assert token_of(HttpSection(host="::1")) == ""
    for section, message in (
        (HttpSection(host="0.0.0.0"), "can be reached from other machines: set http.token_file"),
        (HttpSection(token_file=str(tmp_path / "none")), "can't be read: No such file"),
        (HttpSection(token_file=str(tmp_path / "short")), "holds no token"),
    ):
        (tmp_path / "short").write_text("short")
        with pytest.raises(Refusal, match=message):
            token_of(section)


def test_slow_and_idle_clients_are_cut_off(serve: Serve, partition: Partition) -> None:
    """A request that trickles in, a body that never ends, an answer that is not read and an idle connection end."""
    address = serve(World({0: partition}), timeout_ms=400, idle_ms=500)
    started = time.monotonic()
    clients = [socket.create_connection(address.split(":"), timeout=10) for _ in range(3)]
    clients[1].sendall(b"POST /rank HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n")
    clients[1].sendall(b"Content-Length: 100\r\n\r\n{")
    clients[2].sendall(b"GET /ui HTTP/1.1\r\nHost: localhost\r\n\r\n")
    over = threading.Event()

    def trickle() -> None:
        try:
            for byte in b"GET /ui HTTP/1.1\r\nHost: localhost\r\n" * 100:
                clients[0].sendall(bytes([byte]))
                time.sleep(0.05)
        except OSError:
            over.set()

    threading.Thread(target=trickle, daemon=True).start()
    assert over.wait(5)
    for each in clients[1:]:
        with _any():
            while each.recv(65_536):
                pass
    for each in clients:
        each.close()
    assert 0.3 < time.monotonic() - started < 4
    assert send(address, "GET", "/ui")[0] == 200


class _any:  # noqa: N801  (used as a statement)
    """Take an end of a connection, in order or not."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, error: Any, trace: Any) -> bool:
        return kind is None or issubclass(kind, OSError)


def test_one_connection_too_many_closes_the_oldest(serve: Serve, partition: Partition) -> None:
    """Idle connections make room for new ones; whoever comes is answered."""
    address = serve(World({0: partition}), connections_max=3)
    idle = [socket.create_connection(address.split(":"), timeout=10) for _ in range(3)]
    time.sleep(0.1)
    assert send(address, "GET", "/ui")[0] == 200
    with _any():
        assert idle[0].recv(1) == b""
    for each in idle:
        each.close()


def test_connections_stay_open(serve: Serve, partition: Partition) -> None:
    """Many requests go over one connection."""
    connection = http.client.HTTPConnection(serve(World({0: partition})), timeout=10)
    place = None
    for _ in range(5):
        connection.request("POST", "/rank", asked(), {"Content-Type": "application/json"})
        answer = connection.getresponse()
        assert answer.status == 200
        answer.read()
        assert connection.sock is not None
        assert place in (None, connection.sock.getsockname())
        place = connection.sock.getsockname()
    connection.close()


def test_the_owner_answers(serve: Serve, partition: Partition) -> None:
    """What another worker has is forwarded, body, query, token and all; once only, and 503 where none has it."""
    users = {partition_of(f"u{n}".encode(), 2): f"u{n}" for n in range(20)}
    owner = World({0: partition}, 2)
    other = World({1: Partition(small(), partition=1)}, 2)
    other.urls[0] = f"http://{serve(owner, TOKEN)}/"
    address = serve(other, TOKEN)
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {TOKEN}"}
    status, sent, body = send(address, "POST", "/rank?log=true", asked(users[0], top=2), headers)
    assert (status, sent["Thalweg-Origin"]) == (200, "interactions-0-4711")
    direct = decode_answer(partition.answer(owner.appended[0][2]))
    assert decode_answer(body) == direct
    assert (owner.appended[0][:2], other.appended) == ((0, users[0].encode()), [])
    status, _, body = send(address, "GET", f"/users/{users[0]}", None, headers)
    assert (status, msgspec.json.decode(body)["partition"]) == (200, 0)
    assert send(address, "GET", f"/users/{users[1]}", None, headers)[0] == 200
    refused = send(address, "POST", "/rank", asked(users[0], top=0), headers)
    assert (refused[0], refused[1]["Content-Type"]) == (400, "application/problem+json")
    for wrong in (None, "http://127.0.0.1:9", f"http://{address}"):
        other.urls = {} if wrong is None else {0: wrong}
        status, sent, body = send(address, "POST", "/rank", asked(users[0]), headers)
        assert (status, sent["Retry-After"], decode_problem(body).status) == (503, "1", 503)


def test_questions_beyond_their_share_are_put_off(serve: Serve, partition: Partition) -> None:
    """Where questions take more than their share of the fold's time the answer is 503 with Retry-After."""
    own = Partition(small(), arrays=partition.snapshot())
    address = serve(World({0: own}), fold_share_max=0.01)
    many = msgspec.json.encode({"user": "u1", "candidates": [f"i{n}" for n in range(1_000)]})
    found = [send(address, "POST", "/rank", many) for _ in range(40)]
    assert {status for status, _, _ in found} == {200, 503}
    assert all(int(headers["Retry-After"]) >= 1 for status, headers, _ in found if status == 503)


def test_a_busy_partition_is_waited_for_and_then_put_off(serve: Serve, partition: Partition) -> None:
    """While the fold keeps its turn, others are answered; the question waits, and is put off when its time is over."""
    own = Partition(small(), arrays=partition.snapshot())
    address = serve(World({0: own}), timeout_ms=1_000)
    own.turns.take()
    answers: list[tuple[int, dict[str, str], bytes]] = []
    threads = [
        threading.Thread(target=lambda: answers.append(send(address, "POST", "/rank", asked()))) for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    time.sleep(0.1)
    assert send(address, "GET", "/ui")[0] == 200
    assert not answers
    own.turns.give()
    for thread in threads:
        thread.join()
    assert [status for status, _, _ in answers] == [200, 200]
    own.turns.take()
    status, headers, _ = send(address, "POST", "/rank", asked())
    assert (status, headers["Retry-After"]) == (503, "1")
    own.turns.give()


def test_a_request_can_be_logged(serve: Serve, partition: Partition) -> None:
    """With log=true the request is appended as it was answered, and 503 states that the input does not take it."""
    world = World({0: partition})
    address = serve(world)
    status, headers, body = send(address, "POST", "/rank?log=true", asked(context={"device": "a"}))
    assert (status, headers["Thalweg-Origin"]) == (200, "interactions-0-4711")
    [(number, key, record)] = world.appended
    assert (number, key) == (0, b"u1")
    assert partition.answer(record) == body
    assert send(address, "POST", "/rank?log=false", asked())[0] == 200
    assert len(world.appended) == 1
    world.fails = True
    status, headers, body = send(address, "POST", "/rank?log=true", asked())
    assert (status, headers["Retry-After"]) == (503, "1")
    assert "the input does not take" in decode_problem(body).detail


def test_the_document_is_of_the_handlers(serve: Serve, partition: Partition) -> None:
    """Paths and methods of the OpenAPI document are the routes, its references lead somewhere."""
    found = msgspec.json.decode(send(serve(World({0: partition})), "GET", "/openapi.json")[2])
    assert found["openapi"] == "3.1.0"
    service = Service(HttpSection(), small(), World({}))
    routes = {(route.path, route.method.lower()) for route in service.routes}
    assert {(path, method) for path, methods in found["paths"].items() for method in methods} == routes
    for reference in re.findall(r'"\$ref":"#/components/schemas/(\w+)"', document().decode()):
        assert reference in found["components"]["schemas"]
    question = found["components"]["schemas"]["Question"]
    assert question["required"] == ["user", "candidates"]
    assert "type" not in question["properties"]
    assert set(found["components"]["schemas"]["Answer"]["properties"]) == set(Answer.__struct_fields__)
    assert found["paths"]["/rank"]["post"]["security"] == []
    assert msgspec.json.decode(document(has_token=True))["paths"]["/rank"]["post"]["security"] == [{"token": []}]


def test_the_page_is_whole_by_itself(serve: Serve, partition: Partition) -> None:
    """The page names no other address, loads nothing, and its policy allows its own script and style alone."""
    status, headers, body = send(serve(World({0: partition})), "GET", "/ui")
    assert (status, headers["Content-Type"], body) == (200, "text/html; charset=utf-8", PAGE)
    text = body.decode()
    assert not re.findall(r"(?:https?:)?//[\w.]+\.\w+|@import|url\((?!data:)|src=", text)
    assert re.findall(r'href="([^"]*)"', text) == ["data:,"]
    policy = headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert "unsafe" not in policy
    assert "prefers-color-scheme: dark" in text
    assert '<meta name="viewport" content="width=device-width, initial-scale=1">' in text


def test_answers_are_counted(partition: Partition) -> None:
    """Each request counts by its route and status, for the worker's metrics."""
    section = HttpSection(port=0)
    server = HttpServer(section, Service(section, small(), World({0: partition})))
    server.start()
    for method, target, body in (("POST", "/rank", asked()), ("POST", "/rank", b"{}"), ("GET", "/x", None)):
        send(f"127.0.0.1:{server.port}", method, target, body)
    server.stop()
    assert server.service.answered == {("/rank", 200): 1, ("/rank", 400): 1, ("", 404): 1}


BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.mark.skipif(BROWSER is None, reason="needs a Chromium")
def test_a_browser_shows_the_ranking(serve: Serve, partition: Partition, tmp_path: Path) -> None:
    """In a real browser, under its policy, the page asks and shows items in order with the parts of their scores."""
    address = serve(World({0: partition}))
    page = f"http://{address}/ui#user=u1&candidates=i1,i2,new"
    switches = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--virtual-time-budget=4000",
        f"--user-data-dir={tmp_path}",
    ]
    run = subprocess.run([str(BROWSER), *switches, "--dump-dom", page], capture_output=True, text=True, timeout=120)
    ranked = decode_answer(send(address, "POST", "/rank", asked(candidates=["i1", "i2", "new"]))[2]).items
    assert re.findall(r'<span class="item">([^<]*)</span>', run.stdout) == [each.item for each in ranked]
    assert re.findall(r'<span class="score">([^<]*)</span>', run.stdout) == [f"{each.score:.4f}" for each in ranked]
    assert f"3 items as of offset {EVENTS}" in run.stdout
    assert run.stdout.count("Factorisation machine") == len(ranked) + 1  # the script has the name too


def test_a_port_that_is_taken_is_a_refusal() -> None:
    """The message names the setting."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        section = HttpSection(port=other.getsockname()[1])
        with pytest.raises(Refusal, match=r"set http\.port"):
            HttpServer(section, Service(section, small(), World({}))).start()


def test_the_client_asks_again(serve: Serve, partition: Partition, client: Callable[..., Client]) -> None:
    """It waits as it is told, reconnects, gives up at its deadline, and repeats nothing that is wrong by itself."""
    opened: dict[int, Partition] = {}
    address = serve(World(opened))
    asking = client(address, deadline_s=4.0)
    threading.Timer(0.3, lambda: opened.update({0: partition})).start()
    started = time.monotonic()
    assert len(asking.rank("u1", ["i1", "i2"], explain=True).items) == 2
    assert 0.9 < time.monotonic() - started < 3.5
    assert [each.item for each in asking.score("u1", ["i2", "i1"]).items] == ["i2", "i1"]
    with pytest.raises(WorkerError, match="top") as caught:
        asking.rank("u1", ["i1"], top=0)
    assert caught.value.status == 400
    opened.clear()
    with pytest.raises(WorkerError) as caught:
        client(address, deadline_s=0.5).rank("u1", ["i1"])
    assert caught.value.status == 503
    with pytest.raises(WorkerError, match="no worker answers") as caught:
        client("127.0.0.1:9", deadline_s=0.2).user("u")
    assert caught.value.status == 0
    with pytest.raises(ValueError, match="no URL of a worker"):
        Client("localhost:9465")


def test_a_client_survives_a_worker_that_starts_again(
    serve: Serve, partition: Partition, client: Callable[..., Client]
) -> None:
    """A connection that the worker has closed meanwhile is opened again."""
    asking = client(serve(World({0: partition}), idle_ms=200))
    assert asking.user("u1")["known"]
    time.sleep(0.6)
    assert asking.user("u1")["known"]


def test_a_stopped_server_lets_the_loop_end(serve: Serve, partition: Partition) -> None:
    """Stopping closes the port."""
    section = HttpSection(port=0)
    server = HttpServer(section, Service(section, small(), World({0: partition})))
    server.start()
    server.stop()
    with pytest.raises(OSError, match="refused"):
        send(f"127.0.0.1:{server.port}", "GET", "/ui")
    assert asyncio.iscoroutinefunction(Service.answer)
