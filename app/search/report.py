"""Search room: what a search leaves: `best.yaml`, `trials.csv`, `report.html`, `report.txt` and `metrics.json`."""

from __future__ import annotations

import csv
import io
import json
import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import optuna

from app.config import Config, flatten, with_values
from app.config.loading import to_yaml
from app.config.paths import shown as shown_path
from app.config.tune import trial_mode
from app.evaluation.pages import render_template
from app.run.environment import mask_environment
from app.run.screen import count_of, say
from app.search.findings import Findings, Row, Spread, shown
from app.search.space import build_trial_config, without_search

TEMPLATES = Path(__file__).parent / "templates"


def write_findings(found: Findings, study: optuna.Study) -> dict[str, float]:
    """Writes all of it, also of a search that is not over; returns the numbers of metrics.json."""
    run_dir = found.run_dir
    run_dir.write_text(run_dir.trials_csv, _table(found))
    run_dir.write_text(run_dir.report_txt, summarize(found))
    if found.best:
        run_dir.write_text(run_dir.best_yaml, _best(found))
    metrics = _metrics(found)
    run_dir.write_json(run_dir.metrics_json, metrics)
    run_dir.write_text(run_dir.report_html, _page(found, study))
    return metrics


def print_summary(found: Findings) -> None:
    """The report on the screen, and where everything lies."""
    print(summarize(found))
    run_dir = found.run_dir
    say(f"report       {run_dir.report_html}")
    if found.best:
        say(f"best         {_command(found)}")


def _command(found: Findings) -> str:
    """What trains with the best settings, into a run directory that no other run or search has."""
    where, own = (shlex.quote(shown_path(path)) for path in (found.run_dir.best_yaml, f"{found.run_dir}_best"))
    return f"python -m app.main --mode={trial_mode(found.config.tune)} --config={where} --run_dir={own}"


def summarize(found: Findings) -> str:
    """The report as text."""
    counted = Counter(row.state for row in found.rows)
    states = ", ".join(f"{count} {state}" for state, count in counted.items())
    trials = count_of(len(found.rows), "trial") + (f": {states}" if states else "")
    lines = ["no search, several seeds" if _only_seeds(found) else trials]
    for row in found.front:
        mark = " (knee)" if row == found.best else ""
        lines.append(f"on the front: trial {row.number}, {_values(row)}{mark}; {_settings(row.settings)}")
    if found.best and not found.front:
        lines.append(f"best: trial {found.best.number}, {_values(found.best)}; {_settings(found.best.settings)}")
    for spread in found.spreads:
        lines.append(_spread_line(spread, searched=not _only_seeds(found)))
    if found.verdict:
        lines.append(found.verdict)
    lines += [f"failed: trial {row.number}: {row.reason}" for row in found.rows if row.reason]
    return "\n".join(lines) + "\n"


def _only_seeds(found: Findings) -> bool:
    return not found.rows and bool(found.spreads)


def _spread_line(spread: Spread, *, searched: bool = True) -> str:
    if not spread.by_seed:
        of = f"{spread.name}, {'other seeds' if searched else 'seeds'}"
        return f"{of}: none of {count_of(spread.failed, 'training')} gave a score{_failure(spread)}"
    scores = ", ".join(f"{seed}: {score:.4f}" for seed, score in sorted(spread.by_seed.items()))
    failed = f"; {spread.failed} failed{_failure(spread)}" if spread.failed else ""
    seeds = count_of(len(spread.by_seed), "other seed" if searched else "seed")
    return f"{spread.name}, validation score over {seeds}: {spread} ({scores}){failed}"


def _failure(spread: Spread) -> str:
    return f", the last: {' '.join(spread.reason.split())}" if spread.reason else ""


def _values(row: Row) -> str:
    return ", ".join(f"{name} {shown(name, value)}" for name, value in row.values.items())


def _settings(settings: Mapping[str, Any]) -> str:
    return ", ".join(f"{key}={_plain(value)}" for key, value in settings.items())


def _plain(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else json.dumps(value) if isinstance(value, list) else str(value)


def best_config(config: Config, best: Row) -> Config:
    """The ordinary run with the settings of a trial: the corpora of the search, the test corpus among them."""
    trial, own = build_trial_config(config, best.settings), flatten(without_search(config))
    kept = ("data.test_path", "evaluation.split", "compression.trim_vocabulary.other_path", "export.formats",
            "export.max_f1_loss")  # fmt: skip
    return with_values(trial, {key: own[key] for key in kept})


def _best(found: Findings) -> str:
    """`best.yaml`: a configuration that runs as it stands, and what is known of it."""
    assert found.best
    lines = [
        _command(found),
        "",
        f"The best of {len(found.rows)} trials, trial {found.best.number}: {_values(found.best)} on the validation "
        "corpus, which chose it.",
        f"Searched: {_settings(found.best.settings)}",
        *map(_spread_line, found.spreads),
        *([found.verdict] if found.verdict else []),
        *([] if found.spreads else ["It was not trained again with other seeds (tune.seeds): part of that is luck."]),
    ]
    head = "".join(f"# {line}".rstrip() + "\n" for line in lines)
    content = to_yaml(best_config(found.config, found.best))
    return f"{head}\n{content}"


def _table(found: Findings) -> str:
    """`trials.csv`: a line for each trial."""
    objectives, keys = found.config.tune.objectives, list(found.config.tune.space)
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(["trial", "state", *objectives, *keys, "epochs", "seconds", "host", "reason"])
    for row in found.rows:
        values = [row.values.get(name, "") for name in objectives]
        settings = [json.dumps(v) if isinstance(v := row.settings.get(key, ""), list) else v for key in keys]
        writer.writerow([row.number, row.state, *values, *settings, row.epochs, row.seconds, row.host, row.reason])
    return file.getvalue()


def _metrics(found: Findings) -> dict[str, float]:
    metrics: dict[str, float] = {
        "tune/trials": len(found.rows),
        "tune/complete": sum(row.state == "complete" for row in found.rows),
        "tune/stopped_early": sum(row.state == "stopped early" for row in found.rows),
        "tune/failed": sum(row.state == "failed" for row in found.rows),
        "tune/seconds": round(sum(row.seconds for row in found.rows), 1),
    }
    if found.best:
        metrics["tune/best_trial"] = found.best.number
        metrics |= {f"tune/best_{name}": value for name, value in found.best.values.items()}
    for name, spread in zip(("best", "unchanged") if found.best else ("unchanged",), found.spreads, strict=False):
        metrics[f"tune/{name}_seeds"] = len(spread.by_seed)
        metrics[f"tune/{name}_failed_seeds"] = spread.failed
        metrics[f"tune/{name}_seconds_over_seeds"] = round(spread.seconds, 1)
        if spread.by_seed:
            metrics[f"tune/{name}_mean_over_seeds"] = spread.mean
            metrics[f"tune/{name}_deviation_over_seeds"] = spread.deviation
    return metrics


def _page(found: Findings, study: optuna.Study) -> str:
    from app.search.pictures import draw_study  # pyplot takes its time

    run_dir, tune = found.run_dir, found.config.tune
    others = [name for name in tune.objectives if name != "score"]
    best = found.best.number if found.best else None
    front = {row.number for row in found.front}
    what = "several seeds" if _only_seeds(found) else "search for settings"
    environment = mask_environment(json.loads(run_dir.environment_json.read_text(encoding="utf-8")))
    return render_template(
        "tune.html",
        folder=TEMPLATES,
        title=f"{shown_path(run_dir.path.resolve().name)}: {what}",
        subtitles=summarize(found).splitlines()[:1],
        tiles=_tiles(found),
        verdict=found.verdict,
        seed_columns=["", "mean", "standard deviation", "scores by seed", *others],
        seed_rows=[_seed_cells(spread) for spread in found.spreads],
        columns=["trial", "", *tune.objectives, *tune.space, "epochs", "seconds"],
        rows=[
            (_cells(row, tune.objectives, list(tune.space)), row.number == best, row.number in front, row.reason)
            for row in found.rows
        ],
        several=len(tune.objectives) > 1,
        only_seeds=_only_seeds(found),
        pictures=draw_study(study, found),
        best_yaml=run_dir.best_yaml.read_text(encoding="utf-8") if found.best else "",
        environment=json.dumps(environment, indent=2, ensure_ascii=False, default=str),
    )


def _tiles(found: Findings) -> list[tuple[str, str]]:
    tiles = [(f"best {name}", shown(name, value)) for name, value in (found.best.values.items() if found.best else ())]
    seeds = "several seeds" if _only_seeds(found) else "other seeds"
    tiles += [(f"{spread.name}, {seeds}", str(spread)) for spread in found.spreads if spread.by_seed]
    return tiles if _only_seeds(found) else [*tiles, ("trials", str(len(found.rows)))]


def _seed_cells(spread: Spread) -> list[str]:
    if not spread.by_seed:
        return [spread.name, "–", "–", f"{spread.failed} failed{_failure(spread)}"]
    scores = ", ".join(f"{seed}: {score:.4f}" for seed, score in sorted(spread.by_seed.items()))
    scores += f"; {spread.failed} failed{_failure(spread)}" if spread.failed else ""
    others = [shown(name, value) for name, value in spread.others.items()]
    deviation = f"{spread.deviation:.4f}" if len(spread.by_seed) > 1 else "–"
    return [spread.name, f"{spread.mean:.4f}", deviation, scores, *others]


def _cells(row: Row, objectives: Sequence[str], keys: Sequence[str]) -> list[str]:
    values = [shown(name, row.values[name]) if name in row.values else "–" for name in objectives]
    settings = [_plain(row.settings[key]) if key in row.settings else "–" for key in keys]
    return [str(row.number), row.state, *values, *settings, str(row.epochs), f"{row.seconds:.0f}"]
