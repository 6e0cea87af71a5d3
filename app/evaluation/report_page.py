"""Evaluation room: ``report.html``, one self-contained page for a reader, with charts and example errors.

No script, no network, nothing but the page itself; the choice among error kinds is a row of radio
buttons and CSS. The markup is well-formed XML, so that a test can parse it.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from app.evaluation.pages import TEMPLATES, render_template
from app.evaluation.plots import TYPE_COLOURS, Drawing, draw_chart, draw_learning_curve
from app.tasks.report import Report

MAX_EXAMPLES = 200


@dataclass(frozen=True)
class Opening:
    """What stands before the report of a split, for a run that is about more than its scores.

    Attributes:
        text: in `report.txt`.
        template: of the page; extends `report.html`.
        folder: where the template lies.
        values: what it may insert beside what `report.html` inserts.
    """

    text: str = ""
    template: str = "report.html"
    folder: Path = TEMPLATES
    values: Mapping[str, Any] = field(default_factory=dict)


def render_page(
    report: Report,
    *,
    title: str,
    history: Sequence[Mapping[str, Any]],
    curves: Mapping[str, str],
    config_text: str,
    environment: Mapping[str, Any],
    notes: Sequence[str] = (),
    speed: tuple[str, float] | None = None,
    opening: Opening | None = None,
) -> str:
    """The page as a string.

    Args:
        report: of the scored split; of more than ``MAX_EXAMPLES`` examples an even selection is shown.
        title: heading, for example the run and the split.
        history: rows of ``history.jsonl``; without usable rows the learning curve is left out.
        curves: names of the validation scores that the learning curve shows -> their keys in the history.
        config_text: the resolved configuration (``config.yaml``).
        environment: what ``environment.json`` holds.
        notes: lines under the heading.
        speed: what is counted, and how much of it the evaluation did per second, for example ("words/s", 1234.5).
        opening: what stands before it all.
    """
    total = len(report.examples)
    count = min(total, MAX_EXAMPLES)
    shown = [report.examples[number * total // count] for number in range(count)]
    offered = [(kind, sum(kind in example.kinds for example in shown)) for kind in report.kinds]
    opening = opening or Opening()
    return render_template(
        opening.template,
        folder=opening.folder,
        **opening.values,
        title=title,
        subtitles=[report.size, *notes],
        report=report,
        tiles=[*report.tiles, *([(speed[0], f"{speed[1]:,.0f}")] if speed else [])],
        charts=_charts(report, history, curves),
        shown=shown,
        offered=[(kind, count) for kind, count in offered if count],
        kinds=report.kinds,
        colours={label: number % TYPE_COLOURS for number, label in enumerate(report.labels)},
        hardware=_hardware(environment),
        config_text=config_text,
        environment=json.dumps(environment, indent=2, ensure_ascii=False, default=str),
    )


def _charts(
    report: Report, history: Sequence[Mapping[str, Any]], curves: Mapping[str, str]
) -> list[tuple[str, str, Drawing, bool]]:
    """(heading, caption, drawing, whether it takes the full width) of all charts that have something to show."""
    drawn: list[tuple[str, str, Drawing | None]] = [
        ("Learning curve", "At the end of each epoch", draw_learning_curve(history, curves))
    ]
    drawn += [
        (chart.heading, chart.caption, draw_chart(chart, name=f"chart-{number}"))
        for number, chart in enumerate(report.charts)
    ]
    charts = [(heading, caption, drawing) for heading, caption, drawing in drawn if drawing]
    narrow = [number for number, (_, _, drawing) in enumerate(charts) if not drawing.wide]
    alone = narrow[-1] if len(narrow) % 2 else None  # two stand side by side
    return [
        (heading, caption, drawing, drawing.wide or number == alone)
        for number, (heading, caption, drawing) in enumerate(charts)
    ]


def _hardware(environment: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What the run was computed on, as far as `environment.json` (of any version) says."""
    rows = (
        ("Processor", _processor(environment)),
        ("Memory", _gigabytes(environment.get("memory_bytes"))),
        ("Container", _container(environment.get("container") or {})),
        ("GPUs", _gpus(environment)),
    )
    return [(name, shown) for name, shown in rows if shown]


def _processor(environment: Mapping[str, Any]) -> str:
    cores = environment.get("usable_cores")
    flags = ", ".join(environment.get("cpu_flags") or ())
    parts = (environment.get("cpu"), f"{cores} of {environment.get('cores')} cores usable" if cores else "", flags)
    return "; ".join(str(part) for part in parts if part)


def _container(limits: Mapping[str, Any]) -> str:
    cores = f"{limits['cores']:g} cores" if "cores" in limits else ""
    return ", ".join(part for part in (_gigabytes(limits.get("memory_bytes")), cores) if part)


def _gigabytes(size: Any) -> str:
    return f"{size / 1e9:,.1f} GB" if size else ""


def _gpus(environment: Mapping[str, Any]) -> str:
    if "gpus" not in environment:  # nobody has looked
        return ""
    names = [" ".join(filter(None, (gpu.get("name"), gpu.get("memory")))) for gpu in environment["gpus"]]
    versions = (("driver", environment.get("nvidia_driver")), ("CUDA", environment.get("cuda")))
    return "; ".join([*names, *(f"{name} {version}" for name, version in versions if version)]) or "none"
