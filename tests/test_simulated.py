"""The simulated subject: the same bytes however it is read, and the physiology it claims."""

import hashlib
import math
import threading
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.signal import welch

from rtdecode import hostclock
from rtdecode.errors import ConfigError
from rtdecode.signal import Batch, check_stamps
from rtdecode.sources.concepts import concepts, embeddings, gallery, unseen
from rtdecode.sources.forward import BLOCK, MONTAGE, RADIUS, Levels, Session, Subject, lead_field
from rtdecode.sources.simulated import SimulatedSource

REFERENCE = Session(Subject(0), 3).samples(0, 3 * BLOCK)


def drain(source: SimulatedSource) -> list[Batch]:
    batches = []
    with source:
        while (batch := source.read(0.1)) is not None:
            batches.append(batch)
    return batches


def joined(batches: list[Batch]) -> np.ndarray:
    return np.concatenate([b.chunk.samples for b in batches if b.chunk is not None])


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 3 * BLOCK - 1), st.integers(0, 3 * BLOCK))
def test_samples_do_not_depend_on_what_was_asked_for_before(first: int, n: int) -> None:
    n = min(n, 3 * BLOCK - first)
    fresh = Session(Subject(0), 3).samples(first, n)
    assert fresh.dtype == np.float32
    assert fresh.tobytes() == REFERENCE[first : first + n].tobytes()


@settings(max_examples=15, deadline=None)
@given(st.lists(st.integers(1, 700), min_size=1, max_size=6))
def test_a_session_read_in_any_pieces_is_the_same_session(sizes: list[int]) -> None:
    session, at = Session(Subject(0), 3), 0
    for size in sizes:
        size = min(size, 3 * BLOCK - at)
        assert session.samples(at, size).tobytes() == REFERENCE[at : at + size].tobytes()
        at += size


@settings(max_examples=10, deadline=None)
@given(st.integers(1, 900))
def test_the_source_gives_the_sessions_samples_and_markers_in_any_chunks(chunk: int) -> None:
    seconds = 5.0
    batches = drain(SimulatedSource(seed=3, seconds=seconds, speed=None, chunk=chunk))
    n = round(seconds * 250)
    assert joined(batches).tobytes() == REFERENCE[:n].tobytes()
    stamps = np.concatenate([b.chunk.stamps for b in batches if b.chunk is not None])
    np.testing.assert_array_equal(stamps, np.arange(n) / 250.0)
    session = Session(Subject(0), 3)
    expected = [(s.index / 250.0, f"concept/{session.shown[s.concept].name}") for s in session.stimuli(0, n)]
    assert [(m.stamp, m.value) for b in batches for m in b.markers] == expected
    assert len(expected) == 4
    # every marker up to the watermark has been given by then
    for at, batch in enumerate(batches):
        assert not any(m.stamp <= batch.watermark for later in batches[at + 1 :] for m in later.markers)
    assert batches[-1].watermark == math.inf


def test_stimuli_are_the_same_whatever_stretch_is_asked_for() -> None:
    session = Session(Subject(0), 8)
    whole = session.stimuli(0, 20_000)
    assert [s for first in range(0, 20_000, 77) for s in session.stimuli(first, min(77, 20_000 - first))] == whole
    assert len(whole) == 78
    gaps = np.diff([s.index for s in whole]) / 250.0
    assert gaps.min() >= 0.79
    assert gaps.max() <= 1.21


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 50), st.floats(4.0, 60.0))
def test_a_whole_length_cuts_no_response_off_and_loses_no_more_than_one(seed: int, seconds: float) -> None:
    session = Session(Subject(0), seed)
    whole = session.whole(seconds)
    n, reach = round(whole * 250), round(Subject.DURATION * 250)
    assert whole <= seconds + 0.002
    assert whole > seconds - Subject.DURATION - 0.01
    assert all(stimulus.index + reach <= n + 2 for stimulus in session.stimuli(0, n))


def test_every_concept_is_shown_once_before_any_is_shown_twice() -> None:
    session = Session(Subject(0), 8)
    n = len(session.shown)
    for cycle in range(2):
        assert sorted(session.stimulus(k).concept for k in range(cycle * n, (cycle + 1) * n)) == list(range(n))


def test_seeds_and_subjects_differ() -> None:
    digests = {
        hashlib.sha256(Session(Subject(subject), seed).samples(0, BLOCK).tobytes()).digest()
        for subject in (0, 1)
        for seed in (0, 1, 2)
    }
    assert len(digests) == 6


def test_the_subject_does_not_change_with_a_release_of_numpy() -> None:
    """The committed bundle was trained on this very head: its parameters come from a hash, so these are final."""
    subject = Subject(0)
    np.testing.assert_allclose(
        subject.weights[0, :3] / subject.levels.evoked, (1.518081782, 1.226969978, 1.348495717), rtol=1e-6
    )
    np.testing.assert_allclose(subject.peaks[[0, 20]], (0.1103354434, 0.2681926787), rtol=1e-6)
    np.testing.assert_allclose(
        embeddings(concepts()[:1])[0, :3], (0.1745643128, -0.1615935102, -0.1380861183), rtol=1e-6
    )


def test_concepts_are_distinct_and_their_embeddings_are_unit_vectors_with_families() -> None:
    items = concepts()
    assert len({c.name for c in items}) == len({c.emoji for c in items}) == len(items)
    assert set(gallery()) | set(unseen()) == set(items)
    assert not set(gallery()) & set(unseen())
    vectors = embeddings(items)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0)
    category = np.array([c.category for c in items])
    likeness = vectors @ vectors.T
    same = category[:, None] == category
    off = ~np.eye(len(items), dtype=bool)
    assert likeness[same & off].mean() > likeness[~same].mean() + 0.2
    assert likeness[off].max() < 0.9


def test_the_montage_is_64_places_on_a_sphere_and_its_halves_mirror() -> None:
    at = {name: np.array(place) for name, place in MONTAGE.items()}
    assert len(at) == 64
    np.testing.assert_allclose([np.linalg.norm(p) for p in at.values()], RADIUS)
    for left, right in (("F3", "F4"), ("P9", "P10"), ("O1", "O2"), ("TP7", "TP8")):
        np.testing.assert_allclose(at[left] * (-1, 1, 1), at[right], atol=1e-12)
        assert at[left][0] < 0
    assert at["Fpz"][1] > 0.09 * 0.9
    np.testing.assert_allclose(at["Cz"], (0, 0, RADIUS), atol=1e-12)
    assert min(np.linalg.norm(a - b) for n, a in at.items() for m, b in at.items() if n < m) > 0.015


def test_a_dipoles_field_is_that_of_two_opposite_poles_brought_together() -> None:
    """The formula against its limit: the potential of charges +q and -q, a small distance apart."""
    place, moment, step = np.array([0.01, -0.05, 0.03]), np.array([0.3, -0.8, 0.5]), 1e-6
    electrodes = np.array(list(MONTAGE.values()))
    poles = [1 / np.linalg.norm(electrodes - (place + sign * step * moment), axis=1) for sign in (1, -1)]
    limit = poles[0] - poles[1]
    limit -= limit.mean()
    np.testing.assert_allclose(
        lead_field(place[None], moment[None])[0], limit / np.sqrt(np.mean(limit**2)), rtol=1e-4, atol=1e-5
    )


def test_the_spectrum_has_a_slope_an_alpha_peak_and_a_line() -> None:
    samples = Session(Subject(0), 5).samples(0, 60 * 250).astype(np.float64)
    f, power = welch(samples, 250.0, nperseg=1000, axis=0)
    power = power.mean(axis=1)

    def at(low: float, high: float) -> float:
        return float(power[(f >= low) & (f < high)].mean())

    band = (f >= 1.0) & (f < 45.0) & ~((f > 6.0) & (f < 15.0))
    slope = np.polyfit(np.log(f[band]), np.log(power[band]), 1)[0]
    assert -1.5 < slope < -0.6
    assert at(9.5, 11) > 2 * at(6, 8)
    assert at(49.7, 50.4) > 10 * at(52, 58)
    # blinks are where the eyes are
    names = list(MONTAGE)
    assert np.abs(samples[:, names.index("Fpz")]).max() > 60e-6
    assert samples[:, names.index("Fpz")].std() > 1.5 * samples[:, names.index("Pz")].std()
    # and neighbours hear the same sources
    likeness = np.atleast_2d(np.corrcoef(samples.T))
    assert likeness[names.index("P3"), names.index("P1")] > likeness[names.index("P3"), names.index("F4")] + 0.3


def test_averaged_trials_show_the_evoked_response_and_the_time_before_them_does_not() -> None:
    """120 trials of one concept, averaged, against the model's own noise-free answer."""
    shown = gallery()[:1]
    session = Session(Subject(0), 9, shown=shown)
    stimuli = [session.stimulus(k) for k in range(120)]
    samples = session.samples(0, stimuli[-1].index + 250).astype(np.float64)
    occipital = list(MONTAGE).index("Oz")
    epochs = np.stack([samples[s.index - 50 : s.index + 150, occipital] for s in stimuli])
    average = epochs.mean(axis=0)
    answer = session.subject.evoked(session.embeddings[0], np.arange(150) / 250.0)[:, occipital]
    likeness = np.corrcoef(average[50:], answer)[0, 1]
    assert likeness > 0.7
    assert average[50:].std() > 1.5 * average[:50].std()


def test_levels_scale_what_they_name() -> None:
    silent = Levels(background=0, alpha=0, blink=0, line=0, sensor=0)
    session = Session(Subject(0, silent), 1)
    first = session.stimulus(0)
    samples = session.samples(0, first.index + 300)
    assert not samples[: first.index - 1].any()
    since = np.arange(150) / 250.0 - first.delay
    expected = first.gain * session.subject.evoked(session.embeddings[first.concept], since)
    np.testing.assert_allclose(samples[first.index : first.index + 150], expected, rtol=1e-5, atol=1e-12)


def test_in_real_time_nothing_comes_before_its_time_and_stamps_are_exact() -> None:
    source = SimulatedSource(seed=3, seconds=0.4)
    batches = []
    with source:
        opened = source.read(0.0)
        while (batch := source.read(0.5)) is not None:
            batches.append(batch)
    assert opened is not None
    if opened.chunk is not None:
        batches.insert(0, opened)
    chunks = [b.chunk for b in batches if b.chunk is not None]
    assert joined(batches).tobytes() == REFERENCE[:100].tobytes()
    stamps = np.concatenate([c.stamps for c in chunks])
    check_stamps(stamps, 0)
    np.testing.assert_array_equal(stamps, stamps[0] + np.arange(100) / 250.0)
    for chunk in chunks:
        assert chunk.stamps[-1] <= chunk.arrived <= hostclock.now()


def test_a_reader_that_fell_behind_gets_everything_at_once() -> None:
    with SimulatedSource(seed=3, speed=50.0, chunk=1, seconds=100) as source:
        first = source.read(1.0)  # its clock starts
        begun = time.monotonic()
        while time.monotonic() < begun + 0.05:
            pass
        batch = source.read(0.0)
    assert first is not None
    assert batch is not None
    assert batch.chunk is not None
    assert len(batch.chunk) > 100
    assert math.isnan(batch.chunk.arrived)
    samples = joined([first, batch])
    assert samples.tobytes() == REFERENCE[: len(samples)].tobytes()


def test_its_clock_starts_when_it_is_first_read_however_long_after_it_was_opened() -> None:
    with SimulatedSource(seed=3, speed=50.0, chunk=1, seconds=100) as source:
        begun = time.monotonic()
        while time.monotonic() < begun + 0.05:
            pass
        batch = source.read(0.0)
    assert batch is not None
    assert batch.chunk is not None
    assert (batch.chunk.first_index, len(batch.chunk)) == (0, 1)


def test_close_wakes_a_reader() -> None:
    source = SimulatedSource(seed=3, chunk=2500)
    source.open()
    got: list[Batch | None] = [Batch(None)]
    reader = threading.Thread(target=lambda: got.__setitem__(0, source.read(30.0)))
    reader.start()
    source.close()
    source.close()
    reader.join(10.0)
    assert not reader.is_alive()
    assert got == [None]


@pytest.mark.parametrize(
    "wrong",
    [{"speed": 0}, {"seed": -1}, {"seconds": 0}, {"chunk": 0}, {"sfreq": 60.0}, {"soa": 0.5}, {"speed": math.nan}],
)
def test_arguments_that_make_no_sense_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=next(iter(wrong)) if wrong.keys() - {"sfreq", "soa"} else "expected"):
        SimulatedSource(**wrong)  # type: ignore[arg-type]
