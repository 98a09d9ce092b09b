"""Write into README.md what a replay of the sample really prints, and the score of the event that it shows.

python docs/make_readme.py            write it
python docs/make_readme.py --check    say whether it is current, by the exit status; times and rates are not compared
"""

import io
import re
import sys
import tempfile
from contextlib import closing
from pathlib import Path

from rich.console import Console

sys.path.insert(0, str(Path(__file__).parent.parent))

from thalweg.streams.configuration.loading import load
from thalweg.streams.logs.reader import LogReader
from thalweg.streams.logs.sinks import Sink
from thalweg.streams.replay.replay import Replay, Sinks
from thalweg.streams.replay.summary import print_table

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "README.md"
EXAMPLE = ROOT / "examples" / "kuairand"
LEFT_OUT: tuple[str, ...] = (
    "  late",
    "  duplicate",
    "  early",
    "  orphaned",
    "  erased",
    "  ranked",
    "  dead_lettered",
    "  ignored",
    "impressions",
)
LEFT_OUT += ("feedback", "waiting", "  model alone", "  base score")
TABLE = re.compile(r"(?<=^```\n)events .*?(?=^```$)", re.MULTILINE | re.DOTALL)
EVENT = re.compile(r"(?<=<!-- example: event -->\n```json\n).+")
SCORE = re.compile(r"(?<=<!-- example: score -->\n```json\n).+")
MEASURED = re.compile(r"^events/s .*$", re.MULTILINE)


def page(text: str) -> str:
    """Return README with the table and the score as they are."""
    event = EVENT.findall(text)[0].encode()
    table, score = replayed(event)
    return TABLE.sub(lambda _: table, SCORE.sub(lambda _: score, text))


def replayed(event: bytes) -> tuple[str, str]:
    """Return the table at the end of the sample's replay, and the score of an event in it."""
    configuration = load(EXAMPLE / "thalweg.toml", environment={}, flags=()).configuration
    replay = Replay(configuration, examples=False)
    replay.partition.warm_up()
    head = b'{"id":"%s",' % re.findall(rb'"id":"(\w+)"', event)[0]
    with tempfile.TemporaryDirectory() as folder:
        scores = Path(folder, "scores.jsonl")
        log = LogReader(str(EXAMPLE / "kuairand_sample.jsonl.gz"), block_lines=1_000)
        with closing(log), closing(Sinks(Sink(str(scores)))) as sinks:
            replay.run(log, sinks)
        score = next(line for line in scores.read_bytes().splitlines() if line.startswith(head))
    out = io.StringIO()
    print_table(replay.summary(), replay.tally, Console(file=out, width=120))
    lines = [line.rstrip() for line in out.getvalue().splitlines() if not line.startswith(LEFT_OUT)]
    lines.insert(3, "  …")
    return "\n".join(lines) + "\n", score.decode()


def main() -> int:
    """Write README, or check it."""
    text = PAGE.read_text(encoding="utf-8")
    wanted = page(text)
    if "--check" in sys.argv:
        return int(MEASURED.sub("", wanted) != MEASURED.sub("", text))
    PAGE.write_text(wanted, encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
