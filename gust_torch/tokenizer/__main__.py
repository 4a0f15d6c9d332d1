"""Turn fields into discrete tokens with a trained VQ-VAE.

python -m gust_torch.tokenizer info --checkpoint model.ckpt --data_path data.h5
python -m gust_torch.tokenizer save --checkpoint model.ckpt --data_path data.h5 --output tokens.npz
python -m gust_torch.tokenizer export --layout gust2 --tokens tokens.npz --output gust2_tokens.npz
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gust_torch.terminal import silence_lightning
from gust_torch.tokenizer.options import ExportOptions, InfoOptions, SaveOptions
from solvers.common.cli import parse, run_command

if TYPE_CHECKING:
    from gust_torch.tokenizer.pipeline import Encoded, RoundTrip
    from gust_torch.tokenizer.usage import ScaleUsage

PROG = "python -m gust_torch.tokenizer"
COLUMNS = ("scale", "tokens", "codes in use", "perplexity", "perplexity/K", "bits/token")


# torch and Lightning are imported in the commands: they take seconds, which --help need not wait for.
def save(options: SaveOptions) -> int:
    """Encode data and write a token file."""
    from gust_torch.tokenizer.pipeline import save_tokens

    silence_lightning()
    encoded = save_tokens(options)
    if encoded is not None:
        print("\n".join([*describe_encoded(encoded), f"written        {options.output}"]))
    return 0


def info(options: InfoOptions) -> int:
    """Print code usage, bits per pixel and the round trip; exit code 1 where that is not exact."""
    from gust_torch.tokenizer.pipeline import token_info

    silence_lightning()
    found = token_info(options)
    if found is None:
        return 0
    print("\n".join([*describe_encoded(found[0]), *describe_round_trip(*found)]))
    if found[1].exact:
        return 0
    print("error: decode(encode(x)) differs from reconstruct(x)", file=sys.stderr)
    return 1


def export(options: ExportOptions) -> int:
    """Write a token file anew in the layout of gust2."""
    from gust_torch.tokenizer.npz import export_gust2

    export_gust2(Path(options.tokens), Path(options.output), overwrite=options.overwrite)
    print(f"written        {options.output}")
    return 0


COMMANDS: dict[str, tuple[Any, type]] = {
    "info": (info, InfoOptions),
    "save": (save, SaveOptions),
    "export": (export, ExportOptions),
}


def main(argv: Sequence[str] | None = None, prog: str = PROG) -> int:
    """Run the command line; errors become one line and exit code 1."""
    name, *given = [*(sys.argv[1:] if argv is None else argv), ""]
    if name not in COMMANDS:
        asked = name in ("-h", "--help")
        print(overview(prog), file=sys.stdout if asked else sys.stderr)
        return 0 if asked else 2
    command, options = COMMANDS[name]

    def run() -> int:
        code: int = command(
            parse(options, given[:-1], prog=f"{prog} {name}", description=command.__doc__, underscores=True)
        )
        return code

    return run_command(run, stopped="stopped; nothing was written")


def overview(prog: str) -> str:
    """Describe the commands."""
    lines = [f"  {name:8}{command.__doc__}" for name, (command, _) in COMMANDS.items()]
    return "\n".join([f"usage: {prog} {{{','.join(COMMANDS)}}} [FLAGS]", "", str(__doc__), *lines])


def describe_encoded(encoded: Encoded) -> list[str]:
    """Describe usage, sizes and the scales that an autoregressive model has to predict, line by line."""
    vocabulary = encoded.vocabulary
    choice = "none: every scale has a single code"
    if (first := vocabulary.first_trainable_scale) < len(vocabulary.scales):
        choice = f"scale {first} ({'x'.join(map(str, vocabulary.scales[first]))})"
    total = sum(len(book) for book in vocabulary.codebooks)
    return [
        *usage_table(encoded.usages),
        "",
        f"samples        {encoded.num_samples}, {vocabulary.tokens_per_sample} tokens each",
        f"vocabulary     {vocabulary.effective_vocab_size} codes in use of {total}",
        f"first trainable {choice}",
        *(f"unseen codes   {line}" for line in encoded.unseen),
    ]


def describe_round_trip(encoded: Encoded, trip: RoundTrip) -> list[str]:
    """Describe what a sample costs, whether decoding was exact and on how many samples, and the errors."""
    rate = encoded.rate
    skipped = f"; {trip.num_skipped} with codes outside the vocabulary left out" if trip.num_skipped else ""
    verdict = "exact" if trip.exact else "NOT EXACT"
    errors = ", ".join(f"{name} {value:.4f}" for name, value in trip.vrmse.items())
    return [
        f"bits per pixel {rate.nominal:.4f} nominal, {rate.entropy_coded:.4f} entropy coded",
        f"round trip     {verdict}: max |decode(encode(x)) - reconstruct(x)| = "
        f"{trip.max_difference:g} on {trip.num_samples} samples{skipped}",
        f"VRMSE          {errors}",
    ]


def usage_table(usages: Sequence[ScaleUsage]) -> list[str]:
    """Lay out one line for each scale, under a header."""
    rows = [
        (
            usage.name,
            str(math.prod(usage.scale)),
            f"{usage.codes_in_use}/{usage.codebook_size}",
            f"{usage.perplexity:.1f}",
            f"{usage.perplexity / usage.codebook_size:.3f}",
            f"{usage.entropy_bits:.2f}",
        )
        for usage in usages
    ]
    widths = [max(map(len, column)) for column in zip(COLUMNS, *rows, strict=True)]
    return [
        "  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True))
        for row in (COLUMNS, *rows)
    ]


if __name__ == "__main__":
    sys.exit(main())
