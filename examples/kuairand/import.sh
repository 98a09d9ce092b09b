#!/usr/bin/env bash
# Turn the table of KuaiRand into a log: examples/kuairand/import.sh [TABLE [LOG]]
set -euo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
table="${1:-$here/../../../shared/data/kuairand14d/events.parquet}"
[ -d "$table" ] && table="$table/events.parquet"
exec thalweg import "$table" --user user --item item --time time_ms:ms --label label \
  --context tab,author,tag,duration_ms --split tag:, --out "${2:-kuairand.jsonl.zst}"
