"""Turn fields into discrete tokens with a trained VQ-VAE.

python -m gust_torch.tokenizer info --checkpoint model.ckpt --data_path data.h5
python -m gust_torch.tokenizer save --checkpoint model.ckpt --data_path data.h5 --output tokens.npz
python -m gust_torch.tokenizer export --layout gust2 --tokens tokens.npz --output gust2_tokens.npz
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from gust_torch.terminal import silence_lightning
from gust_torch.tokenizer.options import ExportOptions, InfoOptions, SaveOptions
from solvers.common.cli import parse, run_command

if TYPE_CHECKING:
    from gust_torch.tokenizer.pipeline import Encoded, RoundTrip, TokenInfo
    from gust_torch.tokenizer.usage import ScaleUsage

PROG = "python -m gust_torch.tokenizer"
COLUMNS = ("scale", "tokens", "codes in use", "perplexity", "perplexity/K", "bits/token")


def main(argv: Sequence[str] | None = None, prog: str = PROG) -> int:
    """Run the command line; errors become one line and exit code 1."""
    given = list(sys.argv[1:] if argv is None else argv)
    if not given or given[0] not in COMMANDS:
        asked = bool(given) and given[0] in ("-h", "--help")
        print(overview(prog), file=sys.stdout if asked else sys.stderr)
        return 0 if asked else 2
    return run_command(
        lambda: COMMANDS[given[0]](given[1:], f"{prog} {given[0]}"), stopped="stopped; nothing was written"
    )


def overview(prog: str) -> str:
    """Describe the commands."""
    lines = [f"  {name:8}{command.__doc__}" for name, command in COMMANDS.items()]
    return "\n".join([f"usage: {prog} {{{','.join(COMMANDS)}}} [FLAGS]", "", str(__doc__), *lines])


def save(arguments: Sequence[str], prog: str) -> int:
    """Encode data and write a token file."""
    options = parse(SaveOptions, arguments, prog=prog, description=str(save.__doc__), underscores=True)
    # Here and in info: torch and Lightning take seconds to import, which --help need not wait for.
    from gust_torch.tokenizer.pipeline import save_tokens

    silence_lightning()
    encoded = save_tokens(options)
    if encoded is not None:
        print("\n".join([*describe_encoded(encoded), f"written        {options.output}"]))
    return 0


def info(arguments: Sequence[str], prog: str) -> int:
    """Print code usage, bits per pixel and the round trip; exit code 1 where that is not exact."""
    options = parse(InfoOptions, arguments, prog=prog, description=str(info.__doc__), underscores=True)
    from gust_torch.tokenizer.pipeline import token_info

    silence_lightning()
    found = token_info(options)
    if found is None:
        return 0
    print(describe_info(found))
    if found.round_trip.exact:
        return 0
    print("error: decode(encode(x)) differs from reconstruct(x)", file=sys.stderr)
    return 1


def export(arguments: Sequence[str], prog: str) -> int:
    """Write a token file anew in the layout of gust2."""
    options = parse(ExportOptions, arguments, prog=prog, description=str(export.__doc__), underscores=True)
    from gust_torch.tokenizer.npz import export_gust2

    export_gust2(options.tokens, Path(options.output), overwrite=options.overwrite)
    print(f"written        {options.output}")
    return 0


COMMANDS: dict[str, Callable[[Sequence[str], str], int]] = {"info": info, "save": save, "export": export}


def describe_info(info: TokenInfo) -> str:
    """Describe the tokens of a data file."""
    rate = info.rate
    cost = f"{rate.nominal:.4f} nominal, {rate.entropy_coded:.4f} entropy coded"
    errors = ", ".join(f"{name} {value:.4f}" for name, value in info.round_trip.vrmse.items())
    return "\n".join(
        [
            *describe_encoded(info.encoded),
            f"bits per pixel {cost}",
            f"round trip     {describe_round_trip(info.round_trip)}",
            f"VRMSE          {errors}",
        ]
    )


def describe_encoded(encoded: Encoded) -> list[str]:
    """Describe usage, sizes and the scales that an autoregressive model has to predict, line by line."""
    vocabulary = encoded.vocabulary
    first = vocabulary.first_trainable_scale
    choice = (
        f"scale {first} ({'x'.join(map(str, vocabulary.scales[first]))})"
        if first < vocabulary.num_scales
        else "none: every scale has a single code"
    )
    total = sum(len(book) for book in vocabulary.codebooks)
    return [
        *usage_table(encoded.usages),
        "",
        f"samples        {encoded.num_samples}, {vocabulary.tokens_per_sample} tokens each",
        f"vocabulary     {vocabulary.effective_vocab_size} codes in use of {total}",
        f"first trainable {choice}",
        *(f"unseen codes   {line}" for line in encoded.unseen),
    ]


def describe_round_trip(trip: RoundTrip) -> str:
    """Say whether decoding was exact, and on how many samples."""
    skipped = f"; {trip.num_skipped} with codes outside the vocabulary left out" if trip.num_skipped else ""
    verdict = "exact" if trip.exact else "NOT EXACT"
    return (
        f"{verdict}: max |decode(encode(x)) - reconstruct(x)| = {trip.max_difference:g} "
        f"on {trip.num_samples} samples{skipped}"
    )


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
    widths = [max(len(row[i]) for row in (COLUMNS, *rows)) for i in range(len(COLUMNS))]
    return [
        "  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True))
        for row in (COLUMNS, *rows)
    ]


if __name__ == "__main__":
    sys.exit(main())
