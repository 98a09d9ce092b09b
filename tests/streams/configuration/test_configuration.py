"""The configuration: what goes before what, and one clear line for everything that is wrong."""

import json
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import click
import msgspec
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from thalweg.streams.commands import config_command, main
from thalweg.streams.configuration.loading import ConfigurationError, Source, build, configuration_options, load, read
from thalweg.streams.configuration.sections import Member, leaves, members

# kafka-python reads its protocol files in a way that Python is about to drop.
pytestmark = pytest.mark.filterwarnings("ignore:(read|open)_text is deprecated:DeprecationWarning")


@dataclass(frozen=True, kw_only=True, slots=True)
class Learner:
    alpha: float = 0.1
    size: int = 8
    enabled: bool = True
    kind: Literal["ftrl", "river"] = "ftrl"
    actions: tuple[str, ...] = ("click",)
    pairs: tuple[tuple[str, str], ...] = ()
    folder: Path | None = None
    hmac_key: str = ""

    def __post_init__(self) -> None:
        if self.alpha <= 0:
            raise ValueError("alpha must be above 0")
        if self.hmac_key and len(self.hmac_key) < 8:
            raise ValueError(f"hmac_key {self.hmac_key} is too short")


@dataclass(frozen=True, kw_only=True, slots=True)
class Features:
    buckets: dict[str, tuple[float, ...]] = field(default_factory=lambda: {"age": (18.0, 40.0)})


class Broker(msgspec.Struct, frozen=True, kw_only=True):
    servers: str = "localhost:9092"
    partitions: Annotated[int, msgspec.Meta(ge=1)] = 1


@dataclass(frozen=True, kw_only=True, slots=True)
class Root:
    seed: int = 0
    learner: Learner = field(default_factory=Learner)
    features: Features = field(default_factory=Features)
    broker: Broker = field(default_factory=Broker)


def toy_load(
    path: Path | None = None, environment: Mapping[str, str] | None = None, flags: Sequence[str] = ()
) -> tuple[Any, dict[str, Source]]:
    tree: dict[str, Member] = members(Root)
    values = read(tree, path, environment=environment or {}, flags=flags)
    return build(Root, Root(), (), values), {".".join(key): value.source for key, value in values.items()}


def write(folder: Path, text: str) -> Path:
    path = folder / "thalweg.toml"
    path.write_text(text)
    return path


def test_flag_before_environment_before_file_before_default(tmp_path: Path) -> None:
    """Each source must win over those below it, and be named as the value's source."""
    path = write(tmp_path, "[learner]\nalpha = 0.2\nsize = 2\nkind = 'river'\n")
    environment = {"THALWEG_LEARNER__SIZE": "3", "THALWEG_LEARNER__KIND": "ftrl"}
    root, sources = toy_load(path, environment, ["learner.kind=river"])
    assert (root.learner.alpha, root.learner.size, root.learner.kind, root.learner.enabled) == (0.2, 3, "river", True)
    assert sources == {
        "learner.alpha": Source("file", f"{path}:2"),
        "learner.size": Source("environment", "THALWEG_LEARNER__SIZE"),
        "learner.kind": Source("flag", "--set"),
    }


def test_texts_become_what_their_type_wants() -> None:
    """Numbers, booleans, comma lists, nested lists and paths must be read from flags and variables."""
    root, _ = toy_load(
        None,
        {"THALWEG_LEARNER__ENABLED": "off", "THALWEG_FEATURES__BUCKETS__DURATION_MS": "1,2.5"},
        ["learner.actions=click, like", 'learner.pairs=[["user","tab"]]', "learner.folder=x/y", "learner.size=1_000"],
    )
    assert root.learner.enabled is False
    assert root.learner.actions == ("click", "like")
    assert root.learner.pairs == (("user", "tab"),)
    assert root.learner.folder == Path("x/y")
    assert root.learner.size == 1000
    assert root.features.buckets == {"age": (18.0, 40.0), "duration_ms": (1.0, 2.5)}


def test_a_table_of_free_names_in_the_file_stands_for_the_default(tmp_path: Path) -> None:
    """A table in the file must replace the default one whole, and flags must add to it."""
    path = write(tmp_path, "[features.buckets]\nprice = [1, 2]\n")
    root, _ = toy_load(path, {}, ["features.buckets.hour=[6, 12]"])
    assert root.features.buckets == {"price": (1.0, 2.0), "hour": (6.0, 12.0)}
    root, _ = toy_load(write(tmp_path, "[features]\nbuckets = {}\n"))
    assert root.features.buckets == {}


def test_a_value_outside_all_sections_has_every_source_too(tmp_path: Path) -> None:
    """A key that belongs to no section must be settable by file, variable and flag."""
    path = write(tmp_path, "seed = 3\n")
    assert toy_load(path)[0].seed == 3
    assert toy_load(path, {"THALWEG_SEED": "4"})[0].seed == 4
    assert toy_load(path, {"THALWEG_SEED": "4"}, ["seed=5"]) == (Root(seed=5), {"seed": Source("flag", "--set")})


def test_an_empty_file_is_all_defaults(tmp_path: Path) -> None:
    """A file that sets nothing must leave every default."""
    assert toy_load(write(tmp_path, "# nothing\n")) == (Root(), {})


BAD_FILES = {
    "malformed": ("[learner\nalpha = 1", ["is not TOML", "line 1"]),
    "no value": ("[learner]\nalpha =\nsize = 1\n", ["is not TOML", "line 2"]),
    "a key twice": ("[learner]\nalpha = 1\nalpha = 2\n", ["is not TOML", "line 3"]),
    "unknown section": ("[lerner]\nalpha = 1\n", ["unknown section lerner", ":1)", "did you mean learner?"]),
    "unknown key": ("[learner]\nalhpa = 1\n", ["unknown key learner.alhpa", ":2)", "did you mean learner.alpha?"]),
    "nothing near": ("[broker]\nzzz = 1\n", ["unknown key broker.zzz", "known are servers, partitions"]),
    "key outside": ("alpha = 1\n", ["unknown section alpha", "did you mean learner.alpha?"]),
    "wrong type": ('[learner]\nalpha = "x"\n', ['learner.alpha = "x"', ":2)", "expected number, got text"]),
    "text for number": ('[learner]\nsize = "8"\n', ["learner.size", "expected whole number, got text"]),
    "fraction": ("[learner]\nsize = 1.5\n", ["learner.size = 1.5", "expected whole number"]),
    "bool for number": ("[learner]\nsize = true\n", ["learner.size = true", "expected whole number"]),
    "not a choice": ('[learner]\nkind = "sgd"\n', ['learner.kind = "sgd"', "must be one of ftrl, river"]),
    "own check": ("[learner]\nsize = 4\nalpha = -1\n", ["learner.alpha = -1.0", ":3)", "alpha must be above 0"]),
    "bound": ("[broker]\npartitions = 0\n", ["broker.partitions = 0", ">= 1"]),
    "nan": ("[learner]\nalpha = nan\n", ["learner.alpha = NaN", "not a number"]),
    "too large": ("[learner]\nsize = 99999999999999999999\n", ["learner.size", "64 bits"]),
    "inside a list": ("[features.buckets]\nx = [1, 'a']\n", ["features.buckets.x", ":2)", "got text, at [1]"]),
    "section is no table": ("learner = 3\n", ["learner", "must be a table, [learner]"]),
    "table for a value": ("[learner.alpha]\nx = 1\n", ["learner.alpha", "expected number"]),
    "a list of sections": ("[[learner]]\nalpha = 1\n", ["learner", "must be a table"]),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_bad_files_are_refused_in_one_line(tmp_path: Path, name: str) -> None:
    """A file with a mistake must be refused with key, place and what is allowed, in one line."""
    text, expected = BAD_FILES[name]
    with pytest.raises(ConfigurationError) as refusal:
        toy_load(write(tmp_path, text))
    message = str(refusal.value)
    assert "\n" not in message
    assert all(part in message for part in expected), message


BAD_FLAGS = {
    "learner.alpha=x": ['learner.alpha = "x" (--set)', "expected number"],
    "learner.alpha=0": ["learner.alpha = 0.0 (--set): alpha must be above 0"],
    "learner.enabled=maybe": ["expected true or false"],
    "learner.alpa=1": ["unknown key learner.alpa (--set): did you mean learner.alpha?"],
    "learnr.alpha=1": ["unknown section learnr (--set): did you mean learner?"],
    "learner=1": ["learner (--set) must be set key by key, for instance learner.alpha"],
    "features.buckets=1": ["features.buckets (--set) must be set key by key"],
    "learner.alpha.x=1": ["learner.alpha has no keys below it"],
    "learner.actions=[1": ["learner.actions", "expected array"],
    "=1": ["unknown section"],
    "learner.alpha": ["--set learner.alpha: give it as section.key=value"],
}


@pytest.mark.parametrize("flag", BAD_FLAGS)
def test_bad_flags_are_refused_in_one_line(flag: str) -> None:
    """A flag with a mistake must be refused with what is allowed, in one line."""
    with pytest.raises(ConfigurationError) as refusal:
        toy_load(flags=[flag])
    assert all(part in str(refusal.value) for part in BAD_FLAGS[flag]), str(refusal.value)
    assert "\n" not in str(refusal.value)


BAD_VARIABLES = {
    "THALWEG_LEARNER__ALPHA": ("x", 'learner.alpha = "x" (THALWEG_LEARNER__ALPHA): expected number'),
    "THALWEG_LEARNER__ALHPA": ("1", "unknown key learner.alhpa (THALWEG_LEARNER__ALHPA): did you mean learner.alpha?"),
    "THALWEG_LERNER__ALPHA": ("1", "unknown section lerner (THALWEG_LERNER__ALPHA): did you mean learner?"),
    "THALWEG_LEARNER_ALPHA": ("1", "unknown variable THALWEG_LEARNER_ALPHA: did you mean THALWEG_LEARNER__ALPHA?"),
}


@pytest.mark.parametrize("variable", BAD_VARIABLES)
def test_bad_variables_are_refused_in_one_line(variable: str) -> None:
    """A variable with a mistake must be refused by its name."""
    value, expected = BAD_VARIABLES[variable]
    with pytest.raises(ConfigurationError) as refusal:
        toy_load(environment={variable: value})
    assert expected in str(refusal.value)


def test_other_variables_are_left_alone() -> None:
    """Variables that are not a section's key must not be looked at."""
    assert toy_load(environment={"PATH": "x", "THALWEG_CONFIG": "y", "THALWEG_KAFKA_PASSWORD": "z"}) == (Root(), {})


@pytest.mark.parametrize(
    ("flag", "expected"),
    [
        ("table.admission=x", 'table.admission = "x" (--set): must be one of count, linear, geometric'),
        ('behaviors.kinds=["click","x"]', "each of them must be one of"),
        ("ranking.policy=greedy", "must be one of none, epsilon, gumbel, thompson"),
    ],
)
def test_what_is_no_choice_is_refused_with_the_choices(flag: str, expected: str) -> None:
    """A word that a key does not know must be answered by those that it knows."""
    with pytest.raises(ConfigurationError) as refusal:
        load(None, environment={}, flags=[flag])
    assert expected in str(refusal.value)


@pytest.mark.parametrize(
    "flags", [["learner.hmac_key=s3cret"], ["learner.hmac_key=s3cret", "learner.alpha=-1"], ["learner.hmac_kei=s3cret"]]
)
def test_secrets_are_never_in_a_message(flags: list[str]) -> None:
    """No refusal may repeat a secret, not even a section's own message."""
    with pytest.raises(ConfigurationError) as refusal:
        toy_load(flags=flags)
    assert "s3cret" not in str(refusal.value)


@pytest.mark.parametrize("name", ["absent.toml", ".", "latin.toml", "nested.toml"])
def test_unreadable_files_are_refused_in_one_line(tmp_path: Path, name: str) -> None:
    """A file that is not there, a folder, another encoding and absurd nesting must be told apart."""
    (tmp_path / "latin.toml").write_bytes(b"[learner]\nkind = '\xe9'\n")
    (tmp_path / "nested.toml").write_text("x = " + "[" * 100_000)
    expected = {"absent.toml": "no such file", ".": "is a folder", "latin.toml": "UTF-8", "nested.toml": "nested"}
    with pytest.raises(ConfigurationError, match=expected[name]) as refusal:
        toy_load(tmp_path / name)
    assert "\n" not in str(refusal.value)


@given(
    alpha=st.floats(min_value=1e-300, allow_infinity=False),
    size=st.integers(-(2**63), 2**63 - 1),
    actions=st.lists(st.text(st.characters(exclude_categories=["Cs", "Cc"], exclude_characters=",["), min_size=1)),
)
def test_what_is_written_as_text_reads_back(alpha: float, size: int, actions: list[str]) -> None:
    """Numbers and lists given as texts must be the values themselves."""
    actions = [action.strip() or "x" for action in actions]
    root, _ = toy_load(
        flags=[f"learner.alpha={alpha!r}", f"learner.size={size}", f"learner.actions={','.join(actions)}"]
    )
    assert (root.learner.alpha, root.learner.size, root.learner.actions) == (alpha, size, tuple(actions))


def run(*arguments: str, environment: dict[str, str] | None = None) -> Any:
    return CliRunner().invoke(main, ["config", "show", *arguments], env=environment)


def test_show_prints_toml_that_is_the_same_configuration(tmp_path: Path) -> None:
    """The table must be usable as a configuration, with the same effective values."""
    shown = run("--set", "joiner.positive_actions=click,like", "--set", "kafka.bootstrap_servers=a:1,b:2")
    assert shown.exit_code == 0, shown.output
    assert "# --set" in shown.stdout
    tomllib.loads(shown.stdout)
    again = load(write(tmp_path, shown.stdout), environment={}, flags=[])
    direct = load(None, environment={}, flags=["joiner.positive_actions=click,like", "kafka.bootstrap_servers=a:1,b:2"])
    assert dict(config_command.effective(again)) == dict(config_command.effective(direct))


def test_show_names_every_source(tmp_path: Path) -> None:
    """The JSON must tell default, file with line, variable and flag apart."""
    path = write(tmp_path, "[sdim]\ntau = 2\n")
    arguments = ("--config", str(path), "--set", "sdim.groups=8", "--json")
    result = run(*arguments, environment={"THALWEG_JOINER__ATTRIBUTION_WINDOW_MS": "5"})
    values = json.loads(result.stdout)
    assert values["sdim.tau"] == {"value": 2, "source": "file", "where": f"{path}:2"}
    assert values["sdim.groups"] == {"value": 8, "source": "flag", "where": "--set"}
    variable = "THALWEG_JOINER__ATTRIBUTION_WINDOW_MS"
    assert values["joiner.attribution_window_ms"] == {"value": 5, "source": "environment", "where": variable}
    assert values["joiner.negative_sample_rate"]["source"] == "default"


def test_every_key_of_the_configuration_can_be_set_to_its_default() -> None:
    """Any effective value, given back as a flag, must be accepted."""
    values = dict(config_command.effective(load(None, environment={}, flags=[])))
    assert len(values) > 20
    assert ("seed",) in values
    for key, value in values.items():
        if value is None or isinstance(value, dict):
            continue
        text = json.dumps(list(value)) if isinstance(value, tuple) else str(value)
        load(None, environment={}, flags=[f"{'.'.join(key)}={text}"])


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        (["--config", "absent.toml"], 1),
        (["--set", "joiner.attribution_window=5"], 1),
        (["--set", "joiner.negative_sample_rate=2"], 1),
        (["--set", "joiner"], 2),
        (["--nonsense"], 2),
    ],
)
def test_refusals_have_an_exit_status_and_no_traceback(arguments: list[str], status: int) -> None:
    """What is refused ends with 1, a wrong use with 2, and nobody sees a traceback."""
    result = run(*arguments)
    assert result.exit_code == status
    assert "Traceback" not in result.output
    assert isinstance(result.exception, SystemExit)
    if status == 1:
        assert len(result.stderr.strip().splitlines()) == 1


def test_the_decorator_hands_over_what_was_loaded() -> None:
    """A command with the two options must get the loaded configuration."""

    @click.command()
    @configuration_options
    def command(loaded: Any) -> None:
        click.echo(loaded.configuration.sdim.tau)

    result = CliRunner().invoke(command, ["--set", "sdim.tau=2"])
    assert result.stdout == "2\n", result.output


def test_leaves_go_as_deep_as_sections_and_tables() -> None:
    """Effective values must be listed by full path, those of free names too."""
    assert dict(leaves(Root()))[("features", "buckets", "age")] == (18.0, 40.0)
