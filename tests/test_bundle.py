"""Bundles: what is written is what is read, and nothing that was changed is."""

import io
import os
import shutil
import subprocess
import zipfile
from pathlib import Path
from typing import Any

import bundles
import msgspec
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rtdecode.encode import container
from rtdecode.encode.bundle import Bundle, write_bundle
from rtdecode.errors import BundleError


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bundle") / "folder"
    write_bundle(path, *bundles.parts())
    return path


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bundle") / "packed.zip"
    write_bundle(path, *bundles.parts())
    return path


def contents(bundle: Bundle) -> dict[str, bytes]:
    return {name: bundle.read(name) for name in bundle.files}


# --- what is written is what is read ----------------------------------------------------------------------------------


def test_a_folder_and_a_zip_hold_the_same(folder: Path, packed: Path) -> None:
    one, other = Bundle.open(folder), Bundle.open(packed)
    manifest, files = bundles.parts()
    assert one.id == other.id
    assert one.manifest == other.manifest == manifest
    assert contents(one) == contents(other)
    assert one.onnx_bytes() == files["encoder.onnx"]
    for name, array in files.items():
        if isinstance(array, np.ndarray):
            np.testing.assert_array_equal(one.array(name), array)
            assert not one.array(name).flags.writeable
    assert [item.name for item in one.items(manifest.heads[0])][-1] == "a picture"


def test_one_content_gives_one_zip_to_the_byte(packed: Path, tmp_path: Path) -> None:
    manifest, files = bundles.parts()
    again = tmp_path / "again.zip"
    write_bundle(again, manifest, dict(reversed(files.items())))
    assert again.read_bytes() == packed.read_bytes()


def test_another_content_gives_another_id(folder: Path, tmp_path: Path) -> None:
    manifest, files = bundles.parts()
    other = write_bundle(tmp_path / "other", msgspec.structs.replace(manifest, name="other"), files)
    assert other.id != Bundle.open(folder).id


def test_sha256sum_agrees(folder: Path) -> None:
    if shutil.which("sha256sum") is None:
        pytest.skip("sha256sum is not on this machine")
    assert subprocess.run(["sha256sum", "--check", "--strict", "SHA256SUMS"], cwd=folder, check=False).returncode == 0


def test_arrays_are_written_in_one_layout(tmp_path: Path) -> None:
    manifest, files = bundles.parts()
    rows = files["gallery/rows.npy"]
    assert isinstance(rows, np.ndarray)
    plain = write_bundle(tmp_path / "plain", manifest, files)
    odd = write_bundle(tmp_path / "odd", manifest, files | {"gallery/rows.npy": np.asfortranarray(rows.astype(">f4"))})
    assert plain.id == odd.id


def test_a_zip_packed_by_hand_has_the_same_id(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "by-hand.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for entry in sorted(folder.rglob("*")):
            file.write(entry, entry.relative_to(folder))
    assert Bundle.open(path).id == Bundle.open(folder).id


def test_writing_replaces_only_bundles_and_only_when_told(tmp_path: Path) -> None:
    manifest, files = bundles.parts()
    for name in ("b", "b.zip"):
        path = tmp_path / name
        first = write_bundle(path, manifest, files)
        changed = msgspec.structs.replace(manifest, name="changed")
        with pytest.raises(BundleError, match="is there already"):
            write_bundle(path, changed, files)
        assert Bundle.open(path).id == first.id
        assert write_bundle(path, changed, files, overwrite=True).id != first.id
        assert Bundle.open(path).manifest.name == "changed"
    precious = tmp_path / "thesis"
    precious.mkdir()
    (precious / "chapter1.tex").write_text("years of work")
    with pytest.raises(BundleError, match="is no bundle"):
        write_bundle(precious, manifest, files, overwrite=True)
    assert (precious / "chapter1.tex").read_text() == "years of work"


def test_a_bundle_that_would_not_open_is_not_written(tmp_path: Path) -> None:
    manifest, files = bundles.parts()
    with pytest.raises(BundleError, match="width 5"):
        write_bundle(tmp_path / "b", manifest, files | {"gallery/rows.npy": np.ones((bundles.ITEMS, 5), np.float32)})
    with pytest.raises(BundleError, match="leads out"):
        write_bundle(tmp_path / "b", manifest, files | {"../evil": b""})
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_changes_after_opening_is_not_used(tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path / "b", *bundles.parts())
    encoder = tmp_path / "b" / "encoder.onnx"
    encoder.write_bytes(encoder.read_bytes() + b"\0")
    with pytest.raises(BundleError, match=r"encoder\.onnx was changed since"):
        bundle.onnx_bytes()


# --- damage -----------------------------------------------------------------------------------------------------------


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(data=st.data())
def test_any_changed_byte_of_a_folder_is_found(folder: Path, data: st.DataObject) -> None:
    file = data.draw(st.sampled_from(sorted(path for path in folder.rglob("*") if path.is_file())))
    original = file.read_bytes()
    at = data.draw(st.integers(0, len(original) - 1))
    flip = data.draw(st.integers(1, 255))
    try:
        file.write_bytes(original[:at] + bytes([original[at] ^ flip]) + original[at + 1 :])
        with pytest.raises(BundleError) as error:
            Bundle.open(folder)
        if file.name != "SHA256SUMS":
            assert file.relative_to(folder).as_posix() in str(error.value)
    finally:
        file.write_bytes(original)


def test_any_changed_byte_of_the_list_of_hashes_is_found(folder: Path) -> None:
    file = folder / "SHA256SUMS"
    original = file.read_bytes()
    try:
        for at in range(len(original)):
            for flip in (1, 0x20):  # 0x20: upper case, and a space that turns into nothing
                file.write_bytes(original[:at] + bytes([original[at] ^ flip]) + original[at + 1 :])
                with pytest.raises(BundleError):
                    Bundle.open(folder)
    finally:
        file.write_bytes(original)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(data=st.data())
def test_any_changed_byte_of_a_zip_is_found_or_changes_nothing(packed: Path, data: st.DataObject) -> None:
    original = packed.read_bytes()
    # Half of the draws fall into the zip's own tables, which are the smaller part.
    tables = original.index(b"PK\x01\x02")
    low = data.draw(st.sampled_from([0, tables]))
    at = data.draw(st.integers(low, len(original) - 1))
    flip = data.draw(st.integers(1, 255))
    before = Bundle.open(packed)
    copy = packed.with_name("flipped.zip")
    copy.write_bytes(original[:at] + bytes([original[at] ^ flip]) + original[at + 1 :])
    try:
        after = Bundle.open(copy)
    except BundleError:
        return
    assert after.id == before.id
    assert contents(after) == contents(before)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(data=st.data())
def test_a_zip_that_was_cut_short_is_refused(packed: Path, data: st.DataObject) -> None:
    original = packed.read_bytes()
    copy = packed.with_name("short.zip")
    copy.write_bytes(original[: data.draw(st.integers(0, len(original) - 1))])
    with pytest.raises(BundleError):
        Bundle.open(copy)


def copied(folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(folder, tmp_path / "copy"))


def test_missing_extra_and_linked_files_are_named(folder: Path, tmp_path: Path) -> None:
    path = copied(folder, tmp_path)
    (path / "notes.txt").write_text("hello")
    with pytest.raises(BundleError, match=r"notes\.txt not listed"):
        Bundle.open(path)
    (path / "notes.txt").unlink()
    encoder = path / "encoder.onnx"
    encoder.rename(tmp_path / "elsewhere.onnx")
    with pytest.raises(BundleError, match=r"encoder\.onnx listed in SHA256SUMS but missing"):
        Bundle.open(path)
    encoder.symlink_to(tmp_path / "elsewhere.onnx")
    with pytest.raises(BundleError, match=r"'encoder\.onnx' is a link"):
        Bundle.open(path)
    encoder.unlink()
    os.mkfifo(encoder)
    with pytest.raises(BundleError, match="no plain file"):
        Bundle.open(path)


def test_no_bundle_at_all(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="no such bundle"):
        Bundle.open(tmp_path / "nowhere")
    with pytest.raises(BundleError, match="has no SHA256SUMS"):
        Bundle.open(tmp_path)
    (tmp_path / "text.zip").write_text("hello")
    with pytest.raises(BundleError, match="no readable zip"):
        Bundle.open(tmp_path / "text.zip")


def test_a_zip_around_a_folder_says_so(folder: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "b.zip", "w") as file:
        for entry in folder.rglob("*"):
            file.write(entry, Path("folder") / entry.relative_to(folder))
    with pytest.raises(BundleError, match=r"there is a folder/SHA256SUMS: pack the files"):
        Bundle.open(tmp_path / "b.zip")


def entry(name: str, mode: int = 0o100644) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.create_system = 3
    info.external_attr = mode << 16
    return info


@pytest.mark.parametrize(
    ("infos", "message"),
    [
        ([entry("../evil")], "leads out of the bundle"),
        ([entry("a/../../evil")], "leads out of the bundle"),
        ([entry("/etc/passwd")], "is absolute"),
        ([entry("C:evil")], "colon"),
        ([entry("a\\evil")], "backslash"),
        ([entry("a\nb")], "control character"),
        ([entry("twice"), entry("twice")], "in the zip twice"),
        ([entry("Twice"), entry("twice")], "one file on some systems"),
        ([entry("link", 0o120777)], "is a link or device"),
    ],
)
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_zip_that_reaches_out_is_refused(tmp_path: Path, infos: list[zipfile.ZipInfo], message: str) -> None:
    with zipfile.ZipFile(tmp_path / "b.zip", "w") as file:
        for info in infos:
            file.writestr(info, b"hello")
    with pytest.raises(BundleError, match=message):
        Bundle.open(tmp_path / "b.zip")


def test_a_zip_bomb_is_refused_before_it_is_unpacked(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "b.zip", "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("zeros", bytes(container.SMALL + 1))
    with pytest.raises(BundleError, match=r"'zeros' would grow from \d+ to 16777217 bytes"):
        Bundle.open(tmp_path / "b.zip")


def test_too_much_is_refused() -> None:
    where = Path("b.zip")
    container.check_sizes({"a": container.MAX_BYTES}, where)
    with pytest.raises(BundleError, match="unpacked"):
        container.check_sizes({"a": container.MAX_BYTES, "b": 1}, where)
    with pytest.raises(BundleError, match="files"):
        container.check_sizes({str(i): 0 for i in range(container.MAX_FILES + 1)}, where)


# --- manifests --------------------------------------------------------------------------------------------------------


def at(value: Any, *path: str | int) -> Any:
    for key in path:
        value = value[key]
    return value


def changed(path: list[str | int], value: Any) -> dict[str, Any]:
    manifest: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(bundles.parts()[0]))
    at(manifest, *path[:-1])[path[-1]] = value
    return manifest


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (["format"], "zip", r"\$\.format is 'zip'"),
        (["version"], 2, r"\$\.version is 2; this rtdecode reads version 1"),
        (["colour"], "red", r"unknown field `colour`"),
        (["conditioning", "stream", 0, "ordre"], 4, r"unknown field `ordre` - at `\$\.conditioning\.stream\[0\]`"),
        (["conditioning", "stream", 0, "order"], "4", r"Expected `int`, .* `\$\.conditioning\.stream\[0\]\.order`"),
        (["conditioning", "stream", 0, "step"], "magic", r"'magic' - at `\$\.conditioning\.stream\[0\]\.step`"),
        (["conditioning", "stream", 0, "high"], 60.0, r"\$\.conditioning: stream step 1 \(filter\)"),
        (["conditioning", "stream", 1, "array"], "no.npy", r"\$\.conditioning\.stream\[1\]\.array names 'no\.npy'"),
        (["conditioning", "window", 0, "limit"], -1.0, r"window step 1 \(clamp\)"),
        (["contract", "channels"], [], r"\$\.contract\.channels is empty"),
        (["contract", "channels", 1, "name"], "E0", r"\$\.contract\.channels has 'E0' more than once"),
        (["contract", "channels", 1, "unit"], "uV", r"\$\.contract\.channels\[1\]\.unit is 'uV'"),
        (["contract", "sfreq"], 0, r"\$\.contract\.sfreq is 0"),
        (["contract", "sfreq"], 200.0, r"golden/windows\.npy has shape \(3, 20, 3\); expected \(windows, 40, 3\)"),
        (["windows"], [], r"\$\.windows is empty"),
        (["windows", 0, "hop"], 0, r"positive seconds.*\$\.windows\[0\]"),
        (["windows", 0, "length"], 0.001, r"a window has 0 samples"),
        (["encoder", "file"], "../model.onnx", r"\$\.encoder\.file names '\.\./model\.onnx', which is not in"),
        (["encoder", "outputs"], ["embedding"], r"\$\.heads\[1\]\.output is 'logits'; the encoder gives embedding"),
        (["heads"], [], r"\$\.heads is empty"),
        (["heads", 0, "k"], 0, r"\$\.heads\[0\]\.k is 0"),
        (["heads", 1, "labels"], ["fists", "feet", "tongue"], r"3 labels \(fists, feet, tongue\).*gives 2 logits"),
        (["heads", 1, "labels"], ["feet", "feet"], r"has 'feet' more than once"),
        (["heads", 1, "temperature"], 0, r"\$\.heads\[1\]\.temperature is 0"),
        (["heads", 1, "markers"], {"hands": ["T1"]}, r"\$\.heads\[1\]\.markers names hands"),
        (["golden", "outputs"], {"logits": "golden/logits.npy"}, r"\$\.golden\.outputs lacks embedding"),
        (["golden", "tolerance"], 5, r"\$\.golden\.tolerance is 5"),
        (["golden", "raw"], None, "belong together"),
        (["golden", "raw_starts"], [40, 0], r"\$\.golden\.raw_starts is \[40, 0\]"),
        (["golden", "raw_starts"], [0, 1, 2, 3], "has 4 entries; there are 3 golden windows"),
    ],
)  # fmt: skip
def test_a_wrong_manifest_names_its_place(tmp_path: Path, path: list[str | int], value: Any, message: str) -> None:
    bundles.write_raw(tmp_path, changed(path, value), bundles.parts()[1])
    with pytest.raises(BundleError, match=message):
        Bundle.open(tmp_path)


def test_all_contradictions_are_named_at_once(tmp_path: Path) -> None:
    manifest = changed(["golden", "tolerance"], 5)
    manifest["contract"]["sfreq"] = 0
    manifest["heads"][0]["k"] = -1
    bundles.write_raw(tmp_path, manifest, bundles.parts()[1])
    with pytest.raises(BundleError) as error:
        Bundle.open(tmp_path)
    assert all(place in str(error.value) for place in ("$.golden.tolerance", "$.contract.sfreq", "$.heads[0].k"))


def test_two_heads_of_one_kind_are_refused(tmp_path: Path) -> None:
    """A window's message has room for one retrieval and one label: the second would silently replace the first."""
    heads = msgspec.to_builtins(bundles.parts()[0].heads)
    folder = bundles.write_raw(tmp_path / "b", changed(["heads"], [*heads, heads[1]]), bundles.parts()[1])
    with pytest.raises(BundleError, match=r"\$\.heads has several of kind 'classify'"):
        Bundle.open(folder)


def test_windows_of_two_lengths_are_refused(tmp_path: Path) -> None:
    manifest = changed(["windows"], [
        {"window": "sliding", "length": 0.2, "hop": 0.1},
        {"window": "locked", "tmin": 0, "tmax": 0.3, "markers": ["*"]},
    ])  # fmt: skip
    bundles.write_raw(tmp_path, manifest, bundles.parts()[1])
    with pytest.raises(BundleError, match="sliding 20, locked 30 samples"):
        Bundle.open(tmp_path)


@pytest.mark.parametrize("data", [b"", b"[]", b"{", b"\xff\xfe", b'{"format": 1}'])
def test_a_manifest_that_is_no_manifest(tmp_path: Path, data: bytes) -> None:
    bundles.write_raw(tmp_path, data, {})
    with pytest.raises(BundleError, match=r"manifest\.json"):
        Bundle.open(tmp_path)


# --- arrays -----------------------------------------------------------------------------------------------------------


def npy(array: Any, **options: Any) -> bytes:
    file = io.BytesIO()
    np.save(file, array, **options)
    return file.getvalue()


def npz(array: Any) -> bytes:
    file = io.BytesIO()
    np.savez(file, array)
    return file.getvalue()


ROWS = np.ones((bundles.ITEMS, bundles.WIDTH), np.float32)
NAN_AT_2_3 = ROWS.copy()
NAN_AT_2_3[2, 3] = np.nan


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (npy(np.array([{"a": 1}], object), allow_pickle=True), "holds object"),
        (npy(ROWS.astype(np.int64)), "holds int64"),
        (npy(ROWS.astype(">f4")), "little-endian"),
        (npy(ROWS.astype(np.float64)), "holds float64; expected float32"),
        (npy(NAN_AT_2_3), r"is nan at \(2, 3\)"),
        (npy(ROWS)[:-1], "bytes of data"),
        (npy(ROWS) + b"\0", "bytes of data"),
        (npy(ROWS).replace(b"(6, 8)", b"(6,10**15)"[:6]), "no .npy file|bytes of data"),
        (npy(ROWS).replace(b"(6, 8), }      ", b"(600000000, 8)}"), "needs 19200000000"),
        (npz(ROWS), r"no \.npy file"),
        (b"", r"no \.npy file"),
        (npy(ROWS[:, :5]), r"has shape \(6, 5\), so width 5; the encoder's output 'embedding' has width 8"),
        (npy(ROWS[:5]), "has 5 rows and gallery/items.json 6 items"),
    ],
)
def test_a_wrong_gallery_is_refused(tmp_path: Path, data: bytes, message: str) -> None:
    manifest, files = bundles.parts()
    bundles.write_raw(tmp_path, manifest, files | {"gallery/rows.npy": data})
    with pytest.raises(BundleError, match=message):
        Bundle.open(tmp_path)


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("golden/windows.npy", np.ones((3, 20, 4), np.float32), r"shape \(3, 20, 4\); expected \(windows, 20, 3\)"),
        ("golden/windows.npy", np.ones((0, 20, 3), np.float32), r"shape \(0, 20, 3\)"),
        ("golden/logits.npy", np.ones((2, 2), np.float32), "expected 3 rows"),
        ("golden/raw.npy", np.ones((200, 4), np.float32), r"expected \(samples, 3\)"),
        ("conditioning/align.npy", np.ones((3, 4)), r"stream step 2 \(matrix\)"),
        ("gallery/items.json", b'[{"name": "a", "color": 1}]', r"unknown field `color` - at `\$\[0\]`"),
        ("gallery/items.json", b'[{"name": "a", "picture": "../b.png"}]', r"\$\[0\]\.picture names '\.\./b\.png'"),
    ],
)
def test_other_files_that_do_not_fit(tmp_path: Path, name: str, data: Any, message: str) -> None:
    manifest, files = bundles.parts()
    bundles.write_raw(tmp_path, manifest, files | {name: data})
    with pytest.raises(BundleError, match=message):
        Bundle.open(tmp_path)
