"""Two thumbnails in, whether they are proven to be the same picture out (OpenCV, numpy, scipy).

One is laid over the other (enhanced correlation, Evangelidis and Psarakis 2008), its light is fitted, and the rest is
compared with the noise of the pair itself. Only what both show is compared. `docs/adr/0031` has the figures.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls

from labelloop.records.arrays import Floats

SIDE, COARSE = 128, 64
HOLES = 14.0  # of the pair's own noise, the largest difference of 5 × 5 pixels that the same picture may have
BLOCK = 5
HOPELESS = 0.1  # of the area, changed before the last pixel is aligned: no aligning helps
LEAST_NOISE = 0.5  # gray levels, of a mean over a block: rounding
MOST_NOISE = 8.0
MOST_BLUR = 0.5  # of the gradient: a picture that is blurred or displaced further is not proven
LEAST_LIKENESS = 0.5  # correlation of fine structure
SCENE_LIKENESS, SCENE_AREA = 0.8, 0.25
LEAST_SHARED = 0.5  # of the area
LIES = 0.8  # correlation without laying one over the other, from which on it is worth a look
ALIGNED, STEADY = 0.95, 0.25  # likeness without laying one over the other, or blur then: nothing to move
FITS, REGISTERS, ALIKE = 0.5, 0.9, 0.85  # correlation as guessed, laid over each other, and of fine structure then
CLIPPED = 10.0  # gray levels from black and white: what lies beyond is not known
STRETCHED, STRETCHED_CLIPPED = 1.15, 40.0  # gain from which on one picture is lit or contrasted beyond its range
LEAST_USABLE, FITTED = 0.05, 3000  # share of pixels within the range, and how many of them the light is fitted to
FRAME, RIM = 3, 4  # pixels beside an edge of either picture that lanczos, blur and blocks reach
GRAY = np.array([0.299, 0.587, 0.114], dtype=np.float32)  # ITU-R BT.601

Mask = NDArray[np.bool_]
IDENTITY = np.array([[1, 0, 0], [0, 1, 0]], dtype=np.float32)
_U, _V = np.meshgrid(np.linspace(-1, 1, SIDE, dtype=np.float32), np.linspace(-1, 1, SIDE, dtype=np.float32))
_LIGHT = np.stack([np.ones_like(_U), _U, _V, _U * _U, _U * _V, _V * _V], axis=-1).reshape(-1, 6)
_PAD = 8
_X, _Y = np.meshgrid(*(np.arange(-_PAD, SIDE + _PAD, dtype=np.float32),) * 2)
_OWN = (_X >= 0) & (_X < SIDE) & (_Y >= 0) & (_Y < SIDE)
_CORNERS = np.array([[0, 0, 1], [0, SIDE - 1, 1], [SIDE - 1, 0, 1], [SIDE - 1, SIDE - 1, 1]], dtype=np.float32)


class Kinship(StrEnum):
    """What two pictures are to each other."""

    SAME = "same"  # proven: resized, recompressed, shifted, rotated, cropped, in another light
    MIRRORED = "mirrored"  # the same, left for right
    SCENE = "scene"  # the same place with a change
    UNSURE = "unsure"  # one fits over the other, and nothing is proven
    STRANGER = "stranger"  # nothing fits


PROVEN = frozenset({Kinship.SAME, Kinship.MIRRORED})


@dataclass(frozen=True, slots=True)
class Likeness:
    """What is left when one picture is laid over the other, the worse of both directions."""

    hole: float  # the largest difference of a block, in the pair's own noise
    likeness: float  # correlation of fine structure
    noise: float  # gray levels
    blur: float  # share of the gradient
    changed: float  # share of the shared area

    @property
    def is_same(self) -> bool:
        """Proven: no place differs by more than the noise of all the others."""
        return (
            self.hole <= HOLES
            and self.likeness >= LEAST_LIKENESS
            and self.noise <= MOST_NOISE
            and self.blur <= MOST_BLUR
        )

    @property
    def is_aligned(self) -> bool:
        """Nothing is to be moved: to move it would blur what has changed."""
        return self.likeness >= ALIGNED or (self.likeness >= LEAST_LIKENESS and self.blur <= STEADY)

    @property
    def is_scene(self) -> bool:
        """The same place, whatever has changed in it."""
        return self.likeness >= SCENE_LIKENESS and self.changed <= SCENE_AREA


def kinship(one: Floats, other: Floats, starts: tuple[Floats, ...] = (IDENTITY,), *, mirror: bool = False) -> Kinship:
    """Of two thumbnails (`SIDE`, `SIDE`, 3). ``starts``: affine guesses, from places of one to places of the other.

    ``mirror``: compare the mirror image of the other.
    """
    other = np.ascontiguousarray(other[:, ::-1]) if mirror else other
    fit = likeness(one, other, starts)
    if fit and fit.is_same:
        return Kinship.MIRRORED if mirror else Kinship.SAME
    if fit and fit.is_scene:
        return Kinship.SCENE
    return Kinship.UNSURE if fit and fit.likeness >= LEAST_LIKENESS else Kinship.STRANGER


def likeness(one: Floats, other: Floats, starts: tuple[Floats, ...] = (IDENTITY,)) -> Likeness | None:
    """As they lie, else laid over each other; None where nothing fits."""
    if _is_gray(one) or _is_gray(other):
        one, other = ((picture @ GRAY)[:, :, None] for picture in (one, other))
    grays = _gray(one), _gray(other)
    small = _resized(grays[0], COARSE), _resized(grays[1], COARSE)
    as_they_lie = _both(one, other, IDENTITY) if _fit(*small, IDENTITY) >= LIES else None
    if as_they_lie and (as_they_lie.is_same or as_they_lie.is_aligned):
        return as_they_lie
    warp = _registered(*small, starts)
    if warp is None:
        return as_they_lie
    roughly = _channel(grays[0], *_laid(grays[1], warp))
    if roughly and roughly.changed > HOPELESS:
        return max((as_they_lie, roughly), key=_closeness)
    return max((as_they_lie, _both(one, other, _refined(*grays, warp))), key=_closeness)


def _closeness(fit: Likeness | None) -> tuple[bool, float]:
    return (fit.is_same, fit.likeness) if fit else (False, -1.0)


def zoomed(scale: float, right: float = 0.0, down: float = 0.0) -> Floats:
    """A guess: the middle of one is found in the other at this scale, moved by shares of the side."""
    middle = (SIDE - 1) / 2
    still = middle * (1 - scale)
    return np.array([[scale, 0, still + right * SIDE], [0, scale, still + down * SIDE]], dtype=np.float32)


def _is_gray(picture: Floats) -> bool:
    return float(np.percentile(np.ptp(picture[::2, ::2], axis=2), 95)) < 12


def _gray(picture: Floats) -> Floats:
    return np.ascontiguousarray(picture @ GRAY if picture.shape[2] == 3 else picture[:, :, 0])


def _registered(one: Floats, other: Floats, starts: tuple[Floats, ...]) -> Floats | None:
    """The affine map of places of one to places of the other, from small pictures; None where they do not match."""
    best, warp = -1.0, None
    for start in starts:
        guess = _rescaled(start, COARSE / SIDE)
        if _fit(one, other, guess) < FITS:
            continue
        correlation, tried = _ecc(one, other, guess, (30, 1e-3), mask=_inside(guess, COARSE))
        fit = _fit(one, other, tried, fine=True) if tried is not None and correlation >= REGISTERS else -1.0
        if fit > best and tried is not None:
            best, warp = fit, _rescaled(tried, SIDE / COARSE)
        if best > 0.95:
            break
    return warp if warp is not None and best >= ALIKE and 0.6 < np.linalg.det(warp[:, :2]) < 1.7 else None


def _refined(one: Floats, other: Floats, warp: Floats) -> Floats:
    for until, blur in (((25, 1e-5), 5), ((25, 1e-6), 3)):
        _, finer = _ecc(one, other, warp, until, blur, _inside(warp, SIDE))
        if finer is None:
            break
        warp = finer
    return warp


def _fit(one: Floats, other: Floats, warp: Floats, *, fine: bool = False) -> float:
    """How far they match at this place, or only their fine structure: settles most strangers."""
    how = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    laid = cv2.warpAffine(other, warp, (COARSE, COARSE), flags=how, borderMode=cv2.BORDER_REPLICATE)
    inner = slice(COARSE // 6, -(COARSE // 6))  # a border says nothing
    a, b = one, np.asarray(laid, dtype=np.float32)
    if fine:
        a, b = a - _blurred(a, 2), b - _blurred(b, 2)
    return _correlation(a[inner, inner].ravel(), b[inner, inner].ravel())


def _ecc(
    one: Floats, other: Floats, warp: Floats, until: tuple[int, float], blur: int = 5,
    mask: NDArray[np.uint8] | None = None,
) -> tuple[float, Floats | None]:  # fmt: skip
    inside = np.ones(other.shape, dtype=np.uint8) if mask is None else mask
    criteria = (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, *until)
    try:
        correlation, better = cv2.findTransformECC(one, other, warp.copy(), cv2.MOTION_AFFINE, criteria, inside, blur)
    except cv2.error:  # it does not converge, or nothing of them is shared
        return -1.0, None
    return float(correlation), np.asarray(better, dtype=np.float32)


def _inside(warp: Floats, side: int) -> NDArray[np.uint8]:
    """Pixels of the other picture that the first one shows, too: black borders must not pull."""
    back, ones = cv2.invertAffineTransform(warp), np.ones((side, side), dtype=np.uint8)
    there = cv2.warpAffine(ones, back, (side, side), flags=cv2.INTER_NEAREST | cv2.WARP_INVERSE_MAP, borderValue=0)
    around = np.ones((2 * RIM + 1,) * 2, dtype=np.uint8)
    return np.asarray(cv2.erode(there, around, borderType=cv2.BORDER_CONSTANT, borderValue=1), dtype=np.uint8)


def _rescaled(warp: Floats, factor: float) -> Floats:
    """The same map between pictures of another size; pixels lie at their middles."""
    turn, move, half = warp[:, :2].astype(np.float64), warp[:, 2].astype(np.float64), np.array([0.5, 0.5])
    moved = factor * (turn @ (half / factor - half) + move + half) - half
    return np.asarray(np.concatenate([turn, moved[:, None]], axis=1), dtype=np.float32)


def _both(one: Floats, other: Floats, warp: Floats) -> Likeness | None:
    """The worse of both directions; gray first, which settles most pairs."""
    laid, shared = _laid(other, warp)
    first = _worse([_channel(_gray(one), _gray(laid), shared)])
    if first is None or first.hole > HOLES or (one.shape[2] == 1 and warp is IDENTITY):
        return first
    back = np.asarray(cv2.invertAffineTransform(warp), dtype=np.float32)
    pairs = [(one[:, :, c], laid[:, :, c], shared) for c in range(one.shape[2])]
    if warp is not IDENTITY:
        laid_back, shared_back = _laid(one, back)
        pairs += [(other[:, :, c], laid_back[:, :, c], shared_back) for c in range(one.shape[2])]
    return _worse([_channel(np.ascontiguousarray(a), np.ascontiguousarray(b), mask) for a, b, mask in pairs])


def _worse(channels: list[Likeness | None]) -> Likeness | None:
    fits = [one for one in channels if one is not None]
    if len(fits) < len(channels):
        return None
    return Likeness(
        max(s.hole for s in fits), min(s.likeness for s in fits), max(s.noise for s in fits),
        max(s.blur for s in fits), max(s.changed for s in fits),
    )  # fmt: skip


def _laid(picture: Floats, warp: Floats) -> tuple[Floats, Mask]:
    """The picture as the other one would show it, and where both have something to show."""
    if warp is IDENTITY:
        return picture, np.ones((SIDE, SIDE), dtype=np.bool_)
    how = cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP
    laid = cv2.warpAffine(picture, warp, (SIDE, SIDE), flags=how, borderMode=cv2.BORDER_REPLICATE)
    across = warp[0, 0] * _X + warp[0, 1] * _Y + warp[0, 2]
    down = warp[1, 0] * _X + warp[1, 1] * _Y + warp[1, 2]
    there = _within(across, down, 0)
    rim = cv2.dilate((there != _OWN).astype(np.uint8), np.ones((2 * RIM + 1,) * 2, dtype=np.uint8))
    shared = there & _OWN & (rim == 0)
    if np.abs(_CORNERS @ warp.T - _CORNERS[:, :2]).max() > 0.75:  # its frame may lie within: a border, a corner
        shared &= _within(across, down, FRAME) & _within(_X, _Y, FRAME)
    return np.asarray(laid, dtype=np.float32).reshape(picture.shape), shared[_PAD:-_PAD, _PAD:-_PAD]


def _within(across: Floats, down: Floats, frame: float) -> Mask:
    least, most = frame - 0.6, SIDE - 0.4 - frame
    return np.asarray((across > least) & (across < most) & (down > least) & (down < most))


def _channel(one: Floats, other: Floats, shared: Mask) -> Likeness | None:
    """Of one channel, in one direction."""
    clipped = [*_clipped(one, CLIPPED), *_clipped(other, CLIPPED)]
    usable = shared & ~np.logical_or.reduce(clipped)
    if shared.mean() < LEAST_SHARED or usable.mean() < LEAST_USABLE:
        return None
    a, b = (_blurred(picture, 0.7) for picture in (one, other))
    fitted = _lit(a, b, usable)
    if fitted is None:
        return None
    lit, gain = fitted
    apart = a - lit
    apart[_explained(one, other, gain, apart) | ~shared] = 0
    gradient = np.asarray(np.maximum(_gradient(a), _gradient(lit)), dtype=np.float32)
    block, steep = _mean(apart), _mean(gradient)
    noise, blur = _noise(block[usable], steep[usable])
    holes = np.where(shared, np.abs(block) / np.sqrt(noise**2 + (blur * steep) ** 2), 0)
    fine_a, fine_b = (picture - _blurred(picture, 4) for picture in (a, lit))
    return Likeness(
        float(holes.max()), _correlation(fine_a[usable], fine_b[usable]), noise, blur,
        float((holes > HOLES).sum() / shared.sum()),
    )  # fmt: skip


def _explained(one: Floats, other: Floats, gain: float, apart: Floats) -> Mask:
    """Where saturation explains what differs: more than white is white. A stretched picture saturates in part, too."""
    white_a, black_a = _clipped(one, STRETCHED_CLIPPED if gain > STRETCHED else CLIPPED)
    white_b, black_b = _clipped(other, STRETCHED_CLIPPED if gain < 1 / STRETCHED else CLIPPED)
    return np.asarray(((white_a | black_b) & (apart < 0)) | ((white_b | black_a) & (apart > 0)))


def _clipped(picture: Floats, margin: float) -> tuple[Mask, Mask]:
    """(nearly white, nearly black), and what touches it."""
    around = np.ones((3, 3), dtype=np.uint8)
    white, black = (
        cv2.dilate(beyond.astype(np.uint8), around) > 0 for beyond in (picture > 255 - margin, picture < margin)
    )
    return np.asarray(white), np.asarray(black)


def _lit(a: Floats, b: Floats, usable: Mask) -> tuple[Floats, float] | None:
    """``b`` in the light of ``a``, and the gain; with a smooth offset, and fitted so that a change does not pull."""
    columns = np.concatenate([b.reshape(-1, 1) / 64, _LIGHT], axis=1)
    rows = np.flatnonzero(usable)
    rows = rows[:: max(1, len(rows) // FITTED)]
    some, target = columns[rows], a.reshape(-1)[rows]
    weight, ridge = np.ones(len(rows), dtype=np.float32), 1e-3 * np.eye(columns.shape[1])
    for _ in range(5):
        weighed = (some * weight[:, None]).T
        fitted = np.linalg.solve(weighed @ some + ridge, weighed @ target)
        left = target - some @ fitted
        spread = 1.4826 * np.median(np.abs(left)) + 0.5
        weight = 1 / (1 + (left / (2 * spread)) ** 2) ** 2
    gain = float(fitted[0]) / 64
    if not 0.2 < gain < 5:
        return None
    return np.asarray((columns @ fitted).reshape(a.shape), dtype=np.float32), gain


def _noise(block: Floats, steep: Floats) -> tuple[float, float]:
    """What differs everywhere (gray levels), and with the gradient (a share of it), by medians over bins."""
    order = np.argsort(steep)
    bins = np.array_split(order, 8)
    spread = np.array([1.4826 * np.median(np.abs(block[rows])) for rows in bins], dtype=np.float64)
    slope = np.array([np.median(steep[rows]) for rows in bins], dtype=np.float64)
    weight = 1 / (spread**2 + 0.5)
    (even, steeply), _ = nnls(np.stack([np.ones_like(slope), slope**2], axis=1) * weight[:, None], spread**2 * weight)
    return max(float(np.sqrt(even)), LEAST_NOISE), float(np.sqrt(steeply))


def _gradient(picture: Floats) -> Floats:
    across, down = (cv2.Sobel(picture, -1, k, 1 - k, scale=1 / 8) for k in (1, 0))
    return np.asarray(np.hypot(across, down), dtype=np.float32)


def _mean(picture: Floats) -> Floats:
    return np.asarray(cv2.blur(picture, (BLOCK, BLOCK), borderType=cv2.BORDER_REFLECT), dtype=np.float32)


def _blurred(picture: Floats, sigma: float) -> Floats:
    return np.asarray(cv2.GaussianBlur(picture, (0, 0), sigma), dtype=np.float32)


def _resized(picture: Floats, side: int) -> Floats:
    return np.asarray(cv2.resize(picture, (side, side), interpolation=cv2.INTER_AREA), dtype=np.float32)


def _correlation(a: Floats, b: Floats) -> float:
    a, b = a - a.mean(), b - b.mean()
    size = float(np.sqrt((a @ a) * (b @ b)))
    return float(a @ b) / size if size > 0 else 0.0
