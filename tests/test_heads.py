"""Heads: the best items of a gallery, probabilities, and their calibration."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import bundles
import numpy as np
import pytest
import scipy.special
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from rtdecode.encode.bundle import write_bundle
from rtdecode.encode.engines import make_engine
from rtdecode.errors import EncodeError
from rtdecode.heads.build import build_heads
from rtdecode.heads.calibrate import calibrate_temperature, calibrate_threshold, nll
from rtdecode.heads.classify import Classify, softmax
from rtdecode.heads.embedding import Embedding
from rtdecode.heads.retrieve import Retrieve

# --- retrieval --------------------------------------------------------------------------------------------------------


def scores(gallery: NDArray[np.float32], embedding: NDArray[np.float32], metric: str) -> NDArray[np.float64]:
    """Every row's score, in float64 and one row at a time."""
    v = embedding.astype(np.float64)
    dots = np.array([(row.astype(np.float64) * v).sum() for row in gallery])
    if metric == "dot":
        return dots
    norms = np.array([np.sqrt(np.square(row.astype(np.float64)).sum()) for row in gallery])
    norm = np.sqrt(np.square(v).sum())
    return np.array([dot / (n * norm) if dot else 0.0 for dot, n in zip(dots, norms, strict=True)])


def check(gallery: NDArray[np.float32], embedding: NDArray[np.float32], metric: Any, k: int) -> None:
    names = [f"i{i}" for i in range(len(gallery))]
    found = Retrieve(gallery, names, metric=metric, k=k).search(embedding)
    expected = scores(gallery, embedding, metric)
    order = np.argsort(-expected, kind="stable")
    n = min(k, len(gallery))
    assert found.indices == tuple(order[:n])
    assert found.names == tuple(names[i] for i in order[:n])
    assert found.scores == tuple(expected[order[:n]])
    assert found.margin == (expected[order[0]] - expected[order[1]] if len(gallery) > 1 else 0)


finite = st.floats(-1e6, 1e6, width=32)


@settings(max_examples=200)
@given(data=st.data(), metric=st.sampled_from(["cosine", "dot"]), k=st.integers(1, 8))
def test_the_best_are_those_of_a_plain_sort(data: st.DataObject, metric: str, k: int) -> None:
    n, width = data.draw(st.integers(1, 12)), data.draw(st.integers(1, 9))
    gallery = data.draw(hnp.arrays(np.float32, (n, width), elements=finite))
    # Equal and nearly equal rows are what a gallery of pictures and their copies has.
    rows = data.draw(st.lists(st.integers(0, n - 1), min_size=1, max_size=20))
    nudge = data.draw(hnp.arrays(np.float32, (len(rows), width), elements=st.sampled_from([0.0, 1e-7, -1e-6])))
    check(
        gallery[rows] + nudge.astype(np.float32), data.draw(hnp.arrays(np.float32, width, elements=finite)), metric, k
    )


@pytest.mark.parametrize("metric", ["cosine", "dot"])
@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30])
def test_thousands_of_rows_many_of_them_equal(metric: str, scale: float) -> None:
    """Products of float32 depend on where a row stands, by its last bits; the order does not."""
    rng = np.random.default_rng(3)
    few = rng.standard_normal((7, 129))
    gallery = (scale * few[rng.integers(0, 7, 3001)]).astype(np.float32)
    for _ in range(5):
        embedding = (scale * rng.standard_normal(129)).astype(np.float32)
        check(gallery, embedding, metric, 10)
    spread = (scale * rng.standard_normal((3001, 129))).astype(np.float32)
    check(spread, embedding, metric, 10)


def test_zeros_score_zero() -> None:
    gallery = np.array([[0, 0], [-1, 0], [1, 0], [0, 0]], np.float32)
    retrieve = Retrieve(gallery, "abcd", k=4)
    assert retrieve.search(np.array([2, 0], np.float32)).indices == (2, 0, 3, 1)
    zero = retrieve.search(np.zeros(2, np.float32))
    assert (zero.indices, zero.scores, zero.margin) == ((0, 1, 2, 3), (0, 0, 0, 0), 0)
    assert Retrieve(np.zeros((3, 2), np.float32), "abc", metric="dot", k=2).search(gallery[2]).indices == (0, 1)


def test_none_of_these_is_below_the_threshold() -> None:
    gallery = np.eye(2, dtype=np.float32)
    half = np.array([1, 1], np.float32)
    best = Retrieve(gallery, "ab").search(half)
    assert best.none_of_these is None
    assert Retrieve(gallery, "ab", threshold=best.scores[0]).search(half).none_of_these is False
    assert Retrieve(gallery, "ab", threshold=np.nextafter(best.scores[0], 1)).search(half).none_of_these is True


def test_searches_do_not_disturb_each_other() -> None:
    rng = np.random.default_rng(4)
    retrieve = Retrieve(rng.standard_normal((50, 8)).astype(np.float32), [str(i) for i in range(50)])
    embeddings = rng.standard_normal((20, 8)).astype(np.float32)
    first = [retrieve.search(e) for e in embeddings]
    assert [retrieve.search(e) for e in embeddings[::-1]][::-1] == first


@pytest.mark.parametrize(
    ("gallery", "names", "k", "message"),
    [
        (np.ones((2, 3), np.float64), "ab", 1, "float64"),
        (np.ones(3, np.float32), "abc", 1, r"shape \(3,\)"),
        (np.ones((0, 3), np.float32), "", 1, r"shape \(0, 3\)"),
        (np.ones((2, 3), np.float32), "a", 1, "2 rows and 1 names"),
        (np.ones((2, 3), np.float32), "ab", 0, "k = 0"),
        (np.array([[1, 2], [np.inf, 0]], np.float32), "ab", 1, "row 1 of the gallery is not finite"),
    ],
)
def test_a_gallery_that_is_none(gallery: NDArray[Any], names: str, k: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Retrieve(gallery, names, k=k)


# --- classification ---------------------------------------------------------------------------------------------------


@given(
    logits=hnp.arrays(np.float32, st.integers(1, 9), elements=st.floats(-(2.0**127), 2.0**127, width=32)),
    temperature=st.floats(0.01, 100),
)
def test_probabilities_are_probabilities(logits: NDArray[np.float32], temperature: float) -> None:
    label = Classify([str(i) for i in range(len(logits))], temperature=temperature)({"logits": logits}).label
    assert label is not None
    p = np.array(label.probabilities)
    assert ((p >= 0) & (p <= 1)).all()
    assert p.sum() == pytest.approx(1, abs=1e-12)
    assert label.best == str(int(p.argmax()))
    assert p[logits.argmax()] == p.max()
    np.testing.assert_allclose(
        p, scipy.special.softmax(logits.astype(np.float64) / temperature), rtol=1e-9, atol=1e-300
    )


def test_temperature_softens() -> None:
    logits = np.array([[3.0, 1.0, -2.0]])
    sharp, plain, soft = (softmax(logits, t)[0] for t in (0.5, 1.0, 4.0))
    assert sharp[0] > plain[0] > soft[0] > 1 / 3
    assert softmax(logits, 1e9)[0] == pytest.approx([1 / 3] * 3)


def test_wrong_heads() -> None:
    for temperature in (0, -1, math.nan, math.inf):
        with pytest.raises(ValueError, match="temperature"):
            Classify(["a", "b"], temperature=temperature)
    with pytest.raises(ValueError, match="no labels"):
        Classify([])


HEADS: dict[str, Callable[[], Any]] = {
    "retrieve": lambda: Retrieve(np.eye(3, dtype=np.float32), "abc", output="y"),
    "classify": lambda: Classify("abc", output="y"),
    "embedding": lambda: Embedding("y"),
}


@pytest.mark.parametrize("head", list(HEADS))
def test_outputs_that_a_head_cannot_use_are_that_windows_failure(head: str) -> None:
    made = HEADS[head]()
    good = np.array([1, 2, 3], np.float32)
    made({"y": good})
    with pytest.raises(EncodeError, match="no output 'y', only z"):
        made({"z": good})
    with pytest.raises(EncodeError, match="'y' has NaN or Inf"):
        made({"y": np.array([1, np.nan, 3], np.float32)})
    if head != "embedding":
        with pytest.raises(EncodeError, match="'y' has 2 values; expected 3"):
            made({"y": good[:2]})


def test_a_bundles_heads(tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path / "b", *bundles.parts())
    retrieve, classify, embedding = build_heads(bundle)
    assert [head.kind for head in (retrieve, classify, embedding)] == ["retrieval", "label", "embedding"]
    assert retrieve.names[-1] == "a picture"
    assert classify.names == ("fists", "feet")
    outputs = make_engine(bundle).finish(bundle.array("golden/windows.npy")[0], 0)
    found = retrieve(outputs).retrieval
    assert found is not None
    expected = scores(bundle.array("gallery/rows.npy"), outputs["embedding"], "cosine")
    assert found.indices == tuple(np.argsort(-expected, kind="stable")[:3])
    assert found.none_of_these == (expected.max() < 0.1)
    label = classify(outputs).label
    assert label is not None
    np.testing.assert_allclose(label.probabilities, scipy.special.softmax(outputs["logits"].astype(float) / 2.0))
    np.testing.assert_array_equal(embedding(outputs).arrays["embedding"], outputs["embedding"])


# --- calibration ------------------------------------------------------------------------------------------------------


@given(
    unknown=hnp.arrays(np.float64, st.integers(20, 80), elements=st.floats(-1, 1)),
    known=hnp.arrays(np.float64, st.integers(1, 20), elements=st.floats(-1, 1)),
    rate=st.sampled_from([0.05, 0.1, 0.3, 0.5]),
)
def test_a_threshold_keeps_its_rate_and_is_the_lowest_that_does(
    unknown: NDArray[np.float64], known: NDArray[np.float64], rate: float
) -> None:
    found = calibrate_threshold(known, unknown, rate)
    assert found.accepted_unknown == (unknown >= found.threshold).mean() <= rate
    assert found.rejected_known == (known < found.threshold).mean()
    # One step lower, and the calibration's own score would be let in beyond the rate that n + 1 windows allow.
    lower = np.nextafter(found.threshold, -np.inf)
    assert ((unknown >= lower).sum() + 1) / (len(unknown) + 1) > rate


def test_new_windows_are_accepted_at_the_declared_rate() -> None:
    """The claim itself, on 2000 calibrations of 39 windows each and a new window for each: mean rate 0.1 or less."""
    rng = np.random.default_rng(5)
    draws = rng.standard_cauchy((2000, 40))
    accepted = [row[0] >= calibrate_threshold([], row[1:], 0.1).threshold for row in draws]
    assert 0.1 - 4 * math.sqrt(0.09 / 2000) < np.mean(accepted) <= 0.1 + 4 * math.sqrt(0.09 / 2000)


@pytest.mark.parametrize(
    ("unknown", "rate", "message"),
    [
        (np.zeros(18), 0.05, "18 windows .* expected 19 or more"),
        ([], 0.5, "0 windows"),
        (np.zeros(50), 0, "false_accept = 0"),
        (np.zeros(50), 1, "false_accept = 1"),
        ([0.1] * 50 + [math.nan], 0.1, "NaN"),
    ],
)
def test_scores_that_set_no_threshold(unknown: Any, rate: float, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        calibrate_threshold([0.5], unknown, rate)


@pytest.mark.parametrize("true", [0.3, 1.0, 2.5, 8.0])
def test_the_temperature_that_made_the_labels_is_found(true: float) -> None:
    rng = np.random.default_rng(6)
    logits = true * rng.standard_normal((4000, 5))
    labels = (scipy.special.softmax(logits / true, axis=1).cumsum(axis=1) > rng.random((4000, 1))).argmax(axis=1)
    found = calibrate_temperature(logits, labels)
    assert found.temperature == pytest.approx(true, rel=0.1)
    assert found.nll <= found.nll_before
    grid = [nll(logits, labels, t) for t in np.geomspace(0.1, 50, 200)]
    assert found.nll <= min(grid) + 1e-9
    assert found.nll == pytest.approx(
        -np.log(softmax(logits, found.temperature)[np.arange(4000), labels]).mean(), rel=1e-9
    )


@pytest.mark.parametrize(
    ("logits", "labels", "message"),
    [
        (np.eye(3), [0, 1, 2], "determine no temperature"),
        (np.zeros((3, 2)), [0, 1, 0], "determine no temperature"),
        (np.ones((3, 2)), [0, 1, 2], "labels from 0 to 2; expected 0 to 1"),
        (np.ones((3, 2)), [0, -1, 1], "labels from -1"),
        (np.ones((3, 2)), [0, 1], "expected .windows, classes. and .windows,."),
        (np.ones((3, 2)), [0.0, 1.0, 0.0], "expected .windows, classes."),
        (np.full((1, 2), np.nan), [0], "NaN"),
    ],
)
def test_windows_that_set_no_temperature(logits: NDArray[np.float64], labels: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        calibrate_temperature(logits, labels)
