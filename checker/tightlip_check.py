"""tightlip-check: is what a certificate says true? A second implementation, which shares nothing with the first.

It proves every constant and evaluates every input again, and compares in rationals: nothing larger passes. Format and
proofs: docs/certificate-format.md, docs/auditing.md. It needs NumPy alone. With u = 2⁻⁵³ and γ_n = n·u/(1 − n·u):

    sums       of n terms, in any order, with or without fused multiply-add, are off by γ_n·Σ|terms|
    matrices   A = λI − WᵀW has a Cholesky factor  ⟹  ‖W‖₂² ≤ λ + γ_m‖W‖_F² + u·max A_ii + γ_{n+3}/(1 − γ_{n+3})·tr A
    kernels    the same for the symbol at finitely many frequencies, and Riesz' lemma between them
    values     error ← c·error + γ·(‖|W||x|‖ + ‖b‖) with c proven, in the 2-norm and in the ∞-norm
    radii      r·S_ti ≤ y_t − y_i − error for every class i: only then does r stand

With --exact nothing rounds, for small networks. Ends with 0: proven; 1: rejected; 2: a file or a layer is not known.
"""

import argparse
import functools
import hashlib
import io
import itertools
import json
import math
import types
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
Table = dict[tuple[float, float], Fraction]
VERSION, INF, U, UNKNOWN = 1, math.inf, Fraction(1, 2**53), NotImplementedError
REAL = "exact arithmetic on the stored weights; every constant is a float64 upper bound"
NORMS, DUAL = {"1": 1, "2": 2, "inf": INF}, {1: INF, 2: 2, INF: 1}
GROUNDS = {"version", "inputs_sha256", "shape", "norms", "merged"}
BOUND = {"arithmetic", "constant", "input_norm", "output_norm", "layers"}
PROVEN = BOUND ^ {"layers", "bound", "certified_accuracy", "eps", "format", "grounds", "label", "margin"}
PROVEN |= {"model_sha256", "prediction", "radius", "sensitivity", "standardized"}
PAIRS = [(p, q) for p in DUAL for q in DUAL if p <= q]
TINY = 2.0**-980  # more than underflow takes from sums of numbers near 1, in threads that flush it to zero too
GROWN = 1 + 2.0**-20  # more than sums of a few bounds round, and of the squares of up to 2³⁰ entries
REACH, MOST_CELLS, LEAST_CELL, BATCH = 1.0, 2**15, 1e-5, 128
every = functools.partial(dict.fromkeys, PAIRS)
rational = np.vectorize(Fraction, otypes=[object])


def need(true: Any, sentence: str, otherwise: type[Exception] = ValueError) -> None:
    """Reject unless this is true; UNKNOWN is what is neither proven nor refuted here."""
    if not true:
        raise otherwise(sentence)


def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    need(len(dict(pairs)) == len(pairs), "a JSON object gives a name twice")
    return dict(pairs)


def number(value: Any, least: float = -INF) -> Any:
    """Itself: an integer or a float of JSON, and nothing that Python would take for one."""
    need(type(value) in (int, float) and least <= value < INF, f"{value!r:.40} is not a finite number ≥ {least}")
    return value


def read_model(data: bytes) -> tuple[Any, dict[str, Array]]:
    """The description and the tensors of a safetensors file, which fill it without gaps. No code, no pickle."""
    kinds = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2"}
    start = end = 8 + int.from_bytes(data[:8], "little")
    header, tensors = json.loads(data[8:end], object_pairs_hook=once), {}
    described = json.loads(header.pop("__metadata__")["tightlip"], object_pairs_hook=once)
    known = described["format"] == 2 and all(entry["dtype"] in kinds for entry in header.values())
    need(known, f"a model of format {described['format']!r:.20}, or with tensors of another dtype", UNKNOWN)
    for name, entry in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
        shape, (first, last), kind = entry["shape"], entry["data_offsets"], np.dtype(kinds[entry["dtype"]])
        fits = start + first == end <= start + last <= len(data) and last - first == math.prod(shape) * kind.itemsize
        need(fits, f"the bytes of {name!r:.60} are not where the header says")
        values, end = np.frombuffer(data[end : start + last], kind).reshape(shape), start + last
        values = (values.astype("<u4") << 16).view("<f4") if entry["dtype"] == "BF16" else values  # its upper half
        tensors[name] = values.astype(np.float64)
        need(np.isfinite(tensors[name]).all(), f"{name!r:.60} holds NaN or infinity")
    need(end == len(data), "the model holds bytes of no tensor")
    return described["network"], tensors


def read_inputs(data: bytes) -> tuple[Array, Array, str]:
    """Inputs x and labels y of an .npz file that is not compressed, and the hash of both."""
    with np.load(io.BytesIO(data), allow_pickle=False) as file:
        need(sum(entry.file_size for entry in file.zip.infolist()) <= len(data), "the inputs are compressed")
        x, y = file["x"], file["y"]
    held = b"".join(f"{key} {a.dtype.str} {a.shape}\n".encode() + a.tobytes() for key, a in (("x", x), ("y", y)))
    kinds = x.dtype.kind == "f" and x.itemsize <= 8 and y.dtype.kind in "iu"
    need(kinds and x.ndim > 1 and y.shape == x.shape[:1] and x.size, "x and y are not inputs and their labels")
    return x.astype(np.float64), y.astype(np.int64), hashlib.sha256(held).hexdigest()


def gamma(n: int) -> Fraction:
    return n * U / (1 - n * U)


def root(x: Fraction) -> Fraction:
    """√x, exactly where it is rational, else a hair above."""
    exact = Fraction(math.isqrt(x.numerator), math.isqrt(x.denominator))
    k = 128 + max(0, x.denominator.bit_length() - x.numerator.bit_length())
    return exact if exact**2 == x else Fraction(math.isqrt(4**k * x.numerator // x.denominator) + 1, 2**k)


def scaled(W: Array) -> tuple[Array, Fraction]:
    """W/s and s, a power of two, so that the largest entry is in [½, 1)."""
    power = math.frexp(np.abs(W).max(initial=0))[1]
    return np.ldexp(W, -power), Fraction(2) ** power


def lengths(rows: Array, order: float) -> list[Fraction]:
    """The norm of every row, from above: sums are rounded once (`math.fsum`), and squares before."""
    rows = np.abs(rows)
    if order == INF or not rows.any():
        return [Fraction(row.max(initial=0)) for row in rows]
    if rows.dtype == object:
        sums = [Fraction(row.sum()) for row in rows**order]
    else:
        rows, s = scaled(rows)
        sums = [(Fraction(math.fsum(r)) * (1 + 4 * U) + Fraction(TINY)) * s**order for r in (rows**order).tolist()]
    return sums if order == 1 else [root(square) for square in sums]


def after(table: Table, layer: "Layer") -> Table:
    """What is proven from the input to behind a layer, by what is proven before it."""
    if layer.kind == "Residual":
        (*_, behind) = itertools.accumulate(layer.inner, after, initial=table)
        return {pair: (table[pair] + behind[pair]) / 2 for pair in PAIRS}
    return {(p, q): min(table[p, r] * layer.table[r, q] for r in DUAL if p <= r <= q) for p, q in PAIRS}


def copied(n: int) -> Table:
    """Of maps that are 1-Lipschitz into the ∞-norm, where at most n outputs move with an input."""
    return {(p, q): {1: Fraction(n), 2: root(Fraction(n)), INF: Fraction(1)}[q] for p, q in PAIRS}


def definite(M: Array) -> bool:
    """Whether a symmetric matrix of rationals is positive definite: leading minors, without fractions (Bareiss)."""
    common, before = math.lcm(*(entry.denominator for entry in M.ravel())), 1
    M = np.vectorize(lambda entry: int(entry * common), otypes=[object])(M)
    while M.size and M[0, 0] > 0:
        M, before = (M[1:, 1:] * M[0, 0] - np.outer(M[1:, 0], M[0, 1:])) // before, M[0, 0]
    return not M.size


def factors(W: Array, square: Fraction, sign: int = 1) -> bool:
    """Whether WᵀW ≤ square·I is proven, or ≥ for sign −1 (WWᵀ of a wide W)."""
    W = W if W.shape[0] >= W.shape[1] else W.T
    if W.dtype == object:
        return not W.any() or definite(np.diag([square] * W.shape[1]) - W.T.dot(W))
    W, s = scaled(W)
    G, n, square = W.T @ W, W.shape[1], square / s**2
    lost = gamma(len(W)) * Fraction(math.fsum((W * W).ravel().tolist())) * (1 + 4 * U) + Fraction(TINY)
    share, trace = gamma(n + 3) / (1 - gamma(n + 3)), Fraction(math.fsum(G.diagonal()))
    guess = lost + 3 * U * (square + Fraction(G.diagonal().max())) + share * max(sign * (n * square - trace), 0)
    shift = float(square - sign * guess * Fraction(1.001))
    A = sign * (shift * np.eye(n) - G)
    try:
        finite = np.isfinite(np.linalg.cholesky(A)).all()
    except np.linalg.LinAlgError:
        return not W.any() and sign > 0
    loss = lost + U * Fraction(A.diagonal().max()) + share * sum(map(Fraction, A.diagonal()))
    return bool(finite) and sign * (Fraction(shift) - square) + loss <= 0


def holds(P: Array, c: Fraction) -> bool:
    """Whether sup_ω ‖Σ_t P_t e^{i⟨ω,t⟩}‖₂ ≤ c is proven, with P (out, in, *places): for images of every size.

    Cells with middles g and reach θ = Σ n_a·h_a cover half of the torus; −ω is as ω. If the squares of all singular
    values at all g are within r of m, all are within r/cos θ; if at each g they are ≤ c²(1 + cos θ)/2, all are ≤ c².
    """
    places = np.argwhere(np.abs(P).max((0, 1)))
    if len(places) < 2:
        return factors(P.reshape(*P.shape[:2], -1).sum(2), c * c)
    (P, s), places = scaled(P[:, :, *places.T]), places - places.min(0)
    P, c, degrees, total = P if len(P) >= P.shape[1] else P.swapaxes(0, 1), c / s, places.max(0), np.abs(P).sum(2)
    size = root(max(lengths(total, 1)) * max(lengths(total.T, 1)))
    stray = 2 * (gamma(2 * len(places) + 4) + (20 * int(degrees.sum()) + 10) * U) * size

    def at(g: Array) -> Array:
        return P @ np.cos(places @ g) + 1j * (P @ np.sin(places @ g))

    def within(g: Array, bound: Fraction, sign: int) -> bool:
        level, K = bound / root(bound) - stray if sign > 0 else root(bound) + stray, at(g)  # for what is computed
        return level > 0 and factors(np.block([[K.real, -K.imag], [K.imag, K.real]]), level**2, sign)

    counts = np.maximum(1, np.ceil(math.pi * degrees * np.count_nonzero(degrees) / REACH)).astype(int)
    half = math.pi / counts * (1 + 1e-9)
    cells = [(2 * np.array(k) + 1) * math.pi / counts for k in np.ndindex(*counts) if k <= tuple(counts - 1 - k)]
    about = np.linalg.eigvalsh(np.stack([K.conj().T @ K for K in map(at, cells)]))  # estimates: nothing rests on them
    m = (Fraction(about.min()) + Fraction(about.max())) / 2
    r = (c * c - m) * Fraction(math.cos(degrees @ half) * (1 - 1e-12))
    if float(np.ptp(about)) < 2 * r < 2 * m and all(within(g, m + r, 1) and within(g, m - r, -1) for g in cells):
        return True
    while 0 < len(cells) <= MOST_CELLS and half.max() > LEAST_CELL and all(within(g, c * c, 1) for g in cells):
        level = c * c * (1 - Fraction(math.sin(degrees @ half / 2) ** 2 * (1 + 1e-12)))
        cells = [g for g in cells if not within(g, level, 1)]
        moves = itertools.product(*((-h / 2, h / 2) if n else (0,) for n, h in zip(degrees, half, strict=True)))
        cells, half = [g + move for move in moves for g in cells], half / 2 * (1 + 1e-8)  # more than middles round
    return not cells


def sizes(x: Array) -> Array:
    """The 2-norm and the ∞-norm of every example, from above: (2, batch)."""
    flat = np.abs(x.reshape(len(x), -1))
    top = flat.max(1, initial=0)
    scale = np.maximum(top, TINY)
    return np.stack([scale * np.sqrt(np.square(flat / scale[:, None]).sum(1)) * GROWN + TINY, top])


def ulps(n: int, y: Array, apart: Any = 0.0) -> Array:
    """So many roundings of each output, or of numbers as large as it and as ``apart``: (2, batch)."""
    return float(gamma(n + 1)) * (sizes(y) + np.abs(apart).max() * np.array([[math.sqrt(y[0].size)], [1]]))


class Layer(types.SimpleNamespace):
    """One map: name, kind, options o, tensors t, claimed 2-norm, an example x that it takes; of a block its layers."""

    @property
    def walk(self) -> list[list[int]]:
        """Kernel, stride, dilation and padding along each axis; a linear layer has none."""
        axes, k = 0 if self.kind == "Linear" else int(self.kind[-2]), self.o.get("kernel_size")
        found = [k, self.o.get("stride") or k, self.o.get("dilation"), self.o.get("padding")]
        found = [v if isinstance(v, list) else [v] * axes for v in found]
        need(all(type(n) is int and n >= (i < 3) for i, v in enumerate(found) for n in v), f"sizes at {self.name!r}")
        return found

    def windows(self, x: Array, fill: float) -> Array:
        """Of the last axes what each output reads: (…, *outputs, *kernel)."""
        (k, s, d, pad), first = self.walk, x.ndim - len(self.walk[0])
        need(first > 0 and len(k) == len(s) == len(d) == len(pad), f"{self.name!r} takes no inputs of shape {x.shape}")
        x = np.pad(x, [(0, 0)] * first + [(n, n) for n in pad], constant_values=fill)
        spans = [b * (a - 1) + 1 for a, b in zip(k, d, strict=True)]
        view = np.lib.stride_tricks.sliding_window_view(x, spans, tuple(range(first, x.ndim)))
        return view[tuple(slice(None, None, step) for step in (*[1] * first, *s, *d))]

    def uses(self) -> Table:
        """Of a pool: an entry lies in at most ∏ ⌈k / (s / gcd(s, d))⌉ windows."""
        return copied(math.prod(-(-k // (s // math.gcd(s, d))) for k, s, d in zip(*self.walk[:3], strict=True)))

    def convolved(self, x: Array) -> Array:
        W, axes = self.t["weight"], len(self.walk[0])
        need(x.ndim == axes + 2 and x.shape[1] == W.shape[1], f"{self.name!r} takes no inputs of shape {x.shape}")
        view = np.moveaxis(self.windows(x, 0), 1, 1 + axes)
        y = np.dot(view.reshape(len(x), -1, W[0].size), W.reshape(len(W), -1).T) + self.t["bias"]
        return np.moveaxis(y, 2, 1).reshape(len(x), len(W), *view.shape[1 : 1 + axes])

    def phases(self) -> Array:
        """The convolution of stride 1 whose channels are pixels modulo the stride: (out, in, *places)."""
        (k, s, d, _), W = self.walk, self.t["weight"]
        places = [b * (a - 1) // c + 1 for a, b, c in zip(k, d, s, strict=True)]
        P = np.zeros((*W.shape[:2], *s, *places), W.dtype)
        for tap in np.ndindex(*k):
            q, r = np.divmod(np.array(d, int) * np.array(tap, int), np.array(s, int))
            P[:, :, *r, *q] = W[:, :, *tap]
        return P.reshape(len(W), -1, *places)

    def proven(self) -> Table:
        """Norms of a linear layer: p→∞ by rows, 1→q by columns, and 2→2 as it is claimed, once that is proven."""
        W, P, c = self.t["weight"], self.phases(), Fraction(self.claim or 0)
        table = {(1, q): max(lengths(np.moveaxis(P, 1, 0).reshape(P.shape[1], -1), q)) for q in DUAL}
        table |= {(p, INF): max(lengths(W.reshape(len(W), -1), q)) for p, q in DUAL.items()}
        self.two = root(table[1, 1] * table[INF, INF])  # of |W| too
        if self.kind == "Linear":
            self.two = min(self.two, lengths(W.reshape(1, -1), 2)[0])
        elif W.dtype == object:  # the operator for images of this size
            basis = rational(np.eye(self.x.size)).reshape(-1, *self.x.shape[1:])
            P = (self.convolved(basis) - self.convolved(0 * basis)).reshape(len(basis), -1)
        need(c >= 0 and (self.claim is None or holds(P, c)), f"the 2-norm {self.claim} of {self.name!r} is not proven")
        return table | {(2, 2): self.two if self.claim is None else min(self.two, c)}

    def weighed(self, x: Array, y: Array) -> Array:
        """Of a linear layer γ·(|W||x| + |b|), by its norms and by rows; and what threads may flush."""
        n, b, (x2, top) = self.t["weight"][0].size, sizes(self.t["bias"][None])[:, 0], sizes(x)
        two, rows1, rows2 = (float(c) * GROWN for c in (self.two, self.table[INF, INF], self.table[2, INF]))
        spread, tiny = two * x2 + b[0] * math.sqrt(y[0].size / len(self.t["bias"])), TINY * (1 + two) * (1 + x2)
        return float(gamma(n + 1)) * np.stack([spread, np.minimum(rows1 * top, rows2 * x2) + b[1]]) + tiny

    def sorted(self, x: Array) -> Array:
        o, axis = self.o, self.o["dim"] % x.ndim
        n, close = x.shape[axis], o.get("contiguous", True)
        k = {"MaxMin": 2, "FullSort": n}.get(self.kind) or o["group_size"] or n
        need(axis > 0 and k > 0 and n % k == 0, "features do not divide into groups")
        x = np.moveaxis(x, axis, -1)
        groups = x.reshape(*x.shape[:-1], *((n // k, k) if close else (k, n // k)))
        groups = groups.max(-1) if self.kind == "Maxout" else np.sort(groups, -1 - (not close))
        return np.moveaxis(groups.reshape(*x.shape[:-1], -1), -1, axis)

    def shifted(self, x: Array) -> Array:
        """Of pairs of channels one moves forward by a pixel and one backward."""
        o, axis = self.o, self.o["dim"] % x.ndim
        need(axis > 1 and 0 <= o["part"] <= 1, "pixels are not moved along this axis")
        x, pairs = np.moveaxis(x, axis, 0), int(o["part"] * x.shape[1] / 2)
        a, b, rest = np.split(x, [pairs, 2 * pairs], 2)
        ends = {"bounce": (b[:1], a[-1:]), "circular": (a[-1:], b[:1]), "zeros": (0 * a[:1], 0 * a[:1])}[o["boundary"]]
        a, b = np.concatenate([ends[0], a[:-1]]), np.concatenate([b[1:], ends[1]])
        return np.moveaxis(np.concatenate([a, b, rest], 2), 0, axis)

    def normalized(self, x: Array) -> Array:
        mean, std = self.t["mean"], self.t.get("std", self.t["mean"] ** 0)
        need({mean.size, std.size} <= {x.shape[1], *[1] * ("std" in self.t)}, "channels do not fit")
        return np.moveaxis((np.moveaxis(x, 1, -1) - mean) / std, -1, 1)

    def distances(self, x: Array) -> Array:
        """±‖x − w_j‖_∞ + b_j; or of funnels min_j(‖x − y_j‖_p + p_j)."""
        o, t, norm = self.o, self.t, self.o.get("norm", "inf")
        far: Any = {"1": lambda v: v.sum(1), "2": lambda v: np.sqrt((v * v).sum(1)), "inf": lambda v: v.max(1)}[norm]
        found = np.stack([far(np.abs(x - y)) for y in t["points" if "points" in t else "weight"]], 1)
        return (found + t["offsets"]).min(1)[:, None] if "points" in t else (-1) ** o["negative"] * found + t["bias"]

    def grown(self) -> Table:
        """Of funnels: ‖·‖_p ≤ d^(1/p − 1/r)·‖·‖_r for r > p."""
        p, d = NORMS[self.o["norm"]], Fraction(self.o["sizes"][1])
        return {(r, q): Fraction(1) if r <= p else d if (p, r) == (1, INF) else root(d) for r, q in PAIRS}


KINDS: dict[str, Any] = {  # what a layer computes; its norms, unless all are 1; how far it strays, if it does
    **dict.fromkeys(("Identity", "Dropout", "Dropout1d", "Dropout2d", "Dropout3d"), (lambda s, x: x,)),
    **dict.fromkeys(("GroupSort", "MaxMin", "FullSort", "Maxout"), (Layer.sorted,)),
    **dict.fromkeys(
        ("MaxPool1d", "MaxPool2d", "MaxPool3d"),
        (lambda s, x: s.windows(x, -INF).max(tuple(range(-int(s.kind[-2]), 0))), Layer.uses),
    ),
    **dict.fromkeys(("Conv1d", "Conv2d", "Conv3d"), (Layer.convolved, Layer.proven, Layer.weighed)),
    "Linear": (lambda s, x: np.dot(x, s.t["weight"].T) + s.t["bias"], Layer.proven, Layer.weighed),
    "Flatten": (lambda s, x: x.reshape(len(x), -1),),
    **{"ReLU": (lambda s, x: np.maximum(x, 0),), "Abs": (lambda s, x: abs(x),), "Shift": (Layer.shifted,)},
    "Scale": (lambda s, x: s.t["scale"] * x, lambda s: every(Fraction(abs(s.o["scale"]))), lambda s, x, y: ulps(1, y)),
    "Normalize": (Layer.normalized, lambda s: every(1 / Fraction(abs(s.t["std"]).min())), lambda s, x, y: ulps(2, y)),
    "MeanShift": (Layer.normalized, lambda s: every(Fraction(1)), lambda s, x, y: ulps(1, y)),
    "LinfDistance": (Layer.distances, lambda s: copied(len(s.t["bias"])), lambda s, x, y: ulps(3, y, s.t["bias"])),
    "Funnels": (Layer.distances, Layer.grown, lambda s, x, y: ulps(x.shape[1] + 8, y, abs(s.t["offsets"]) + 2.0**-440)),
}
FLAGS = {"bias", "contiguous", "negative", "ceil_mode", "return_indices", "trainable"}
OPTIONS = {"start_dim": 1, "end_dim": -1, "ceil_mode": False, "return_indices": False, "padding_mode": "zeros"}


class Network:
    """The layers of a description, one after another; ``reached`` is what is proven from the input to each."""

    def __init__(self, outline: Any, tensors: dict[str, Array], claims: dict[str, float], example: Array) -> None:
        self.tensors, self.named = tensors, dict[str, Table]()
        self.claims = {name: number(claim, 0) for name, claim in claims.items()}
        self.chain, self.output = self.build(outline, example, "")
        need(not tensors and not self.claims, "the model holds tensors, or the certificate norms, of no layer")
        self.reached = [*itertools.accumulate(self.chain, after, initial=every(Fraction(1)))]

    def build(self, outline: Any, x: Array, name: str) -> tuple[list[Layer], Array]:
        """The layers, and what they make of an example."""
        (kind, o, *children), example, chain = outline, x, list[Layer]()
        if kind in ("Sequential", "Residual"):
            for key, child in children[0]:
                layers, x = self.build(child, x, f"{name}.{key}".lstrip("."))
                chain += layers
            if kind == "Residual":
                need(x.shape == example.shape, f"the block {name!r} changes the shape")
                self.named[name] = every(Fraction(1))  # of the mean alone
                chain = [Layer(name=name, kind=kind, inner=chain)]
            return chain, x
        odd = [key for key, value in {**OPTIONS, "groups": 1}.items() if o.get(key, value) != value]
        need(all(type(o[key]) is bool for key in FLAGS & o.keys()), f"an option of {name!r} is neither true nor false")
        odd += ["padding"] * isinstance(o.get("padding"), str) + ["norm"] * (x.dtype == object and o.get("norm") == "2")
        need(kind in KINDS and not odd, f"{kind!s:.40} at {name!r}, with {', '.join(odd) or 'any options'}", UNKNOWN)
        claim = self.claims.pop(name, None) if Layer.proven in KINDS[kind] else None
        layer = Layer(name=name, kind=kind, o=o, t={}, claim=claim, x=x)
        found = {key: np.shape(o[key]) for key in ("mean", "std", "scale") if key in o}
        found |= {"mean": (o["features"],)} if "features" in o else {}
        found |= {"points": (*o["sizes"],), "offsets": (o["sizes"][0],)} if "sizes" in o else {}
        found |= {"weight": (o["out_features"], o["in_features"])} if "in_features" in o else {}
        found |= {"weight": (o["out_channels"], o["in_channels"], *o["kernel_size"])} if "in_channels" in o else {}
        found |= {"bias": found["weight"][:1]} if o.get("bias") else {}
        for key, shape in found.items():
            values = self.tensors.pop(f"{name}.{key}".lstrip("."))  # each is taken once
            need(values.shape == shape, f"{key} of {name!r} has shape {values.shape}, not {shape}")
            need(key == "bias" or np.array_equal(values, o.get(key, values)), f"{name!r} is described otherwise")
            layer.t[key] = rational(values) if x.dtype == object else values
        if "weight" in layer.t:
            layer.t.setdefault("bias", 0 * layer.t["weight"].reshape(len(layer.t["weight"]), -1)[:, 0])
        rows = {"LinfDistance": "weight", "Funnels": "points"}.get(kind)
        fits = -x.ndim <= o.get("dim", 0) < x.ndim and (rows is None or x.shape[1:] == layer.t[rows].shape[-1:])
        need(fits, f"{name!r} takes no inputs of shape {x.shape}")  # nothing is broadcast
        layer.table = self.named[name] = (*KINDS[kind], lambda s: every(Fraction(1)))[1](layer)
        return [layer], KINDS[kind][0](layer, x)

    def through(self, x: Array, e: Array, chain: list[Layer]) -> tuple[Array, Array]:
        """Values at inputs that are off by e, and how far they are off, in the 2- and in the ∞-norm."""
        for layer in chain:
            run, _, strays = (*KINDS.get(layer.kind, ()), None, None, None)[:3]
            if layer.kind == "Residual":
                y, f = self.through(x, e, layer.inner)
                y, e, strays = (x + y) / 2, (e + f) / 2, lambda s, x, y: ulps(1, y)
            else:
                y, c = run(layer, x), {pair: float(c) for pair, c in layer.table.items()}
                e = np.stack([c[2, 2] * e[0], np.minimum(c[INF, INF] * e[1], c[2, INF] * e[0])])
            if x.dtype != object:
                e = (e + (strays(layer, x, y) if strays else 0) + TINY) * GROWN
                e = np.where(np.isfinite(y.reshape(len(y), -1)).all(1), e, INF)  # beyond overflow nothing is known
                e = np.stack([np.minimum(e[0], e[1] * math.sqrt(y[0].size) * GROWN), e.min(0)])
            x = y
        return x, e

    def steepness(self, p: float, classes: int) -> Array:
        """S with |Δ(y_t − y_i)| ≤ S[t][i]·‖δ‖_p: by the whole network, and by the rows of a last linear layer."""
        last, factor, one, q_from = len(self.chain) - 1, Fraction(1), Fraction(1), [q for q in DUAL if p <= q]
        pair = np.array([[one, -one] if classes > 1 else [one]])  # of one logit z the pair is (−z/2, z/2)
        whole = min(self.reached[-1][p, q] * lengths(pair, DUAL[q])[0] for q in q_from)
        S = np.full((max(classes, 2), max(classes, 2)), whole, object)
        while last >= 0 and self.chain[last].kind == "Scale":
            last, factor = last - 1, factor * self.chain[last].table[2, 2]
        if last >= 0 and self.chain[last].kind == "Linear" and classes > 1:
            W, before = self.chain[last].t["weight"], self.reached[last]
            for c, order in ((before[p, q] * factor * (1 + 2 * U), DUAL[q]) for q in q_from):
                S = np.minimum(S, [[c * a for a in lengths(W - row, order)] for row in W])
        return S


def stands(logits: list[Any], off: Any, t: int, S: Array, r: float, margin: float | None, j: int) -> bool:
    """Whether class t leads every other one by the margin and by what the radius r needs, and j may be the largest."""
    if not all(v - v == 0 for v in (*logits, off)):  # NaN or infinity
        return r == 0 and margin is None
    logits, off = [Fraction(v) for v in logits], Fraction(off)
    pairs = [(logits[t] - v - off, s) for i, (v, s) in enumerate(zip(logits, S, strict=True)) if i != t]
    far = r == 0 or all(lead > 0 and (s == 0 or (r < INF and Fraction(r) * s <= lead)) for lead, s in pairs)
    known = margin is None or all(margin <= lead for lead, _ in pairs)
    return min(t, j, r) >= 0 and far and known and all(logits[j] + off >= v for v in logits)


def judge(c: dict[str, Any], network: Network, x: Array, y: Array, exact: bool) -> None:
    p, classes = NORMS[c["input_norm"]], network.output.shape[-1]
    radii = [INF if r is None else number(r, 0) for r in c["radius"]]
    margins = [None if m is None else number(m) for m in c["margin"]]
    known = all(type(v) is int for v in c["label"] + c["prediction"]) and c["label"] == y.tolist()
    rows = network.output.ndim == 2 and len(radii) == len(margins) == len(c["prediction"]) == len(y)
    need(known and rows, "the labels or rows are not those of the data")
    S, bad = network.steepness(p, classes), list[int]()
    need("sensitivity" not in c or number(c["sensitivity"]) >= S.max(), "the sensitivity is not proven")
    for first in range(0, len(y), BATCH):
        part = x[first : first + BATCH]
        start = np.where(np.isfinite(part.reshape(len(part), -1)).all(1), 0.0, INF)
        part = rational(np.where(np.isfinite(part), part, 0)) if exact else part
        z, e = network.through(part, np.stack([start, start]), network.chain)
        z, off = (z, np.minimum(1.41422 * e[0], 2 * e[1])) if classes > 1 else (np.hstack([-z, z]) / 2, e.min(0))
        for i, logits in enumerate(z.tolist(), first):
            t = c["label"][i] if classes > 1 else max(c["label"][i], 0)  # of a single logit, −1 stands for 0
            good = stands(logits, float(off[i - first]), t, S[t], radii[i], margins[i], c["prediction"][i])
            bad += [i] * (not good)
    need(not bad, f"{len(bad)} of {len(y)} rows, of which radius, margin or prediction fail: {str(bad)[1:-1]:.400}")
    for eps, share in zip(c.get("eps", []), c.get("certified_accuracy", []), strict=True):
        need(number(share) <= sum(r > number(eps, 0) for r in radii) / len(radii), f"{share} at {eps} does not follow")


def verdict(model: bytes, certificate: bytes, data: bytes | None, exact: bool) -> str:
    c = json.loads(certificate, object_pairs_hook=once)
    told, canonical = c.pop("sha256", None), json.dumps(c, sort_keys=True, separators=(",", ":"), allow_nan=False)
    need((c.get("grounds") or {}).get("version") == VERSION, f"a certificate without grounds {VERSION}", UNKNOWN)
    need(told == hashlib.sha256(canonical.encode()).hexdigest(), "the certificate is not as written: its hash differs")
    need(c["model_sha256"] == hashlib.sha256(model).hexdigest(), "the model is another one: its hash differs")
    need(np.array([1e-45], "f4").astype(float).all(), "this process takes tiny numbers for zero, so it proves nothing")
    grounds, about = c["grounds"], c.get("bound", c)
    need(about is c or not c.keys() & {"constant", "output_norm", "arithmetic"}, "what is proven is stated twice")
    need(c.get("format", 2) in (1, 2) and c.get("standardized", False) is False, "another format or unit", UNKNOWN)
    need(not grounds["merged"], f"what rests on layers multiplied out, {grounds['merged']!s:.200}", UNKNOWN)
    x, y, digest = read_inputs(data) if data is not None else (np.zeros((1, *grounds["shape"])), np.zeros(0), None)
    need(digest in (None, grounds["inputs_sha256"]) and [*x.shape[1:]] == grounds["shape"], "the inputs are others")
    network = Network(*read_model(model), grounds["norms"], (rational if exact else np.array)(np.zeros_like(x[:1])))
    for row in [about, *about.get("layers", [])]:
        proven = network.reached[-1] if row is about else network.named[row["name"]]
        known = number(row["constant"]) >= proven[NORMS[row["input_norm"]], NORMS[row["output_norm"]]]
        need(known, f"the constant {row['constant']} of {row.get('name', 'the network')!r}, which is not proven")
    need(data is not None, "all but the constants, without --data", UNKNOWN)
    judge(c, network, x, y, exact)
    need(about["arithmetic"] == REAL, f"what {about['arithmetic']} rounds; in exact arithmetic all is proven", UNKNOWN)
    parts = [("", c, PROVEN), ("bound.", c.get("bound", {}), BOUND), ("grounds.", grounds, GROUNDS)]
    parts += [("layers.", row, BOUND ^ {"arithmetic", "layers", "name"}) for row in about.get("layers", [])]
    rest = ", ".join(sorted({place + key for place, part, known in parts for key in {*part} - known})) or "nothing"
    constant = f"constant {about['constant']} from {about['input_norm']} to {about['output_norm']}"
    return f"{len(y)} radii in the {c['input_norm']}-norm, {constant}; by its hash alone: {rest}"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="tightlip-check", description=__doc__.partition("\n")[0])
    parser.add_argument("model", type=Path, help="model.safetensors")
    parser.add_argument("certificate", type=Path, help="what tightlip certify --output wrote, or certificate.json")
    parser.add_argument("--data", type=Path, help="what tightlip certify --inputs wrote")
    parser.add_argument("--exact", action="store_true", help="in rationals, for small networks")
    options = parser.parse_args(arguments)
    try:
        files = [path and path.read_bytes() for path in (options.model, options.certificate, options.data)]
        with np.errstate(all="ignore"):
            code, words = 0, f"accepted: {verdict(*files, options.exact)}"
    except (UNKNOWN, OSError, MemoryError) as what:
        code, words = 2, f"not checked: {what}"
    except Exception as problem:  # noqa: BLE001  whatever a damaged file brings about, it is not accepted
        code, words = 1, f"rejected: {problem if type(problem) is ValueError else repr(problem)}"
    print(words)
    return code


if __name__ == "__main__":
    raise SystemExit(main())
