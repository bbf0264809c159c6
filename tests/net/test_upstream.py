from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import WavLMConfig, WavLMModel

from net.inputs import Waveforms
from net.packed_wavlm import PackedWavLMEncoder
from net.ser_model_wrapper import HeadShape, SERModelWrapper
from net.spec_augment import SpecAugment, draw_spans
from net.upstream import Upstream
from tests.support.encoders import FAMILIES, make_waveforms, tiny, write_published_bin
from tests.support.tensor_errors import relative_error
from utils.hub.upstreams import (
    UpstreamError,
    convert_to_safetensors,
    find_upstream,
    load_encoder,
    load_upstream,
)

OFF = SpecAugment(0.0, 1, 0.0, 1)
MIXED_SECONDS = (0.1, 12.0, 1.0, 2.5, 0.4, 7.31, 3.0, 5.55)


def together(waveforms: list[torch.Tensor]) -> Waveforms:
    return Waveforms(torch.cat(waveforms), tuple(len(w) for w in waveforms))


@pytest.mark.parametrize("family", FAMILIES)
def test_an_utterance_does_not_depend_on_its_neighbours(family: str) -> None:
    torch.manual_seed(0)
    model = SERModelWrapper(Upstream(FAMILIES[family](), OFF, True, "cnn"), HeadShape(4, 3, 0.5)).eval()
    waveforms = make_waveforms(MIXED_SECONDS)
    with torch.inference_mode():
        batch = model(together(waveforms))
        for index, waveform in enumerate(waveforms):
            alone = model(together([waveform]))
            for one, other in zip(batch.select(torch.tensor([index])).tensors(), alone.tensors(), strict=True):
                assert (one - other).abs().max() <= 1e-5
            assert (batch.embedding[index] - alone.embedding[0]).abs().max() <= 1e-5


@pytest.mark.parametrize("family", FAMILIES)
def test_single_utterances_equal_transformers(family: str) -> None:
    """Bit for bit where transformers computes them, up to rounding where this project does."""
    torch.manual_seed(0)
    encoder = FAMILIES[family]().eval()
    waveform = make_waveforms((1.3,))[0]
    with torch.inference_mode():
        expected = encoder(waveform[None]).last_hidden_state[0]
        frames = Upstream(encoder, OFF, False, "cnn").eval()(together([waveform]))
    assert relative_error(frames.values, expected) <= (2e-6 if "wavlm" in family else 0.0)
    assert frames.lengths == (len(expected),)


@pytest.mark.parametrize("family", ["wavlm, layer norm", "wavlm, group norm"])
@pytest.mark.parametrize("freeze", ["none", "cnn", 1])
def test_gradients_of_a_pack_are_those_of_transformers_on_each_utterance(family: str, freeze: str | int) -> None:
    torch.manual_seed(0)
    encoder = FAMILIES[family]().eval()
    with torch.no_grad():
        for parameter in encoder.parameters():  # biases and gates begin at zero or one, where errors would hide
            parameter.add_(0.05 * torch.randn_like(parameter))
    upstream = Upstream(encoder, OFF, True, freeze).eval()
    assert upstream.layer_weights is not None
    waveforms = make_waveforms((0.1, 0.7, 0.3))
    found = upstream(together(waveforms)).values
    weights, sums = torch.randn_like(found), []
    for waveform in waveforms:
        layers = torch.stack(encoder(waveform[None], output_hidden_states=True).hidden_states)
        sums.append(layers.mean(0)[0])
    expected = torch.cat(sums)
    assert relative_error(found, expected.detach()) <= 2e-6
    trained = {name: p for name, p in encoder.named_parameters() if p.requires_grad}
    pairs = [
        torch.autograd.grad((values * weights).sum(), list(trained.values()), allow_unused=True)
        for values in (found, expected)
    ]
    for name, mine, theirs in zip(trained, *pairs, strict=True):
        assert (mine is None) == (theirs is None), name
        if mine is not None and "k_proj.bias" not in name:  # a shift of all keys changes no softmax: it has no gradient
            assert relative_error(mine, theirs) <= 1e-4, name


def test_layer_weighting_starts_as_the_mean_of_all_layers() -> None:
    encoder = tiny("wavlm-tiny-random").eval()
    waveform = make_waveforms((0.5,))[0]
    with torch.inference_mode():
        layers = encoder(waveform[None], output_hidden_states=True).hidden_states
        frames = Upstream(encoder, OFF, True, "cnn").eval()(together([waveform]))
    assert len(layers) == 3
    assert torch.allclose(frames.values, torch.stack(layers).mean(0)[0], atol=1e-6)


@pytest.mark.parametrize("family", FAMILIES)
def test_checkpointing_changes_no_gradient(family: str) -> None:
    """With every dropout on: what is drawn at random is drawn again."""
    waveforms = together(make_waveforms((0.5, 0.3)))

    def gradients(gradient_checkpointing: bool) -> list[torch.Tensor]:
        torch.manual_seed(0)
        upstream = Upstream(FAMILIES[family](), SpecAugment(0.2, 4, 0.0, 1), False, "cnn", gradient_checkpointing)
        for module in upstream.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.2
        torch.manual_seed(1)
        upstream.train()(waveforms).values.square().sum().backward()
        return [p.grad for p in upstream.parameters() if p.grad is not None]

    for one, other in zip(gradients(False), gradients(True), strict=True):
        assert torch.equal(one, other)


def test_training_works_after_inference() -> None:
    """What an encoder keeps between batches must not come from inference mode."""
    upstream = Upstream(tiny("wavlm-tiny-random"), OFF, False, "cnn")
    waveforms = together(make_waveforms((0.5,)))
    with torch.inference_mode():
        upstream(waveforms)
    upstream(waveforms).values.sum().backward()
    assert upstream.encoder.encoder.layers[0].attention.rel_attn_embed.weight.grad.abs().sum() > 0


def test_frame_counts_are_those_of_the_convolutions() -> None:
    upstream = Upstream(tiny("wavlm-tiny-random"), OFF, False, "cnn").eval()
    for samples in (400, 719, 720, 721, 16_000, 16_079, 16_080):
        with torch.inference_mode():
            assert (
                upstream.frame_counts([samples])[0]
                == upstream.encoder.feature_extractor(torch.zeros(1, samples)).shape[2]
            )
    with pytest.raises(ValueError, match="shorter than one frame"):
        upstream.frame_counts([399])


@pytest.mark.parametrize(
    ("freeze", "trained", "not_trained"),
    [
        ("none", ["feature_extractor.conv_layers.0.conv.weight", "feature_projection.projection.weight"], []),
        ("cnn", ["feature_projection.projection.weight"], ["feature_extractor.conv_layers.0.conv.weight"]),
        (
            1,
            ["encoder.layers.1.attention.k_proj.weight", "encoder.layer_norm.weight"],
            ["encoder.layers.0.attention.k_proj.weight", "feature_projection.projection.weight"],
        ),
        ("upstream", [], ["encoder.layers.1.attention.k_proj.weight", "feature_projection.projection.weight"]),
    ],
)
def test_frozen_parts_get_no_gradient_and_stay_in_evaluation_mode(
    freeze: str | int, trained: list[str], not_trained: list[str]
) -> None:
    encoder = tiny("wavlm-tiny-random", hidden_dropout=0.5)
    model = SERModelWrapper(Upstream(encoder, OFF, False, freeze), HeadShape(4, 0, 0.0)).train()
    emotion = model(together(make_waveforms((0.5, 0.3)))).emotion
    assert emotion is not None
    emotion.square().sum().backward()
    gradients = {name: p.grad for name, p in encoder.named_parameters()}
    for name in trained:
        assert gradients[name] is not None
        assert gradients[name].abs().sum() > 0
    for name in not_trained:
        assert gradients[name] is None
    assert encoder.feature_extractor.training == (freeze == "none")
    assert encoder.encoder.layers[0].training == (freeze in ("none", "cnn"))
    assert encoder.encoder.layers[1].training == (freeze != "upstream")


def test_nothing_is_differentiated_below_frozen_layers() -> None:
    encoder = tiny("wavlm-tiny-random")
    upstream = Upstream(encoder, SpecAugment(0.3, 4, 0.0, 1), False, 1).train()
    assert isinstance(upstream.runner, PackedWavLMEncoder)
    states = upstream.runner.packed.hidden_states(*_packed(upstream, (0.5,)), torch.float32)
    assert [hidden.requires_grad for hidden in states] == [False, False, True]


def _packed(upstream: Upstream, seconds: tuple[float, ...]) -> tuple[torch.Tensor, Any]:
    assert isinstance(upstream.runner, PackedWavLMEncoder)
    packed, waveforms = upstream.runner.packed, together(make_waveforms(seconds))
    plan = packed.plan(waveforms.counts, torch.device("cpu"), torch.float32)
    return packed.features(waveforms.samples, plan, torch.float32), plan


def test_masked_frames_are_the_learned_embedding() -> None:
    torch.manual_seed(0)
    hidden, embedding = torch.zeros(70, 3), torch.tensor([1.0, 2.0, 3.0])
    masked = SpecAugment(0.5, 5, 0.0, 1)(hidden, (50, 20), embedding)
    changed = (masked != 0).any(-1)
    assert changed[:50].any()
    assert changed[50:].any()
    assert torch.equal(masked[changed], embedding.expand(int(changed.sum()), 3))


def test_freezing_more_layers_than_there_are_is_refused() -> None:
    with pytest.raises(ValueError, match="the upstream has 2 layers"):
        Upstream(tiny("wavlm-tiny-random"), OFF, False, 3)


def test_an_encoder_of_another_family_is_refused() -> None:
    from transformers import BertConfig, BertModel

    bert = BertModel(BertConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8))
    with pytest.raises(ValueError, match='"bert" is no waveform encoder'):
        Upstream(bert, OFF, False, "cnn")


def test_spec_augment_masks_in_training_alone_and_repeats() -> None:
    encoder = tiny("wavlm-tiny-random", hidden_dropout=0.0, attention_dropout=0.0, activation_dropout=0.0)
    upstream = Upstream(encoder, SpecAugment(0.3, 4, 0.1, 4), False, "cnn")
    waveforms = together(make_waveforms((0.5, 1.0)))

    def run(seed: int) -> torch.Tensor:
        torch.manual_seed(seed)
        with torch.no_grad():
            values: torch.Tensor = upstream(waveforms).values
        return values

    upstream.train()
    assert torch.equal(run(1), run(1))
    assert not torch.equal(run(1), run(2))
    upstream.eval()
    assert torch.equal(run(1), run(2))


def test_spans_stay_inside_and_cover_the_share_asked_for() -> None:
    torch.manual_seed(0)
    masks = draw_spans([80] * 2000, 0.1, 10).view(2000, 80)
    assert 0.09 < masks.float().mean() < 0.11
    assert 0.5 < float(masks[:, 0].sum() / masks[:, 40].sum() * 10) < 2, "the first frame is in one span of ten"
    assert draw_spans([3, 40, 3], 0.9, 10).tolist()[:3] == [True, True, True]


def test_every_sequence_has_its_share_of_spans() -> None:
    torch.manual_seed(0)
    lengths = [5, 200, 31, 4]
    counts = torch.zeros(4)
    for _ in range(500):
        mask = draw_spans(lengths, 0.2, 5)
        counts += torch.stack([part.sum() for part in torch.split(mask, lengths)])
    expected = 0.2 * torch.tensor(lengths)
    shares = counts / 500 / expected  # spans overlap in the long one
    assert ((shares > 0.75) & (shares < 1.3)).all(), shares


SHAPES = {  # with a few of their layers, which are alike
    "base-plus": WavLMConfig(num_hidden_layers=4),
    "large": WavLMConfig(
        hidden_size=1024,
        num_hidden_layers=4,
        num_attention_heads=16,
        intermediate_size=4096,
        feat_extract_norm="layer",
        do_stable_layer_norm=True,
        conv_bias=False,
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("shape", SHAPES)
def test_published_shapes_load_key_by_key_from_safetensors_and_bin(shape: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    original = WavLMModel(SHAPES[shape]).eval()
    waveform = make_waveforms((1.0,))[0]
    with torch.inference_mode():
        expected = original(waveform[None]).last_hidden_state[0]
    original.save_pretrained(tmp_path / "safetensors")
    write_published_bin(original, tmp_path / "bin")
    assert convert_to_safetensors(tmp_path / "bin")
    assert not convert_to_safetensors(tmp_path / "bin"), "it is converted"
    for folder in ("safetensors", "bin"):
        encoder = load_encoder(tmp_path / folder, {})
        with torch.inference_mode():
            assert torch.equal(encoder(waveform[None]).last_hidden_state[0], expected)
            frames = Upstream(encoder, OFF, False, "cnn").eval()(together([waveform]))
        assert relative_error(frames.values, expected) <= 2e-6


@pytest.mark.parametrize("change", ["missing", "unexpected", "mismatched"])
def test_weights_that_do_not_fit_are_refused(change: str, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    tiny("wavlm-tiny-random").save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    key = "encoder.layers.1.attention.q_proj.weight"
    if change == "missing":
        del weights[key]
    elif change == "unexpected":
        weights["encoder.layers.1.attention.x_proj.weight"] = weights[key].clone()
    else:
        weights[key] = weights[key][:10].clone()
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UpstreamError, match="layers.1.attention"):
        load_encoder(tmp_path, {})


def test_a_pickle_that_runs_code_is_refused(tmp_path: Path) -> None:
    class Payload:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (tmp_path / "executed",))

    tiny("wavlm-tiny-random").config.save_pretrained(tmp_path)
    torch.save({"payload": Payload()}, tmp_path / "pytorch_model.bin")
    with pytest.raises(UpstreamError):
        convert_to_safetensors(tmp_path)
    assert not (tmp_path / "executed").exists()


def test_a_missing_upstream_names_the_command_that_fetches_it(tmp_path: Path) -> None:
    with pytest.raises(UpstreamError, match=r"download_model\.py wavlm-base-plus"):
        find_upstream("wavlm-base-plus", tmp_path)
    with pytest.raises(UpstreamError, match='did you mean "wavlm-base-plus"'):
        find_upstream("wavlm-base-plsu", tmp_path)


def test_a_fetched_upstream_is_found_by_short_and_hub_name(tmp_path: Path) -> None:
    folder = tmp_path / "microsoft--wavlm-base-plus"
    tiny("wavlm-tiny-random").save_pretrained(folder)
    assert find_upstream("wavlm-base-plus", tmp_path) == folder
    assert find_upstream("microsoft/wavlm-base-plus", tmp_path) == folder
    loaded = load_upstream(str(folder), {"hidden_dropout": 0.25})
    assert loaded.do_normalize is None
    assert loaded.encoder.config.hidden_dropout == 0.25
