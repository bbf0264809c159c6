"""Upload a run's best model to the Hugging Face hub: `python -m utils.hf_uploader RUN_FOLDER USER/NAME`.

It uploads the checkpoint, the model card with its figures, and the metrics of evaluated splits. Recordings, their
names, labels and predictions stay on this machine.
"""

from __future__ import annotations

import argparse
import re
import sys
from functools import partial
from pathlib import Path

from experiment_runner.runtime.command import run_command
from utils import read_token
from utils.config.types import LICENSE_PATTERN, PATTERN_RULES
from utils.errors import ALL_WELL
from utils.hub.repositories import require_token


def license_id(text: str) -> str:
    """Parse a licence."""
    if not re.match(LICENSE_PATTERN, text):
        raise argparse.ArgumentTypeError(f'"{text}" is not a licence; give {PATTERN_RULES[LICENSE_PATTERN]}')
    return text


def main(arguments: list[str] | None = None) -> int:
    """Return 0 where the model was uploaded, 1 where it was not, 2 for wrong input."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, metavar="RUN_FOLDER", help="such as runs/NAME/seed-42")
    parser.add_argument("repo_id", metavar="USER/NAME", help="the repository; it is created if it does not exist")
    parser.add_argument("--public", action="store_true", help="make a new repository public; default: private")
    parser.add_argument(
        "--license",
        type=license_id,
        metavar="ID",
        help="licence of the weights, by its name on the hub, such as cc-by-nc-4.0",
    )
    parser.add_argument("--with-code", action="store_true", help="upload your own code, which the run was trained with")
    options = parser.parse_args(arguments)
    return run_command(
        partial(carry_out, options),
        "interrupted; the same command uploads the rest",
        "; the run is unchanged, and the same command uploads it later",
    )


def carry_out(options: argparse.Namespace) -> int:
    """Upload a run's model and print its address."""
    token = read_token("HUGGINGFACE_TOKEN")
    require_token(token)
    from experiment_runner.publishing.publish import upload_run

    print(upload_run(options.run, options.repo_id, token, options.public, options.license, options.with_code))
    return ALL_WELL


if __name__ == "__main__":
    sys.exit(main())
