"""What Docker would run, checked as far as it goes without a daemon."""

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from thalweg.streams.commands import COMMANDS
from thalweg.streams.configuration.loading import load

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    parsed: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    return parsed


def test_services_start_in_order(compose: dict[str, Any]) -> None:
    """The worker waits for topics that were created, and these for a broker that answers."""
    services = compose["services"]
    assert set(services) == {"broker", "topics", "worker", "second-worker"}
    assert re.fullmatch(r"\$\{KAFKA_IMAGE:-apache/kafka:\d+\.\d+\.\d+\}", services["broker"]["image"])
    assert "kafka-broker-api-versions.sh" in services["broker"]["healthcheck"]["test"][1]
    assert services["topics"]["depends_on"] == {"broker": {"condition": "service_healthy"}}
    assert services["worker"]["depends_on"] == {"topics": {"condition": "service_completed_successfully"}}


def test_the_second_worker_is_another_of_the_first_ones_kind(compose: dict[str, Any]) -> None:
    """It starts with its profile only, in the same group and over the same checkpoints."""
    services = compose["services"]
    assert services["second-worker"] == services["worker"] | {"profiles": ["two"]}
    assert "profiles" not in services["worker"]
    assert services["topics"]["environment"]["THALWEG_TOPICS__PARTITIONS"] == "${THALWEG_PARTITIONS:-1}"


def test_commands_and_configuration_are_ours(compose: dict[str, Any]) -> None:
    """Each of our services runs a command that exists, with variables that the configuration knows."""
    for name in ("topics", "worker"):
        service = compose["services"][name]
        assert service["command"][0] in COMMANDS
        filled = {key: re.sub(r"\$\{\w+:-(\w*)\}", r"\1", text) for key, text in service["environment"].items()}
        loaded = load(None, environment=filled, flags=())
        assert loaded.kafka.bootstrap_servers == "broker:29092"
    assert load(None, environment=service["environment"], flags=()).checkpoint.directory == "/var/lib/thalweg"
    assert "checkpoints:/var/lib/thalweg" in service["volumes"]


def test_containers_may_do_little(compose: dict[str, Any]) -> None:
    """Ours have a read-only root and no privileges to gain, and each container has a limit of memory."""
    for name, service in compose["services"].items():
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert re.fullmatch(r"\d+[mg]", service["mem_limit"]), name
        if name != "broker":
            assert service["read_only"] is True
            assert service["cap_drop"] == ["ALL"]
            assert service["tmpfs"] == ["/tmp:mode=1777,size=64m"]


def test_listeners_fit_together(compose: dict[str, Any]) -> None:
    """Every listener is mapped to a protocol, clients reach the ones that are advertised, volumes are declared."""
    broker = compose["services"]["broker"]
    settings = broker["environment"]
    listeners = dict(each.split("://") for each in settings["KAFKA_LISTENERS"].split(","))
    advertised = dict(each.split("://") for each in settings["KAFKA_ADVERTISED_LISTENERS"].split(","))
    mapped = dict(each.split(":") for each in settings["KAFKA_LISTENER_SECURITY_PROTOCOL_MAP"].split(","))
    assert set(mapped) == set(listeners)
    assert set(advertised) == set(listeners) - {settings["KAFKA_CONTROLLER_LISTENER_NAMES"]}
    for name, address in advertised.items():
        assert address.split(":")[1] == listeners[name].split(":")[1]
    assert settings["KAFKA_INTER_BROKER_LISTENER_NAME"] in advertised
    assert [port.split(":")[-1] for port in broker["ports"]] == [listeners["EXTERNAL"].removeprefix(":")]
    used = {mount.split(":")[0] for service in compose["services"].values() for mount in service.get("volumes", ())}
    assert used == set(compose["volumes"])


def test_dockerfile_copies_what_the_project_needs(compose: dict[str, Any]) -> None:
    """The image has the three packages and what `pyproject.toml` names, runs as nobody special, and ends in order."""
    lines = (ROOT / "Dockerfile").read_text().splitlines()
    copied = {word for line in lines if line.startswith("COPY ") for word in line.split()[1:-1]}
    assert copied == {"requirements.lock", "pyproject.toml", "README.md", "LICENSE", "schemas", "operators", "streams"}
    text = "\n".join(lines)
    order = ["install --no-cache-dir -r requirements.lock", "--no-deps .", "USER thalweg", "RUN thalweg warm-up"]
    assert [text.index(step) for step in order] == sorted(text.index(step) for step in order)
    assert re.search(r"^ARG PYTHON_IMAGE=python:3\.11\.\d+-", text, flags=re.MULTILINE)
    assert "@sha256:" not in re.sub("^#.*$", "", text, flags=re.MULTILINE), "a digest must be one that was looked up"
    assert "USER thalweg" in lines
    # the cache is made for the user, filled by the user, in the image and not in a volume, and only read from then on
    [cache] = re.findall(r"^ENV .*THALWEG_CACHE=(\S+)", text, flags=re.MULTILINE)
    assert re.search(rf"install -d -m 0700 -o thalweg -g thalweg .*{re.escape(cache)}\b", text)
    assert text.index("USER thalweg") < text.index("THALWEG_CACHE") < text.index("RUN thalweg warm-up")
    mounts = [line.split()[1] for line in lines if line.startswith("VOLUME ")]
    for service in compose["services"].values():
        mounts += [mount.split(":")[1] for mount in service.get("volumes", ())]
        mounts += [mount.split(":")[0] for mount in service.get("tmpfs", ())]
        assert "THALWEG_CACHE" not in service.get("environment", {})
    assert not [mount for mount in mounts if cache.startswith(mount)]
    assert 'ENTRYPOINT ["thalweg"]' in lines


def test_compose_accepts_the_file() -> None:
    """Where the compose plugin is there it parses the file too; it needs no daemon for that."""
    version = ["docker", "compose", "version"]
    if shutil.which("docker") is None or subprocess.run(version, capture_output=True, check=False).returncode:
        return
    command = ["docker", "compose", "-f", str(ROOT / "docker-compose.yml"), "config", "--quiet"]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
