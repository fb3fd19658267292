"""Chart of time, requests and memory by number of servers."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib as mpl

mpl.use("svg")
from matplotlib import pyplot as plt


@dataclass(frozen=True)
class Point:
    """For `servers` applied at once: seconds until all were Ready, API requests until then, and the operator's peak
    memory."""

    servers: int
    seconds: float
    requests: float
    peak_memory_mib: float


def draw(points: Sequence[Point], file: Path) -> None:
    """Draw three small charts as one SVG file. The same points give the same file."""
    panels = (
        ("all Ready after, s", [point.seconds for point in points]),
        ("API requests per server", [point.requests / point.servers for point in points]),
        ("operator's memory, MiB", [point.peak_memory_mib for point in points]),
    )
    servers = [point.servers for point in points]
    with mpl.rc_context({"svg.hashsalt": "mlflow-operator", "svg.fonttype": "none", "font.size": 9}):
        figure, axes = plt.subplots(1, len(panels), figsize=(9, 2.8), layout="constrained")
        for axis, (title, values) in zip(axes, panels, strict=True):
            axis.plot(servers, values, marker="o", color="#0b7285")
            axis.set_title(title, fontsize=9)
            axis.set_xlabel("servers")
            axis.set_xticks(servers)
            axis.set_ylim(bottom=0, top=max(values) * 1.25)
            axis.grid(alpha=0.3)
            for x, y in zip(servers, values, strict=True):
                axis.annotate(f"{y:.0f}", (x, y), textcoords="offset points", xytext=(0, 6), ha="center")
        figure.savefig(file, format="svg", metadata={"Date": None})
        plt.close(figure)
