"""An encoder that works while it listens gives what it gives on whole windows, whatever is cut, missing or late."""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from incremental_kit import Net, engine_of, nets
from test_decoder import CHANNELS, SFREQ, Tape, payloads, play_cut, play_whole, tapes

from rtdecode.decoder import Decoder
from rtdecode.encode.engine import Engine, Outputs
from rtdecode.encode.manifest import Split, Unsplit
from rtdecode.encode.onnx import OnnxEngine
from rtdecode.result import Status
from rtdecode.stream.condition import Conditioner, window_conditioner
from rtdecode.stream.early_steps import EarlySteps
from rtdecode.stream.steps import Baseline, Clamp, WindowScale, WindowStep
from rtdecode.stream.window import Locked, Sliding, WindowSpec
from rtdecode_export.incremental.compile import Compiled, choices, compile_encoder, write_choice

TIME = 24
TOLERANCE = 1e-5


def scale_of(outputs: Outputs) -> float:
    return max(float(np.abs(value).max()) for value in outputs.values()) or 1.0


def check_same(found: Outputs, expected: Outputs) -> None:
    for name, value in expected.items():
        assert np.abs(found[name] - value).max() <= TOLERANCE * max(1.0, scale_of(expected))


def bytes_of(outputs: Outputs) -> bytes:
    return b"".join(np.ascontiguousarray(value).tobytes() for value in outputs.values())


@st.composite
def window_sets(draw: st.DrawFn) -> list[WindowSpec]:
    sliding = Sliding(name="slide", length=TIME / SFREQ, hop=draw(st.sampled_from([0.02, 0.04, 0.06, 0.037, 0.2])))
    locked = Locked(name="cue", tmin=-0.1, tmax=TIME / SFREQ - 0.1, markers=("T1", "T2"))
    every = Locked(name="all", tmin=0.05, tmax=TIME / SFREQ + 0.05, markers=("*",))
    return draw(st.sampled_from([[sliding], [locked], [sliding, locked], [every, locked, sliding]]))


def cut_at_random(data: st.DataObject, onnx: bytes, windows: Sequence[WindowSpec]) -> Compiled:
    """A split at any of the places where there can be one, in blocks of any length."""
    found = choices(onnx, windows, (), SFREQ)
    choice = data.draw(st.sampled_from(found))
    block = choice.cut.stride * data.draw(st.integers(1, 4))
    return write_choice(choice.with_block(block), None)


# --- the engine alone -------------------------------------------------------------------------------------------------


@settings(max_examples=30)
@given(data=st.data())
def test_any_cut_of_any_encoder_gives_the_numbers_of_whole_windows(data: st.DataObject) -> None:
    onnx = data.draw(nets(TIME, 3))
    windows: list[WindowSpec] = [
        Sliding(length=TIME / SFREQ, hop=0.32),
        Locked(tmin=0.0, tmax=TIME / SFREQ, markers=("*",)),
    ]
    engine = engine_of(cut_at_random(data, onnx, windows), onnx, windows, (), SFREQ)
    whole = OnnxEngine(onnx, warmup=0)
    first = data.draw(st.integers(0, 40))
    samples = np.random.default_rng(first).standard_normal((120, 3)).astype(np.float32)
    markers = sorted(data.draw(st.sets(st.integers(first, first + 90), max_size=4)))
    engine.restart(first)
    heard, at = data.draw(st.lists(st.integers(1, 30), max_size=8)), first
    told = set()
    for n in [*heard, 120]:
        stop = min(at + n, first + 120)
        engine.advance(samples[at - first : stop - first], at)
        at = stop
        for start in markers:
            if start not in told and start <= at and data.draw(st.booleans()):
                engine.begin(start, samples[start - first : at - first][:TIME])
                told.add(start)
        for start in (*range(-(-first // 32) * 32, first + 120 - TIME, 32), *markers):
            if at - 40 < start + TIME <= at:
                window = samples[start - first :][:TIME]
                found = engine.finish(window, start)
                check_same(found, whole.finish(window, start))
                assert bytes_of(found) == bytes_of(engine.apart(window, start))


def test_windows_that_nobody_asks_for_are_let_go() -> None:
    net = Net(TIME, 3, 5)
    net.conv(3, 1, 1, (0, 0), 4)
    onnx, windows = net.end("flat"), [Sliding(length=TIME / SFREQ, hop=0.02)]
    engine = engine_of(compile_encoder(onnx, windows, (), SFREQ), onnx, windows, (), SFREQ)
    samples = np.random.default_rng(0).standard_normal((6000, 3)).astype(np.float32)
    waiting = []
    for at in range(0, 6000, 100):
        engine.advance(samples[at : at + 100], at)
        waiting.append(len(engine._sums))
    assert max(waiting) > 0
    assert max(waiting) == max(waiting[:10])


def chain() -> bytes:
    """A small encoder of which nearly all can run on new samples."""
    net = Net(TIME, 3, 5)
    net.spatial(4, 2)
    net.x = net.add("Elu", [net.x])
    net.conv(3, 1, 1, (1, 1), 4)
    onnx: bytes = net.end("flat")
    return onnx


# --- in the decoder ---------------------------------------------------------------------------------------------------


def decoder_of(engine: Engine, windows: Sequence[WindowSpec], steps: Sequence[WindowStep]) -> Decoder:
    return Decoder(
        columns=[0, 1, 2],
        channels=CHANNELS,
        n_stream_channels=3,
        sfreq=SFREQ,
        conditioner=Conditioner((), CHANNELS, SFREQ, {}),
        window_steps=steps,
        windows=windows,
        engine=engine,
        heads=(),
        history_s=1e3,
    )


@settings(max_examples=30)
@given(tape=tapes(), windows=window_sets(), data=st.data())
def test_cutting_markers_gaps_and_lateness_change_no_byte(
    tape: Tape, windows: list[WindowSpec], data: st.DataObject
) -> None:
    onnx = data.draw(nets(TIME, 3))
    locked = all(isinstance(one, Locked) for one in windows) and len(windows) == 1
    steps = data.draw(st.sampled_from([(), (Clamp(limit=1.5),), (Baseline(tmin=-0.1, tmax=0.0), Clamp(limit=1.5))]))
    steps = steps if locked else steps[:1] if isinstance((*steps, None)[0], Clamp) else ()
    fitting = choices(onnx, windows, steps, SFREQ)
    if not fitting:
        return
    choice = data.draw(st.sampled_from(fitting))
    compiled = write_choice(choice.with_block(choice.cut.stride * data.draw(st.integers(1, 4))), None)
    played = []
    for play in (lambda one: play_whole(one, tape), lambda one: play_cut(one, tape, data)):
        decoder = decoder_of(engine_of(compiled, onnx, windows, steps, SFREQ), windows, steps)
        played.append(play(decoder))
    assert payloads(played[0]) == payloads(played[1])
    whole = play_whole(decoder_of(OnnxEngine(onnx, warmup=0), windows, steps), tape)
    for found, expected in zip(played[0], whole, strict=True):
        assert (found.window, found.start, found.status) == (expected.window, expected.start, expected.status)
        if found.status is Status.OK:
            check_same(found.outputs, expected.outputs)


# --- window steps while samples come ----------------------------------------------------------------------------------


@settings(max_examples=60)
@given(data=st.data(), n=st.integers(12, 40))
def test_steps_on_samples_as_they_come_give_the_bytes_of_whole_windows(data: st.DataObject, n: int) -> None:
    every: list[WindowStep] = [Clamp(limit=0.7), Baseline(tmin=-0.1, tmax=0.0), Baseline(tmin=-0.05, tmax=0.01)]
    steps = data.draw(st.lists(st.sampled_from(every), max_size=3))
    window = Locked(tmin=-0.1, tmax=(n - 10) / SFREQ, markers=("*",))
    conditioner = Conditioner((), CHANNELS, SFREQ, {})
    length = window.n_samples(SFREQ)
    samples = (1e3 * np.random.default_rng(n).standard_normal((length, 3))).astype(np.float32)
    early = EarlySteps(steps, SFREQ, window.tmin, length)
    baselines = early.begin(samples[: early.needed])
    cuts = sorted({0, length, *data.draw(st.lists(st.integers(0, length), max_size=4))})
    parts = [early(samples[a:b], baselines) for a, b in pairwise(cuts)]
    expected = window_conditioner(steps, window, conditioner)(samples)
    assert np.concatenate(parts).tobytes() == np.ascontiguousarray(expected).tobytes()


# --- what cannot be split ---------------------------------------------------------------------------------------------


SLIDING = Sliding(length=TIME / SFREQ, hop=0.04)


@pytest.mark.parametrize(
    ("windows", "steps", "reason"),
    [
        ([SLIDING], (WindowScale(),), "needs the whole window"),
        ([SLIDING], (Baseline(tmin=0.0, tmax=0.1),), "is another one for each window"),
        ([Sliding(length=TIME / SFREQ, hop=0.035)], (), None),
        (
            [Locked(tmin=a, tmax=a + 0.24, markers=("*",), name=str(a)) for a in (-0.1, -0.05)],
            (Baseline(tmin=-0.05, tmax=0.0),),
            "baselines lie at different places",
        ),
    ],
)
def test_windows_that_share_nothing_say_why(
    windows: list[WindowSpec], steps: tuple[WindowStep, ...], reason: str | None
) -> None:
    split = compile_encoder(chain(), windows, steps, SFREQ).split
    if reason is None:  # a hop of three samples and a half: no stride but 1 will do
        assert isinstance(split, Unsplit) or split.stride == 1
    else:
        assert isinstance(split, Unsplit)
        assert reason in split.reason


def test_precisions_and_encoders_without_a_prefix_say_why() -> None:
    assert "fp16" in reason_of(compile_encoder(chain(), [SLIDING], (), SFREQ, "fp16"))
    net = Net(TIME, 3, 1)
    net.x = net.add("Softmax", [net.x], axis=2)
    assert "Softmax over time" in reason_of(compile_encoder(net.end("mean"), [SLIDING], (), SFREQ))


def reason_of(compiled: Compiled) -> str:
    assert isinstance(compiled.split, Unsplit)
    return compiled.split.reason


def test_most_of_a_convolutional_encoder_runs_before_its_window_is_due() -> None:
    split = compile_encoder(chain(), [SLIDING], (), SFREQ).split
    assert isinstance(split, Split)
    assert split.share > 0.7
    assert split.per_window < 0.6
