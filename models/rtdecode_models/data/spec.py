"""The table ``[data]`` of a recipe: what kind of data, where it lies, and what a window of it is.

::

    [data]
    kind = "recordings"
    window = { tmin = 0.5, tmax = 3.5 }

    [data.subjects]
    S001 = ["S001/S001R06.edf", "S001/S001R10.edf", "S001/S001R14.edf"]

    [data.labels]
    fists = ["T1"]
    feet = ["T2"]

    [[data.conditioning.stream]]
    step = "filter"
    low = 7.0
    high = 30.0

    [data.fit]
    shrinkage = 0.5

What is trained on and what is tested on stands in ``[split]`` (`rtdecode_models.data.splits.Split`). Paths are relative
to the data folder. Every kind has the keys that it needs and no others.
"""

from typing import Literal

import msgspec

from rtdecode.sources.trigger import TriggerRule
from rtdecode.stream.steps import Conditioning


class Part(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of the tables here: an unknown key is an error."""


class Window(Part, frozen=True, kw_only=True):
    """The window around each marker, [tmin, tmax) seconds."""

    tmin: float
    tmax: float


class Every(Part, frozen=True, kw_only=True):
    """A window of `length` seconds every `hop` seconds, without labels: for what learns from the signal alone."""

    length: float
    hop: float


class Fit(Part, frozen=True, kw_only=True):
    """Stream steps whose numbers come from the training windows; they follow the declared conditioning.

    Parameters
    ----------
    whitening : str
        ``euclidean_alignment``: R^(-1/2), with R the mean covariance of the windows (He and Wu 2020); one fixed matrix.
        ``mvnn``: Sigma^(-1/2), with Sigma the noise covariance over windows, then conditions (Guggenmos et al. 2018).
        ``running_alignment``: Euclidean alignment that begins with the training covariance and follows the stream.
    shrinkage : float
        Euclidean and running alignment: R is replaced by (1 - s) R + s trace(R)/n I, so that weak directions are not
        blown up. MVNN shrinks after Ledoit and Wolf, by itself.
    half_life_s : float
        Running alignment: seconds until half of what it knows is forgotten.
    scaling : str
        Then each channel is brought to mean 0 and standard deviation 1 (``standard``), or to median 0 and interquartile
        range 1 (``robust``), over the training windows.
    per : str
        What has numbers of its own: all data together, each subject, or each session. What has no training windows of
        its own (live, that is every session to come) takes its subject's; a subject without any takes those of all.
    """

    whitening: Literal["none", "euclidean_alignment", "mvnn", "running_alignment"] = "euclidean_alignment"
    shrinkage: float = 0.1
    half_life_s: float = 60.0
    scaling: Literal["none", "standard", "robust"] = "standard"
    per: Literal["all", "subject", "session"] = "all"

    def __post_init__(self) -> None:
        """Refuse shares and times that make no sense."""
        if not 0 <= self.shrinkage <= 1:
            raise ValueError(f"shrinkage is {self.shrinkage}; expected a share from 0 to 1")
        if not self.half_life_s > 0:
            raise ValueError(f"half_life_s is {self.half_life_s}; expected seconds above 0")

    @property
    def nothing(self) -> bool:
        """Whether there is nothing to fit."""
        return self.whitening == "none" and self.scaling == "none"


NOTHING_FITTED = Fit(whitening="none", scaling="none")


class Stimuli(Part, frozen=True, kw_only=True):
    """The gallery: what was shown, and what stands for each.

    Parameters
    ----------
    names : str
        A file with one name for each stimulus, in the order of the rows: a JSON list or object (its keys), a TSV with a
        heading, or plain lines. Where empty, they are numbered: ``00001``...
    embeddings : dict of str to str or tuple of str
        Target name -> file (stimuli, ...): ``.npy``; or ``.npz``, ``.safetensors``, of which the array of the target's
        name is taken, or that behind a colon (``clip.npz:image``). Several files, as of one image blurred more and
        more, give (stimuli, files, ...).
    captions : str
        A JSON object, name -> caption; they become those of the bundle's gallery.
    marker : str
        How the marker of a stimulus reads; ``{name}`` is its name.
    """

    names: str = ""
    embeddings: dict[str, str | tuple[str, ...]] = {}
    captions: str = ""
    marker: str = "{name}"


class Declared(Part, frozen=True, kw_only=True):
    """What the files leave open: the unit and the type of channels that declare none."""

    unit: str = ""
    type: str = ""


class Trigger(Part, frozen=True, kw_only=True):
    """How a trigger channel becomes markers; the keys are those of `rtdecode.sources.trigger.TriggerRule`."""

    channel: str
    mask: int = 0xFFFF
    edge: Literal["rising", "falling", "change"] = "rising"
    debounce_s: float = 0.0
    delay_s: float = 0.0

    @property
    def rule(self) -> TriggerRule:
        """As a source takes it."""
        return TriggerRule(**msgspec.structs.asdict(self))


class _Continuous(Part, frozen=True, kw_only=True):
    """What all continuous recordings have in common.

    Parameters
    ----------
    labels : dict of str to tuple of str
        Class -> marker patterns (shell wildcards).
    window : Window, optional
        Around markers; one of `window` and `sliding` must be given.
    sliding : Every, optional
        Without markers.
    conditioning : Conditioning
        Steps, spelt as in a bundle's manifest.
    fit : Fit
        Steps that are fitted.
    channels : tuple of str
        Names or patterns of the channels of the contract; all data channels where empty.
    stimuli : Stimuli, optional
        Where the markers name what was shown.
    """

    labels: dict[str, tuple[str, ...]] = {}
    window: Window | None = None
    sliding: Every | None = None
    conditioning: Conditioning = Conditioning()
    fit: Fit = Fit()
    channels: tuple[str, ...] = ()
    stimuli: Stimuli | None = None


class Recordings(_Continuous, frozen=True, kw_only=True, tag_field="kind", tag="recordings"):
    """Files of any format that the daemon replays; each is a session.

    Parameters
    ----------
    subjects : dict of str to tuple of str
        Subject -> files or patterns.
    declare : Declared
        What they leave open.
    triggers : tuple of Trigger
        How trigger channels become markers.
    """

    subjects: dict[str, tuple[str, ...]]
    declare: Declared = Declared()
    triggers: tuple[Trigger, ...] = ()


class Bids(_Continuous, frozen=True, kw_only=True, tag_field="kind", tag="bids"):
    """A BIDS data set; each run is a session, named by its entities: ``sub-01_ses-1_task-rest_run-2``.

    Parameters
    ----------
    root : str
        Folder of the data set.
    datatype : str
        ``eeg``, ``meg`` or ``ieeg``.
    task : str
        All tasks where empty.
    subjects, sessions, runs : tuple of str
        Which ones, without ``sub-``, ``ses-`` and ``run-``; all where empty.
    event_column : str
        The column of ``events.tsv`` that becomes the marker.
    bad_channels : str
        ``drop``: channels that any training session calls bad are left out, by a `pick` step. ``keep``: they stay.
    """

    datatype: Literal["eeg", "meg", "ieeg"]
    root: str = "."
    task: str = ""
    subjects: tuple[str, ...] = ()
    sessions: tuple[str, ...] = ()
    runs: tuple[str, ...] = ()
    event_column: str = "trial_type"
    bad_channels: Literal["drop", "keep"] = "drop"


class ThingsEeg2(Part, frozen=True, kw_only=True, tag_field="kind", tag="things_eeg2"):
    """The published preprocessed THINGS-EEG2: ``sub-XX/preprocessed_eeg_{training,test}.npy``.

    A subject's files are two sessions, ``sub-01/training`` and ``sub-01/test``; the latter can only be tested on.

    Parameters
    ----------
    root : str
        Holds the folders of the subjects.
    subjects : tuple of str
        ``sub-01``...; all where empty.
    training_repetitions, test_repetitions : str
        ``apart``: each presentation is a trial. ``averaged``: those of one image are averaged first. Live, only single
        presentations exist: report ``apart`` beside any averaged score.
    channels : tuple of str
        Names, in the order wanted; all where empty.
    tmin, tmax : float
        Seconds after onset.
    conditioning : Conditioning, optional
        What takes the amplifier's 1000 Hz to the files' windows; where not given, resampling alone. See docs/data.md on
        the whitening that the files have been through.
    training_stimuli, test_stimuli : Stimuli, optional
        The galleries, in the order of the files' conditions; where none is given, rows are ``training/00001``...
    fit : Fit
        What is fitted beyond what the files have been through.
    """

    root: str = "."
    subjects: tuple[str, ...] = ()
    training_repetitions: Literal["apart", "averaged"] = "apart"
    test_repetitions: Literal["apart", "averaged"] = "apart"
    channels: tuple[str, ...] = ()
    tmin: float = 0.0
    tmax: float = 1.0
    conditioning: Conditioning | None = None
    training_stimuli: Stimuli | None = None
    test_stimuli: Stimuli | None = None
    fit: Fit = NOTHING_FITTED


class Signal(Part, frozen=True, kw_only=True):
    """The live stream behind an array: names, type and unit of its channels, and its rate in Hz."""

    channels: tuple[str, ...]
    type: str
    unit: str
    sfreq: float


class ArraySession(Part, frozen=True, kw_only=True):
    """One session of windows on disk.

    Parameters
    ----------
    name, subject : str
        What it is called and whose it is.
    windows : str
        ``.npy``; or ``FILE.npz:NAME``, ``FILE.safetensors:NAME``. Shape as in `Arrays.layout`.
    labels : dict of str to str
        Label name -> array of class numbers, or of class names.
    items : str
        Array of rows of the gallery, or of stimulus names.
    test : bool
        It can only be tested on.
    """

    name: str
    subject: str
    windows: str
    labels: dict[str, str] = {}
    items: str = ""
    test: bool = False


class Arrays(Part, frozen=True, kw_only=True, tag_field="kind", tag="arrays"):
    """Windows that were cut elsewhere, as arrays on disk.

    Parameters
    ----------
    sessions : tuple of ArraySession
        The files.
    signal : Signal
        What a live stream must offer.
    conditioning : Conditioning
        What takes that stream to the arrays. Its stream steps were done; its window steps are done here, after the
        fitted ones, as the daemon does them.
    tmin, tmax : float
        What the arrays span, in seconds from the marker.
    layout : str
        ``channels_first``: (n, channels, time), as most are published; ``time_first``: (n, time, channels).
    classes : dict of str to tuple of str
        Label name -> names of its classes; needed where labels are numbers.
    stimuli : Stimuli, optional
        The gallery.
    markers : dict of str to tuple of str
        Class -> patterns of the markers that lock its windows live; any marker does where empty.
    fit : Fit
        What is fitted.
    """

    sessions: tuple[ArraySession, ...]
    signal: Signal
    tmin: float
    tmax: float
    conditioning: Conditioning = Conditioning()
    layout: Literal["channels_first", "time_first"] = "channels_first"
    classes: dict[str, tuple[str, ...]] = {}
    stimuli: Stimuli | None = None
    markers: dict[str, tuple[str, ...]] = {}
    fit: Fit = NOTHING_FITTED


class Epochs(Part, frozen=True, kw_only=True, tag_field="kind", tag="epochs"):
    """MNE epochs (``-epo.fif``) with their metadata, as THINGS-MEG and many others publish them.

    Parameters
    ----------
    subjects : dict of str to str
        Subject -> file.
    sfreq : float
        Rate of the live stream in Hz.
    conditioning, fit
        As in `Arrays`.
    tmin, tmax : float, optional
        Crop; all of the epochs where not given.
    session_column : str
        Column of the metadata that divides a file into sessions; the file is one where empty.
    label_columns : dict of str to str
        Label name -> column.
    item_column : str
        Column that names the stimulus.
    test_column, test_values : str, tuple of str
        Epochs with one of these values in this column can only be tested on, and leave the others.
    leave_out : dict of str to tuple of str
        Column -> values whose epochs are not read (catch trials).
    channel_types : tuple of str
        Types that are read; all data channels where empty.
    stimuli : Stimuli, optional
        The gallery.
    markers : dict of str to tuple of str
        As in `Arrays`.
    """

    subjects: dict[str, str]
    sfreq: float
    conditioning: Conditioning = Conditioning()
    fit: Fit = NOTHING_FITTED
    tmin: float | None = None
    tmax: float | None = None
    session_column: str = ""
    label_columns: dict[str, str] = {}
    item_column: str = ""
    test_column: str = ""
    test_values: tuple[str, ...] = ()
    leave_out: dict[str, tuple[str, ...]] = {}
    channel_types: tuple[str, ...] = ()
    stimuli: Stimuli | None = None
    markers: dict[str, tuple[str, ...]] = {}

    def __post_init__(self) -> None:
        """Refuse stimuli that nothing names."""
        if self.stimuli is not None and not self.item_column:
            raise ValueError("stimuli are given, but no item_column says which epoch shows which")
        if bool(self.test_column) != bool(self.test_values):
            raise ValueError("test_column and test_values go together; one of them is missing")


DataSpec = Recordings | Bids | ThingsEeg2 | Arrays | Epochs
