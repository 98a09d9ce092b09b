"""Make the table of the sample's videos: what is known of each of them, out of the data set's table of all videos.

python examples/kuairand/make_videos.py kuairand_sample.jsonl.gz video_features_basic.csv examples/kuairand/videos.csv
"""

import csv
import sys
from pathlib import Path

from thalweg.streams.logs.fact_tables import occurring_in

COLUMNS = ("video_id", "author_id", "upload_dt", "video_duration", "music_id", "tag")


def main(sample: str, table: str, videos: str) -> None:
    """Copy the rows of the videos that occur in the sample, in their order."""
    items = occurring_in(Path(sample)).items
    with Path(table).open(newline="") as source, Path(videos).open("w", newline="") as target:
        writer = csv.DictWriter(target, COLUMNS, extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        writer.writerows(row for row in csv.DictReader(source) if row["video_id"] in items)


if __name__ == "__main__":
    main(*sys.argv[1:])
