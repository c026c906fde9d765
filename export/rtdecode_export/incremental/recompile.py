"""A bundle that exists is split anew: for other windows, or because it was made before there were splits."""

import tempfile
from pathlib import Path

import msgspec

from rtdecode.encode.bundle import MANIFEST, Bundle, write_bundle
from rtdecode.encode.engines import make_engine
from rtdecode.encode.golden import check_golden
from rtdecode.encode.incremental_fit import hopping
from rtdecode.encode.manifest import Split
from rtdecode.stream.window import WindowSpec
from rtdecode_export.incremental.compile import FOLDER, compile_encoder


def compile_bundle(path: Path, out: Path | None = None, hop: float | None = None) -> Bundle:
    """Split a bundle's encoder, check it against whole windows on this machine, and write the bundle.

    Parameters
    ----------
    path : Path
        The bundle.
    out : Path, optional
        Where the new one goes; in its own place if not given.
    hop : float, optional
        Seconds from one window to the next, of sliding windows as long as the bundle's own; instead of its windows.

    Returns
    -------
    Bundle
        The new one. Its id is another, since it has other files.

    Raises
    ------
    BundleError
        The bundle is damaged, or `out` lies there already; or (`GoldenError`) the split gives other numbers.
    """
    bundle = Bundle.open(path)
    manifest, windows = bundle.manifest, windows_of(bundle, hop)
    compiled = compile_encoder(
        bundle.onnx_bytes(),
        windows,
        manifest.conditioning.window,
        bundle.conditioner().sfreq,
        manifest.encoder.precision,
    )
    encoder = msgspec.structs.replace(manifest.encoder, incremental=compiled.split)
    manifest = msgspec.structs.replace(manifest, encoder=encoder)
    kept = {name: bundle.read(name) for name in bundle.files if name != MANIFEST and not name.startswith(f"{FOLDER}/")}
    files = kept | compiled.files
    if isinstance(compiled.split, Split):
        with tempfile.TemporaryDirectory() as folder:
            tried = write_bundle(Path(folder) / "bundle", manifest, files)
            engine = make_engine(tried, windows=windows)
            try:
                check_golden(tried, engine)
            finally:
                engine.close()
    return write_bundle(out or path, manifest, files, overwrite=out is None)


def windows_of(bundle: Bundle, hop: float | None) -> tuple[WindowSpec, ...]:
    """The windows that a bundle is split for."""
    own = bundle.manifest.windows
    return own if hop is None else (hopping(own[0], hop),)
