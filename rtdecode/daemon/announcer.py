"""What a pipeline says about itself, and passes on of what *acquire* says: events, on its own topic."""

import msgspec
import structlog

from rtdecode import hostclock
from rtdecode.wire.messages import Event, WireWindow
from rtdecode.wire.publisher import Publisher

#: What a pipeline announces itself, as its own samples pass: of what *acquire* announces, these are not passed on.
OWN_EVENTS = frozenset({"connected", "gap", "reconnect", "end", "stop"})


class Announcer:
    """Publishes a pipeline's events.

    Parameters
    ----------
    name : str
        The pipeline.
    publisher : Publisher
    """

    def __init__(self, name: str, publisher: Publisher) -> None:
        self._name = name
        self._publisher = publisher
        self._logger = structlog.get_logger().bind(pipeline=name)

    def say(
        self,
        event: str,
        text: str,
        windows: tuple[WireWindow, ...] = (),
        /,
        **details: str | int | float | bool | None,
    ) -> None:
        """An event of this pipeline's own."""
        stamp = hostclock.now()
        message = Event(seq=0, origin=self._name, event=event, text=text, stamp=stamp, details=details, windows=windows)
        self._publisher.send(f"{self._name}.event", message)
        self._logger.info(text, about=event)

    def pass_on(self, event: Event) -> None:
        """Something that *acquire* announced."""
        if event.event not in OWN_EVENTS:
            self._publisher.send(f"{self._name}.event", msgspec.structs.replace(event, pipeline=self._name))
