"""How much a pipeline takes in one turn."""

from rtdecode.daemon import bus


class Bounds:
    """What a pipeline may take in one turn: fair to others where there are some, as much as helps where not.

    Parameters
    ----------
    alone : bool
        Whether its process has no other.
    """

    def __init__(self, *, alone: bool) -> None:
        #: Live messages, before others, subscribers and questions are looked at.
        self.messages = 32 if alone else 8
        #: Pages of the log, before a window is encoded, and bytes of each.
        self.pages = 16 if alone else 1
        self.page_bytes = bus.PAGE_BYTES if alone else 65_536
