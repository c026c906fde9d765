"""Curvature, flow and eigenmaps on graphs whose answers are known."""

import numpy as np
import pytest

pytest.importorskip("torch")

from rtdecode_models.data.shape import Shape
from rtdecode_models.data.trials import Trials
from rtdecode_models.systems import geometric
from rtdecode_models.systems.ricci import (
    channel_affinity,
    laplacian_eigenmap,
    normalised_adjacency,
    ollivier_ricci,
    ricci_flow,
)


def graph(n, edges, length=1.0):
    lengths = np.zeros((n, n))
    for x, y in edges:
        lengths[x, y] = lengths[y, x] = length
    return lengths


def complete(n):
    return np.ones((n, n)) - np.eye(n)


def cycle(n):
    return graph(n, [(i, (i + 1) % n) for i in range(n)])


def two_cliques(n):
    """Two complete graphs of n nodes with one edge between them."""
    lengths = np.zeros((2 * n, 2 * n))
    lengths[:n, :n] = lengths[n:, n:] = complete(n)
    lengths[n - 1, n] = lengths[n, n - 1] = 1
    return lengths


@pytest.mark.parametrize("n", [2, 3, 5, 8])
@pytest.mark.parametrize("idleness", [0.0, 0.5])
def test_curvature_of_complete_graphs(n, idleness):
    """The walks of two neighbours differ at these two alone, by |a - (1 - a) / (n - 1)|, one step apart."""
    curvature = ollivier_ricci(complete(n), idleness)
    expected = 1 - abs(idleness - (1 - idleness) / (n - 1))
    np.testing.assert_allclose(curvature, expected * complete(n), atol=1e-9)


@pytest.mark.parametrize(("n", "expected"), [(3, 1 / 2), (4, 0.0), (5, 0.0), (6, 0.0), (9, 0.0)])
def test_curvature_of_cycles(n, expected):
    np.testing.assert_allclose(ollivier_ricci(cycle(n), 0.0), expected * cycle(n), atol=1e-9)


def test_curvature_of_a_path_is_zero():
    path = graph(5, [(i, i + 1) for i in range(4)])
    np.testing.assert_allclose(ollivier_ricci(path, 0.0), np.zeros((5, 5)), atol=1e-9)


def test_curvature_of_a_tree():
    """Jost and Liu: -2 (1 - 1/d_x - 1/d_y), where that is below zero; here 3 and 3, and 0 at the leaves."""
    tree = graph(6, [(0, 1), (0, 2), (0, 3), (1, 4), (1, 5)])
    curvature = ollivier_ricci(tree, 0.0)
    assert curvature[0, 1] == pytest.approx(-2 / 3, abs=1e-9)
    assert curvature[0, 2] == curvature[1, 4] == pytest.approx(0, abs=1e-9)


def test_curvature_does_not_depend_on_the_unit_of_length():
    rng = np.random.default_rng(0)
    lengths = np.triu(rng.uniform(1, 2, (7, 7)), 1)
    lengths += lengths.T
    np.testing.assert_allclose(ollivier_ricci(1e-3 * lengths), ollivier_ricci(lengths), atol=1e-9)


def test_an_edge_longer_than_the_way_around_it_is_measured_along_that_way():
    lengths = complete(3)
    lengths[0, 1] = lengths[1, 0] = 10.0
    assert ollivier_ricci(lengths, 0.0)[0, 1] == pytest.approx(1 - 1 / 2)


def test_flow_stretches_bridges_and_surgery_spares_them():
    lengths = two_cliques(4)
    flow = ricci_flow(lengths, steps=8)
    assert flow.lengths.sum() == pytest.approx(lengths.sum())
    inside = flow.lengths[:3, :3][~np.eye(3, dtype=bool)]
    assert flow.lengths[3, 4] > 3 * inside.max()
    assert flow.cut == (), "without the bridge the graph would be in pieces"
    assert len(flow.spread) == 9


def test_surgery_cuts_the_longer_of_two_bridges():
    lengths = two_cliques(5)
    lengths[0, 9] = lengths[9, 0] = 1.5
    flow = ricci_flow(lengths, steps=6)
    assert flow.cut == ((0, 9),)
    assert flow.lengths[0, 9] == flow.curvature[0, 9] == 0
    assert flow.lengths[4, 5] > 0


def test_flow_evens_out_curvature():
    """A wheel of uneven lengths becomes one of one curvature; no step makes it more uneven."""
    wheel = np.zeros((7, 7))
    wheel[:6, :6] = cycle(6)
    wheel[6, :6] = wheel[:6, 6] = 1
    uneven = np.triu(np.random.default_rng(1).uniform(0.5, 2, (7, 7)), 1)
    flow = ricci_flow(wheel * (uneven + uneven.T), steps=12, cut_share=0.0)
    assert flow.spread[-1] < flow.spread[0] / 4
    assert (np.diff(flow.spread) < 0).all()


def test_no_steps_leave_the_graph_as_it_was():
    flow = ricci_flow(cycle(5), steps=0)
    np.testing.assert_array_equal(flow.lengths, cycle(5))


def test_eigenmap_of_a_cycle():
    values, vectors = laplacian_eigenmap(cycle(8), 8)
    expected = np.sort(1 - np.cos(2 * np.pi * np.arange(8) / 8))
    np.testing.assert_allclose(values, expected, atol=1e-12)
    np.testing.assert_allclose(vectors.T @ vectors, np.eye(8), atol=1e-12)
    np.testing.assert_allclose(vectors[:, 0], np.full(8, 8**-0.5), atol=1e-12)


def test_eigenvectors_have_a_sign_of_their_own():
    """Reordering the nodes reorders the rows, and flips nothing (where no two entries are the largest)."""
    rng = np.random.default_rng(2)
    affinity = np.triu(rng.uniform(0.1, 1, (6, 6)), 1)
    affinity += affinity.T
    _, vectors = laplacian_eigenmap(affinity, 4)
    order = rng.permutation(6)
    _, reordered = laplacian_eigenmap(affinity[np.ix_(order, order)], 4)
    np.testing.assert_allclose(reordered, vectors[order], atol=1e-9)
    largest = np.abs(vectors).argmax(axis=0)
    assert (vectors[largest, np.arange(4)] > 0).all()


def test_eigenvectors_whose_ends_are_equal_begin_above_zero():
    """On a path the largest entries come in pairs of both signs; the first of them is above zero."""
    _, vectors = laplacian_eigenmap(graph(4, [(0, 1), (1, 2), (2, 3)]), 4)
    for vector in vectors.T:
        largest = np.abs(vector) > np.abs(vector).max() - 1e-8
        assert vector[np.flatnonzero(largest)[0]] > 0


def test_affinity_is_connected_whatever_the_neighbours():
    rng = np.random.default_rng(3)
    far = np.concatenate([rng.normal(0, 0.1, (4, 2)), rng.normal(50, 0.1, (4, 2))])
    affinity = channel_affinity(far, neighbours=1)
    joined = affinity > 0
    assert (affinity == affinity.T).all()
    assert not np.diag(affinity).any()
    reached = np.linalg.matrix_power(np.eye(8) + joined, 8) > 0
    assert reached[0, 1:4].all()
    assert np.isfinite(affinity).all()


def test_equal_channels_stay_neighbours():
    features = np.array([[0.0], [0.0], [1.0], [2.0]])
    assert channel_affinity(features, neighbours=1)[0, 1] == pytest.approx(1)


def test_normalised_adjacency_of_a_regular_graph_averages():
    adjacency = normalised_adjacency(cycle(6))
    weight = np.exp(-1)
    assert adjacency[0, 0] == pytest.approx(1 / (1 + 2 * weight))
    assert adjacency[0, 1] == pytest.approx(weight / (1 + 2 * weight))
    np.testing.assert_allclose(adjacency.sum(axis=1), 1)
    assert np.linalg.eigvalsh(adjacency)[-1] == pytest.approx(1)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: ollivier_ricci(np.ones((3, 3))), "no node has an edge to itself"),
        (lambda: ollivier_ricci(-complete(3)), "above zero"),
        (lambda: ollivier_ricci(np.triu(complete(3))), "symmetric"),
        (lambda: ollivier_ricci(complete(3), 1.0), "idleness is 1.0"),
        (lambda: ricci_flow(graph(4, [(0, 1), (2, 3)])), "in pieces"),
        (lambda: ricci_flow(complete(3), step_size=0.0), "step_size"),
        (lambda: channel_affinity(np.zeros((4, 2))), "same features"),
        (lambda: laplacian_eigenmap(graph(3, [(0, 1)]), 2), "each of which needs a neighbour"),
        (lambda: laplacian_eigenmap(complete(3), 4), "4 vectors of a graph of 3"),
    ],
)
def test_what_is_no_graph_is_refused(call, says):
    with pytest.raises(ValueError, match=says):
        call()


def line_of_channels(seed, n=40, n_times=64, n_channels=6):
    """Trials whose neighbouring channels share what they see."""
    rng = np.random.default_rng(seed)
    loud = rng.uniform(0.2, 3, (n, 1, n_channels + 2)) * rng.standard_normal((n, n_times, n_channels + 2))
    x = (loud[..., :-2] + loud[..., 1:-1] + loud[..., 2:]).astype(np.float32)
    zeros = np.zeros(n, np.int64)
    return Trials(x=x, sfreq=64.0, subject=zeros, session=zeros, subjects=("a",), sessions=("s",))


def test_the_graph_of_the_channels_comes_from_training_windows():
    encoder = geometric.build({"high": 20.0, "neighbours": 2, "n_vectors": 3}, Shape(64, 6, 64.0, classes={"label": 2}))
    encoder.prepare(line_of_channels(0))
    projection, adjacency = encoder.projection.numpy(), encoder.adjacency.numpy()
    np.testing.assert_allclose(projection @ projection, projection, atol=1e-6)
    assert np.trace(projection) == pytest.approx(3, abs=1e-5)
    assert np.linalg.eigvalsh(adjacency)[-1] == pytest.approx(1, abs=1e-6)
    beside = np.array([adjacency[i, i + 1] for i in range(5)])
    assert (beside > 0).all(), "channels that share a source are neighbours"
    assert adjacency[0, 5] == 0
    again = geometric.build({"high": 20.0, "neighbours": 2, "n_vectors": 3}, Shape(64, 6, 64.0, classes={"label": 2}))
    again.prepare(line_of_channels(0))
    assert (again.adjacency == encoder.adjacency).all()
