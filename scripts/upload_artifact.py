"""Uploads a file as an artifact, to W&B or to any place that fsspec reaches, and prints its reference.

    python scripts/upload_artifact.py burgers1d-subset dataset artifacts/burgers1d_subset_v1.tar.gz \\
        --metadata '{"samples":20,"resolution":[201,1024],"parameters":["nu"]}'

The last line on standard output is what the registry's `artifact:` takes. Logins come from the environment:
WANDB_API_KEY or `wandb login`; AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_ENDPOINT_URL.
"""

import argparse
import os
import sys
from pathlib import Path

from gust_torch.artifacts.stores.opening import DEFAULT_CACHE, WANDB
from gust_torch.artifacts.upload import upload_artifact
from solvers.common.cli import run_command


def main(arguments: list[str] | None = None) -> int:
    """Parse the command line and uploads."""
    parser = argparse.ArgumentParser(
        allow_abbrev=False, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("name", help="name of the artifact, such as burgers1d-subset")
    parser.add_argument("type", help="its type, such as dataset or model")
    parser.add_argument("file", type=Path, help="the file to upload")
    parser.add_argument("--metadata", default="{}", metavar="JSON", help="a JSON object, or @FILE with one")
    parser.add_argument(
        "--store",
        default=WANDB,
        metavar="wandb|URL",
        help="W&B, file:///folder or s3://bucket/folder (%(default)s)",
    )
    parser.add_argument("--project", default=os.environ.get("WANDB_PROJECT"), help="default $WANDB_PROJECT")
    parser.add_argument("--entity", default=os.environ.get("WANDB_ENTITY"), help="default $WANDB_ENTITY")
    parser.add_argument("--run-name", metavar="NAME", help="name of the W&B run that uploads")
    parser.add_argument(
        "--cache-dir",
        type=Path,
        default=DEFAULT_CACHE,
        metavar="DIR",
        help="where W&B keeps its files (%(default)s)",
    )
    args = parser.parse_args(arguments)
    return run_command(
        lambda: print(
            upload_artifact(
                args.name,
                args.type,
                args.file,
                args.metadata,
                store=args.store,
                project=args.project,
                entity=args.entity,
                run_name=args.run_name,
                cache_dir=args.cache_dir,
            ).report()
        ),
        stopped="stopped; nothing was stored, the same command starts again",
    )


if __name__ == "__main__":
    sys.exit(main())
