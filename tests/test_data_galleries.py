"""Galleries as they are published, and where sensors are."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtdecode.errors import ConfigError
from rtdecode.signal import Channel
from rtdecode_models.data.galleries import read_captions, read_gallery, read_names, stacked_levels, things_clip
from rtdecode_models.data.positions import MISSING, plain, positions_of
from rtdecode_models.data.spec import Stimuli


def test_the_things_gallery(shared_data):
    gallery = things_clip(shared_data / "things_clip")
    assert len(gallery.names) == 200
    assert gallery.names[:2] == ("aircraft_carrier_06s", "antelope_01b")
    assert gallery.captions[1] == "An image of a male impala"
    image, centre = gallery.embeddings["image"], gallery.embeddings["centre"]
    assert image.shape == centre.shape == (200, 768)
    cosines = (image / np.linalg.norm(image, axis=1)[:, None]) @ (centre / np.linalg.norm(centre, axis=1)[:, None]).T
    assert (cosines.argmax(axis=1) == np.arange(200)).mean() > 0.95, "rows of the two files belong together"


def test_the_things_gallery_by_its_files(shared_data):
    stimuli = Stimuli(
        names="test200_captions_BrainFLORA.json",
        embeddings={"image": "clip_feature_maps_test.npy", "centre": "center_clip.npy"},
        captions="test200_captions_BrainFLORA.json",
    )
    gallery = read_gallery(stimuli, shared_data / "things_clip")
    known = things_clip(shared_data / "things_clip")
    assert gallery.names == known.names
    assert gallery.captions == known.captions
    assert gallery.embeddings["image"].shape == (200, 1, 768)
    np.testing.assert_array_equal(gallery.embeddings["centre"], known.embeddings["centre"])


def test_names_of_things_are_those_that_differ(shared_data):
    names = read_names(shared_data / "things_clip" / "things_item_names_1854.tsv")
    assert len(names) == len(set(names)) == 1854
    assert names[0] == "aardvark"


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("n.json", '["a", "b c"]'),
        ("n.json", '{"a": "x", "b c": "y"}'),
        ("n.txt", "a\nb c\n\n"),
        ("n.tsv", "id\tname\n1\ta\n2\tb c\n"),
        ("n.tsv", "word\tuse\na\t1\nb c\t2\n"),
    ],
)
def test_names_in_every_layout(tmp_path, file, text):
    (tmp_path / file).write_text(text)
    assert read_names(tmp_path / file) == ("a", "b c")


@pytest.mark.parametrize(
    ("file", "text", "says"),
    [
        ("n.json", "[1, 2]", "holds no names"),
        ("n.json", "3", "holds no names"),
        ("n.json", "{", "is not JSON"),
        ("n.txt", "\n", "holds no names"),
        ("n.txt", "a\na\n", "names 'a' more than once"),
        ("n.tsv", "", "holds no names"),
        ("n.tsv", "use\tname\n1\ta\n2\n", "holds no names"),
    ],
)
def test_names_that_are_none(tmp_path, file, text, says):
    (tmp_path / file).write_text(text)
    with pytest.raises(ConfigError, match=rf"n\..* {says}|n\..*{says}"):
        read_gallery(Stimuli(names=file), tmp_path)


def test_captions_must_be_whole(tmp_path):
    (tmp_path / "c.json").write_text(json.dumps({"a": "an a"}))
    assert read_captions(tmp_path / "c.json", ("a",)) == ("an a",)
    with pytest.raises(ConfigError, match=r"c.json has no caption for 'b'"):
        read_captions(tmp_path / "c.json", ("a", "b"))


def test_levels_are_of_one_shape():
    levels = stacked_levels([np.full((3, 4), level, np.float32) for level in range(5)])
    assert levels.shape == (3, 5, 4)
    assert levels[2, :, 0].tolist() == [0, 1, 2, 3, 4]
    with pytest.raises(ConfigError, match=r"levels of shapes \[\(3, 4\), \(2, 4\)\]"):
        stacked_levels([np.zeros((3, 4), np.float32), np.zeros((2, 4), np.float32)])


def test_numbers_that_are_not_finite_are_refused(tmp_path):
    np.save(tmp_path / "clip.npy", np.array([[1.0, np.inf]]))
    with pytest.raises(ConfigError, match=r"stimuli.embeddings.image \(clip.npy\) holds numbers that are not finite"):
        read_gallery(Stimuli(embeddings={"image": "clip.npy"}), tmp_path)


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        ([["a", "b"]], "is <U1 of shape"),
        ([[1j, 2.0]], "expected real numbers"),
        ([[], []], "has the shape"),
    ],
)
def test_embeddings_that_are_none(tmp_path, rows, says):
    np.save(tmp_path / "clip.npy", np.array(rows))
    with pytest.raises(ConfigError, match=rf"stimuli.embeddings.image \(.*clip.npy.*\).*{says}"):
        read_gallery(Stimuli(embeddings={"image": "clip.npy"}), tmp_path)


# --- positions --------------------------------------------------------------------------------------------------------


@pytest.fixture
def layouts():
    pytest.importorskip("mne", reason="layouts come with MNE: pip install rtdecode[files]")


def eeg(*names):
    return [Channel(name, "eeg", "V") for name in names]


def test_the_ten_twenty_system_in_any_spelling(layouts):
    places = positions_of(eeg("Fpz", "T7", "Cz", "T8", "Oz"))
    assert places is not None
    fpz, t7, cz, t8, oz = places
    assert t7[0] == places[:, 0].min() == 0
    assert t8[0] == places[:, 0].max() == 1
    assert oz[1] == 0 < cz[1] < fpz[1] == 1
    np.testing.assert_allclose(cz[0], 0.5, atol=0.02)
    np.testing.assert_array_equal(places, positions_of(eeg("EEG Fpz", "T7..", "CZ", "t8", "EEG Oz")))


def test_ctf_and_elekta_helmets(layouts):
    ctf = positions_of([Channel(name, "mag", "T") for name in ("MLT11-2622", "MZC01", "MRT11", "MZO01", "MZF01")])
    assert ctf is not None
    left, middle, right, back, front = ctf
    assert left[0] < middle[0] < right[0]
    assert back[1] < middle[1] < front[1]
    assert ctf.min() == 0
    assert ctf.max() == 1
    elekta = positions_of([Channel(name, "grad", "T/m") for name in ("MEG 0113", "MEG0742", "MEG 1422")])
    assert elekta is not None
    assert elekta[0, 0] < elekta[1, 0] < elekta[2, 0]


def test_a_channel_that_no_layout_knows_is_missing(layouts):
    places = positions_of(eeg("C3", "C4", "Cz", "X9"))
    assert places is not None
    assert places[3].tolist() == [MISSING, MISSING]
    assert places[:3].min() >= 0


def test_other_montages_are_rolled_out_around_the_vertex():
    """A cap of its own names: distance from the middle is the angle from the vertex, whatever the radius."""

    def at(angle, azimuth, radius):
        x, y = np.sin(angle) * np.cos(azimuth), np.sin(angle) * np.sin(azimuth)
        return tuple(float(v) for v in radius * np.array([x, y, np.cos(angle)]) + (0, 0, 0.04))

    places = [(0.0, 0.0), (0.5, 0.0), (1.0, 0.0), (1.0, np.pi), (1.0, np.pi / 2), (1.0, -np.pi / 2)]
    found = positions_of(
        [Channel(f"E{n:03d}x", "eeg", "V", at(*place, 0.08 + 0.01 * n)) for n, place in enumerate(places)]
    )
    assert found is not None
    np.testing.assert_allclose(
        found, [[0.5, 0.5], [0.75, 0.5], [1.0, 0.5], [0.0, 0.5], [0.5, 1.0], [0.5, 0.0]], atol=1e-9
    )


def test_electrodes_in_the_brain_are_seen_from_above():
    places = [(0.01, 0.02, 0.05), (0.03, 0.02, -0.02), (0.02, 0.06, 0.0)]
    channels = [Channel(f"LA{n}", "seeg", "V", place) for n, place in enumerate(places)]
    found = positions_of([*channels, Channel("LB1", "seeg", "V")])
    assert found is not None
    np.testing.assert_allclose(found, [[0.0, 0.0], [1.0, 0.0], [0.5, 1.0], [MISSING, MISSING]], atol=1e-12)
    assert positions_of([Channel("LB1", "seeg", "V")]) is None


@given(st.permutations(["Fp1", "Fp2", "C3", "C4", "O1", "O2", "unknown"]))
def test_a_place_belongs_to_its_channel(order):
    pytest.importorskip("mne", reason="layouts come with MNE: pip install rtdecode[files]")
    known = dict(zip(order, positions_of(eeg(*order)).tolist(), strict=True))  # type: ignore[union-attr]
    again = dict(zip(sorted(order), positions_of(eeg(*sorted(order))).tolist(), strict=True))  # type: ignore[union-attr]
    assert known == again


def test_plain_names():
    assert plain("Fc5.") == plain("EEG FC5") == plain("FC5") == "fc5"
    assert plain("MLC11-2622") == plain("MLC11") == "mlc11"
