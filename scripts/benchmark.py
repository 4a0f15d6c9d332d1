"""Time the core against its floors, measured in the same run.

    python scripts/benchmark.py artifacts|solver|loader|graphs|latents|convert|train|tokenize|rbc [--json]

Each figure stands beside its floor: bare transforms, raw h5py reads, matrix multiplications, encoder passes.
"""

import argparse
import dataclasses
import importlib
import json

BENCHMARKS = {
    "artifacts": ("gust_torch.artifacts.benchmark", "benchmark_artifacts"),
    "solver": ("solvers.py2d_turbulence.benchmark", "benchmark_solver"),
    "convert": ("gust_torch.convert.benchmark", "benchmark_convert"),
    "graphs": ("gust_torch.data.graphs.benchmark", "benchmark_graphs"),
    "latents": ("gust_torch.precompute.benchmark", "benchmark_latents"),
    "loader": ("gust_torch.data.benchmark", "benchmark_loader"),
    "train": ("gust_torch.tasks.benchmark", "benchmark_train"),
    "tokenize": ("gust_torch.tokenizer.benchmark", "benchmark_tokenize"),
    "rbc": ("solvers.rayleigh_benard.benchmark", "benchmark_rbc"),
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

    from solvers.common.benchmark import format_table

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
