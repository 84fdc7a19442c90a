"""The tests see an unsound checker: each copy below has one line that proves too much, and passes something false."""

import types
from pathlib import Path

import pytest
import tightlip_check
from checked import ACCEPTED, files, outcome
from refutations import REFUTATIONS

SOURCE = Path(tightlip_check.__file__).read_text(encoding="utf-8")

MUTANTS = {
    "products of matrices do not round": (
        "lost = gamma(len(W)) * ",
        "lost = 0 * ",
        "matrices_whose_products_are_rounded_down",
    ),
    "factorizations do not err": (
        "share, trace = gamma(n + 3) / (1 - gamma(n + 3)),",
        "share, trace = 0,",
        "matrices_whose_factorization_errs_as_far_as_it_may",
    ),
    "every matrix is definite": ("return not M.size", "return True", "matrices_that_are_not_definite"),
    "nothing happens between frequencies": (
        "* Fraction(math.cos(degrees @ half) * (1 - 1e-12))",
        "",
        "kernels_between_the_frequencies_that_are_looked_at",
    ),
    "cells need no room": (
        "level = c * c * (1 - Fraction(math.sin(degrees @ half / 2) ** 2 * (1 + 1e-12)))",
        "level = c * c",
        "kernels_between_the_frequencies_that_are_looked_at",
    ),
    "a norm is what is claimed": ("holds(P, c)), f", "True), f", "norms_that_are_too_small"),
    "strides sum up nothing": (
        "return P.reshape(len(W), -1, *places)",
        "return 0 * P.reshape(len(W), -1, *places)",
        "norms_that_kinds_of_layers_do_not_have",
    ),
    "rows are measured in the same norm": (
        "{(p, INF): max(lengths(W.reshape(len(W), -1), q))",
        "{(p, INF): max(lengths(W.reshape(len(W), -1), p))",
        "norms_that_kinds_of_layers_do_not_have",
    ),
    "columns are measured by their largest entry": (
        "max(lengths(np.moveaxis(P, 1, 0).reshape(P.shape[1], -1), q))",
        "max(lengths(np.moveaxis(P, 1, 0).reshape(P.shape[1], -1), INF))",
        "norms_that_kinds_of_layers_do_not_have",
    ),
    "windows do not overlap": (
        "return copied(math.prod(",
        "return copied(1) or copied(math.prod(",
        "norms_that_kinds_of_layers_do_not_have",
    ),
    "a block is what is in it": (
        "(table[pair] + behind[pair]) / 2",
        "behind[pair]",
        "norms_that_kinds_of_layers_do_not_have",
    ),
    "the largest std counts": (
        '1 / Fraction(abs(s.t["std"]).min())',
        '1 / Fraction(abs(s.t["std"]).max())',
        "norms_that_kinds_of_layers_do_not_have",
    ),
    "norms are alike in all dimensions": (
        "Fraction(1) if r <= p else",
        "Fraction(1) if True else",
        "norms_that_kinds_of_layers_do_not_have",
    ),
    "only the last layer counts": (
        "min(table[p, r] * layer.table[r, q] for",
        "min(layer.table[r, q] for",
        "norms_that_kinds_of_layers_do_not_have",
    ),
    "linear layers do not round": (
        '+ s.t["bias"], Layer.proven, Layer.weighed)',
        '+ s.t["bias"], Layer.proven)',
        "leads_that_are_rounded_up",
    ),
    "differences do not round": (
        "(Layer.normalized, lambda s: every(Fraction(1)), lambda s, x, y: ulps(1, y))",
        "(Layer.normalized,)",
        "leads_that_are_rounded_up",
    ),
    "distances do not round": ('ulps(3, y, s.t["bias"])', "0 * ulps(3, y)", "leads_that_are_rounded_up"),
    "errors do not grow": (
        "e = np.stack([c[2, 2] * e[0], np.minimum(c[INF, INF] * e[1], c[2, INF] * e[0])])",
        "pass",
        "leads_that_are_rounded_up",
    ),
    "leads are not lowered": ("logits[t] - v - off, s)", "logits[t] - v, s)", "leads_that_are_rounded_up"),
    "twice the radius": ("Fraction(r) * s <= lead", "Fraction(r) * s <= 2 * lead", "radii_that_are_too_large"),
    "one rival is enough": ("all(lead > 0 and", "any(lead > 0 and", "radii_that_are_too_large"),
    "one logit moves": ("[one, -one] if", "[one] if", "two_logits_that_move_apart"),
    "the prediction is the label": (
        't = c["label"][i] if',
        't = c["prediction"][i] if',
        "radii_of_what_is_predicted_instead_of_the_label",
    ),
    "nan is a number": ("return r == 0 and margin is None", "return True", "radii_that_are_too_large"),
    "labels are believed": (' and c["label"] == y.tolist()', "", "other_labels"),
    "margins are believed": ("known = margin is None or", "known = True or", "margins_and_predictions"),
    "accuracies are believed": ("need(number(share) <=", "need(share or", "accuracies_that_do_not_follow"),
    "the constant is believed": (
        'number(row["constant"]) >=',
        'number(row["constant"]) or',
        "constants_that_are_too_small",
    ),
    "any model will do": ('need(c["model_sha256"] ==', 'need(c["model_sha256"] !=', None),
    "models are not compared": ("hashlib.sha256(model).hexdigest(),", 'c["model_sha256"],', "another_model"),
    "inputs are not compared": ('digest in (None, grounds["inputs_sha256"]) and', "", "other_inputs"),
    "the seal is not compared": (
        "need(told == hashlib.sha256(canonical.encode()).hexdigest(),",
        "need(True,",
        "what_was_changed_without_its_seal",
    ),
    "truth is a number": ("type(value) in (int, float) and", "", "what_is_no_number"),
    "names may repeat": ("need(len(dict(pairs)) == len(pairs),", "need(True,", "what_is_no_number"),
    "biases are left out": ('np.dot(x, s.t["weight"].T) + s.t["bias"]', 'np.dot(x, s.t["weight"].T)', None),
    "groups of two are everything": ('{"MaxMin": 2, "FullSort": n}', '{"MaxMin": n, "FullSort": n}', None),
}
"""What is wrong: a line of the checker, what stands in its place, and the false statement that then passes.

None: something that is true is refused.
"""


@pytest.mark.parametrize("name", MUTANTS)
def test_an_unsound_line_is_seen(name):
    line, other, refutation = MUTANTS[name]
    assert SOURCE.count(line) == 1
    mutant = types.ModuleType("mutant")
    exec(compile(SOURCE.replace(line, other), "mutant", "exec"), mutant.__dict__)
    if refutation is None:
        assert not all(outcome(mutant, files(true)) == ACCEPTED for true in ("dense", "unconstrained", "sorted"))
        return
    with pytest.raises(AssertionError):
        REFUTATIONS[refutation](mutant)
