"""Networks as tasks on a dask.distributed cluster: each worker reads the data itself and trains what it is given."""

import importlib.util
import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import msgspec
from safetensors.torch import load, save

from rtdecode.errors import ConfigError, ProcessError, RtdecodeError
from rtdecode_models.data.shape import shape_of
from rtdecode_models.training.fit import Fitted, Hooks, Interrupted, fit
from rtdecode_models.training.network import make_system
from rtdecode_models.training.parts import Workshop
from rtdecode_models.training.units import Unit, job_of

#: How long a scheduler may take to answer.
ANSWER = "10s"
#: Seconds between two looks at whether the user wants to stop.
_LOOK = 0.2
#: Torch's generator is one for all threads of a worker, so only one of them trains at a time.
_ALONE = threading.Lock()


class _Answer(msgspec.Struct, kw_only=True):
    """What a worker gives back, beside the weights; or what was wrong."""

    curves: dict[str, list[float | None]] = msgspec.field(default_factory=dict)
    best_epoch: int = -1
    notes: dict[str, Any] = msgspec.field(default_factory=dict)
    error: str = ""


class Cluster:
    """A `Runner` on a cluster whose workers see the data, and the folder of the checkpoint, under the same paths.

    Parameters
    ----------
    address : str
        Of the scheduler: ``tcp://host:8786``.
    data : Path
        The folder of the data.
    resume : Path
        Where states lie: a network whose worker is lost goes on elsewhere.
    workshop : Workshop
        The data here.
    stop : callable
        Whether the user wants to stop.

    Raises
    ------
    ConfigError
        The package is missing, or no scheduler answers.
    """

    def __init__(
        self, address: str, data: Path, resume: Path, workshop: Workshop, stop: Callable[[], bool] = lambda: False
    ) -> None:
        if importlib.util.find_spec("distributed") is None:
            raise ConfigError('distributed is not installed; run: pip install "rtdecode[train,dask]"')
        from distributed import Client
        from distributed.comm import get_address_host_port, resolve_address

        logging.getLogger("distributed").setLevel(logging.CRITICAL)  # tracebacks of what is said below in one line
        try:
            # Before there is a client: one of no address at all waits for its loop, in vain, as it is thrown away.
            get_address_host_port(resolve_address(address))
            self._client = Client(address, timeout=ANSWER, set_as_default=False)
        except (OSError, ValueError) as error:
            raise ConfigError(f"no dask scheduler answers at {address}: {error}") from error
        self._data, self._resume = data.resolve(), resume.resolve()
        self._workshop, self._stop = workshop, stop
        self._futures: dict[str, Any] = {}

    def announce(self, units: Sequence[Unit]) -> None:
        """Begin these, as far as there are workers."""
        for unit in units:
            if unit.name not in self._futures:
                told = (msgspec.json.encode(unit), str(self._data), str(self._resume))
                self._futures[unit.name] = self._client.submit(train_unit, *told, key=_key(unit))

    def run(self, units: Sequence[Unit]) -> Iterator[Fitted]:
        """The trained networks, in the order of the units, as they come back."""
        from distributed import CancelledError, KilledWorker

        self.announce(units)
        for unit in units:
            future = self._futures[unit.name]
            while not future.done():
                if self._stop():
                    raise Interrupted(unit.name)
                time.sleep(_LOOK)
            try:
                weights, told = future.result()
            except KilledWorker as error:
                raise ProcessError(
                    f"the network {unit.name} was given up after several workers died: {error}"
                ) from error
            except CancelledError as error:
                raise ProcessError(
                    "the dask scheduler is gone, or has cancelled what it was asked for; once it is back, the same "
                    "command goes on from the last states"
                ) from error
            self._futures.pop(unit.name).release()
            yield self._fitted(unit, weights, msgspec.json.decode(told, type=_Answer))

    def close(self) -> None:
        """Take back what is not done, and part from the cluster."""
        self._client.cancel(list(self._futures.values()))
        self._client.close()

    def _fitted(self, unit: Unit, weights: bytes, answer: _Answer) -> Fitted:
        if answer.error:
            raise ConfigError(answer.error)
        shape = shape_of(self._workshop.parts(unit.recipe, unit.split).dataset)
        network = make_system(unit.recipe.model.system, unit.recipe.model.options, shape)
        network.load_state_dict(load(weights))
        return Fitted(network.eval(), answer.curves, answer.best_epoch, answer.notes)


def train_unit(message: bytes, data: str, resume: str) -> tuple[bytes, bytes]:
    """Train one network, in a worker.

    Parameters
    ----------
    message : bytes
        A `Unit` as JSON.
    data, resume : str
        Folders, as `Cluster` has them.

    Returns
    -------
    tuple of bytes
        The weights as safetensors, and `_Answer` as JSON.
    """
    unit = msgspec.json.decode(message, type=Unit)
    try:
        with _ALONE:
            fitted = fit(job_of(unit, _workshop(data)), Hooks(folder=Path(resume)))
    except RtdecodeError as error:  # a mistake of the user's: it would not go away by being tried again
        return b"", msgspec.json.encode(_Answer(error=str(error)))
    weights = {name: value.contiguous().clone() for name, value in fitted.network.state_dict().items()}
    answer = _Answer(curves=dict(fitted.curves), best_epoch=fitted.best_epoch, notes=dict(fitted.notes))
    return save(weights), msgspec.json.encode(answer)


@lru_cache(maxsize=1)
def _workshop(data: str) -> Workshop:
    """The data of this worker, kept from one network to the next."""
    from rtdecode_models.training.run import open_data

    return Workshop(lambda recipe: open_data(recipe, Path(data)))


def _key(unit: Unit) -> str:
    return f"rtdecode-{unit.recipe.name}-{unit.name}-{time.time_ns()}"
