"""Simulated experiments: the noise is what it says, likelihoods are exact, and nothing beats the ceiling."""

import tomllib
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray
from rich.console import Console
from scipy.special import logsumexp
from scipy.stats import multivariate_normal

from rtdecode.errors import ConfigError, RecordingError
from rtdecode.sources.forward import RADIUS
from rtdecode_models.data.trials import Ceiling
from rtdecode_models.simulated import electrodes, noise, objects, sensors, spectral, stimuli, things, words
from rtdecode_models.simulated.ceiling import Ideal, log_posterior
from rtdecode_models.simulated.grid import Grid
from rtdecode_models.simulated.objects import Objects
from rtdecode_models.simulated.open import open_simulated
from rtdecode_models.simulated.spec import Simulated
from rtdecode_models.simulated.ssvep import SSVEP
from rtdecode_models.training.recipe import read_recipe

Array = NDArray[np.float64]
RECIPES = Path(__file__).parents[1] / "models" / "recipes" / "zoo"
NOWHERE = Path("/nonexistent")


def tiny(snr: float, channels: int = 12, times: int = 16, seed: int = 3) -> tuple[things.Subject, Array]:
    """A subject with few sensors and samples, and the amplitudes of 20 candidates."""
    rng = np.random.default_rng(seed)
    shown = stimuli.stand_in(20, seed, width=30)
    components = things.Components.draw(rng, (things.EARLY, things.LATE), 30)
    seconds = 0.05 + np.arange(times) / 40.0
    head = things.draw_subject(rng, components, sensors.meg(channels), seconds, 40.0, snr)
    return head, components.amplitudes(shown.distribution, shown.test)


def ideal(head: things.Subject, shown: things.Shown, amplitudes: Array, wander: float = things.WANDER) -> Ideal:
    return Ideal(log_posterior(head, shown, amplitudes, wander), shown.item)


# --- what things are made of ------------------------------------------------------------------------------------------


def test_noise_has_its_covariance_and_whitens_to_the_identity() -> None:
    rng = np.random.default_rng(0)
    over_time = noise.over_time(4, 100.0, alpha=10.0, share=0.3)
    assert np.allclose(np.diag(over_time), 1.0)
    root = rng.standard_normal((3, 3))
    made = noise.Noise.of(over_time, root @ root.T, white=0.7)
    drawn = made.sample(rng, 40000)
    expected = np.kron(over_time, root @ root.T) + 0.7**2 * np.eye(12)
    found = np.cov(drawn.reshape(len(drawn), -1).T)
    assert np.abs(found - expected).max() < 0.05 * np.abs(expected).max()
    assert np.abs(np.cov(made.whiten(drawn).reshape(len(drawn), -1).T) - np.eye(12)).max() < 0.03


def test_a_radial_source_is_silent_outside_the_head_and_a_deeper_one_weaker() -> None:
    helmet = sensors.meg(40)
    place = np.array([[0.0, 0.03, 0.06]])
    turned = np.array([[1e-8, 0.0, 0.0]])
    across = np.abs(helmet.fields(place, turned)).max()
    assert 1e-14 < across < 1e-11
    assert np.abs(helmet.fields(place, place)).max() < 1e-9 * across
    assert np.abs(helmet.fields(0.5 * place, turned)).max() < 0.5 * across
    cap = sensors.eeg(("Cz", "Oz"))
    above = cap.fields(np.array([[0.0, 0.0, 0.07]]), np.array([[0.0, 0.0, 1e-8]]))[0]
    assert 1e-6 < above[0] < 1e-4
    assert above[0] > 10 * abs(above[1])
    assert helmet.flat.min() == 0.0
    assert helmet.flat.max() == 1.0
    with pytest.raises(ConfigError, match="no simulated electrode is called 'X9'"):
        sensors.eeg(("Cz", "X9"))


def test_the_cosine_basis_is_orthonormal() -> None:
    found = np.random.default_rng(0).standard_normal((6, 8, 2))
    window = words.synthesise(found)
    assert np.allclose(words.analyse(window, 8), found)
    assert np.isclose((window**2).sum(), (found**2).sum())


def test_spectral_windows_come_back_and_have_the_density_of_their_covariance() -> None:
    rng = np.random.default_rng(0)
    bins = spectral.frequencies(12, 24.0)
    assert bins.tolist() == [2.0, 4.0, 6.0, 8.0, 10.0]
    root = rng.standard_normal((5, 2, 2))
    covariance = root @ root.swapaxes(1, 2) + 0.1 * np.eye(2)
    spectra = np.stack([spectral.draw(rng, covariance) for _ in range(4000)])
    windows = spectral.windows_of(spectra, 12)
    assert np.allclose(spectral.coefficients(windows), spectra, atol=1e-4)
    assert np.isclose((windows**2).mean(axis=(0, 1)).sum(), np.trace(covariance.sum(axis=0)), rtol=0.05)
    # a complex normal number is two real ones, each with half of the variance
    two = [multivariate_normal(np.zeros(4), np.kron(np.eye(2), each) / 2) for each in covariance]
    direct = [
        sum(one.logpdf(np.concatenate([row.real, row.imag])) for one, row in zip(two, trial, strict=True))
        for trial in spectra[:5]
    ]
    shifted = spectral.log_likelihood(spectra[:5], covariance) - np.array(direct)
    assert np.allclose(shifted, shifted[0])


def test_a_grid_is_a_distribution() -> None:
    grid = Grid.normal(0.02, 0.005)
    assert np.isclose(grid.probability.sum(), 1.0)
    assert grid.values[0] == -0.05
    assert np.isclose(np.sqrt((grid.probability * grid.values**2).sum()), 0.02, rtol=0.1)


def test_electrodes_between_rows_and_columns_lie_between_their_neighbours() -> None:
    places = {name: np.array(electrodes.place_of(name)) for name in ("FFC1h", "Fz", "F1", "FCz", "FC1", "PPO9h", "P7")}
    between = places["Fz"] + places["F1"] + places["FCz"] + places["FC1"]
    assert np.linalg.norm(places["FFC1h"] - RADIUS * between / np.linalg.norm(between)) < 1e-3
    assert places["PPO9h"][2] < places["P7"][2]
    left, right = electrodes.place_of("TPP7h"), electrodes.place_of("TPP8h")
    assert left is not None
    assert right == (-left[0], left[1], left[2])
    assert electrodes.place_of("X9") is electrodes.place_of("Trigger") is None
    data = tomllib.loads((RECIPES / "neuroimagen.toml").read_text("utf-8"))["data"]
    cap = sensors.eeg(data["channels"]).places
    apart = np.linalg.norm(cap[:, None] - cap[None], axis=2) + np.eye(len(cap))
    assert apart.min() > 0.005
    assert np.allclose(np.linalg.norm(cap, axis=1), RADIUS)


# --- the ceiling ------------------------------------------------------------------------------------------------------


def test_the_posterior_is_that_of_the_dense_model() -> None:
    """Every step of the grids and of the quadrature as one normal density with the whole covariance."""
    head, amplitudes = tiny(0.5, channels=3, times=5)
    amplitudes = amplitudes[:3]
    shown = things.show(np.random.default_rng(1), head, amplitudes, 1)
    over_everything = np.linalg.inv(head.noise.whiten(np.eye(15).reshape(15, 5, 3)).reshape(15, 15))
    white = over_everything.T @ over_everything
    nodes, mass = np.polynomial.hermite_e.hermegauss(9)
    grids = [Grid.normal(*spread).weighted() for spread in things.SHIFTS]
    logs: list[Array] = []
    for first, (_, log_first) in enumerate(grids[0]):
        for second, (_, log_second) in enumerate(grids[1]):
            course = head.courses[0][first] + head.courses[1][second]
            rows = (course.T[:, :, None] * head.fields[:, None, :]).reshape(-1, 15)
            for node, share in zip(nodes, mass / mass.sum(), strict=True):
                gain = np.exp(things.GAIN_SPREAD * node)
                covariance = white + (gain * things.WANDER) ** 2 * rows.T @ rows
                weight = log_first + log_second + np.log(share)
                # in units in which the noise is about 1, for the sake of the determinant
                unit = np.sqrt(np.trace(white) / 15)
                each = [
                    weight
                    + multivariate_normal(gain * (w + head.common) @ rows / unit, covariance / unit**2).logpdf(
                        shown.windows.reshape(-1, 15) / unit
                    )
                    for w in amplitudes
                ]
                logs.append(np.stack(each, axis=1))
    total = logsumexp(np.stack(logs), axis=0)
    expected = total - logsumexp(total, axis=1, keepdims=True)
    assert np.abs(log_posterior(head, shown, amplitudes) - expected).max() < 1e-3


def test_without_signal_the_ceiling_is_chance_and_with_much_of_it_one() -> None:
    rng = np.random.default_rng(2)
    head, amplitudes = tiny(0.0)
    blind = ideal(head, things.show(rng, head, amplitudes, 3), amplitudes)
    assert blind.top(1) == pytest.approx(1 / 20)
    assert blind.top(5) == pytest.approx(5 / 20)
    head, amplitudes = tiny(20.0)
    assert ideal(head, things.show(rng, head, amplitudes, 3, wander=0.0), amplitudes, wander=0.0).top(1) == 1.0
    # what wanders in the signal's own directions is no less at a stronger signal
    bounded = ideal(head, things.show(rng, head, amplitudes, 10, wander=2.0), amplitudes, wander=2.0)
    assert 0.3 < bounded.top(1) < 0.9


def test_no_decoder_with_the_true_means_beats_the_ceiling() -> None:
    head, amplitudes = tiny(0.8)
    rng = np.random.default_rng(4)
    shown = things.show(rng, head, amplitudes, 60)
    best = ideal(head, shown, amplitudes)
    middle = np.array([[len(grid) // 2 for grid in head.courses]] * len(amplitudes))
    x = head.noise.whiten(shown.windows).reshape(len(shown.item), -1)
    means = head.noise.whiten(head.responses(amplitudes, middle)).reshape(len(amplitudes), -1)
    matched = x @ means.T - 0.5 * (means**2).sum(axis=1)
    # linear discriminant: the true mean and covariance within a class, from many trials of each
    many = things.show(np.random.default_rng(5), head, amplitudes, 400)
    seen = head.noise.whiten(many.windows).reshape(len(many.item), -1)
    centres = np.stack([seen[many.item == at].mean(axis=0) for at in range(len(amplitudes))])
    filters = np.linalg.solve(np.cov((seen - centres[many.item]).T), centres.T)
    linear = x @ filters - 0.5 * (centres.T * filters).sum(axis=0)
    for rival in (matched, linear):
        assert best.top(1) > Ideal(rival, shown.item).top(1)
        assert best.top(5) >= Ideal(rival, shown.item).top(5) - 0.01


def test_the_posterior_means_what_it_says() -> None:
    head, amplitudes = tiny(0.6)
    shown = things.show(np.random.default_rng(6), head, amplitudes, 100)
    best = ideal(head, shown, amplitudes)
    assert abs(best.top(1) - best.expected(1)) < 3 * best.halfwidth(1) / 1.96
    sure = np.exp(best.log_posterior.max(axis=1))
    right = best.log_posterior.argmax(axis=1) == shown.item
    for low, high in ((0.0, 0.4), (0.4, 0.7), (0.7, 1.0)):
        mine = (sure >= low) & (sure < high)
        wide = 3.5 * np.sqrt(0.25 / mine.sum())
        assert mine.sum() > 100
        assert abs(sure[mine].mean() - right[mine].mean()) < wide


CLASSES: dict[str, dict[str, Any]] = {
    "words": {"n_classes": 4, "n_test": 160, "tmin": 0.0, "tmax": 1.0, "n_channels": 2, "sfreq": 400.0},
    "imagery": {"n_classes": 2, "n_test": 160, "n_subjects": 1, "tmax": 1.5, "channels": ("C3", "Cz", "C4", "Pz")},
    "emotion": {"n_classes": 3, "n_test": 240},
    "emotion-arousal": {"n_classes": 3, "n_test": 240},
    "ssvep": {"n_classes": 3, "n_test": 240, "n_subjects": 1, "sfreq": 128.0},
    "objects": {"n_classes": 4, "n_test": 160, "tmax": 2.0, "sfreq": 50.0, "channels": ("O1", "Oz", "P7", "P8")},
}


@pytest.mark.parametrize(
    ("experiment", "weak", "strong"),
    [
        ("words", 0.1, 3.0),
        ("imagery", 0.2, 0.99),
        ("emotion", 1.0, 12.0),
        ("emotion-arousal", 1.0, 14.0),
        ("ssvep", 0.1, 1.0),
        ("objects", 0.1, 1.0),
    ],
)
def test_ceilings_of_classes_go_from_chance_to_one_and_are_calibrated(
    experiment: str, weak: float, strong: float
) -> None:
    def ceiling(snr: float) -> Ceiling:
        table: dict[str, Any] = {"experiment": experiment, "snr": snr, "seed": 7, **CLASSES[experiment]}
        return open_simulated(Simulated(**table), NOWHERE).experiment.ceiling()

    chance = 1 / CLASSES[experiment]["n_classes"]
    none, some, much = (ceiling(snr).scores for snr in (0.0, weak, strong))
    assert abs(none["accuracy"] - chance) < 2.5 * none["accuracy_halfwidth"]
    # an imagined movement is not always made, rhythms lie over one another, and an object is not always answered alike
    assert much["accuracy"] > (0.8 if experiment in ("imagery", "objects") else 0.97)
    assert none["accuracy_expected"] < some["accuracy_expected"] < much["accuracy_expected"]
    for scores in (some, much):
        assert abs(scores["accuracy"] - scores["accuracy_expected"]) < 1.6 * scores["accuracy_halfwidth"] + 0.01


def test_the_likelihood_of_a_flicker_is_the_mean_over_its_phases_and_gains() -> None:
    """The Bessel function against a sum over many phases of plain complex normal densities."""
    spec = Simulated(experiment="ssvep", n_subjects=1, n_test=6, sfreq=128.0, channels=("O1", "Oz", "O2"))
    flicker = SSVEP(spec)
    windows = flicker.windows(0, True).x
    background, answers = flicker._head(0)
    spectra = spectral.coefficients(windows)
    turns = np.exp(2j * np.pi * np.arange(256) / 256)
    said = np.empty((6, 3))
    for light, at in enumerate(flicker._at):
        over_gain = []
        for gain, often in flicker._gain.weighted():
            log = np.zeros(6)
            for harmonic, place in enumerate(at):
                white = np.linalg.inv(np.linalg.cholesky(background[place]))
                x, mean = spectra[:, place] @ white.T, white @ answers[light, harmonic]
                away = (np.abs(x[:, None] - gain * turns[:, None] * mean) ** 2).sum(axis=2)
                log += logsumexp(-away, axis=1) + (np.abs(x) ** 2).sum(axis=1)
            over_gain.append(often + log)
        said[:, light] = logsumexp(over_gain, axis=0)
    expected = said - logsumexp(said, axis=1, keepdims=True)
    assert np.abs(flicker.log_posterior(0, windows) - expected).max() < 1e-6


def test_the_posterior_of_objects_is_that_of_the_dense_model() -> None:
    spec = Simulated(
        experiment="objects", n_classes=3, n_test=6, tmax=2.0, sfreq=20.0, channels=("O1", "P8"), snr=0.3, seed=2
    )
    seen = Objects(spec)
    windows = seen.windows(0, True).x
    head = seen._head(0)
    x = head.whiten(spectral.coefficients(windows))
    # what a component adds to a window, in these coordinates, by way of windows of its own
    alone = spectral.windows_of(head.answers * 1e6, windows.shape[1])
    rows = head.whiten(spectral.coefficients(alone)) / 1e6
    logs = []
    for gain, often in seen._gain.weighted():
        covariance = np.eye(rows.shape[1]) + gain**2 * objects.WANDER**2 * rows.T @ rows
        for colour in seen._of_colour:
            means = gain * (seen._common + seen._of_class + colour) @ rows
            each = [multivariate_normal(mean, covariance).logpdf(x) for mean in means]
            logs.append(often + np.stack(each, axis=1))
    total = logsumexp(np.stack(logs), axis=0)
    expected = total - logsumexp(total, axis=1, keepdims=True)
    assert np.abs(seen.log_posterior(0, windows) - expected).max() < 1e-3
    noise_only = Objects(msgspec.structs.replace(spec, snr=0.0, n_test=600))
    white = noise_only._head(0).whiten(spectral.coefficients(noise_only.windows(0, True).x))
    assert np.abs(np.cov(white.T) - np.eye(white.shape[1])).max() < 0.3


# --- as data ----------------------------------------------------------------------------------------------------------


def small(**other: Any) -> Simulated:
    table: dict[str, Any] = {
        "experiment": "things-eeg",
        "n_train": 30,
        "n_test": 12,
        "sfreq": 100.0,
        "tmax": 0.5,
        **other,
    }
    return Simulated(**table)


def test_sessions_are_the_same_at_every_call_and_others_for_another_seed() -> None:
    channels = ("O1", "Oz", "O2", "Pz")
    source, again = (open_simulated(small(channels=channels), NOWHERE) for _ in range(2))
    assert source.sessions == ("s01-train", "s01-test", "s02-train", "s02-test")
    assert source.test_sessions == ("s01-test", "s02-test")
    first = source.dataset(("s01-train", "s02-train"))
    assert np.array_equal(first.train.x, again.dataset(("s01-train", "s02-train")).train.x)
    other = open_simulated(small(channels=channels, seed=1), NOWHERE).dataset(("s01-train", "s02-train"))
    assert not np.array_equal(first.train.x, other.train.x)
    assert first.simulated
    assert first.positions is not None
    assert first.positions.shape == (4, 2)
    assert first.train.x.shape == (60, 50, 4)
    assert np.allclose(first.train.x[:30].std(axis=(0, 1)), 1.0, atol=0.01)


def test_no_training_stimulus_is_tested_and_targets_are_standardised() -> None:
    source = open_simulated(small(n_subjects=1, n_train=300), NOWHERE)
    data = source.dataset(("s01-train",))
    test = source.test(("s01-test",), data)
    assert data.train.gallery is not None
    assert test.gallery is not None
    assert not set(data.train.gallery.names) & set(test.gallery.names)
    known, new = data.train.gallery.embeddings["image"], test.gallery.embeddings["image"]
    assert new.shape == (12, 768)
    assert np.abs(known.mean(axis=0)).max() < 0.3
    assert 0.9 < known.std(axis=0).mean() < 1.1
    assert (known[:, None, :8] - new[None, :, :8]).any(axis=2).all()
    assert data.ceiling is not None
    assert len(test) == 24
    assert 0.0 < data.ceiling.scores["top1"] <= data.ceiling.scores["top5"] <= 1.0


def test_captions_are_the_same_mixture_of_the_embeddings_in_training_and_test() -> None:
    plain = open_simulated(small(n_subjects=1, n_train=900), NOWHERE).experiment
    source = open_simulated(small(n_subjects=1, n_train=900, captions=True), NOWHERE).experiment
    assert np.array_equal(plain.windows(0, True).x, source.windows(0, True).x)
    known, new = source.windows(0, False).gallery, source.windows(0, True).gallery
    assert known is not None
    assert new is not None
    mixture = np.linalg.lstsq(known.embeddings["image"], known.embeddings["caption"], rcond=None)[0]
    assert np.allclose(new.embeddings["image"] @ mixture, new.embeddings["caption"], atol=1e-2)
    assert not np.allclose(new.embeddings["image"], new.embeddings["caption"], atol=0.5)


def test_real_embeddings_are_the_test_stimuli_where_they_are_given(shared_data: Path) -> None:
    folder = shared_data / "things_clip"
    source = open_simulated(small(n_subjects=1, n_test=200, embeddings="raw"), folder)
    gallery = source.experiment.windows(0, True).gallery
    assert gallery is not None
    rows = np.load(folder / stimuli.FEATURES)[:, 0]
    assert np.allclose(gallery.embeddings["image"], rows, atol=1e-5)
    drawn = stimuli.real(folder, 200).distribution.draw(np.random.default_rng(0), 400)
    # as many of one category, as it were: training stimuli are as alike as real ones are
    assert (
        abs((drawn @ drawn.T)[np.triu_indices(400, 1)].mean() - (rows @ rows.T)[np.triu_indices(200, 1)].mean()) < 0.05
    )


def test_a_file_that_holds_no_embeddings_is_named(tmp_path: Path) -> None:
    np.save(tmp_path / stimuli.FEATURES, np.zeros((3, 4)))
    with pytest.raises(RecordingError, match=r"shape \(3, 4\); expected 12 rows"):
        open_simulated(small(), tmp_path)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"experiment": "imagery", "snr": 1.0}, "share of power that is lost"),
        ({"experiment": "imagery", "n_classes": 9}, "has 2 to 4"),
        ({"experiment": "objects", "tmax": 0.9}, "one or more of the turning"),
        ({"experiment": "ssvep", "tmax": 4.7}, "expected whole numbers"),
        ({"experiment": "words", "tmax": 2.51}, "no whole number of frames"),
        ({"experiment": "things-eeg", "n_classes": 3}, "no classes"),
    ],
)
def test_experiments_that_cannot_be_are_refused(table: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        open_simulated(Simulated(**table), NOWHERE)


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.toml")), ids=lambda path: path.stem)
def test_every_recipe_is_sound(path: Path) -> None:
    recipe, _ = read_recipe(path)
    assert recipe.name == path.stem
    assert isinstance(recipe.data, Simulated)
    assert len(recipe.seeds) == 3


def test_ridge_trained_by_a_recipe_is_above_chance_and_below_the_ceiling(tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="training needs torch: pip install rtdecode[train]")
    from rtdecode_models.training.run import run

    path = tmp_path / "ridge.toml"
    path.write_text(
        """
        name = "ridge"
        seeds = [0]
        [data]
        kind = "simulated"
        experiment = "things-meg"
        n_subjects = 2
        n_train = 300
        n_test = 50
        n_channels = 40
        sfreq = 60.0
        tmin = 0.1
        tmax = 0.4
        snr = 2.0
        [split]
        unseen_items = true
        [model]
        system = "ridge"
        [[score]]
        kind = "retrieve"
        """
    )
    ((_, metrics),) = run([path], data=NOWHERE, out=tmp_path / "out", console=Console(quiet=True))
    assert metrics["simulated"]
    assert metrics["ceiling"]["how"].startswith("posterior over the gallery")
    scored = metrics["test"]["tasks"]["embedding/image"]
    assert scored["candidates"] == 50
    top1 = scored["scores"]["top1"]["mean"]
    assert 5 / 50 < top1 < metrics["ceiling"]["scores"]["top1"] <= 1.0
    assert scored["ceiling"]["top1"]["share"] == pytest.approx(top1 / metrics["ceiling"]["scores"]["top1"])
