"""How a tensor of an encoder hangs on the window's samples, and what an operator does to that."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Reach:
    """Which positions of its input an operator reads for one of its output.

    Output p reads the inputs ``step * p - before + dilation * j`` for j in [0, kernel). `before` and `after` are the
    positions that are set around the input; a slice over time takes some away, and has them negative.
    """

    kernel: int = 1
    dilation: int = 1
    step: int = 1
    before: int = 0
    after: int = 0

    @property
    def span(self) -> int:
        """From the first position that an output reads to the last."""
        return self.dilation * (self.kernel - 1)

    @property
    def local(self) -> bool:
        """Whether output p reads input p and nothing else."""
        return self == Reach()

    def outputs(self, length: int) -> int:
        """How many outputs an input of `length` positions gives."""
        return (length + self.before + self.after - self.span - 1) // self.step + 1


@dataclass(frozen=True, slots=True)
class Track:
    """A tensor with a time axis; position p is one function of samples [stride p + lo, stride p + hi] for every p.

    Only the first `left` and the last `right` positions are another function: padding touches them.

    Parameters
    ----------
    shape : tuple of int
        Of the tensor for a whole window.
    axis : int
        Its time axis.
    stride : int
        Samples from one position to the next.
    lo, hi : int
        First and last sample that position 0 hangs on; where padding touches it, of those that it would hang on.
    left, right : int
        Positions that padding touches.
    """

    shape: tuple[int, ...]
    axis: int
    stride: int = 1
    lo: int = 0
    hi: int = 0
    left: int = 0
    right: int = 0

    @property
    def length(self) -> int:
        """Positions of a whole window."""
        return self.shape[self.axis]

    @property
    def features(self) -> int:
        """Numbers at one position."""
        n = 1
        for at, size in enumerate(self.shape):
            n *= 1 if at == self.axis else size
        return n

    @property
    def clean(self) -> int:
        """Positions that no padding touches."""
        return max(0, self.length - self.left - self.right)

    def through(self, reach: Reach, shape: tuple[int, ...], axis: int) -> "Track":
        """The output of an operator with this input.

        Output p reads the inputs i = step p - before + dilation j, and input i hangs on samples
        [stride i + lo, stride i + hi]; so output p hangs on [stride (step p - before) + lo,
        stride (step p - before + span) + hi], which is the same for every p but for the shift by stride * step. It is
        clean where all inputs that it reads are: where step p - before >= left, and
        step p - before + span <= length - right - 1.
        """
        n = reach.outputs(self.length)
        if shape[axis] != n:
            raise ValueError(f"{shape[axis]} positions of axis {axis} of {shape}; expected {n}")
        left = _up(self.left + reach.before, reach.step)
        last = (self.length - self.right - 1 - reach.span + reach.before) // reach.step
        return Track(
            shape=shape,
            axis=axis,
            stride=self.stride * reach.step,
            lo=self.lo - self.stride * reach.before,
            hi=self.hi + self.stride * (reach.span - reach.before),
            left=min(n, max(0, left)),
            right=min(n, max(0, n - 1 - last)),
        )


def merged(tracks: list[Track], shape: tuple[int, ...], axis: int) -> Track:
    """What comes of several tensors, position by position: it hangs on what any of them hangs on."""
    first = tracks[0]
    return Track(
        shape=shape,
        axis=axis,
        stride=first.stride,
        lo=min(track.lo for track in tracks),
        hi=max(track.hi for track in tracks),
        left=max(track.left for track in tracks),
        right=max(track.right for track in tracks),
    )


def delay_after(reach: Reach, delay: int) -> int:
    """How many positions an operator's output lags behind the samples, where its input lags by `delay`.

    When n inputs are due (of n that the samples so far stand for), those before n - delay are there. The outputs due
    are then n / step; the last that is there, n / step - 1 - d, reads up to n - step (1 + d) - before + span, which
    must lie before n - delay. So d is the least with step (1 + d) >= delay + 1 + span - before.
    """
    return _up(delay + 1 + reach.span - reach.before, reach.step) - 1


def memory(reach: Reach, delay: int) -> int:
    """Inputs of earlier blocks that an operator reads again in the next; negative where it leaves out new ones.

    The first output of a block is number n / step - d, with n inputs due before it; it reads from
    n - step d - before on, and what is new begins at n - delay.
    """
    return reach.step * delay_after(reach, delay) + reach.before - delay


def _up(n: int, by: int) -> int:
    return -(-n // by)
