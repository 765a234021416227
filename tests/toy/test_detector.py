import json

import pytest
import torch
from safetensors.torch import save_file

from gtsvj_reward.toy.detector import (
    CLASSES,
    Detection,
    Detector,
    detect,
    load_detector,
)
from gtsvj_reward.toy.world import captions, draw_scene, render
from tools.toy.measure import agreement, frechet_distance


def test_features_make_the_logits_of_every_attribute():
    torch.manual_seed(0)
    detector = Detector().eval()
    clips = torch.stack([render(draw_scene(21, index)) for index in range(3)])
    with torch.no_grad():
        logits, features = detector(clips), detector.features(clips)
    assert features.shape == (3, 64)
    assert {name: tensor.shape[1] for name, tensor in logits.items()} == {
        "count": 2, "colour": 4, "shape": 3, "motion": 4
    }  # fmt: skip
    found = detect(detector, clips)
    for index, detection in enumerate(found):
        for name, values in CLASSES.items():
            assert getattr(detection, name) == values[int(logits[name][index].argmax())]
        assert detection.caption in captions()


def test_agreement_counts_attributes_and_whole_captions():
    found = [Detection(2, "red", "square", "bouncing"), Detection(1, "blue", "circle", "falling")]
    wanted = ["two red squares drifting", "one blue circle falling"]
    assert agreement(found, wanted) == {
        "count": 1.0, "colour": 1.0, "shape": 1.0, "motion": 0.5, "caption": 0.5
    }  # fmt: skip
    with pytest.raises(ValueError, match="2 clips for 1 captions"):
        agreement(found, wanted[:1])


def test_frechet_distance_of_gaussians_by_hand():
    """Diagonal Gaussians: |μ₁ - μ₂|² + Σ (σ₁ - σ₂)²."""
    generator = torch.Generator().manual_seed(0)
    first = torch.randn(20_000, 3, generator=generator, dtype=torch.float64)
    scale = torch.tensor([1.0, 2.0, 0.5], dtype=torch.float64)
    second = torch.randn(20_000, 3, generator=generator, dtype=torch.float64) * scale + 1
    assert frechet_distance(first, second) == pytest.approx(3 + 0 + 1 + 0.25, rel=0.03)
    assert frechet_distance(first, first) == pytest.approx(0, abs=1e-9)


def test_frechet_distance_against_scipy():
    from scipy.linalg import sqrtm

    generator = torch.Generator().manual_seed(1)
    a = torch.randn(200, 5, generator=generator) @ torch.randn(5, 5, generator=generator)
    b = torch.randn(300, 5, generator=generator) @ torch.randn(5, 5, generator=generator) + 0.5
    first, second = a.double().T.cov().numpy(), b.double().T.cov().numpy()
    gap = (a.double().mean(0) - b.double().mean(0)).square().sum().item()
    expected = gap + (first + second - 2 * sqrtm(first @ second).real).trace()
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-8)


def test_another_network_is_refused(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"_class_name": "Other"}))
    save_file({}, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match="holds a Other, expected the toy world's Detector"):
        load_detector(tmp_path)
