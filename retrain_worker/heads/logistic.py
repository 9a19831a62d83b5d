"""Kept features and labels in, a calibrated linear head out.

Three things make it fast. The features are rotated to their principal components once, so that a fit of few
rows costs rows² and not rows x features (the regularised solution lies in the row space). The components are
scaled by the square root of the expected curvature, so that L-BFGS needs a dozen steps. And all folds and
label sets are solved as members of one convex problem, so that one matrix product serves them all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import eigh
from scipy.optimize import minimize, minimize_scalar

from labelloop.errors import NotEnoughLabelsError
from labelloop.model.head import Head
from labelloop.records.arrays import Floats
from labelloop.rules.acquisition.space import leading
from labelloop.rules.split import fold_of
from retrain_worker.heads.spreading import Neighbourhood

FOLDS = 5
GRID = tuple(float(10 ** (k / 2)) for k in range(-6, 3))  # strengths, weakest first
COARSE = (0.01, 0.1, 1.0)  # of a fit in which the pool takes part: its guesses hold the weights, too
USUAL = 0.1  # strength, where labels are too few to tell ...
DOUBT = 0.5  # ... and what a decade away from it costs, in nats: nothing beside a hundred labels
ABSENT = np.float32(-1e30)  # logit of a class without a label among a member's rows
COMPONENTS = 128  # of a fit in which unlabelled rows take part
TRUST_MIN = 20  # labels the backbone never saw, below which these alone do not calibrate

Ints = NDArray[np.int64]
Doubles = NDArray[np.float64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Rotated:
    """Features as principal components: ``features = rows @ basis * scale + mean``; exactly, without a pool."""

    rows: Floats  # (n, k), k <= min(n, features); mean squared norm 1; the labelled ones first
    basis: Floats  # (k, features), orthonormal
    mean: Floats  # (features,)
    scale: float
    near: Neighbourhood | None = None  # of all rows, where unlabelled ones take part
    say: float = 0.0  # of all guesses together, as a share of that of the labels

    def head(self, solution: Floats, labels: tuple[str, ...], temperature: float) -> Head:
        """Fold rotation, scale and mean into weight and bias. ``solution`` is (classes, k + 1)."""
        weight = (solution[:, :-1] @ self.basis) / np.float32(self.scale)
        bias = solution[:, -1] - weight @ self.mean
        return Head(labels, weight.astype(np.float32), bias.astype(np.float32), temperature)


@dataclass(frozen=True, slots=True)
class LinearFit:
    """A head and its out-of-fold answers."""

    head: Head
    strength: float
    oof: Floats  # (n, classes) calibrated probabilities of each row by a fit that did not see its fold
    folds: Floats  # (FOLDS, classes, k + 1) solutions with each fold hidden: a warm start for `cross_fit`
    log_losses: tuple[tuple[float, float], ...]  # (strength, out-of-fold log loss) of those tried
    cost: float  # of the chosen strength: the sum of its log losses and what speaks against it beforehand


def rotate(features: Floats) -> Rotated:
    """(n, features) to principal components; done once for all folds and label sets."""
    mean = features.mean(axis=0, dtype=np.float64).astype(np.float32)
    centred = features.astype(np.float32) - mean
    scale = float(np.sqrt(np.mean(np.einsum("ij,ij->i", centred, centred)))) or 1.0
    centred /= np.float32(scale)
    rows, basis = _components(centred)
    return Rotated(rows, basis, mean, scale)


def rotate_with_pool(features: Floats, pool: Floats, near: Neighbourhood, say: float) -> Rotated:
    """The same of labelled and unlabelled rows together, the leading 128 components: few labels cannot weigh more.

    ``near``: of the labelled rows, then those of the pool.
    """
    both = np.concatenate([features, pool]).astype(np.float32)
    mean = both.mean(axis=0, dtype=np.float64).astype(np.float32)
    both -= mean
    scale = float(np.sqrt(np.mean(np.einsum("ij,ij->i", both, both)))) or 1.0
    both /= np.float32(scale)
    basis = leading(both, COMPONENTS)
    return Rotated(both @ basis, np.ascontiguousarray(basis.T), mean, scale, near, say)


def _components(centred: Floats) -> tuple[Floats, Floats]:
    n, d = centred.shape
    # Double precision: the basis divides by small eigenvalues where the rows are the smaller side.
    exact = centred.astype(np.float64) if n < d else centred
    values, vectors = eigh(exact @ exact.T if n < d else (exact.T @ exact).astype(np.float64))
    keep = values > max(values[-1], 1e-12) * (1e-9 if n < d else 0.0)
    values, vectors = values[keep][::-1], vectors[:, keep][:, ::-1]
    if n < d:
        rows = vectors * np.sqrt(values)
        basis = (vectors / np.sqrt(values)).T @ exact
        return rows.astype(np.float32), basis.astype(np.float32)
    basis = vectors.T.astype(np.float32)
    return centred @ basis.T, basis


def fit_head(  # noqa: PLR0913 -- the columns of a table, and a recipe
    rotated: Rotated,
    labels: Sequence[str | None],
    groups: Sequence[str],
    *,
    classes: tuple[str, ...],
    strength: float | None = None,
    trusted: Bools | None = None,
    weights: Floats | None = None,
) -> LinearFit:
    """Choose the strength by cross-validation, calibrate out of fold, fit on all labels.

    ``strength``: that of the last fit; then only it and its neighbours on the grid are tried. ``trusted``
    (n,): rows whose labels the backbone never saw; only these choose and calibrate where there are enough.
    ``weights`` (n,): how much a row counts in the fits; all count alike in the choice.
    NotEnoughLabelsError where fewer than two classes have labels.
    """
    targets = codes(labels, classes)
    if len(np.unique(targets[targets >= 0])) < 2:
        raise NotEnoughLabelsError("a head needs labels of two classes")
    folds = folds_of(groups)
    search = _Search(rotated, targets, folds, len(classes), *judges(targets >= 0, trusted), weights)
    grid = GRID if rotated.near is None else COARSE
    best = min(search.run(_candidates(strength, grid)), key=lambda t: t.cost)
    head = rotated.head(best.solutions[FOLDS], classes, best.temperature)
    oof = softmax(best.logits / np.float32(best.temperature))
    tried = tuple((t.strength, t.loss) for t in search.tried)
    return LinearFit(head, best.strength, oof, best.solutions[:FOLDS], tried, best.cost)


def cross_fit(  # noqa: PLR0913 -- the columns of a table, and a recipe
    rotated: Rotated,
    label_sets: Sequence[Sequence[str | None]],
    groups: Sequence[str],
    *,
    classes: tuple[str, ...],
    strength: float,
    start: Floats | None = None,
    weights: Floats | None = None,
) -> list[Floats]:
    """Out-of-fold probabilities (n, classes) of every row, for each label set, all under one recipe.

    A row whose label is None (or no class) is predicted, never fitted. ``start``: `LinearFit.folds` of the
    same classes; the same folds were hidden there, so that it tells nothing about the rows it is judged on.
    """
    if not label_sets:
        return []
    folds = folds_of(groups)
    blocks = [hide(codes(labels, classes), folds) for labels in label_sets]
    begin = None if start is None else np.tile(start, (len(blocks), 1, 1))
    mass = mass_of(rotated, np.concatenate(blocks), len(classes), weights)
    solutions = solve(rotated, mass, strength, begin)
    parts = np.split(solutions, len(blocks))
    return [softmax(out_of_fold(rotated, p, b, folds)) for p, b in zip(parts, blocks, strict=True)]


@dataclass(frozen=True, slots=True)
class _Try:
    strength: float
    loss: float
    cost: float
    temperature: float
    solutions: Floats  # (FOLDS + 1, classes, k + 1); the last saw everything
    logits: Floats


@dataclass(slots=True)
class _Search:
    """Cross-validation over strengths; each begins at the solution of the one before."""

    rotated: Rotated
    targets: Ints
    folds: Ints
    classes: int
    judged: Bools  # rows that choose and calibrate
    sharpen: bool  # whether a temperature below 1 may be believed
    weights: Floats | None  # (n,)
    tried: list[_Try] = field(default_factory=list)

    def run(self, strengths: Sequence[float]) -> list[_Try]:
        members = hide(self.targets, self.folds)
        mass = mass_of(self.rotated, np.concatenate([members, self.targets[None]]), self.classes, self.weights)
        for strength in strengths:
            start = self.tried[-1].solutions if self.tried else None
            solutions = solve(self.rotated, mass, strength, start)
            logits = out_of_fold(self.rotated, solutions, members, self.folds)
            self.tried.append(self._judge(strength, solutions, logits))
        return self.tried

    def _judge(self, strength: float, solutions: Floats, logits: Floats) -> _Try:
        mine, truth = logits[self.judged], self.targets[self.judged]
        temperature = best_temperature(mine, truth)
        if not self.sharpen:
            temperature = max(temperature, 1.0)
        loss = log_loss(softmax(mine / np.float32(temperature)), truth)
        cost = len(truth) * loss + DOUBT * float(np.log10(strength / USUAL)) ** 2
        return _Try(strength, loss, cost, temperature, solutions, logits)


def judges(usable: Bools, trusted: Bools | None) -> tuple[Bools, bool]:
    """Which rows choose, and whether they may sharpen: labels that the backbone saw look surer than they are."""
    if trusted is None:
        return usable, True
    both = usable & trusted
    return (both, True) if int(both.sum()) >= TRUST_MIN else (usable, False)


def codes(labels: Sequence[str | None], classes: tuple[str, ...]) -> Ints:
    """Class numbers (n,); -1 for None and for a class that does not take part."""
    place = {name: k for k, name in enumerate(classes)}
    return np.array([-1 if name is None else place.get(name, -1) for name in labels], dtype=np.int64)


def folds_of(groups: Sequence[str]) -> Ints:
    """The fold of every row (n,): by group, so that duplicates share one and folds never move."""
    return np.array([fold_of(group, FOLDS) for group in groups], dtype=np.int64)


def hide(targets: Ints, folds: Ints) -> Ints:
    """(FOLDS, n): row k holds the class numbers with fold k hidden (-1)."""
    return np.where(folds[None] == np.arange(FOLDS)[:, None], -1, targets[None])


def out_of_fold(rotated: Rotated, solutions: Floats, members: Ints, folds: Ints) -> Floats:
    """Each row's logits (n, classes) by the member that did not see its fold."""
    classes = solutions.shape[1]
    out = np.empty((len(folds), classes), dtype=np.float32)
    for k in range(FOLDS):
        mine = folds == k
        logits = rotated.rows[: len(folds)][mine] @ solutions[k, :, :-1].T + solutions[k, :, -1]
        out[mine] = np.where(np.isin(np.arange(classes), members[k]), logits, ABSENT)
    return out


def mass_of(rotated: Rotated, targets: Ints, classes: int, weights: Floats | None = None) -> Floats:
    """How much each row counts as each class: (members, classes, rows).

    ``targets`` (members, labelled) are class numbers, -1 hidden. ``weights`` (labelled,): how much a label counts. A
    row without one counts as its guess, if the pool takes part.
    """
    labelled = targets.shape[1]
    hot: Floats = (targets[:, None, :] == np.arange(classes)[None, :, None]).astype(np.float32)
    if weights is not None:
        hot *= weights.astype(np.float32)
    if rotated.near is None:
        return hot
    visible = targets >= 0
    mass = rotated.near.guess(targets, classes)
    mass *= np.float32(rotated.say) * visible.sum(axis=1).astype(np.float32)[:, None, None] / mass.shape[2]
    mass[:, :, :labelled] = np.where(visible[:, None, :], hot, mass[:, :, :labelled])
    return np.asarray(mass, dtype=np.float32)


def solve(rotated: Rotated, mass: Floats, strength: float, start: Floats | None = None) -> Floats:
    """Minimise, for every member, weighted sum of log losses + strength / 2 x squared weights (bias is free).

    ``mass`` as `mass_of` gives it. Returns (members, classes, k + 1), the bias last. Members barely differ, so that one
    L-BFGS over all needs no more steps than one.
    """
    members, classes, _ = mass.shape
    if classes < 2:  # a single class is certain whatever the weights
        return np.zeros((members, classes, rotated.rows.shape[1] + 1), dtype=np.float32)
    curvature = 0.5 * (1 - 1 / classes) / classes
    say = mass.sum(axis=1).mean(axis=0)
    spread = say @ rotated.rows**2
    stretch = np.sqrt(np.append(curvature * spread + strength, curvature * max(float(say.sum()), 1.0)))
    stretch = stretch.astype(np.float32)
    columns = np.concatenate([rotated.rows, np.ones((len(rotated.rows), 1), np.float32)], axis=1) / stretch
    penalty = np.append(np.full(rotated.rows.shape[1], strength), 0.0) / stretch**2
    shape = (members, classes, len(stretch))
    begin = np.zeros(shape) if start is None else start.astype(np.float64) * stretch
    optimum = minimize(
        _Loss(columns, mass, penalty.astype(np.float32)), begin.ravel(), jac=True, method="L-BFGS-B",
        options={"maxiter": 100, "maxcor": 8, "gtol": 1e-6, "ftol": 1e-7},
    )  # fmt: skip
    return np.asarray(optimum.x.reshape(shape) / stretch, dtype=np.float32)


class _Loss:
    """Mean over members and rows of loss and gradient. Rows run last, so that every step is contiguous."""

    def __init__(self, columns: Floats, mass: Floats, penalty: Floats) -> None:
        self._columns, self._penalty = columns, penalty
        self._hot = mass
        self._absent = np.where(mass.any(axis=2), np.float32(0), ABSENT)[:, :, None]
        self._mask = mass.sum(axis=1)
        self._count = max(1.0, float(self._mask.sum()))

    def __call__(self, flat: Doubles) -> tuple[float, Doubles]:
        members, classes, n = self._hot.shape
        weights = flat.astype(np.float32).reshape(members * classes, -1)
        logits = (weights @ self._columns.T).reshape(members, classes, n)
        logits += self._absent
        logits -= logits.max(axis=1, keepdims=True)
        chosen = float(np.vdot(logits, self._hot))
        np.exp(logits, out=logits)
        total = logits.sum(axis=1)
        entropy = float(np.vdot(np.log(total), self._mask))
        logits *= (self._mask / total)[:, None, :]
        logits -= self._hot
        shrunk = weights * self._penalty
        slope = logits.reshape(members * classes, n) @ self._columns + shrunk
        value = entropy - chosen + 0.5 * float(np.vdot(weights, shrunk))
        return value / self._count, slope.ravel().astype(np.float64) / self._count


def softmax(logits: Floats) -> Floats:
    """(n, classes) logits to probabilities."""
    exp = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(exp / exp.sum(axis=1, keepdims=True), dtype=np.float32)


def log_loss(probabilities: Floats, targets: Ints) -> float:
    """Mean negative log probability of the given class, each at most that of one in a million."""
    of_truth = probabilities[np.arange(len(targets)), targets]
    return float(-np.log(np.clip(of_truth.astype(np.float64), 1e-6, 1.0)).mean())


def best_temperature(logits: Floats, targets: Ints) -> float:
    """The divisor of the logits with the least log loss; a weak prior holds it near 1 at few labels."""
    learned = logits[np.arange(len(targets)), targets] > ABSENT / 2
    if not learned.any():
        return 1.0

    def cost(log_t: float) -> float:
        loss = log_loss(softmax(logits[learned] / np.float32(np.exp(log_t))), targets[learned])
        return float(learned.sum()) * loss + log_t**2

    return float(np.exp(minimize_scalar(cost, bounds=(-2.0, 2.0), method="bounded").x))


def _candidates(strength: float | None, grid: tuple[float, ...]) -> tuple[float, ...]:
    """Strongest first, so that each fit starts from a smoother one."""
    if strength is None:
        return grid[::-1]
    here = min(range(len(grid)), key=lambda k: abs(np.log(grid[k] / strength)))
    return grid[max(0, here - 1) : here + 2][::-1]
