"""The results as a Markdown table: ``python -m benchmarks.tables RESULTS.json``."""

from __future__ import annotations

import json
import sys
from pathlib import Path


def main() -> None:
    """Print the table of the results whose file the command line names."""
    results = json.loads(Path(sys.argv[1]).read_text())["results"]
    print("| work | tool | at a time | seconds | MiB/s | client CPU s | added MiB | requests |")
    print("|---|---|---:|---:|---:|---:|---:|---:|")
    for result in results:
        seconds = result["median_seconds"]
        rate = f"{result['bytes'] / 2**20 / seconds:.0f}" if result["bytes"] else ""
        requests = "" if result["requests"] is None else result["requests"]
        print(
            f"| {result['work']} | {result['tool']} | {result['parallelism']} | {seconds:.2f} "
            f"| {rate} | {result['median_cpu']:.2f} | {result['median_mib']:.0f} | {requests} |"
        )


if __name__ == "__main__":
    main()
