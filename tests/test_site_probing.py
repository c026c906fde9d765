"""Site probing: simulated electrodes of which some are known to follow the stimuli; all found, false ones held down."""

import json

import numpy as np
import pytest
from typer.testing import CliRunner

pytest.importorskip("mne", reason="writing recordings needs MNE: pip install rtdecode[files]")

import mne

from rtdecode.encode.manifest import Contract
from rtdecode.errors import ConfigError, RecordingError
from rtdecode.signal import Channel
from rtdecode.stream.condition import Conditioner
from rtdecode.stream.steps import Bipolar, Laplacian, Pick, StreamStep
from rtdecode_models.sites.cli import probe_sites
from rtdecode_models.sites.contacts import (
    Referencing,
    best,
    bipolar_pairs,
    neighbours,
    place,
    referencing_step,
    site_regions,
    sites,
)
from rtdecode_models.sites.encoding import Encoding, block_folds, correlation, shuffled_folds
from rtdecode_models.sites.features import read_features, read_regions
from rtdecode_models.sites.probing import probe
from rtdecode_models.sites.selection import Settings, as_toml, read_selection, select_sites
from rtdecode_models.sites.significance import false_discovery, p_values, shifts

SFREQ, WIDTH = 250.0, 4
CONTACTS = [f"{shaft}'{number}" for shaft in "ABCD" for number in range(1, 7)]
#: These follow the stimuli, all with different weights.
RESPONSIVE = ("A'3", "C'2", "D'5")


# --- the arithmetic ---------------------------------------------------------------------------------------------------


def _known(seed=0, n=80, n_sites=12, times=2, strength=0.8):
    """Features, and responses of which the first three sites follow them in the second time."""
    random = np.random.default_rng(seed)
    features = random.standard_normal((n, WIDTH))
    responses = random.standard_normal((n, n_sites, times))
    responses[:, :3, -1] += strength * features @ random.standard_normal((WIDTH, 3))
    return features, responses


@pytest.mark.parametrize("correction", ["fdr", "max"])
def test_sites_that_follow_are_found_in_their_time_and_no_others(correction):
    features, responses = _known()
    probed = probe(features, responses, correction=correction, permutations=400)
    assert np.flatnonzero(probed.responds).tolist() == [0, 1, 2]
    assert probed.times[:3].tolist() == [1, 1, 1]
    assert (probed.scores[:3] > 0.4).all()


def test_where_nothing_follows_false_ones_are_as_rare_as_promised():
    """20 experiments without any effect: p-values are as low as chance has it, and next to no site is kept."""
    p, any_kept = [], 0
    for seed in range(20):
        features, responses = _known(seed, n=45, n_sites=15, strength=0.0)
        probed = probe(features, responses, correction="max", permutations=99, seed=seed, level=0.05)
        any_kept += bool(probed.responds.any())
        p.append(probe(features, responses, correction="fdr", permutations=99, seed=seed).p)
    values = np.concatenate(p)
    assert any_kept <= 3
    assert 0.44 < values.mean() < 0.56
    assert (values <= 0.1).mean() < 0.15


def test_scores_are_those_of_ridge_regression_on_rows_that_were_left_out():
    """Against the normal equations, for one penalty."""
    features, responses = _known()
    flat = responses.reshape(len(responses), -1)
    folds = shuffled_folds(len(features), 4, np.random.default_rng(1))
    expected = []
    for train, test in folds:
        mean, deviation = features[train].mean(0), features[train].std(0)
        x, told = (features[train] - mean) / deviation, (features[test] - mean) / deviation
        alpha = 0.5 * np.mean(np.linalg.svd(x, compute_uv=False) ** 2)
        weights = np.linalg.solve(x.T @ x + alpha * np.eye(WIDTH), x.T @ (flat[train] - flat[train].mean(0)))
        expected.append([np.corrcoef(a, b)[0, 1] for a, b in zip((told @ weights).T, flat[test].T, strict=True)])
    assert np.allclose(Encoding(features, folds, [0.5]).score(flat), np.mean(expected, axis=0))


def test_the_penalty_is_strong_where_features_only_look_useful():
    """As many features as rows: without a penalty the few that matter drown."""
    random = np.random.default_rng(2)
    features = random.standard_normal((90, 80))
    responses = (features[:, :3].sum(1) + random.standard_normal(90))[:, None]
    folds = shuffled_folds(90, 5, random)
    chosen, weakest = Encoding(features, folds).score(responses), Encoding(features, folds, [1e-6]).score(responses)
    assert chosen > weakest + 0.05


def test_rows_near_those_that_are_told_are_not_trained_on():
    for train, test in block_folds(60, 3, gap=4):
        assert np.abs(train[:, None] - test).min() > 4
    assert sorted(np.concatenate([test for _, test in block_folds(60, 3, gap=4)])) == list(range(60))


def test_continuous_rows_that_drift_alike_are_no_response():
    """Slow features and slow responses that have nothing to do with one another: shuffling rows would keep them."""
    random = np.random.default_rng(3)

    def slow(width):
        return np.cumsum(random.standard_normal((400, width)), axis=0)

    features, responses = slow(2), slow(8)[:, :, None]
    kept = [int(probe(features, responses, continuous_gap=gap, permutations=200).responds.sum()) for gap in (None, 5)]
    assert kept[0] >= 5
    assert kept[1] == 0


def test_a_short_recording_has_no_more_shifts_than_there_are():
    """60 rows: 49 different ones, each once, and no p-value below 1 / 50."""
    random = np.random.default_rng(0)
    given = [tuple(order) for order in shifts(60, 1000, 6, random)]
    assert len(given) == len(set(given)) == 49
    features = random.standard_normal((60, 1))
    responses = np.repeat(features, 2, axis=1)[:, :, None]
    probed = probe(features, responses, continuous_gap=1, permutations=1000)
    assert probed.permutations == 49
    assert probed.p.tolist() == [1 / 50, 1 / 50]
    with pytest.raises(ConfigError, match="49 permutations of 60 rows cannot reach"):
        probe(features, responses, continuous_gap=1, level=0.01)


def test_p_and_q_values():
    null = np.array([[0.1, 0.4], [0.3, 0.2], [0.2, 0.1]])
    assert p_values(np.array([0.25, 0.5]), null).tolist() == [0.5, 0.25]
    assert p_values(np.array([0.35, 0.5]), null, family=True).tolist() == [0.5, 0.25]
    assert np.allclose(false_discovery(np.array([0.01, 0.04, 0.03, 0.8])), [0.04, 0.16 / 3, 0.16 / 3, 0.8])


def test_a_flat_response_scores_nothing():
    assert correlation(np.arange(4.0)[:, None], np.full((4, 1), 3.0)).tolist() == [0.0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"level": 1.5}, "between 0 and 1"),
        ({"permutations": 10}, "cannot reach"),
        ({"folds": 1}, "2 or more"),
        ({"folds": 40}, "at least 120"),
    ],
)
def test_settings_that_make_no_sense_are_refused(change, message):
    features, responses = _known()
    with pytest.raises(ConfigError, match=message):
        probe(features, responses, **change)


# --- contacts ---------------------------------------------------------------------------------------------------------


def test_contacts_are_found_by_shaft_and_number():
    assert [place(name) for name in ("L'12", "POL A3", "LFP_RIGHT_0", "LA1-Ref", "EKG")] == [
        ("L'", 12), ("POL A", 3), ("LFP_RIGHT", 0), ("LA", 1), None,
    ]  # fmt: skip
    assert bipolar_pairs(["A1", "A2", "B1", "A4", "A3", "B3"]) == (("A1", "A2"), ("A2", "A3"), ("A3", "A4"))
    assert neighbours(["A2", "A1", "A3"]) == {"A2": ("A1", "A3"), "A1": ("A2",), "A3": ("A2",)}
    with pytest.raises(ConfigError, match="both name contact 1"):
        neighbours(["A1", "A 1"])


def test_steps_make_the_sites_that_they_are_named_after():
    names = ["A1", "A2", "A3", "A4"]
    channels = tuple(Channel(name, "seeg", "V") for name in names)
    cases: dict[Referencing, type[StreamStep]] = {"bipolar": Bipolar, "laplacian": Laplacian, "none": Pick}
    for referencing, expected in cases.items():
        found = sites(referencing, names)
        step = referencing_step(referencing, found)
        assert isinstance(step, expected)
        assert tuple(channel.name for channel in Conditioner((step,), channels, 100.0, {}).channels) == tuple(found)
    assert list(sites("laplacian", names)) == ["A2", "A3"]
    with pytest.raises(ConfigError, match="no bipolar reference"):
        sites("bipolar", ["A1", "B1"])


def test_the_best_of_the_wanted_regions():
    scores = {"A1-A2": 0.1, "A2-A3": 0.5, "B1-B2": 0.9, "B2-B3": 0.3}
    regions = site_regions(
        sites("bipolar", ["A1", "A2", "A3", "B1", "B2", "B3"]),
        {"A1": "STG", "A2": "STG", "A3": "vSMC", "B2": "vSMC"},
        "bipolar",
    )
    assert regions == {"A1-A2": "STG", "A2-A3": "STG|vSMC", "B1-B2": "vSMC", "B2-B3": "vSMC"}
    assert best(scores, 2) == ("B1-B2", "A2-A3")
    assert best(scores, 2, regions, ("STG",)) == ("A2-A3", "A1-A2")
    with pytest.raises(ConfigError, match="1 sites to choose 2 from"):
        best({"A1-A2": 0.1}, 2, regions, ("STG",))
    with pytest.raises(ConfigError, match=r"in V1.*STG, vSMC"):
        best(scores, 1, regions, ("V1",))


# --- recordings -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def experiment(tmp_path_factory):
    """A folder with a recording of 90 words of which each is heard twice, in V, and their features."""
    random = np.random.default_rng(0)
    folder = tmp_path_factory.mktemp("sites")
    n_words, every = 90, round(0.6 * SFREQ)
    words = np.repeat(np.arange(n_words), 2)
    random.shuffle(words)
    features = random.standard_normal((n_words, WIDTH))
    starts = 100 + every * np.arange(len(words))
    data = random.standard_normal((len(CONTACTS), starts[-1] + 2 * every))
    for contact in RESPONSIVE:
        weights = random.standard_normal(WIDTH) / 2
        for start, word in zip(starts, words, strict=True):
            # A deflection and a louder signal, 0.1 to 0.3 s after the word.
            at = slice(start + 25, start + 75)
            effect = features[word] @ weights
            data[CONTACTS.index(contact), at] = data[CONTACTS.index(contact), at] * np.exp(0.5 * effect) + 0.4 * effect
    raw = mne.io.RawArray(data * 2e-5, mne.create_info(CONTACTS, SFREQ, "seeg"), verbose="error")
    raw.set_annotations(mne.Annotations(starts / SFREQ, 0.0, [f"word/{word}" for word in words]))
    raw.save(folder / "words_raw.fif", verbose="error")
    lines = ["marker\ta\tb\tc\td"]
    lines += ["\t".join([f"word/{word}", *(f"{value:.6f}" for value in row)]) for word, row in enumerate(features)]
    (folder / "words.tsv").write_text("\n".join(lines) + "\n")
    regions = [f"{contact}\t{'STG' if contact[0] in 'AB' else 'vSMC'}" for contact in CONTACTS]
    (folder / "electrodes.tsv").write_text("\n".join(["name\tregion", *regions]) + "\n")
    return folder


@pytest.mark.parametrize("measure", ["mean", "power"])
def test_responsive_contacts_of_a_recording_are_found(experiment, measure):
    settings = Settings(referencing="none", measure=measure, edges=(0.1, 0.3, 0.5), correction="max", permutations=400)
    selection = select_sites([experiment / "words_raw.fif"], read_features(experiment / "words.tsv"), settings)
    assert set(selection.selected) == set(RESPONSIVE)
    assert selection.features["rows"] == 90
    assert all(site.best_s == (0.1, 0.3) for site in selection.sites if site.selected)
    assert selection.sites[0].score > 0.4


def test_the_verb_writes_a_contract_that_a_bundle_takes(experiment, tmp_path):
    """Bipolar, two of the vSMC: the contacts that those need, in the recording's order, and the step."""
    import typer

    app = typer.Typer()
    app.command()(probe_sites)
    out = tmp_path / "sites.json"
    arguments = [
        str(experiment / "words_raw.fif"), "--features", str(experiment / "words.tsv"), "--out", str(out),
        "--measure", "mean", "--times", "0.1,0.3", "--permutations", "600", "-n", "2",
        "--regions", str(experiment / "electrodes.tsv"), "--region", "vSMC",
    ]  # fmt: skip
    told = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert told.exit_code == 0
    selection = read_selection(out)
    true = {"A'2-A'3", "A'3-A'4", "C'1-C'2", "C'2-C'3", "D'4-D'5", "D'5-D'6"}
    assert {site.name for site in selection.sites if site.responds} == true
    assert len(selection.selected) == 2
    assert all(name.startswith(("C", "D")) for name in selection.selected)
    (step,) = selection.conditioning.stream
    assert isinstance(step, Bipolar)
    assert as_toml(step) in told.output.replace("\n", "")
    assert isinstance(selection.contract, Contract)
    needed = [channel.name for channel in selection.contract.channels]
    assert needed == [name for name in CONTACTS if name in {one for pair in step.pairs for one in pair}]
    assert {(channel.type, channel.unit) for channel in selection.contract.channels} == {("seeg", "V")}
    assert selection.contract.sfreq == SFREQ
    again = tmp_path / "again.json"
    CliRunner().invoke(app, [*arguments[:4], str(again), *arguments[5:], "--json"], catch_exceptions=False)
    assert again.read_bytes() == out.read_bytes()
    assert json.loads(out.read_text())["format"] == "rtdecode-sites"


def test_lagged_features_of_moments(experiment, tmp_path):
    """A contact that follows a feature 0.1 s later; with circular shifts none of the others is kept."""
    random = np.random.default_rng(4)
    rate, names = 20.0, ["A1", "A2", "A3", "B1", "B2", "B3"]
    features = random.standard_normal((1200, 1))
    data = random.standard_normal((len(names), round(1200 / rate * 200)))
    data[3] += np.repeat(np.roll(features[:, 0], 2), 10)
    raw = mne.io.RawArray(data * 2e-5, mne.create_info(names, 200.0, "seeg"), verbose="error")
    raw.save(tmp_path / "film_raw.fif", verbose="error")
    np.savez(tmp_path / "film.npz", features=features, sfreq=rate)
    given = read_features(tmp_path / "film.npz")
    settings = Settings(referencing="none", measure="mean", edges=(0.0, 0.05, 0.1, 0.15), permutations=300)
    selection = select_sites([tmp_path / "film_raw.fif"], given, settings)
    assert selection.selected == ("B1",)
    early = Settings(referencing="none", measure="mean", edges=(0.0, 0.05), permutations=300)
    none = select_sites([tmp_path / "film_raw.fif"], given, early)
    assert none.selected == ()
    assert none.contract is None
    with pytest.raises(ConfigError, match="2 recordings"):
        select_sites([tmp_path / "film_raw.fif"] * 2, given, settings)


def test_beta_power_over_motor_cortex_follows_grip_force(shared_data, tmp_path):
    """A real recording: ECoG and the force of a hand, ten times a second; best is a site of the ECoG."""
    path = shared_data / (
        "ieeg/py_neuromodulation/sub-testsub/ses-EphysMedOff/ieeg/"
        "sub-testsub_ses-EphysMedOff_task-gripforce_run-0_ieeg.vhdr"
    )
    if not path.is_file():
        pytest.skip("the recording is not on this machine")
    force = mne.io.read_raw_brainvision(path, verbose="error").get_data(["MOV_RIGHT"])[0]
    np.savez(tmp_path / "force.npz", features=1e6 * force[:19000].reshape(190, 100).mean(1)[:, None], sfreq=10.0)
    settings = Settings(contacts=("ECOG*", "LFP*"), band=(13.0, 35.0), edges=(-0.2, -0.1, 0.0, 0.1, 0.2))
    selection = select_sites([path], read_features(tmp_path / "force.npz"), settings)
    assert selection.sites[0].name.startswith("ECOG")
    assert selection.sites[0].responds
    assert selection.sites[0].score > 0.4
    assert selection.permutations == selection.features["rows"] - 2 * (selection.features["rows"] // 10) + 1


def test_what_is_missing_is_named(experiment, tmp_path):
    features = read_features(experiment / "words.tsv")
    recording = experiment / "words_raw.fif"
    with pytest.raises(ConfigError, match=r"no contact of words_raw\.fif matches X"):
        select_sites([recording], features, Settings(contacts=("X*",)))
    with pytest.raises(RecordingError, match=r"nowhere_raw\.fif does not exist"):
        select_sites([tmp_path / "nowhere_raw.fif"], features, Settings())
    (tmp_path / "other.tsv").write_text("marker\ta\nsound/1\t1\nsound/2\t2\n")
    with pytest.raises(ConfigError, match=r"sound/1.*whose markers are word/0"):
        select_sites([recording], read_features(tmp_path / "other.tsv"), Settings())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("marker\ta\nx\tlow\n", "line 2.*expected a marker and then numbers"),
        ("marker\ta\nx\t1\nx\t2\n", "'x' has 2 rows"),
        ("marker\ta\nx\tnan\n", "expected finite numbers"),
        ("marker\ta\n", "expected \\(rows, width\\)"),
        ("marker\ta\tb\nx\t1\t2\ny\t1\n", "line 3: 2 columns"),
    ],
)
def test_tables_that_are_none_are_refused(tmp_path, text, message):
    (tmp_path / "table.tsv").write_text(text)
    with pytest.raises(ConfigError, match=message):
        read_features(tmp_path / "table.tsv")


def test_arrays_that_are_none_are_refused(tmp_path):
    np.savez(tmp_path / "a.npz", features=np.ones((3, 2)), names=np.array(["x", "y"]))
    with pytest.raises(ConfigError, match="2 names for 3 rows"):
        read_features(tmp_path / "a.npz")
    np.savez(tmp_path / "b.npz", features=np.ones((3, 2)))
    with pytest.raises(ConfigError, match="either 'names' or 'sfreq'"):
        read_features(tmp_path / "b.npz")
    np.savez(tmp_path / "c.npz", features=np.array([{"a": 1}], dtype=object), sfreq=1.0)
    with pytest.raises(ConfigError, match="cannot be read"):
        read_features(tmp_path / "c.npz")
    (tmp_path / "regions.tsv").write_text("name\tarea\nA1\tSTG\n")
    with pytest.raises(ConfigError, match="'region'"):
        read_regions(tmp_path / "regions.tsv")


@pytest.mark.parametrize(
    ("arrays", "says"),
    [
        ({"features": np.ones((3, 2)), "sfreq": np.ones(2)}, "'sfreq' is float64 of shape \\(2,\\)"),
        ({"features": np.ones((3, 2)), "sfreq": np.array("fast")}, "expected one number"),
        ({"features": np.float64(1), "names": np.array(["a"])}, "'features' have shape \\(\\)"),
    ],
)
def test_arrays_that_are_no_features_are_named(tmp_path, arrays, says):
    np.savez(tmp_path / "f.npz", **arrays)
    with pytest.raises(ConfigError, match=says):
        read_features(tmp_path / "f.npz")


def test_files_that_are_no_features_and_no_regions_are_named(tmp_path):
    np.save(tmp_path / "f.npy", np.ones(3))
    for content in (b"", b"PK", (tmp_path / "f.npy").read_bytes()):
        (tmp_path / "f.npz").write_bytes(content)
        with pytest.raises(ConfigError, match=r"f.npz cannot be read as .npz"):
            read_features(tmp_path / "f.npz")
    (tmp_path / "e.tsv").write_text("name\tregion\nA1\n")
    with pytest.raises(ConfigError, match=r"the row \['A1'\] has 1 columns; expected 2"):
        read_regions(tmp_path / "e.tsv")
