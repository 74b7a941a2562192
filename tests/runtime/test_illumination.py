"""Illumination: each method against its closed form, and what it is invariant to."""

from __future__ import annotations

from collections.abc import Callable
from typing import get_args

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from edge_fer.core import Detection, FaceBox
from edge_fer.preprocess import Preprocessor, PreprocessSpec, illumination
from edge_fer.preprocess.illumination import Illumination, normalized_illumination
from edge_fer.sources.demo import average_faces

METHODS: tuple[Illumination, ...] = get_args(Illumination)
SIDE = 48
FACE = np.clip(average_faces()[1] / 2.1 + np.random.default_rng(0).normal(0, 3, (SIDE, SIDE)), 2, 127).astype(
    np.float64
)
"""Floats that no gain of 2 brings to white, so that invariance can be exact."""
ROWS = np.arange(SIDE)[:, np.newaxis]

images = arrays(np.uint8, st.tuples(st.integers(8, 50), st.integers(8, 50)))


@given(images, st.lists(st.sampled_from(METHODS), max_size=2))
def test_any_image_gives_an_image_of_its_size(image: NDArray[np.uint8], steps: list[Illumination]) -> None:
    before = image.copy()
    result = normalized_illumination(image, steps)
    assert result.shape == image.shape
    assert result.dtype == np.uint8
    assert np.array_equal(image, before)
    if not steps:
        assert np.array_equal(result, image)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("gray", [0, 1, 77, 254, 255])
def test_a_flat_image_stays_flat(method: Illumination, gray: int) -> None:
    result = normalized_illumination(np.full((SIDE, SIDE), gray, np.uint8), [method])
    assert np.unique(result).size == 1
    own_range = {"equalization", "equalization-mix", "clahe", "gamma", "gamma-intensity", "log"}
    assert method in own_range or result[0, 0] == illumination.MIDDLE


@pytest.mark.parametrize("method", ["equalization", "equalization-mix", "gamma-intensity", "gamma", "log"])
@pytest.mark.parametrize("gray", [0, 255])
def test_black_stays_black_and_white_white(method: Illumination, gray: int) -> None:
    assert (normalized_illumination(np.full((SIDE, SIDE), gray, np.uint8), [method]) == gray).all()


@pytest.mark.parametrize("method", [m for m in METHODS if m not in ("gamma", "log", "clahe", "gamma-intensity")])
@pytest.mark.parametrize("gain", [0.75, 2.0])
def test_no_gain_changes_the_result(method: Illumination, gain: float) -> None:
    """Exact before rounding, but for the contrast's floor; where gray levels are counted, the gain keeps them whole."""
    if method in ("equalization", "equalization-mix"):
        levels = np.floor(FACE / 4) * 4
        first, second = (normalized_illumination((levels * g).astype(np.uint8), [method]) for g in (1.0, gain))
        assert np.array_equal(first, second)
        return
    first, second = (illumination._METHODS[method](FACE * g) for g in (1.0, gain))
    assert np.allclose(first, second, atol=3.0 if method == "contrast-normalization" else 1e-5)


@pytest.mark.parametrize("exponent", [0.5, 0.8, 1.5])
def test_no_gamma_changes_gamma_intensity(exponent: float) -> None:
    curved = 255 * (FACE / 255) ** exponent
    assert curved.min() >= 1 or exponent > 1
    lit = np.maximum(FACE, 255 * (1 / 255) ** (1 / exponent)) if exponent > 1 else FACE
    first = illumination.gamma_intensity(lit)
    second = illumination.gamma_intensity(255 * (lit / 255) ** exponent)
    assert np.allclose(first, second, atol=1e-6)
    assert np.exp(np.log(first / 255).mean()) == pytest.approx(0.5)


@pytest.mark.parametrize("curve", [lambda x: x // 2, lambda x: 255 * (x / 255.0) ** 0.5, lambda x: 10 + x // 2])
def test_equalization_sees_the_order_alone(curve: Callable[[NDArray[np.int64]], NDArray[np.float64]]) -> None:
    levels = np.arange(0, 16) * 17
    image = np.random.default_rng(1).choice(levels, (SIDE, SIDE))
    curved = np.rint(curve(image)).astype(np.int64)
    assert np.unique(curved).size == 16
    assert np.array_equal(illumination.equalization(image), illumination.equalization(curved))


@given(arrays(np.uint8, st.tuples(st.integers(2, 20), st.integers(2, 20))))
def test_equalization_is_the_closed_form(image: NDArray[np.uint8]) -> None:
    result = illumination.equalization(image)
    least = np.count_nonzero(image == image.min())
    for level in np.unique(image):
        share = (np.count_nonzero(image <= level) - least) / max(image.size - least, 1)
        expected = 255 * share if least < image.size else level
        assert abs(float(result[image == level][0]) - expected) <= 0.5
    assert np.abs(result - cv2.equalizeHist(image)).max() <= 1


def test_the_mix_is_a_weighted_sum() -> None:
    image = np.rint(FACE)
    stretched = 255 * (image - image.min()) / (image.max() - image.min())
    expected = 0.3 * illumination.equalization(image) + 0.7 * stretched
    assert np.allclose(illumination.equalization_mix(image, 0.3), expected)


def test_curves_are_their_formulas() -> None:
    levels = np.arange(256, dtype=np.uint8).reshape(16, 16)
    assert np.allclose(illumination.gamma(levels, 2.0), levels.astype(float) ** 2 / 255)
    assert np.allclose(illumination.log_transform(levels), 255 * np.log2(1.0 + levels) / 8)


def test_contrast_is_in_deviations_with_a_floor() -> None:
    image = np.where(ROWS % 2, 100.0, 140.0) + np.zeros(SIDE)
    assert np.allclose(np.abs(illumination.contrast_normalization(image, 9.0)), 20 / np.sqrt(409))
    faint = np.where(ROWS % 2, 100.0, 102.0) + np.zeros(SIDE)
    assert np.allclose(np.abs(illumination.contrast_normalization(faint, 8.0)), 1 / 3)


@pytest.mark.parametrize(("u", "v", "kept"), [(0, 1, False), (2, 3, False), (5, 0, False), (0, 6, True), (3, 3, True)])
def test_dct_drops_the_slowest_cosines_of_the_logarithm(u: int, v: int, kept: bool) -> None:
    wave = np.outer(np.cos(np.pi * u * (2 * ROWS[:, 0] + 1) / 96), np.cos(np.pi * v * (2 * ROWS[:, 0] + 1) / 96))
    result = illumination.dct(100 * np.exp(0.3 * wave))
    assert np.allclose(result, np.log(128) + (0.3 * wave if kept else 0))


def test_zigzag_runs_as_in_jpeg() -> None:
    rows, columns = illumination._zigzag((8, 8), 10)
    order = [(0, 0), (0, 1), (1, 0), (2, 0), (1, 1), (0, 2), (0, 3), (1, 2), (2, 1), (3, 0)]
    assert list(zip(rows.tolist(), columns.tolist(), strict=True)) == order


@given(st.floats(0.3, 8.0))
def test_blurs_keep_the_mean_and_what_is_flat(sigma: float) -> None:
    assert illumination.blurred(FACE, sigma).mean() == pytest.approx(FACE.mean())
    assert np.allclose(illumination.blurred(np.full((20, 30), 7.0), sigma), 7.0)


def test_blurs_are_those_of_opencv() -> None:
    theirs = cv2.GaussianBlur(FACE, (17, 17), 2.0, borderType=cv2.BORDER_REFLECT)
    assert np.allclose(illumination.blurred(FACE, 2.0), theirs, atol=1e-9)


@pytest.mark.parametrize("waves", [2, 12, 30])
def test_difference_of_gaussians_passes_a_wave_by_its_frequency(waves: int) -> None:
    wave = np.cos(np.pi * waves * (2 * ROWS + 1) / 96) + np.zeros(SIDE)
    result = illumination.difference_of_gaussians((3 + 0.1 * wave) ** 5)
    omega = np.pi * waves / 48
    gain = np.exp(-(omega**2) / 2) - np.exp(-2 * omega**2)
    assert np.allclose(result, 0.1 * gain * wave, atol=1e-4)


def test_tan_triggs_follows_its_equations() -> None:
    values = illumination.difference_of_gaussians(FACE)
    values = values / np.mean(np.abs(values) ** 0.1) ** 10
    values = values / np.mean(np.minimum(10, np.abs(values)) ** 0.1) ** 10
    assert np.allclose(illumination.tan_triggs(FACE), 10 * np.tanh(values / 10))
    assert np.abs(illumination.tan_triggs(FACE)).max() < 10


@pytest.mark.parametrize("white", [24, 36, 44])
def test_tan_triggs_of_a_face_that_is_white_in_part_does_not_hang_on_rounding(white: int) -> None:
    """Flat light has no difference of Gaussians, but for rounding: the order of two products decides what of it."""
    image = FACE.astype(np.float64)
    image[:, :white] = 255
    other = illumination.tan_triggs(image.T).T
    assert np.allclose(illumination.tan_triggs(image), other, atol=1e-6)
    assert (illumination.tan_triggs(image)[:, : white - 20] == 0).all()


def laplacian(weights: Callable[[float, float], float], image: NDArray[np.float64]) -> NDArray[np.float64]:
    """The dense matrix of the diffusion: identity plus, for each pair of neighbors, its weight."""
    height, width = image.shape
    matrix = np.eye(image.size)
    for y in range(height):
        for x in range(width):
            for other_y, other_x in ((y + 1, x), (y, x + 1)):
                if other_y < height and other_x < width:
                    i, j = y * width + x, other_y * width + other_x
                    weight = weights(image[y, x], image[other_y, other_x])
                    matrix[[i, j], [i, j]] += weight
                    matrix[[i, j], [j, i]] -= weight
    return matrix


def test_isotropic_solves_its_equation() -> None:
    image = FACE[10:22, 8:23]
    light = np.linalg.solve(laplacian(lambda a, b: 7.0, image), image.ravel()).reshape(image.shape)
    assert np.allclose(illumination.isotropic(image), image / light)


def test_anisotropic_solves_its_equation() -> None:
    image = FACE[10:22, 8:23]
    light = np.linalg.solve(
        laplacian(lambda a, b: 1 / max(abs(a - b) / min(a, b), 0.05), image), image.ravel()
    ).reshape(image.shape)
    assert np.allclose(illumination.anisotropic(image), image / light, atol=1e-5)


def test_anisotropic_light_jumps_where_the_image_does() -> None:
    """Half of the face in shade, with a hard edge: of two methods of the same strength, one keeps the shade out."""
    shaded = np.where(np.arange(SIDE) < 24, 40.0, 200.0) + np.zeros((SIDE, 1))
    assert np.ptp(illumination.anisotropic(shaded)) < 0.5 * np.ptp(illumination.isotropic(shaded, 20.0))


@pytest.mark.parametrize("waves", [1, 8, 24])
def test_homomorphic_gains_follow_the_frequency(waves: int) -> None:
    wave = np.cos(np.pi * waves * (2 * ROWS + 1) / 96) + np.zeros(SIDE)
    gain = 1.5 * (1 - np.exp(-((waves / 2) ** 2) / 16)) + 0.5
    expected = np.exp(0.5 * np.log(90) + gain * 0.2 * wave)
    assert np.allclose(illumination.homomorphic(90 * np.exp(0.2 * wave)), expected)


def test_retinex_is_the_mean_of_its_scales() -> None:
    parts = [np.log(FACE) - np.log(illumination.blurred(FACE, sigma)) for sigma in (2.0, 6.0, 12.0)]
    assert np.allclose(illumination.multi_scale_retinex(FACE), np.mean(parts, axis=0))
    assert np.allclose(illumination.retinex(FACE), parts[1])


def test_the_self_quotient_blurs_one_side_of_an_edge() -> None:
    step = np.where(np.arange(SIDE) < 24, 50.0, 150.0) + np.zeros((SIDE, 1))
    assert np.allclose(illumination.self_quotient(step), 1.0)
    spot = np.full((9, 9), 100.0)
    spot[4, 4] = 200
    quotient = illumination.self_quotient(spot)
    assert quotient[4, 4] == pytest.approx(2.0)  # most of its window is the rest
    quotient[4, 4] = 1
    assert np.allclose(quotient, 1.0)


@pytest.mark.parametrize(
    "method",
    ["dct", "tan-triggs", "dog", "retinex", "multi-scale-retinex", "isotropic", "anisotropic", "self-quotient"],
)
def test_light_from_the_side_matters_less(method: Illumination) -> None:
    """The same face with light from the left and from the right: they differ less than they did, in deviations."""
    image = average_faces()[1].astype(np.float64)
    falling = np.linspace(1, 0.25, SIDE)
    left, right = np.rint(image * falling).astype(np.uint8), np.rint(image * falling[::-1]).astype(np.uint8)
    before = np.corrcoef(left.ravel(), right.ravel())[0, 1]
    results = [normalized_illumination(one, [method]).ravel() for one in (left, right)]
    assert np.corrcoef(*results)[0, 1] > before + 0.3


def test_steps_follow_one_another() -> None:
    image = np.rint(FACE).astype(np.uint8)
    both = normalized_illumination(image, ["tan-triggs", "equalization"])
    assert np.array_equal(
        both, normalized_illumination(normalized_illumination(image, ["tan-triggs"]), ["equalization"])
    )
    assert not np.array_equal(both, normalized_illumination(image, ["equalization", "tan-triggs"]))


@pytest.mark.parametrize("method", [m for m in METHODS if m != "clahe"])  # OpenCV places its tiles by one side
def test_a_mirror_image_stays_one(method: Illumination) -> None:
    """Training flips faces: what is done to their light must not tell."""
    image = np.rint(FACE).astype(np.uint8)
    mirrored = normalized_illumination(image[:, ::-1], [method])[:, ::-1].astype(int)
    assert np.abs(mirrored - normalized_illumination(image, [method])).max() <= 1


def test_a_crop_is_normalized_after_it_was_framed() -> None:
    gray = np.random.default_rng(2).integers(0, 255, (90, 90)).astype(np.uint8)
    face = Detection(FaceBox(10, 12, 60, 60))
    plain, lit = (
        Preprocessor(PreprocessSpec(illumination=steps), (SIDE, SIDE))(gray, face) for steps in ((), ("retinex",))
    )
    assert np.array_equal(lit[..., 0], normalized_illumination(plain[..., 0], ["retinex"]))
