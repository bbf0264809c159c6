"""Speech encoders by name: finding, fetching, and loading them with every key matched."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from utils.commands import script_command
from utils.errors import WRONG_INPUT, UserError
from utils.hub.git_source import PREFIX, GitError, folder_name, is_git_url
from utils.io.files import atomic_file, find_changed, read_json
from utils.text import did_you_mean

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
UPSTREAMS: dict[str, Any] = read_json(CONFIGS / "upstream_shapes.json")
MODELS_FOLDER = Path("models")
NEEDED_FILES = ["config.json", "preprocessor_config.json"]
SAFETENSORS, PICKLE = "model.safetensors", "pytorch_model.bin"
SOURCE = "source.json"
"""Note in a fetched model: its `id`, `revision` (a commit), the revision `asked` for, if any, and its `files`."""
CONVERSION = "conversion-"
"""Prefix of folders to which weights are written before they are known to be complete."""
WEIGHTS = re.compile(r"model[\w.-]*\.safetensors")
FOREIGN = (
    "experts_implementation",
    "_experts_implementation",
    "quantization_config",
    "use_kernels",
    "transformers_weights",
    "attribute_map",
)
"""Config keys that load code or weights from elsewhere; `attribute_map` can give any key such a meaning."""
PRETRAINING_PARTS = ("quantizer.", "project_q.", "project_hid.", "lm_head.", "final_proj.", "label_embs_concat")
"""Parts of published checkpoints that were used only in pre-training and that no encoder has."""


class UpstreamError(UserError):
    """An upstream that is unavailable or does not fit; the message names the remedy."""

    exit_status = WRONG_INPUT


@dataclass(frozen=True)
class LoadedUpstream:
    """A transformers encoder, and its feature extractor's normalisation.

    Attributes:
        encoder: The `transformers.PreTrainedModel`.
        do_normalize: Whether each waveform is normalised to zero mean and unit variance; None where not stated.
        description: Origin of the weights, for console messages.
        has_random_weights: Whether the weights are random instead of pre-trained.
    """

    encoder: Any
    do_normalize: bool | None
    description: str
    has_random_weights: bool


def hub_id(name: str) -> str:
    """Return the hub name of a short name; other names unchanged."""
    return str(UPSTREAMS["short_names"].get(name, name))


def split_revision(name: str) -> tuple[str, str | None]:
    """Return a name and the revision after its `@`, as in `wavlm-large@v1` and `git+https://host/model@v1`.

    An `@` before a host does not begin a revision.
    """
    start = max(name.find("/", len(PREFIX)), 0) if is_git_url(name) else 0
    place, _, revision = name[start:].partition("@")
    return name[:start] + place, revision or None


def models_folder(name: str, models: Path = MODELS_FOLDER) -> Path:
    """Return the folder of a fetched model in `models/`, whatever its revision.

    Raises:
        UpstreamError: If the name is not an address from which models can be fetched.
    """
    plain, _ = split_revision(name)
    try:
        return models / (folder_name(plain) if is_git_url(plain) else hub_id(plain).replace("/", "--"))
    except GitError as error:
        raise UpstreamError(str(error)) from error


def find_upstream(name: str, models: Path = MODELS_FOLDER) -> Path | None:
    """Return the local folder of an upstream: `models/<name>`, or the name itself if it is a folder.

    None for a built-in shape, which needs none.

    Raises:
        UpstreamError: If there is no such folder, or it holds another revision than the name specifies; the message
            gives the command that fetches it.
    """
    if name in UPSTREAMS["built_in"]:
        return None
    plain, revision = split_revision(name)
    fetched = models_folder(name, models)
    if os.path.isfile(fetched / "config.json"):
        source = read_source(fetched)
        if holds(source, revision):
            return fetched
        raise UpstreamError(
            f"{fetched} contains revision {source.get('revision')}, not {revision}; fetch that with "
            f"`{_fetching(name)}`, or remove @{revision}"
        )
    if os.path.isfile(Path(name) / "config.json"):
        return Path(name)
    known = [*UPSTREAMS["short_names"], *UPSTREAMS["built_in"]]
    hint = "" if "/" in hub_id(plain) else f" ({did_you_mean(plain, known)})"
    raise UpstreamError(
        f'upstream_model "{name}" is not in {models}/ and is not a local folder{hint}; fetch it with '
        f"`{_fetching(name)}`"
    )


def _fetching(name: str) -> str:
    """Return the command that fetches a model."""
    return script_command("download_model.py", [name])


def load_upstream(name: str, settings: dict[str, float], models: Path = MODELS_FOLDER) -> LoadedUpstream:
    """Load an encoder with all of its weights, or build a built-in shape with random ones.

    Args:
        name: Short name, hub name, local folder, or built-in shape.
        settings: Dropouts by their transformers names, replacing the published ones.
        models: Folder of fetched upstreams.

    Raises:
        UpstreamError: If the folder is missing, or its weights do not match key by key.
    """
    folder = find_upstream(name, models)
    if folder is None:
        shape = UPSTREAMS["built_in"][name]
        return LoadedUpstream(
            build_encoder({**shape["config"], **settings}),
            shape["do_normalize"],
            f"built-in shape {name} with RANDOM weights: nothing was pre-trained",
            has_random_weights=True,
        )
    if not _has_safetensors(folder):
        raise UpstreamError(
            f"{folder} has no {SAFETENSORS}, and weights of other kinds can run code; "
            f"`{_fetching(name)}` converts {PICKLE} to one, without running any"
        )
    encoder = load_encoder(folder, settings)
    do_normalize = _read_json(folder / "preprocessor_config.json").get("do_normalize")
    return LoadedUpstream(encoder, do_normalize, f"{name} from {folder}", has_random_weights=False)


def build_encoder(config: dict[str, Any]) -> Any:  # noqa: ANN401 - transformers is not typed
    """Build an encoder from a transformers config, with random weights.

    Raises:
        ValueError: If the config loads code or weights from elsewhere, or uses features unknown to transformers.
    """
    from transformers import AutoConfig, AutoModel

    _refuse_foreign_keys(config)
    return AutoModel.from_config(AutoConfig.for_model(**config), trust_remote_code=False)


def read_source(folder: Path) -> dict[str, str]:
    """Return the contents of a fetched model's `SOURCE`; empty where there is none.

    Raises:
        UpstreamError: If it cannot be read.
    """
    document = _read_json(folder / SOURCE)
    return {key: str(document[key]) for key in ("id", "revision", "asked") if document.get(key) is not None}


def read_config(folder: Path) -> dict[str, Any]:
    """Return the `config.json` of a folder in transformers' layout.

    Raises:
        UpstreamError: If it cannot be read.
    """
    return _read_json(folder / "config.json")


def find_damage(folder: Path) -> str | None:
    """Compare a fetched model with the files listed in its `SOURCE`; return the name of one that differs.

    None if all files match, or none are listed, as for a model that was put there by hand.
    """
    try:
        return find_changed(folder, _read_json(folder / SOURCE).get("files", {}))
    except (UpstreamError, AttributeError):
        return SOURCE
    except OSError as error:
        return Path(error.filename or folder).name


def holds(source: Mapping[str, str], revision: str | None) -> bool:
    """Return whether a fetched model, by its `SOURCE`, has the given revision; always true for None."""
    return revision is None or revision in (source.get("revision"), source.get("asked"))


def _read_json(path: Path) -> dict[str, Any]:
    """Return a JSON document; an empty one if there is no file.

    Raises:
        UpstreamError: If it cannot be read.
    """
    try:
        document: dict[str, Any] = read_json(path)
        document.keys()
        return document
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, AttributeError, RecursionError) as error:
        raise UpstreamError(f"{path} cannot be read: {error}; fetch it again") from error


def _refuse_foreign_keys(config: Mapping[str, Any]) -> None:
    """Refuse keys with which a transformers config fetches and runs kernels from the hub, or reads other weights.

    Raises:
        ValueError: Names these keys.
    """
    asked = sorted(key for key in config if key in FOREIGN or "attn_implementation" in key)
    if asked:
        keys = ", ".join(asked)
        raise ValueError(f"its config asks for code or weights from elsewhere ({keys}); remove these keys from it")
    for value in config.values():
        if isinstance(value, dict):
            _refuse_foreign_keys(value)


def _refuse_foreign_files(index: Mapping[str, Any]) -> None:
    """Refuse a weight index that names files other than safetensors in its folder.

    Raises:
        ValueError: Names one of these files.
    """
    for name in index.get("weight_map", {}).values():
        if not WEIGHTS.fullmatch(name):
            raise ValueError(f"its index of weights names {name}, which is not a safetensors file of its folder")


def load_encoder(folder: Path, settings: dict[str, float], takes_bin: bool = False) -> Any:  # noqa: ANN401
    """Load a folder in transformers' layout; no weight may be missing, unexpected or of another shape.

    Args:
        folder: Folder with `config.json` and the weights.
        settings: Dropouts by their transformers names.
        takes_bin: Whether to read `pytorch_model.bin` instead of safetensors, for conversion.

    Raises:
        UpstreamError: Lists the keys that do not match.
    """
    from transformers import AutoConfig, AutoModel
    from transformers.utils import logging

    logging.disable_progress_bar()
    logging.set_verbosity_error()  # keys that do not match are an error here, reported below
    try:
        _refuse_foreign_keys(read_config(folder))
        _refuse_foreign_files(_read_json(folder / f"{SAFETENSORS}.index.json"))
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        for key, value in settings.items():
            setattr(config, key, value)
        encoder, info = AutoModel.from_pretrained(
            folder,
            config=config,
            local_files_only=True,
            trust_remote_code=False,
            output_loading_info=True,
            weights_only=True,
            use_safetensors=not takes_bin,
            ignore_mismatched_sizes=True,
        )
    except Exception as error:  # noqa: BLE001 - a config can be wrong in any way
        raise UpstreamError(
            f"{folder} cannot be loaded as a speech encoder: {error}; if download_model.py has fetched it, the "
            "same command repairs it"
        ) from error
    unexpected = [key for key in info["unexpected_keys"] if not key.startswith(PRETRAINING_PARTS)]
    wrong = {"missing": info["missing_keys"], "unexpected": unexpected, "mismatched": info["mismatched_keys"]}
    mismatches = [f"{kind}: {', '.join(sorted(map(str, keys))[:10])}" for kind, keys in wrong.items() if keys]
    if mismatches:
        raise UpstreamError(
            f"the weights in {folder} do not fit their config.json ({'; '.join(mismatches)}); fetch it again"
        )
    return encoder.float()


def convert_to_safetensors(folder: Path) -> bool:
    """Convert `pytorch_model.bin` to `model.safetensors` beside it, without running any code in it.

    Nothing else in the folder changes, and the new file appears only after it has been loaded as a check.

    Returns:
        Whether there was anything to convert.

    Raises:
        UpstreamError: If not all weights load, or they cannot be written.
    """
    weights = folder / PICKLE
    if _has_safetensors(folder) or not weights.is_file():
        load_encoder(folder, {})
        return False
    encoder = load_encoder(folder, {}, takes_bin=True)
    try:
        with tempfile.TemporaryDirectory(prefix=CONVERSION, dir=folder) as name:
            written = Path(name)
            encoder.save_pretrained(written)
            shutil.copyfile(folder / "config.json", written / "config.json")
            load_encoder(written, {})
            shutil.copymode(weights, written / SAFETENSORS)
            with atomic_file(folder / SAFETENSORS) as partial:
                (written / SAFETENSORS).rename(partial)
    except (OSError, SafetensorError) as error:
        raise UpstreamError(f"{weights} cannot be written as {SAFETENSORS}: {error}") from error
    return True


def _has_safetensors(folder: Path) -> bool:
    return any((folder / name).is_file() for name in (SAFETENSORS, f"{SAFETENSORS}.index.json"))
