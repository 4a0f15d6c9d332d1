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

BENCHMARKS = {
    "artifacts": ("benchmarks.artifacts", "benchmark_artifacts"),
    "solver": ("benchmarks.solver", "benchmark_solver"),
    "convert": ("benchmarks.convert", "benchmark_convert"),
    "graphs": ("benchmarks.graphs", "benchmark_graphs"),
    "latents": ("benchmarks.latents", "benchmark_latents"),
    "loader": ("benchmarks.loader", "benchmark_loader"),
    "train": ("benchmarks.train", "benchmark_train"),
    "tokenize": ("benchmarks.tokenize", "benchmark_tokenize"),
    "rbc": ("benchmarks.rbc", "benchmark_rbc"),
}


def main() -> None:
    """Run the benchmarks that the command line names and print their tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "names", nargs="+", choices=sorted(BENCHMARKS), metavar="NAME", help=", ".join(BENCHMARKS)
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of tables")
    arguments = parser.parse_args()
    sys.path.insert(0, str(Path(__file__).parents[1]))  # `benchmarks` is no part of the installed package

    from benchmarks.timing import format_table

    tables = {}
    for name in arguments.names:
        module, function = BENCHMARKS[name]
        tables[name] = getattr(importlib.import_module(module), function)()
        if not arguments.json:
            print(f"{name}\n{format_table(tables[name])}\n")
    if arguments.json:
        print(json.dumps({name: [dataclasses.asdict(row) for row in rows] for name, rows in tables.items()}))


if __name__ == "__main__":
    main()
