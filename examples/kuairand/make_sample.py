"""Make the shipped sample: the first 30 000 impressions of the log that `import.sh` writes, and their feedback.

examples/kuairand/import.sh events.parquet kuairand.jsonl.zst
python examples/kuairand/make_sample.py kuairand.jsonl.zst examples/kuairand/kuairand_sample.jsonl.gz
"""

import sys

import msgspec
from thalweg.streams.logs.reader import LogReader
from thalweg.streams.logs.writer import LogWriter

IMPRESSIONS = 30_000


class Line(msgspec.Struct):
    """What decides whether an event is in the sample."""

    type: str
    id: str
    impression: str = ""


def main(log: str, sample: str) -> None:
    """Copy the sample's lines as they are; the same log gives the same file, since gzip's time is 0."""
    decode = msgspec.json.Decoder(Line).decode
    kept: set[str] = set()
    with LogReader(log) as source, LogWriter(sample, inputs=[log]) as target:
        for block in source:
            for record in block:
                line = decode(record.value or b"")
                if line.type == "impression" and len(kept) < IMPRESSIONS:
                    kept.add(line.id)
                if (line.impression or line.id) in kept:
                    target.write((record.value or b"") + b"\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
