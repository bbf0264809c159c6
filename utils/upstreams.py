"""Speech encoders by name: where they lie, how they are fetched, and how they are loaded without a key left over."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from utils.config_text import did_you_mean

CONFIGS = Path(__file__).resolve().parents[1] / "configs"
UPSTREAMS: dict[str, Any] = json.loads((CONFIGS / "upstream_shapes.json").read_text(encoding="utf-8"))
MODELS_FOLDER = Path("models")
NEEDED_FILES = ["config.json", "preprocessor_config.json"]
PRETRAINING_PARTS = ("quantizer.", "project_q.", "project_hid.", "lm_head.", "final_proj.", "label_embs_concat")
"""Parts of published checkpoints that served pre-training and that no encoder has."""


class UpstreamError(Exception):
    """An upstream cannot be had or does not fit; the text names the remedy."""


@dataclass(frozen=True)
class LoadedUpstream:
    """A transformers encoder, and what its own feature extractor does to a waveform.

    Attributes:
        encoder: The `transformers.PreTrainedModel`.
        do_normalize: Whether each waveform is normalised to zero mean and unit variance; None where not stated.
        description: Where the weights come from, for the screen.
        has_random_weights: Whether nothing was pre-trained.
    """

    encoder: Any
    do_normalize: bool | None
    description: str
    has_random_weights: bool


def hub_id(name: str) -> str:
    """Return the hub name of a short name; other names as they are."""
    return str(UPSTREAMS["short_names"].get(name, name))


def find_upstream(name: str, models: Path = MODELS_FOLDER) -> Path | None:
    """Return the local folder of an upstream: `models/<name>`, or the folder that the name itself is.

    None for a built-in shape, which needs none.

    Raises:
        UpstreamError: Where there is no such folder, with the command that fetches it.
    """
    if name in UPSTREAMS["built_in"]:
        return None
    for folder in (models / hub_id(name).replace("/", "--"), Path(name)):
        if os.path.isfile(folder / "config.json"):
            return folder
    known = [*UPSTREAMS["short_names"], *UPSTREAMS["built_in"]]
    hint = "" if "/" in hub_id(name) else f" ({did_you_mean(name, known)})"
    raise UpstreamError(
        f'upstream_model "{name}" is not in {models}/ and is no local folder{hint}; fetch it with '
        f"`python download_model.py {name}`"
    )


def load_upstream(name: str, settings: dict[str, float], models: Path = MODELS_FOLDER) -> LoadedUpstream:
    """Load an encoder with all of its weights, or build a built-in shape with random ones.

    Args:
        name: Short name, hub name, local folder, or built-in shape.
        settings: Dropouts by their transformers names, in place of the published ones.
        models: Where fetched upstreams lie.

    Raises:
        UpstreamError: Where the folder is missing, or its weights do not fit key by key.
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
    preprocessor = folder / "preprocessor_config.json"
    stated = json.loads(preprocessor.read_text(encoding="utf-8")) if preprocessor.is_file() else {}
    encoder = load_encoder(folder, settings)
    return LoadedUpstream(encoder, stated.get("do_normalize"), f"{name} from {folder}", has_random_weights=False)


def build_encoder(config: dict[str, Any]) -> Any:  # noqa: ANN401 - transformers is not typed
    """Build an encoder of a transformers config's shape, with random weights."""
    from transformers import AutoConfig, AutoModel

    return AutoModel.from_config(AutoConfig.for_model(**config))


def load_encoder(folder: Path, settings: dict[str, float]) -> Any:  # noqa: ANN401
    """Load a folder in transformers' layout; no weight may be missing, left over or of another shape.

    Raises:
        UpstreamError: Lists the keys that do not fit.
    """
    from pickle import UnpicklingError

    from transformers import AutoConfig, AutoModel
    from transformers.utils import logging

    logging.disable_progress_bar()
    logging.set_verbosity_error()  # keys that do not fit are an error here, and told below
    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True)
        for key, value in settings.items():
            setattr(config, key, value)
        encoder, info = AutoModel.from_pretrained(
            folder,
            config=config,
            local_files_only=True,
            output_loading_info=True,
            weights_only=True,
            ignore_mismatched_sizes=True,
        )
    except (OSError, ValueError, RuntimeError, UnpicklingError) as error:
        raise UpstreamError(f"{folder} cannot be loaded as a speech encoder: {error}") from error
    unexpected = [key for key in info["unexpected_keys"] if not key.startswith(PRETRAINING_PARTS)]
    wrong = {"missing": info["missing_keys"], "unexpected": unexpected, "mismatched": info["mismatched_keys"]}
    told = [f"{kind}: {', '.join(sorted(map(str, keys))[:10])}" for kind, keys in wrong.items() if keys]
    if told:
        raise UpstreamError(f"the weights in {folder} do not fit their config.json ({'; '.join(told)}); fetch it again")
    return encoder.float()


def fetch_upstream(name: str, models: Path = MODELS_FOLDER, token: str | None = None) -> Path:
    """Download an upstream from the hub into `models/`, as safetensors; nothing is fetched where it lies already.

    Raises:
        UpstreamError: Where it cannot be downloaded or does not load whole.
    """
    import httpx
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    if name in UPSTREAMS["built_in"]:
        raise UpstreamError(f'"{name}" is built in and has random weights; there is nothing to fetch')
    target = models / hub_id(name).replace("/", "--")
    if (target / "config.json").is_file():
        return target
    partial = target.with_name(target.name + ".partial")
    try:
        published = HfApi(token=token).list_repo_files(hub_id(name))
        weights = "model.safetensors" if "model.safetensors" in published else "pytorch_model.bin"
        snapshot_download(hub_id(name), local_dir=partial, allow_patterns=[*NEEDED_FILES, weights], token=token)
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, httpx.HTTPError, OSError) as error:
        raise UpstreamError(f'"{hub_id(name)}" cannot be downloaded: {error}') from error
    convert_to_safetensors(partial)
    shutil.rmtree(partial / ".cache", ignore_errors=True)
    partial.rename(target)
    return target


def convert_to_safetensors(folder: Path) -> bool:
    """Rewrite `pytorch_model.bin` as `model.safetensors`, read without running any of its code.

    Returns:
        Whether there was anything to convert.

    Raises:
        UpstreamError: Where the weights do not load whole.
    """
    encoder = load_encoder(folder, {})
    weights = folder / "pytorch_model.bin"
    if (folder / "model.safetensors").is_file() or not weights.is_file():
        weights.unlink(missing_ok=True)
        return False
    encoder.save_pretrained(folder)
    load_encoder(folder, {})
    weights.unlink()
    return True
