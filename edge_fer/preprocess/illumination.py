"""Light taken out of a face before a model sees it: one definition for training, evaluation, export and the device.

Each method is a function of a gray image that gives floats as its paper has them; ``normalized_illumination`` brings
these to gray levels. The formulas hold for images of any size; the parameters are chosen for 48x48 pixels. Black counts
as the darkest gray but one wherever a logarithm or a quotient is taken. An image without contrast has no structure to
keep: it becomes the middle gray, or stays as flat as it is.

Blurs and cosine transforms are products with small matrices, in which an image goes on beyond its edge as its mirror
image.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, Literal, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from edge_fer.core import Image

Gray: TypeAlias = NDArray[Any]
"""(height, width), gray levels 0-255, uint8 or float."""
Floats: TypeAlias = NDArray[np.float64]
"""(height, width)."""

Illumination: TypeAlias = Literal[
    "equalization",
    "equalization-mix",
    "clahe",
    "gamma",
    "gamma-intensity",
    "log",
    "contrast-normalization",
    "dct",
    "dog",
    "tan-triggs",
    "isotropic",
    "anisotropic",
    "homomorphic",
    "retinex",
    "multi-scale-retinex",
    "self-quotient",
]
"""What can be done to the light of a face. A model's metadata names the steps in their order; none is the default."""

MOST_STEPS = 3
"""One after the other."""
MIDDLE = 128.0
"""Gray of what has no contrast."""
SPREAD = 42.5
"""Gray levels of a standard deviation: three of them reach from black to white."""
FLAT = 1e-6
"""A standard deviation below it is rounding, not contrast."""


def normalized_illumination(image: Image, steps: Sequence[Illumination]) -> Image:
    """An image in normalized light.

    Args:
        image: uint8 (height, width).
        steps: methods, applied one after the other; none leaves the image as it is.

    Returns:
        uint8 (height, width). After a method whose paper gives no range, the mean is 128 and a standard deviation 42.5
        gray levels; what is further out than three of them is clipped.
    """
    for step in steps:
        image = np.clip(np.rint(_METHODS[step](image)), 0, 255).astype(np.uint8)
    return image


def standardized(values: Floats) -> Floats:
    """With mean 0 and standard deviation 1; zeros where there is no contrast."""
    off: Floats = values - values.mean()
    deviation = float(off.std())
    return np.asarray(off / deviation if deviation > FLAT else np.zeros_like(off))


def equalization(image: Gray) -> Floats:
    """Histogram equalization: 255 (cdf(x) - cdf_min) / (N - cdf_min), rounded; 0-255.

    Gonzalez & Woods, Digital Image Processing, section 3.3. In whole numbers, so that it is the same on every
    processor. The order of the gray levels alone counts, so no gain, gamma or other growing curve of the light changes
    it. A flat image stays as it is.

    Args:
        image: uint8, or floats that are rounded.
    """
    levels = np.rint(image).astype(np.int64)
    seen = np.bincount(levels.ravel(), minlength=256).cumsum()
    least, most = seen[levels.min()], seen[-1]
    if least == most:
        return levels.astype(np.float64)
    table = (510 * (seen - least) + (most - least)) // (2 * (most - least))
    return np.asarray(table[levels], np.float64)


def equalization_mix(image: Gray, alpha: float = 0.5) -> Floats:
    """alpha * equalization + (1 - alpha) * the image stretched from black to white; 0-255.

    Kuo, Lai & Sarkis, CVPR Workshops 2018, who mix the two because equalization alone exaggerates. A flat image stays
    as it is.
    """
    low, high = float(image.min()), float(image.max())
    if low == high:
        return image.astype(np.float64)
    return alpha * equalization(image) + (1 - alpha) * 255 * (image.astype(np.float64) - low) / (high - low)


def clahe(image: Gray, clip: float = 2.0, tiles: int = 4) -> Floats:
    """Contrast-limited adaptive histogram equalization in tiles of 12 pixels; 0-255.

    Zuiderveld, Graphics Gems IV, 1994, VIII.5, as OpenCV has it.

    Args:
        image: uint8, or floats that are rounded.
        clip: OpenCV's limit: a gray level of a tile counts for at most this times the mean, in whole pixels. A tile of
            144 pixels has 0.56 to a level, so that 1 to 3.5 are the same, one pixel, and its curve rises by 4 at most.
        tiles: along each side.
    """
    levels = np.rint(image).astype(np.uint8)
    return np.asarray(cv2.createCLAHE(clip, (tiles, tiles)).apply(levels), np.float64)


def gamma(image: Gray, exponent: float = 0.5) -> Floats:
    """255 (x / 255)^exponent: lighter in the dark where the exponent is below 1; 0-255."""
    return np.asarray(255 * (image / 255.0) ** exponent)


def gamma_intensity(image: Gray, middle: float = 0.5) -> Floats:
    """The gamma that brings the mean of the logarithms to log(middle); 0-255.

    Gamma intensity correction looks for the exponent that makes an image most like a canonical one (Shan et al., AMFG
    2003, equation 2). Where likeness is that of the geometric mean, the exponent has a closed form, and no gamma of the
    light changes the result. An image that is all black or all white stays as it is.
    """
    light = np.log(_lit(image) / 255)
    mean = float(light.mean())
    if mean > -FLAT or float(image.max()) <= 1:
        return image.astype(np.float64)
    return np.asarray(255 * np.exp(light * (np.log(middle) / mean)))


def log_transform(image: Gray) -> Floats:
    """255 log(1 + x) / log(256); 0-255."""
    return np.asarray(255 * np.log1p(image.astype(np.float64)) / np.log(256))


def contrast_normalization(image: Gray, floor: float = 10.0) -> Floats:
    """Global contrast normalization: (x - mean) / sqrt(floor + variance).

    Goodfellow, Bengio & Courville, Deep Learning, 2016, equation 12.3, which guards images of little contrast by the
    floor.
    """
    off = image - np.mean(image, dtype=np.float64)
    return np.asarray(off / np.sqrt(floor + np.mean(off**2)))


def dct(image: Gray, discarded: int = 20) -> Floats:
    """log(x) without its slowest cosines: those next to the mean in zigzag order are 0, the mean that of middle gray.

    Chen, Er & Wu, IEEE Trans. SMC-B 36, 2006, section III, who discard 18 to 25 of them: 20 are all whose frequencies
    along both axes, counted in half waves, sum to 5 or less. What they keep is the logarithm itself.
    """
    rows, columns = _cosines(image.shape[0]), _cosines(image.shape[1])
    waves = rows @ np.log(_lit(image)) @ columns.T
    waves[_zigzag(image.shape, discarded + 1)] = 0
    waves[0, 0] = np.log(MIDDLE) * np.sqrt(image.size)
    return np.asarray(rows.T @ waves @ columns)


def difference_of_gaussians(image: Gray, exponent: float = 0.2, inner: float = 1.0, outer: float = 2.0) -> Floats:
    """(G_inner - G_outer) * x^exponent, sigmas in pixels.

    Tan & Triggs, IEEE Trans. Image Processing 19, 2010, section II-B, steps 1 and 2, with their parameters.
    """
    curved = image.astype(np.float64) ** exponent
    return blurred(curved, inner) - blurred(curved, outer)


def tan_triggs(image: Gray, alpha: float = 0.1, tau: float = 10.0) -> Floats:
    """``difference_of_gaussians`` with its contrast equalized in two stages, and squeezed; within -tau to tau.

    Tan & Triggs, IEEE Trans. Image Processing 19, 2010, equations 1 to 3: I / mean(|I|^alpha)^(1/alpha), the same of
    min(tau, |I|), and tau tanh(I / tau).
    """
    values = difference_of_gaussians(image)
    # Where the light is flat the difference is 0 but for rounding, whose tenth power is not small.
    values[np.abs(values) < FLAT * FLAT] = 0
    for limit in (np.inf, tau):
        scale = np.mean(np.minimum(limit, np.abs(values)) ** alpha) ** (1 / alpha)
        if scale <= FLAT * FLAT:
            return np.zeros_like(values)
        values = values / scale
    return np.asarray(tau * np.tanh(values / tau))


def isotropic(image: Gray, smoothness: float = 7.0) -> Floats:
    """x / L, where L minimizes sum (L - x)^2 + smoothness * |gradient of L|^2.

    Gross & Brajovic, AVBPA 2003, equation 4, with one weight everywhere. With mirrored edges the cosines are the
    eigenvectors of the Laplacian, and L is each of them over 1 + smoothness (4 - 2 cos(pi u / N) - 2 cos(pi v / M)).
    """
    lit = _lit(image)
    rows, columns = _cosines(image.shape[0]), _cosines(image.shape[1])
    u, v = (2 - 2 * np.cos(np.pi * np.arange(side) / side) for side in image.shape)
    waves = rows @ lit @ columns.T / (1 + smoothness * (u[:, np.newaxis] + v))
    return np.asarray(lit / (rows.T @ waves @ columns))


def anisotropic(image: Gray, smoothness: float = 1.0, least: float = 0.05) -> Floats:
    """x / L, where L minimizes sum (L - x)^2 + smoothness * sum over neighbors of (L_i - L_j)^2 / contrast_ij.

    Gross & Brajovic, AVBPA 2003, equations 4 to 6, with Weber's contrast |x_i - x_j| / min(x_i, x_j): L may jump where
    the image does. The system is solved by conjugate gradients, until the residual is a millionth.

    Args:
        image: gray levels.
        smoothness: what a difference of L costs.
        least: contrast that is taken to be there between any two pixels; the less, the more steps it takes.
    """
    lit = _lit(image)
    down, right = (
        smoothness / np.maximum(np.abs(one - other) / np.minimum(one, other), least)
        for one, other in ((lit[1:], lit[:-1]), (lit[:, 1:], lit[:, :-1]))
    )

    def applied(light: Floats) -> Floats:
        result = light.copy()
        flow = down * (light[1:] - light[:-1])
        result[1:] += flow
        result[:-1] -= flow
        flow = right * (light[:, 1:] - light[:, :-1])
        result[:, 1:] += flow
        result[:, :-1] -= flow
        return result

    return lit / _conjugate_gradients(applied, lit, _diagonal(down, right, lit.shape))


def homomorphic(
    image: Gray, low: float = 0.5, high: float = 2.0, cutoff: float = 4.0, sharpness: float = 1.0
) -> Floats:
    """exp of log(x), whose slow waves are damped and fast ones raised: by (high - low) (1 - exp(-c D^2 / D0^2)) + low.

    Gonzalez & Woods, Digital Image Processing, section 4.9.6, on the cosines of the mirrored image, which has no jump
    at its edges where a Fourier transform sees one.

    Args:
        image: gray levels.
        low: what the slowest waves are multiplied by.
        high: what the fastest are multiplied by.
        cutoff: D0, in waves a side.
        sharpness: c.
    """
    rows, columns = _cosines(image.shape[0]), _cosines(image.shape[1])
    u, v = (np.arange(side) / 2 for side in image.shape)
    squared = u[:, np.newaxis] ** 2 + v**2
    gain = (high - low) * (1 - np.exp(-sharpness * squared / cutoff**2)) + low
    return np.asarray(np.exp(rows.T @ (gain * (rows @ np.log(_lit(image)) @ columns.T)) @ columns))


def retinex(image: Gray, sigmas: Sequence[float] = (6.0,)) -> Floats:
    """The mean of log(x) - log(G_sigma * x) over the sigmas, in pixels.

    Jobson, Rahman & Woodell, IEEE Trans. Image Processing 6, 1997: one sigma in number 3 (page 451), several in number
    7 (page 965), equally weighed.
    """
    lit = _lit(image)
    return np.asarray(np.log(lit) - np.mean([np.log(blurred(lit, sigma)) for sigma in sigmas], axis=0))


def multi_scale_retinex(image: Gray) -> Floats:
    """``retinex`` with sigmas of 2, 6 and 12 pixels."""
    return retinex(image, (2.0, 6.0, 12.0))


def self_quotient(image: Gray, sigma: float = 1.5, radius: int = 3) -> Floats:
    """x over a blur that does not cross edges.

    Wang, Li & Wang, FG 2004, section 3: around each pixel, a Gaussian takes in those pixels alone that lie on that side
    of the window's mean on which most do.

    Args:
        image: gray levels.
        sigma: of the Gaussian, in pixels.
        radius: of the window.
    """
    lit = _lit(image)
    side = 2 * radius + 1
    windows = np.lib.stride_tricks.sliding_window_view(np.pad(lit, radius, "symmetric"), (side, side))
    windows = windows.reshape(*image.shape, side * side)
    profile = np.exp(-(np.arange(-radius, radius + 1) ** 2) / (2 * sigma**2))
    bright = windows >= windows.mean(axis=2, keepdims=True)
    mostly = 2 * np.count_nonzero(bright, axis=2, keepdims=True) >= side * side
    weights = np.outer(profile, profile).ravel() * (bright == mostly)
    return np.asarray(lit * weights.sum(axis=2) / np.einsum("hwk,hwk->hw", weights, windows))


def _standard(method: Callable[[Gray], Floats]) -> Callable[[Gray], Floats]:
    return lambda image: MIDDLE + SPREAD * standardized(method(image))


_METHODS: dict[Illumination, Callable[[Gray], Floats]] = {
    "equalization": equalization,
    "equalization-mix": equalization_mix,
    "clahe": clahe,
    "gamma": gamma,
    "gamma-intensity": gamma_intensity,
    "log": log_transform,
    "contrast-normalization": lambda image: MIDDLE + SPREAD * contrast_normalization(image),
    "dct": _standard(dct),
    "dog": _standard(difference_of_gaussians),
    "tan-triggs": _standard(tan_triggs),
    "isotropic": _standard(isotropic),
    "anisotropic": _standard(anisotropic),
    "homomorphic": _standard(homomorphic),
    "retinex": _standard(retinex),
    "multi-scale-retinex": _standard(multi_scale_retinex),
    "self-quotient": _standard(self_quotient),
}
"""Each method in gray levels."""


def blurred(image: Gray, sigma: float) -> Floats:
    """Convolved with a Gaussian of that sigma in pixels, the image mirrored at its edges."""
    return np.asarray(_gaussians(image.shape[0], sigma) @ image @ _gaussians(image.shape[1], sigma).T)


def _lit(image: Gray) -> Floats:
    return np.maximum(image.astype(np.float64), 1.0)


@lru_cache(maxsize=16)
def _gaussians(side: int, sigma: float) -> Floats:
    """(side, side): row i is a Gaussian around pixel i; what reaches over an edge comes back as in a mirror."""
    reach = int(np.ceil(4 * sigma))
    steps = np.arange(-reach, reach + 1)
    profile = np.exp(-(steps**2) / (2 * sigma**2))
    matrix = np.zeros((side, side))
    for pixel in range(side):
        place = (pixel + steps) % (2 * side)
        np.add.at(matrix[pixel], np.minimum(place, 2 * side - 1 - place), profile / profile.sum())
    return matrix


@lru_cache(maxsize=16)
def _cosines(side: int) -> Floats:
    """(side, side): the orthonormal DCT-II, a row for each number of half waves."""
    half_waves = np.arange(side)[:, np.newaxis]
    matrix = np.sqrt(2 / side) * np.cos(np.pi * half_waves * (2 * np.arange(side) + 1) / (2 * side))
    matrix[0] /= np.sqrt(2)
    return np.asarray(matrix)


@lru_cache(maxsize=16)
def _zigzag(shape: tuple[int, ...], count: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Rows and columns of the first places of a matrix, diagonal by diagonal, to and fro as in JPEG."""
    places = [(u, v) for u in range(shape[0]) for v in range(shape[1])]
    places.sort(key=lambda place: (sum(place), place[(sum(place) + 1) % 2]))
    rows, columns = zip(*places[:count], strict=True)
    return np.array(rows), np.array(columns)


def _diagonal(down: Floats, right: Floats, shape: tuple[int, ...]) -> Floats:
    """Diagonal of the matrix of ``anisotropic``."""
    diagonal = np.ones(shape)
    diagonal[1:] += down
    diagonal[:-1] += down
    diagonal[:, 1:] += right
    diagonal[:, :-1] += right
    return diagonal


def _conjugate_gradients(applied: Callable[[Floats], Floats], wanted: Floats, diagonal: Floats) -> Floats:
    """The x with applied(x) = wanted, for a positive definite matrix (Hestenes & Stiefel, 1952), preconditioned by its
    diagonal."""
    x = wanted.copy()
    residual = wanted - applied(x)
    scaled = residual / diagonal
    direction, product = scaled, float((residual * scaled).sum())
    enough = 1e-12 * float((wanted * wanted / diagonal).sum())
    for _ in range(wanted.size):
        if product <= enough:
            break
        ahead = applied(direction)
        step = product / float((direction * ahead).sum())
        x += step * direction
        residual -= step * ahead
        scaled = residual / diagonal
        before, product = product, float((residual * scaled).sum())
        direction = scaled + product / before * direction
    return x
