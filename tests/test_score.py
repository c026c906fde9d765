"""How well a decoder did: the binomial tail, and which name a marker stands for."""

import math
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtdecode.encode.manifest import ClassifyHead
from rtdecode.score import Score, binomial_tail


@given(st.integers(1, 60), st.data(), st.sampled_from([Fraction(1, 2), Fraction(1, 5), Fraction(1, 200)]))
def test_the_tail_is_the_sum_of_its_terms(total: int, data: st.DataObject, p: Fraction) -> None:
    hits = data.draw(st.integers(0, total))
    exact = sum(math.comb(total, n) * p**n * (1 - p) ** (total - n) for n in range(hits, total + 1))
    assert binomial_tail(hits, total, float(p)) == pytest.approx(float(exact), rel=1e-9)


def test_hours_of_windows_have_a_tail_too() -> None:
    assert binomial_tail(50_000, 99_999, 0.5) == pytest.approx(0.5, rel=1e-9)
    assert binomial_tail(99_999, 99_999, 0.005) == 0.0


def test_a_class_without_patterns_is_meant_by_no_marker() -> None:
    head = ClassifyHead(output="logits", labels=("left", "rest"), markers={"left": ("T1*",), "rest": ()})
    score = Score(head, head.labels)
    assert [score.truth(value) for value in ("T1", "T1b", "rest", "T9")] == ["left", "left", "rest", None]
