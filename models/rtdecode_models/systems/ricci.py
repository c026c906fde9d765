"""The geometry of a montage, computed once from training data: eigenmap, Ollivier-Ricci curvature, Ricci flow.

What comes out are constants of an encoder; nothing here runs in the daemon. After Choi, "Geometric Machine Learning on
EEG Signals", arXiv 2502.05334, whose pipeline names the steps; their definitions are those of

- Belkin and Niyogi, Neural Computation 15, 2003: Laplacian eigenmaps;
- Ollivier, Journal of Functional Analysis 256, 2009: curvature of lazy random walks;
- Ni, Lin, Luo and Gao, Scientific Reports 9:9984, 2019: discrete Ricci flow with normalisation and surgery;
- Kipf and Welling, ICLR 2017 (arXiv 1609.02907): the normalised adjacency.

A graph is a symmetric matrix (nodes, nodes) of edge lengths above zero; zero is no edge.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linprog
from scipy.sparse.csgraph import connected_components, minimum_spanning_tree, shortest_path

Matrix = NDArray[np.float64]

#: Two entries of an eigenvector whose magnitudes differ by less are the same when its sign is chosen.
SAME = 1e-8


@dataclass(frozen=True, slots=True, eq=False)
class Flow:
    """A graph after Ricci flow.

    Parameters
    ----------
    lengths : ndarray of float64, shape (nodes, nodes)
        Of the edges that are left.
    curvature : ndarray of float64, shape (nodes, nodes)
        Of those edges; zero elsewhere.
    spread : tuple of float
        Standard deviation of the curvature over the edges, before each step and after the last.
    cut : tuple of pairs of int
        Edges that surgery took out.
    """

    lengths: Matrix
    curvature: Matrix
    spread: tuple[float, ...]
    cut: tuple[tuple[int, int], ...]


def channel_affinity(features: Matrix, neighbours: int = 4) -> Matrix:
    """How alike channels are: a Gaussian of their distance, kept for nearest neighbours.

    The width of the Gaussian is the median distance of the edges that are kept. The shortest tree over all channels is
    kept too, so that the graph is connected.

    Parameters
    ----------
    features : ndarray of float64, shape (channels, features)
        One row a channel.
    neighbours : int
        Each channel is joined to so many that are nearest to it.

    Returns
    -------
    ndarray of float64, shape (channels, channels)
        Symmetric, in [0, 1], zero on the diagonal.

    Raises
    ------
    ValueError
        There are fewer than two channels, or they do not differ at all.
    """
    n = len(features)
    if n < 2 or neighbours < 1:
        raise ValueError(f"{n} channels and {neighbours} neighbours; expected 2 or more, and 1 or more")
    distance = np.linalg.norm(features[:, None] - features[None, :], axis=-1)
    if not distance.any():
        raise ValueError("all channels have the same features; a graph of channels needs some that differ")
    # The smallest distance stands in for none: csgraph takes a zero for no edge.
    least = distance[distance > 0].min() * 1e-6
    positive = np.maximum(distance, least) * ~np.eye(n, dtype=bool)
    order = np.argsort(positive + np.diag(np.full(n, np.inf)), axis=1, kind="stable")
    keep = np.zeros((n, n), dtype=bool)
    keep[np.repeat(np.arange(n), min(neighbours, n - 1)), order[:, : min(neighbours, n - 1)].ravel()] = True
    keep |= minimum_spanning_tree(positive).toarray() > 0
    keep |= keep.T
    width = np.median(distance[keep]) or 1.0
    affinity: Matrix = np.exp(-np.square(distance / width)) * keep
    return affinity


def laplacian_eigenmap(affinity: Matrix, n_vectors: int) -> tuple[NDArray[np.float64], Matrix]:
    """Smoothest eigenvectors of the normalised Laplacian ``I - D^-1/2 W D^-1/2``.

    An eigenvector's sign is arbitrary; here its entry of largest magnitude, the first of equal ones, is above zero.

    Parameters
    ----------
    affinity : ndarray of float64, shape (nodes, nodes)
        Symmetric and not negative; every node has a neighbour.
    n_vectors : int
        How many, the constant one (times the degrees' square roots) among them.

    Returns
    -------
    values : ndarray of float64, shape (n_vectors,)
        Eigenvalues, from zero upwards.
    vectors : ndarray of float64, shape (nodes, n_vectors)
        Orthonormal columns.

    Raises
    ------
    ValueError
        The matrix is no affinity, or has fewer nodes than vectors are asked for.
    """
    if affinity.ndim != 2 or not np.allclose(affinity, affinity.T) or (affinity < 0).any():
        raise ValueError("an affinity is a symmetric matrix without negative entries")
    degree = affinity.sum(axis=1)
    if not (degree > 0).all() or not 1 <= n_vectors <= len(affinity):
        raise ValueError(f"{n_vectors} vectors of a graph of {len(affinity)} nodes, each of which needs a neighbour")
    laplacian = np.eye(len(affinity)) - affinity / np.sqrt(np.outer(degree, degree))
    values, vectors = np.linalg.eigh(laplacian)
    values, vectors = values[:n_vectors], vectors[:, :n_vectors]
    magnitude = np.abs(vectors)
    first = np.argmax(magnitude >= magnitude.max(axis=0) - SAME, axis=0)
    return values, vectors * np.sign(vectors[first, np.arange(n_vectors)])


def ollivier_ricci(lengths: Matrix, idleness: float = 0.5) -> Matrix:
    """Ollivier-Ricci curvature of each edge, ``1 - W1(m_x, m_y) / d(x, y)``.

    ``m_x`` leaves the share `idleness` at x and spreads the rest evenly over its neighbours; W1 is the cost of the
    cheapest transport between the two along shortest paths, a linear programme.

    Parameters
    ----------
    lengths : ndarray of float64, shape (nodes, nodes)
        Of the edges; zero is no edge.
    idleness : float
        From 0 to below 1.

    Returns
    -------
    ndarray of float64, shape (nodes, nodes)
        Symmetric; zero where there is no edge.

    Raises
    ------
    ValueError
        The matrix is no graph, or the idleness no such share.
    """
    _check(lengths)
    if not 0 <= idleness < 1:
        raise ValueError(f"idleness is {idleness}; expected a share from 0 to below 1")
    distance = shortest_path(lengths, directed=False)
    curvature = np.zeros_like(lengths)
    for x, y in _edges(lengths):
        cost = _transport(_walk(lengths, x, idleness), _walk(lengths, y, idleness), distance)
        curvature[x, y] = curvature[y, x] = 1 - cost / distance[x, y]
    return curvature


def ricci_flow(
    lengths: Matrix, *, steps: int = 10, step_size: float = 0.5, idleness: float = 0.5, cut_share: float = 0.1
) -> Flow:
    """Discrete Ricci flow: edges of positive curvature shrink, those of negative curvature stretch.

    Each step is ``d <- (1 - step_size * curvature) * d_shortest``, after which all lengths are scaled to the sum that
    they began with (normalisation). At the end the longest edges are cut (surgery), as long as the graph stays whole.

    Parameters
    ----------
    lengths : ndarray of float64, shape (nodes, nodes)
        A connected graph.
    steps : int
        Zero or more.
    step_size : float
        Above 0, at most 1.
    idleness : float
        Of the curvature.
    cut_share : float
        At most this share of the edges is cut: those that grew longer than the mean by two standard deviations.

    Raises
    ------
    ValueError
        The graph is not connected, or a parameter makes no sense.
    """
    _check(lengths)
    if not _whole(lengths):
        raise ValueError("the graph is in pieces; Ricci flow needs it connected")
    if steps < 0 or not 0 < step_size <= 1 or not 0 <= cut_share < 1:
        raise ValueError("expected steps of 0 or more, step_size in (0, 1] and cut_share from 0 to below 1")
    total = lengths.sum()
    edge = lengths > 0
    flowing = lengths.copy()
    spread = []
    for _ in range(steps):
        curvature = ollivier_ricci(flowing, idleness)
        spread.append(float(curvature[edge].std()))
        # Curvature is below 1, unless two walks are the same: a factor above zero keeps the edge an edge.
        flowing = np.maximum(1 - step_size * curvature, SAME) * shortest_path(flowing, directed=False) * edge
        flowing *= total / flowing.sum()
    cut = _surgery(flowing, cut_share)
    for x, y in cut:
        flowing[x, y] = flowing[y, x] = 0
    curvature = ollivier_ricci(flowing, idleness)
    spread.append(float(curvature[flowing > 0].std()))
    return Flow(lengths=flowing, curvature=curvature, spread=tuple(spread), cut=cut)


def normalised_adjacency(lengths: Matrix) -> Matrix:
    """``D^-1/2 (A + I) D^-1/2`` with ``A = exp(-(length / median length)^2)`` on the edges.

    Returns
    -------
    ndarray of float64, shape (nodes, nodes)
        The constant of a graph convolution; its largest eigenvalue is 1.
    """
    _check(lengths)
    edge = lengths > 0
    width = np.median(lengths[edge]) if edge.any() else 1.0
    adjacency = np.exp(-np.square(lengths / width)) * edge + np.eye(len(lengths))
    degree = adjacency.sum(axis=1)
    normalised: Matrix = adjacency / np.sqrt(np.outer(degree, degree))
    return normalised


def _walk(lengths: Matrix, x: int, idleness: float) -> NDArray[np.float64]:
    """Where a lazy walk from x stands after one step, shape (nodes,)."""
    neighbours = lengths[x] > 0
    walk: NDArray[np.float64] = (1 - idleness) * neighbours / neighbours.sum()
    walk[x] = idleness
    return walk


def _transport(source: NDArray[np.float64], sink: NDArray[np.float64], distance: Matrix) -> float:
    """Cost of the cheapest way to bring one distribution to the other."""
    # What lies in both may stay where it is, since distances keep the triangle inequality.
    surplus = np.flatnonzero(source > sink)
    want = np.flatnonzero(sink > source)
    supply, demand = (source - sink)[surplus], (sink - source)[want]
    if len(surplus) == 0 or len(want) == 0:
        return 0.0
    rows, columns = len(surplus), len(want)
    leaves = np.kron(np.eye(rows), np.ones(columns))
    arrives = np.kron(np.ones(rows), np.eye(columns))
    demand = demand * (supply.sum() / demand.sum())
    # The last equation follows from the others; rounding would make it contradict them.
    solved = linprog(
        distance[np.ix_(surplus, want)].ravel(),
        A_eq=np.vstack([leaves, arrives])[:-1],
        b_eq=np.concatenate([supply, demand])[:-1],
        method="highs",
    )
    if solved.status != 0 or solved.fun is None:
        raise ValueError(f"optimal transport failed: {solved.message}")
    return float(solved.fun)


def _surgery(lengths: Matrix, share: float) -> tuple[tuple[int, int], ...]:
    """Edges to cut, the longest first."""
    edges = _edges(lengths)
    size = np.array([lengths[x, y] for x, y in edges])
    limit = size.mean() + 2 * size.std()
    left = lengths.copy()
    cut: list[tuple[int, int]] = []
    for place in np.argsort(-size, kind="stable")[: int(share * len(edges))]:
        if size[place] <= limit:
            break
        x, y = edges[place]
        tried = left.copy()
        tried[x, y] = tried[y, x] = 0
        if _whole(tried):
            left = tried
            cut.append((x, y))
    return tuple(cut)


def _edges(lengths: Matrix) -> list[tuple[int, int]]:
    """Edges as pairs of nodes, each once."""
    return [(int(x), int(y)) for x, y in np.argwhere(np.triu(lengths, 1) > 0)]


def _whole(lengths: Matrix) -> bool:
    """Whether every node can be reached from every other."""
    pieces, _ = connected_components(lengths, directed=False)
    return bool(pieces == 1)


def _check(lengths: Matrix) -> None:
    """Refuse what is no graph."""
    if lengths.ndim != 2 or lengths.shape[0] != lengths.shape[1] or not np.allclose(lengths, lengths.T):
        raise ValueError("a graph is a symmetric matrix of edge lengths")
    if (lengths < 0).any() or np.diag(lengths).any():
        raise ValueError("edge lengths are above zero, and no node has an edge to itself")
