"""Time the core against its floors, measured in the same run.

    python scripts/benchmark.py artifacts|solver|loader|graphs|latents|convert|train|tokenize|rbc [--json]

Each figure stands beside its floor: bare transforms, raw h5py reads, matrix multiplications, encoder passes.
"""

import argparse
import dataclasses
import importlib
import json
import sys
from pathlib import Path

# Name -> the module of its `benchmark_NAME`.
BENCHMARKS = {
    "artifacts": "artifacts",
    "solver": "solver",
    "convert": "convert",
    "graphs": "reading",
    "latents": "latents",
    "loader": "reading",
    "train": "models",
    "tokenize": "models",
    "rbc": "rbc",
}


def main() -> None:
    """Run the benchmarks that the command line names and print their tables."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    names = ", ".join(BENCHMARKS)
    parser.add_argument("names", nargs="+", choices=sorted(BENCHMARKS), metavar="NAME", help=names)
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of tables")
    arguments = parser.parse_args()
    sys.path.insert(0, str(Path(__file__).parents[1]))  # `benchmarks` is no part of the installed package

    from benchmarks.common import format_table

    tables = {}
    for name in arguments.names:
        module = importlib.import_module(f"benchmarks.{BENCHMARKS[name]}")
        tables[name] = getattr(module, f"benchmark_{name}")()
        if not arguments.json:
            print(f"{name}\n{format_table(tables[name])}\n")
    if arguments.json:
        print(json.dumps({name: [dataclasses.asdict(row) for row in rows] for name, rows in tables.items()}))


if __name__ == "__main__":
    main()
