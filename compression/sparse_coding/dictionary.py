"""K-SVD: a dictionary learned from the signals that it is to stand for."""

from collections.abc import Callable

import numpy as np
from scipy import sparse  # type: ignore[import-untyped]

from compression.sparse_coding.pursuit import Codes, Doubles, pursue, rounded

_SIGNALS_PER_ATOM = 64
_CLIPS = (1.0, 0.75, 0.5, 0.35)
"""Shares of an atom's largest gain that the largest whole number stands for, to be tried."""
_REFITS = 4
_RIDGE = 1e-9


def learn(
    signals: Doubles,
    atoms: int,
    nonzeros: int,
    *,
    tolerance: float,
    rounds: int,
    seed: int,
    told: Callable[[float], None] = lambda _: None,
) -> Doubles:
    """Atoms (K, d) of length 1 that give signals (n, d) by `nonzeros` entries each (Aharon, Elad, Bruckstein 2006).

    Approximate K-SVD (Rubinstein et al. 2008, CS-2008-08, algorithm 5): in each round all signals are coded anew, then
    each atom and its gains take one alternating step towards the best rank-one fit of what the others leave. An atom
    that no signal uses becomes the signal that is coded worst. At most 64 signals an atom are looked at.

    Args:
        signals: float64, not all zero.
        atoms: K, at most n.
        nonzeros: of a signal, at most.
        tolerance: squared residual at which a signal gets no more entries.
        rounds: of coding and updating.
        seed: of the first atoms, which are signals drawn at random.
        told: hears the share of the rounds that are done.
    """
    random = np.random.default_rng(seed)
    seen = sample(signals[np.any(signals != 0, axis=1)], atoms, random)
    dictionary = _first(seen, atoms, random)
    for count in range(rounds):
        codes = pursue(seen, dictionary, nonzeros, tolerance)
        _update(seen, dictionary, codes)
        told((count + 1) / rounds)
    return dictionary


def with_steps(signals: Doubles, dictionary: Doubles, nonzeros: int, tolerance: float, top: int) -> Doubles:
    """The dictionary with each atom as long as one step of its gains, so that gains are whole numbers up to `top`."""
    codes = pursue(signals, dictionary, nonzeros, tolerance)
    largest = np.zeros(len(dictionary))
    np.maximum.at(largest, codes.atoms.reshape(-1), np.abs(codes.gains).reshape(-1))
    largest[largest == 0] = largest.max(initial=0.0) or 1.0
    found, best = dictionary, np.inf
    for clip in _CLIPS:
        tried, error = _settled(
            signals, dictionary * (clip * largest / top)[:, None], nonzeros, tolerance, top
        )
        if error < best:
            found, best = tried, error
    return found


def coded(signals: Doubles, dictionary: Doubles, nonzeros: int, tolerance: float, top: int) -> Codes:
    """Codes with whole gains from -top to top."""
    return rounded(pursue(signals, dictionary, nonzeros, tolerance), signals, dictionary, top)


def refitted(signals: Doubles, codes: Codes, dictionary: Doubles) -> Doubles:
    """The dictionary that fits given codes best (least squares, Engan et al. 1999); unused atoms stay."""
    gains = matrix(codes, len(dictionary))
    inner = np.asarray((gains.T @ gains).todense())
    used = np.diagonal(inner) > 0
    if not used.any():
        return dictionary
    ridge = _RIDGE * float(np.diagonal(inner)[used].mean())
    made = dictionary.copy()
    held = inner[np.ix_(used, used)] + ridge * np.eye(int(used.sum()))
    pull = np.asarray(gains.T @ signals)[used] + ridge * dictionary[used]
    made[used] = np.linalg.solve(held, pull)
    return made


def matrix(codes: Codes, atoms: int) -> sparse.csr_array:
    """The gains as a sparse matrix (n, K)."""
    rows = np.repeat(np.arange(len(codes.atoms)), codes.atoms.shape[1])
    used = codes.gains.reshape(-1) != 0
    entries = codes.gains.reshape(-1)[used], (rows[used], codes.atoms.reshape(-1)[used])
    return sparse.csr_array(entries, shape=(len(codes.atoms), atoms))


def sample(signals: Doubles, atoms: int, random: np.random.Generator) -> Doubles:
    most = _SIGNALS_PER_ATOM * atoms
    if len(signals) <= most:
        return signals
    return signals[np.sort(random.choice(len(signals), most, replace=False))]


def _settled(
    signals: Doubles, dictionary: Doubles, nonzeros: int, tolerance: float, top: int
) -> tuple[Doubles, float]:
    """The dictionary after turns of coding in whole numbers and fitting to them, and its squared error."""
    best, least = dictionary, np.inf
    for _ in range(_REFITS):
        codes = coded(signals, dictionary, nonzeros, tolerance, top)
        dictionary = refitted(signals, codes, dictionary)
        error = float(np.sum((signals - codes.of(dictionary)) ** 2))
        if error < least:
            best, least = dictionary, error
    return best, least


def _first(signals: Doubles, atoms: int, random: np.random.Generator) -> Doubles:
    """Signals drawn at random, brought to length 1; noise where there are too few of them."""
    drawn = random.permutation(len(signals))[:atoms]
    made = random.normal(size=(atoms, signals.shape[1]))
    made[: len(drawn)] = signals[drawn]
    return np.asarray(made / np.linalg.norm(made, axis=1, keepdims=True))


def _update(signals: Doubles, dictionary: Doubles, codes: Codes) -> None:
    """One step for each atom, in place."""
    left = signals - codes.of(dictionary)
    used = np.flatnonzero(codes.gains.reshape(-1))
    order = used[np.argsort(codes.atoms.reshape(-1)[used], kind="stable")]
    edges = np.searchsorted(codes.atoms.reshape(-1)[order], np.arange(len(dictionary) + 1))
    gains, width = codes.gains.reshape(-1), codes.atoms.shape[1]
    for atom in range(len(dictionary)):
        entries = order[edges[atom] : edges[atom + 1]]
        rows = entries // width
        if not entries.size:
            worst = int(np.argmax(np.sum(left**2, axis=1)))
            length = float(np.linalg.norm(left[worst]))
            if length > 0:
                dictionary[atom] = left[worst] / length
                left[worst] = 0.0
            continue
        own = left[rows] + gains[entries, None] * dictionary[atom]
        towards = gains[entries] @ own
        length = float(np.linalg.norm(towards))
        if length > 0:
            dictionary[atom] = towards / length
        gains[entries] = own @ dictionary[atom]
        left[rows] = own - gains[entries, None] * dictionary[atom]
