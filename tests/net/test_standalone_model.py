"""The model in plain PyTorch says what the fast one says."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
import torch

from experiment_runner.results.predictions import predicted_columns
from net import standalone_model
from net.inputs import Waveforms
from net.standalone_model import SpeechEmotionModel
from tests.support.models import CONFIGS, make_model
from utils.dataset.normalisation import Normalisation


@pytest.mark.parametrize("upstream", CONFIGS)
@pytest.mark.parametrize("layer_weighting", [False, True])
def test_it_equals_the_fast_model(upstream: str, layer_weighting: bool) -> None:
    kind = {False: Normalisation("utterance"), True: Normalisation("corpus", 0.01, 0.2)}[layer_weighting]
    heads = {"gender": ("female", "male"), "age_group": ("old", "young", "child")}
    model = make_model(upstream, layer_weighting, kind, heads)
    plain = SpeechEmotionModel(model.description.to_json()).eval()
    plain.load_state_dict(model.network.state_dict(), strict=True)
    for seconds in (0.03, 0.7, 2.0):
        samples = 0.2 * torch.randn(round(16_000 * seconds)) + 0.05
        normalised = torch.from_numpy(model.description.normalisation(samples.numpy()))
        with torch.inference_mode():
            outputs = model.network(Waveforms(normalised, (len(samples),)))
            found = plain(samples[None])
        expected = predicted_columns(outputs, model.description.labels)
        assert found["emotion"][0].tolist() == pytest.approx(
            [float(expected[f"prob_{name}"][0]) for name in model.description.classes], abs=1e-5
        )
        assert found["attribute"][0].tolist() == pytest.approx(
            [float(expected[f"pred_{name}"][0]) for name in model.description.attributes], abs=1e-4
        )
        for name, classes in heads.items():
            assert classes[int(found[name].argmax())] == expected[f"{name}_prediction"][0]


def test_it_needs_torch_and_transformers_alone() -> None:
    tree = ast.parse(Path(standalone_model.__file__).read_text())
    modules = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    modules |= {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    assert modules == {"typing", "torch", "transformers"}
