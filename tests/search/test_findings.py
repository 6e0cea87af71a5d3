"""What is read off a study, and the files that it becomes."""

import base64
import csv
import re
import shlex
from xml.etree import ElementTree

import numpy as np
import optuna
import pytest
from optuna.trial import TrialState, create_trial

from app.config import TuneConfig, flatten
from app.config.loading import load_config
from app.run.directory import RunDirectory
from app.search import pictures
from app.search.findings import find, rank
from app.search.report import print_summary, summarize, write_findings
from app.search.space import build_distribution, without_search

SPACE = "tune.space={training.learning_rate: {low: 1e-5, high: 1e-1, log: true}, model.head: [crf, softmax]}"
FRONT = [(0.80, 10e6, 5.0), (0.90, 20e6, 9.0), (0.85, 12e6, 5.5), (0.84, 13e6, 6.0), (0.91, 40e6, 20.0)]


@pytest.fixture
def run_dir(tmp_path) -> RunDirectory:
    run = RunDirectory(tmp_path / "a & b")
    run.write_environment(seed=0, command=["x"])
    return run


def search_config(*settings: str):
    return load_config(None, [SPACE, *settings])


def make_study(config, values: list) -> optuna.Study:
    """A study whose trials have these values; None: failed, a list: stopped after these scores."""
    directions = ["maximize" if name == "score" else "minimize" for name in config.tune.objectives]
    study = optuna.create_study(directions=directions)
    distributions = {key: build_distribution(each) for key, each in config.tune.space.items()}
    for number, value in enumerate(values):
        drawn = {"training.learning_rate": 1e-4 * (number + 1), "model.head": ["crf", "softmax"][number % 2]}
        params = {key: drawn[key] for key in distributions}
        about = {"seconds": 2.0, "epochs": 3, "owner": {"host": "here"}}
        if value is None:
            trial = create_trial(state=TrialState.FAIL, params=params, distributions=distributions,
                                 user_attrs={**about, "reason": "out of <memory>"})  # fmt: skip
        elif isinstance(value, list):
            trial = create_trial(state=TrialState.PRUNED, value=value[-1], params=params, distributions=distributions,
                                 user_attrs=about, intermediate_values=dict(enumerate(value, 1)))  # fmt: skip
        else:
            values = list(value) if isinstance(value, tuple) else [value]
            steps = {1: values[0] / 2, 2: values[0]} if len(values) == 1 else {}
            trial = create_trial(values=values, params=params, distributions=distributions, user_attrs=about,
                                 intermediate_values=steps)  # fmt: skip
        study.add_trial(trial)
    return study


def seeds(scores: dict[int, list[float]]) -> list:
    return [
        create_trial(value=score, user_attrs={"trial": number, "seed": seed, "seconds": 10.0})
        for number, found in scores.items()
        for seed, score in enumerate(found, start=1)
    ]


def read_page(run_dir: RunDirectory) -> str:
    page = run_dir.report_html.read_text(encoding="utf-8")
    ElementTree.fromstring(page.replace("<!DOCTYPE html>", ""))
    return page


def test_the_best_is_the_first_of_the_best_scores_and_a_trial_that_was_stopped_early_is_none():
    config = search_config()
    study = make_study(config, [0.5, [0.4, 0.99], None, 0.8, 0.8])
    assert [trial.number for trial in rank(study.trials, config.tune)] == [3, 4, 0]


def test_the_front_has_what_nothing_beats_and_its_knee_is_best_all_round():
    config = search_config("tune.objectives=score,size,latency")
    ranked = [trial.number for trial in rank(make_study(config, [*FRONT, FRONT[2]]).trials, config.tune)]
    assert sorted(ranked) == [0, 1, 2, 4]  # 3 is beaten by 2, and 5 is 2 once more
    assert ranked[0] == 1  # nearly the best score at half the size and latency of the best
    assert rank([], config.tune) == []


@pytest.mark.parametrize(
    ("best", "unchanged", "says"),
    [
        ([0.80, 0.81, 0.82], [0.70, 0.71, 0.72], "10.00 points better than the unchanged settings, more than the"),
        ([0.80, 0.90, 0.70], [0.79, 0.89, 0.69], "1.00 points better than the unchanged settings, no more than the"),
        ([0.70, 0.70, 0.70], [0.80, 0.80, 0.80], "10.00 points worse than the unchanged settings: the search won"),
        ([0.70, 0.80], [0.80, 0.70], "as good as the unchanged settings: the search won nothing"),
        ([0.70], [0.60], "by a single seed, which says little"),
        ([0.70], [], ""),
    ],
)
def test_the_verdict_weighs_the_gain_against_the_spread_over_seeds(best, unchanged, says, run_dir):
    config = search_config()
    found = find(config, run_dir, make_study(config, [0.9]).trials, seeds({0: best, -1: unchanged}))
    assert found.verdict.startswith(says) if best[1:] else says in found.verdict
    assert bool(found.verdict) == bool(says)


def test_without_a_search_the_seeds_of_the_settings_as_they_are_are_reported(run_dir, capsys):
    config = search_config("tune.trials=0")
    study = make_study(config, [])
    found = find(config, run_dir, [], seeds({-1: [0.7, 0.8, 0.9]}))
    assert not found.best and not found.verdict
    metrics = write_findings(found, study)
    assert metrics["tune/unchanged_mean_over_seeds"] == pytest.approx(0.8)
    assert metrics["tune/unchanged_deviation_over_seeds"] == pytest.approx(0.1)
    assert metrics["tune/unchanged_seeds"] == 3 and metrics["tune/unchanged_failed_seeds"] == 0
    assert metrics["tune/unchanged_seconds_over_seeds"] == 30.0  # those of trials are none
    assert not any("best" in name for name in metrics) and not run_dir.best_yaml.exists()
    print_summary(found)
    assert capsys.readouterr().out == (
        "no search, several seeds\n"
        "unchanged, validation score over 3 seeds: 0.8000 ± 0.1000 (1: 0.7000, 2: 0.8000, 3: 0.9000)\n\n"
    )
    page = read_page(run_dir)
    assert "Over several seeds" in page and "Was it luck?" not in page and 'id="trials"' not in page


def test_a_seed_that_failed_is_told_with_its_reason(run_dir):
    config = search_config("tune.trials=0")
    about = {"trial": -1, "seed": 4, "reason": "out of <memory>"}
    failed = create_trial(state=TrialState.FAIL, user_attrs=about)
    study = make_study(config, [])
    for scores, says in (([0.7, 0.8], "(1: 0.7000, 2: 0.8000); 1 failed, the last: out of <memory>"),
                         ([], "none of 1 training gave a score, the last: out of <memory>")):  # fmt: skip
        found = find(config, run_dir, [], [*seeds({-1: scores}), failed])
        assert says in summarize(found)
        assert write_findings(found, study)["tune/unchanged_failed_seeds"] == 1
        assert "1 failed, the last: out of &lt;memory&gt;" in read_page(run_dir)


def test_best_yaml_runs_as_it_stands_with_the_test_corpus_of_the_search(run_dir):
    config = search_config("seed=4", "tune.storage=postgresql://me:s3cret@host/name")
    study = make_study(config, [0.5, 0.9, None])
    found = find(config, run_dir, study.trials, seeds({1: [0.8, 0.9], -1: [0.7, 0.8]}))
    write_findings(found, study)
    text = run_dir.best_yaml.read_text(encoding="utf-8")
    head = text[: text.index("\n\n")]
    assert f"--config={run_dir.best_yaml}" in shlex.split(head.splitlines()[0])
    assert head.startswith("# python -m app.main --mode=finetune --config=") and "trial 1: score 0.9000" in head
    assert "trial 1, validation score over 2 other seeds: 0.8500 ± 0.0707" in head
    assert "unchanged, validation score over 2 other seeds: 0.7500 ± 0.0707" in head
    best = load_config(str(run_dir.best_yaml))
    changed = {key: value for key, value in flatten(best).items() if value != flatten(without_search(config))[key]}
    assert changed == {"training.learning_rate": 2e-4, "model.head": "softmax"}
    assert best.tune == TuneConfig()  # a search over what it trains starts with a space of its own
    assert best.data.test_path and "s3cret" not in text + read_page(run_dir)


def test_the_last_words_name_a_run_directory_and_a_single_seed_has_no_spread(run_dir, capsys):
    config = search_config()
    study = make_study(config, [0.5, 0.9])
    found = find(config, run_dir, study.trials, seeds({1: [0.8], -1: [0.7]}))
    print_summary(found)
    said = "".join(capsys.readouterr())
    assert re.search(r"--mode=finetune --config='.*/a & b/best\.yaml' --run_dir='.*/a & b_best'$", said, re.MULTILINE)
    assert "over 1 other seed: 0.8000 (1: 0.8000)" in said and "±" not in said
    write_findings(found, study)
    assert "±" not in read_page(run_dir) + run_dir.best_yaml.read_text(encoding="utf-8")


def test_pictures_count_trials_in_whole_numbers_and_repeat_no_heading(run_dir, monkeypatch):
    config = search_config()
    study = make_study(config, [0.5, 0.7, 0.9])
    drawn = []
    monkeypatch.setattr(pictures, "_as_png", lambda each: drawn.append(each) or "")
    headings = [each.heading for each in pictures.draw_study(study, find(config, run_dir, study.trials, ()))]
    figures = [(each.ravel()[0] if isinstance(each, np.ndarray) else each).figure for each in drawn]
    assert len(figures) == len(headings) >= 4
    titles = {axes.get_title(loc=place) for each in figures for axes in each.axes for place in ("left", "center")}
    assert titles == {""} and not any(figure.get_suptitle() for figure in figures)
    axes = figures[headings.index("History")].axes[0]
    assert all(float(tick).is_integer() for tick in axes.get_xticks()) and axes.get_facecolor()[:3] == (1, 1, 1)


def written(figure) -> list:
    """The boxes of all numbers and names at the axes of a figure, in pixels."""
    figure.canvas.draw()
    axes = [axis for each in figure.axes for axis in (each.xaxis, each.yaxis) if axis.get_visible()]
    texts = [axis.label for axis in axes]
    for axis in axes:
        low, high = axis.get_view_interval()
        ticks = [*axis.get_major_ticks(), *axis.get_minor_ticks()]
        texts += [label for tick in ticks if low <= tick.get_loc() <= high for label in (tick.label1, tick.label2)]
    return [text.get_window_extent() for text in texts if text.get_visible() and text.get_text()]


@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
@pytest.mark.parametrize("objectives", ["score", "score,size"])
def test_scales_lie_on_nothing_else_and_dark_lines_are_the_best(objectives):
    space = "training.learning_rate: {low: 2e-4, high: 9e-4, log: true}, model.head: [crf, softmax], " + ", ".join(
        f"training.{name}: {{low: 0.0, high: 0.9}}"
        for name in ("word_mask_fraction", "entity_mask_fraction", "r_drop_weight")
    )
    config = load_config(None, [f"tune.space={{{space}}}", f"tune.objectives={objectives}"])
    names = config.tune.objectives
    study = optuna.create_study(directions=["maximize", "minimize"][: len(names)],
                                sampler=optuna.samplers.RandomSampler(seed=0))  # fmt: skip
    for number in range(5):
        trial = study.ask({key: build_distribution(each) for key, each in config.tune.space.items()})
        study.tell(trial, [0.5 + number / 10, 1e7 + 1e6 * number][: len(names)])
    drawn = {}
    for name, make in (("lines", pictures._draw_lines), ("slices", pictures._draw_slices)):
        for number, target in enumerate(names):
            value = {"target": lambda trial, at=number: trial.values[at]} if len(names) > 1 else {}
            drawn[name, target] = make(study, target_name=target, **value)
    for (name, target), axes in drawn.items():
        figure = (axes.ravel()[0] if name == "slices" else axes).figure
        places = {tuple(each.get_position().bounds) for each in figure.axes}
        assert (len(figure.axes), len(places)) == ((6, 1) if name == "lines" else (5, 5))
        if name == "slices":
            boxes = written(figure)
            assert not any(a.overlaps(b) for at, a in enumerate(boxes) for b in boxes[at + 1 :])
            continue
        assert [text.get_text() for text in axes.get_xticklabels()][:2] == [target, "model.\nhead"]
        lines = axes.collections[0]
        shades = [sum(lines.to_rgba(value)[:3]) for value in sorted(lines.get_array())]
        assert shades == sorted(shades, reverse=target == "score") and max(shades) < 2.9
    pictures.plt.close("all")


def test_the_table_has_a_line_for_each_trial_with_its_reason(run_dir):
    config = search_config()
    study = make_study(config, [0.5, [0.4, 0.3], None])
    metrics = write_findings(find(config, run_dir, study.trials, ()), study)
    with run_dir.trials_csv.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["state"] for row in rows] == ["complete", "stopped early", "failed"]
    assert [row["score"] for row in rows] == ["0.5", "0.3", ""]
    assert rows[2]["reason"] == "out of <memory>" and rows[1]["model.head"] == "softmax"
    assert float(rows[0]["training.learning_rate"]) == 1e-4 and rows[0]["host"] == "here"
    assert metrics == run_dir.read_metrics() and metrics["tune/best_score"] == 0.5 and metrics["tune/failed"] == 1
    assert "not trained again with other seeds" in run_dir.best_yaml.read_text(encoding="utf-8")


def test_the_page_shows_history_importance_slices_and_parallel_coordinates(run_dir):
    config = search_config()
    study = make_study(config, [0.5, 0.7, [0.2], 0.9, None])
    write_findings(find(config, run_dir, study.trials, seeds({3: [0.8, 0.9], -1: [0.7, 0.7]})), study)
    page = read_page(run_dir)
    headings = re.findall("<h2>(.*?)</h2>", page)
    assert headings == [
        "Was it luck?", "History", "Importance", "Slices", "Parallel coordinates", "Scores by epoch", "Trials",
        "How it was made",
    ]  # fmt: skip
    pictures = re.findall('src="data:image/png;base64,([^"]+)"', page)
    assert len(pictures) == 5 and all(base64.b64decode(each).startswith(b"\x89PNG") for each in pictures)
    assert "★ 3" in page and "out of &lt;memory&gt;" in page and "0.8500" in page


def test_the_page_of_several_objectives_shows_the_front_and_marks_the_knee(run_dir):
    config = search_config("tune.objectives=score,size,latency")
    study = make_study(config, FRONT)
    again = [
        create_trial(value=score, user_attrs={"trial": number, "seed": 1, "values": {"score": score, "size": size}})
        for number, score, size in ((1, 0.89, 20e6), (-1, 0.91, 40e6))
    ]
    found = find(config, run_dir, study.trials, again)
    write_findings(found, study)
    page = read_page(run_dir)
    assert "the knee is 2.00 points worse than the unchanged settings in score; what it gains in size stands" in page
    assert "<td>40.00 MB</td>" in page
    assert {"Score against size", "Score against latency", "History: size"} <= set(re.findall("<h2>(.*?)</h2>", page))
    assert "★ 1" in page and "● 0" in page and "● 3" not in page and "12.00 MB" in page
    assert [row.number for row in found.front] == [4, 1, 2, 0]
    assert "--mode=compress" in run_dir.best_yaml.read_text(encoding="utf-8").splitlines()[0]
    assert "trial 1, score 0.9000, size 20.00 MB, latency 9.00 ms (knee)" in summarize(found)


@pytest.mark.parametrize("values", [[], [None], [0.5], [0.5, 0.5]])
def test_a_search_with_hardly_any_result_has_its_report_too(values, run_dir):
    config = search_config()
    study = make_study(config, values)
    found = find(config, run_dir, study.trials, ())
    write_findings(found, study)
    assert "Trials" in read_page(run_dir) and run_dir.best_yaml.exists() == (0.5 in values)
