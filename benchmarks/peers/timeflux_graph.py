"""timeflux: Receive, IIRFilter, Window and a node that decodes, in one graph; `rate` 0 turns without a pause.

`Window` by samples rather than `Slide`, which copies each sample once for every window that it lies in. The inlet's
flags are timeflux's own: it overwrites what it is given.
"""

import sys
from itertools import pairwise
from pathlib import Path

import yaml
from common import read_spec
from timeflux.timeflux import main as timeflux


def main() -> None:
    """Decode until killed."""
    spec = read_spec()
    n, hop = round(spec["length"] * spec["sfreq"]), round(spec["hop"] * spec["sfreq"])
    band = {"frequencies": [spec["low"], spec["high"]], "filter_type": "bandpass", "order": spec["order"]}
    nodes = [
        ("inlet", "timeflux.nodes.lsl", "Receive", {"value": spec["stream"], "timeout": 30.0}),
        ("band", "timeflux_dsp.nodes.filters", "IIRFilter", {**band, "rate": spec["sfreq"]}),
        ("window", "timeflux.nodes.window", "Window", {"length": n, "step": hop, "index": "sample"}),
        ("decode", "timeflux_nodes", "Decode", {"spec": spec}),
    ]
    graph = {
        "rate": spec["rate"],
        "nodes": [{"id": i, "module": m, "class": c, "params": p} for i, m, c, p in nodes],
        "edges": [{"source": before[0], "target": after[0]} for before, after in pairwise(nodes)],
    }
    path = Path(spec["out"]).with_suffix(".yaml")
    path.write_text(yaml.safe_dump({"graphs": [graph]}))
    sys.argv = ["timeflux", str(path)]
    timeflux()


if __name__ == "__main__":
    main()
