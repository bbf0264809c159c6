"""Upload a run's best model to the Hugging Face hub: `python -m utils.hf_uploader RUN_FOLDER USER/NAME`.

What is uploaded: the checkpoint, the model card with its pictures, and the figures of evaluated splits. Recordings,
their names, labels and predictions are not.
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from utils import ConfigurationError, print_error, print_unforeseen, read_token
from utils.config.types import LICENSE_PATTERN, PATTERN_RULES
from utils.hub.repositories import HubError, find_token_problem

if TYPE_CHECKING:
    pass

ALL_WELL, FAILED, WRONG_INPUT, INTERRUPTED = 0, 1, 2, 130


def license_id(text: str) -> str:
    """Read a licence."""
    if not re.match(LICENSE_PATTERN, text):
        raise argparse.ArgumentTypeError(f'"{text}" is none; give {PATTERN_RULES[LICENSE_PATTERN]}')
    return text


def main(arguments: list[str] | None = None) -> int:
    """Return 0 where the model was uploaded, 1 where it was not, 2 for wrong input."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, metavar="RUN_FOLDER", help="such as runs/NAME/seed-42")
    parser.add_argument("repo_id", metavar="USER/NAME", help="the repository; it is made where it is not there")
    parser.add_argument("--public", action="store_true", help="let everybody read a new repository; default: its owner")
    parser.add_argument(
        "--license", type=license_id, metavar="ID", help="of the weights, as the hub names it, such as cc-by-nc-4.0"
    )
    options = parser.parse_args(arguments)
    try:
        token = read_token("HUGGINGFACE_TOKEN")
    except ConfigurationError as error:
        print_error(error)
        return WRONG_INPUT
    problem = find_token_problem(token)
    if problem is not None:
        print_error(f"{problem}; the run is as it was, and the same command uploads it then")
        return FAILED
    from experiment_runner.publishing.publish import upload_run
    from experiment_runner.runtime.interruption import stopped_as_by_keyboard
    from experiment_runner.storage.checkpoints import CheckpointError
    from experiment_runner.storage.run_folder import RunError

    try:
        with stopped_as_by_keyboard():
            print(upload_run(options.run, options.repo_id, token, options.public, options.license))
    except (ConfigurationError, RunError, CheckpointError) as error:
        print_error(error)
        return WRONG_INPUT
    except (HubError, OSError) as error:
        print_error(f"{error}; the run is as it was, and the same command uploads it later")
        return FAILED
    except KeyboardInterrupt:
        print_error("interrupted; the same command uploads the rest")
        return INTERRUPTED
    except Exception as error:  # noqa: BLE001 - nobody should have to read a traceback on the screen
        print_unforeseen(error)
        return FAILED
    return ALL_WELL


if __name__ == "__main__":
    sys.exit(main())
