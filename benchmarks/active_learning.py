"""How many labels a ranking saves: texts are labelled as a person would who looks at the least sure ones first.

    python benchmarks/active_learning.py --corpus=conll2003
    python benchmarks/active_learning.py --corpus=banking77 --seeds=0,1,2 --strategies=random,uncertainty,diversity

Each arm, a strategy with a seed, begins with the labels of a random part of the training file; the arms of a seed share
it. In each round MiniLM is trained from its pretrained weights on all labels that the arm has, scored on the test
split, and ranks the texts without labels; the first of them get theirs, until the next part of the file is reached. A
strategy ends when all its arms have reached `--target` of the score of a training with all labels, or at the last part.
Labels are counted in words (CoNLL-2003) or texts (BANKING77).

Each training is a process of its own whose result is kept in the folder: the same command goes on where it was
stopped, by a signal or by `--max_minutes`, and the summary is written each time. Nothing is chosen on the test split:
all trainings of a corpus have the same settings, and passes over the data grow with the square root of what is missing
(`--epochs` at all labels, at most `--most_epochs`), so that few labels are not trained on for a few steps only.

Files in the folder: `results/*.json` (each training), `summary.json`, `table.md`, `curves.png`, `log.txt`.
"""

import argparse
import csv
import json
import math
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import mean, stdev
from typing import Any

PROJECT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(PROJECT))

from app.config import RANKS, Config  # noqa: E402
from app.config.loading import load_config  # noqa: E402

STRATEGIES = ("random", *(rank for rank in RANKS if rank != "disagreement"))
# Beside those of the corpus: nothing is known before labels are, so there is no validation corpus; an average of the
# weights would remember the beginning of so short a training.
SETTINGS = {
    "data.valid_path": "",
    "data.valid_fraction": 0,
    "data.test_path": "",
    "training.average_weights_decay": 0,
    "training.lazy_embeddings": True,
    "training.tensorboard": False,
}


@dataclass(frozen=True)
class Corpus:
    """What is simulated.

    Attributes:
        config: of the training with all labels.
        files: training and test file, below `--data`.
        unit: what a label is, plural.
        score: its name.
        settings: beside `SETTINGS`.
    """

    config: str
    files: tuple[str, str]
    unit: str
    score: str
    settings: dict[str, Any]


CORPORA = {
    # A sentence that is chosen comes without its neighbours, so that each is read alone in all rounds.
    "conll2003": Corpus(
        "configs/finetune_conll2003.yaml", ("train.txt", "test.txt"), "words", "entity F1", {"data.packing": "sentence"}
    ),
    "banking77": Corpus("configs/banking77.yaml", ("train.csv", "test.csv"), "texts", "macro-F1", {}),
}


# One training: `--job`, in a process of its own.


@dataclass(frozen=True)
class Job:
    """A training, its score and the texts that get their labels next.

    Attributes:
        corpus: name; data: folder of its files.
        data: see `corpus`.
        subset: how much of the training file takes part, 0 = all; test_subset: of the test file.
        test_subset: see `subset`.
        seed: of the training, and of k-means.
        labelled: numbers of the examples that are trained on.
        epochs: passes over them.
        wanted: labels to choose next, at most, by each of `strategies`.
        strategies: see `wanted`.
        settings: "key=value" over those of the corpus.
        folder: of the run, which is deleted at the end.
    """

    corpus: str
    data: str
    subset: int
    test_subset: int
    seed: int
    labelled: tuple[int, ...]
    epochs: int
    wanted: int
    strategies: tuple[str, ...]
    settings: tuple[str, ...]
    folder: str


def run_config(job: Job) -> Config:
    """The configuration of a training."""
    corpus = CORPORA[job.corpus]
    values = {**SETTINGS, **corpus.settings, "training.epochs": job.epochs, "seed": job.seed}
    values["data.train_path"] = str(Path(job.folder) / f"labelled{Path(corpus.files[0]).suffix}")
    return load_config(str(PROJECT / corpus.config), [*(f"{k}={v}" for k, v in values.items()), *job.settings])


def read_examples(job: Job, config: Config, split: str) -> list[Any]:
    """The examples of a file that take part, in its order."""
    import numpy as np

    from app.tasks import find_task

    path = str(Path(job.data) / CORPORA[job.corpus].files[split == "test"])
    examples = list(find_task(config.task).open_corpus(config, path, split=split).examples())
    size = job.test_subset if split == "test" else job.subset
    if 0 < size < len(examples):
        kept = np.sort(np.random.default_rng(0).permutation(len(examples))[:size])
        examples = [examples[number] for number in kept]
    return examples


def count_labels(config: Config, example: Any) -> int:
    return len(example.words) if config.task == "tagging" else 1


def text_of(config: Config, example: Any) -> str:
    return " ".join(example.words) if config.task == "tagging" else example.texts[0]


def write_labelled(config: Config, examples: Sequence[Any]) -> None:
    """The training file of a round."""
    path = Path(config.data.train_path)
    if config.task == "tagging":
        from app.tasks.tagging.conll import write_conll

        write_conll(path, [replace(example, document=number) for number, example in enumerate(examples)])
        return
    with path.open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file)
        table.writerow([config.data.text_column, config.data.label_column])
        table.writerows([example.texts[0], example.labels[0]] for example in examples)


def score(predictor: Any, config: Config, examples: Sequence[Any]) -> float:
    """Entity F1 or macro-F1; a label of the test split that the model has never seen is one it gets wrong."""
    if config.task == "tagging":
        from app.tasks.tagging.scores import compute_scores

        answers = predictor.answer(examples)
        return compute_scores([list(each.tags) for each in examples], [each.tags for each in answers]).strict.micro.f1
    from sklearn.metrics import f1_score

    texts = [example.texts[0] for example in examples]
    rows = predictor.task.answer_texts(predictor.model, texts, predictor, config.predict)
    gold = [example.labels[0] for example in examples]
    return float(f1_score(gold, [str(row["label"]) for row in rows], average="macro", zero_division=0))


def choose_next(predictor: Any, job: Job, config: Config, pool: Sequence[Any]) -> dict[str, list[int]]:
    """By each strategy the numbers of the examples that get their labels next."""
    from app.evaluation.ranking import rank_texts

    labelled = set(job.labelled)
    others = [number for number in range(len(pool)) if number not in labelled]
    sizes = [count_labels(config, pool[number]) for number in others]
    texts = [text_of(config, pool[number]) for number in others]
    chosen = {}
    for strategy in job.strategies:
        top = math.ceil(job.wanted / mean(sizes)) if strategy == "diversity" else 0  # as many groups as texts
        ranked = rank_texts(predictor.model, predictor, texts, by=strategy, top=top, seed=job.seed)
        order = [row["number"] for row in ranked]
        chosen[strategy] = [others[number] for number in take(order, sizes, job.wanted)]
    return chosen


def take(order: Sequence[int], sizes: Sequence[int], wanted: int) -> Iterator[int]:
    """The first of an order until their sizes reach what is wanted."""
    taken = 0
    for number in order:
        if taken >= wanted:
            return
        taken += sizes[number]
        yield number


def work(path: Path) -> None:
    """Does the job of a file and writes the result beside it."""
    began = time.monotonic()
    job = Job(**{key: tuple(value) if isinstance(value, list) else value for key, value in read(path).items()})
    import app.training.speed
    from app.api import train
    from app.evaluation.runtimes import build_predictor
    from app.tasks.bundle import load_model
    from app.tasks.network import build_encoder

    app.training.speed.MATRIX_SIZES = (256,)  # nobody asks for the machine's peak here, which takes ten seconds
    shutil.rmtree(job.folder, ignore_errors=True)
    Path(job.folder).mkdir(parents=True)
    config = run_config(job)
    pool, test = read_examples(job, config, "train"), read_examples(job, config, "test")
    write_labelled(config, [pool[number] for number in job.labelled])
    metrics = train(config, run_dir=Path(job.folder) / "run")
    trained = time.monotonic()
    model = load_model(Path(job.folder) / "run" / "model")
    predictor = build_predictor(model, build_encoder(model, config.data), batch_size=config.predict.batch_size)
    found = {
        "score": score(predictor, config, test),
        "labels": sum(count_labels(config, pool[number]) for number in job.labelled),
        "texts": len(job.labelled),
        "epochs": job.epochs,
        "loss": metrics.get("train/loss"),
        "labelled": list(job.labelled),
        "next": choose_next(predictor, job, config, pool) if job.strategies else {},
        "seconds": {"training": round(trained - began, 1), "all": round(time.monotonic() - began, 1)},
    }
    write(path.with_suffix(".result"), found)


def read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def write(path: Path, value: Any) -> None:
    """Writes JSON that is there whole or not at all."""
    waiting = path.with_name(f".{path.name}")
    waiting.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")
    os.replace(waiting, path)


# The simulation.


Arms = dict[str, dict[int, list[dict[str, Any]]]]  # strategy -> seed -> results by round


class OutOfTime(Exception):
    """`--max_minutes` have passed."""


class Simulation:
    """Arms, their rounds and the trainings that are done.

    Args:
        options: of the command line.
    """

    def __init__(self, options: argparse.Namespace) -> None:
        self.options, self.corpus, self.folder = options, CORPORA[options.corpus], options.folder
        self._ends = time.monotonic() + 60 * options.max_minutes if options.max_minutes else math.inf
        (self.folder / "results").mkdir(parents=True, exist_ok=True)
        self._keep_settings()
        probe = self._job(seed=0, labelled=(), share=1.0)
        config = run_config(probe)
        self.sizes = [count_labels(config, each) for each in read_examples(probe, config, "train")]
        self.total = sum(self.sizes)

    def _keep_settings(self) -> None:
        """All trainings of a folder are of one kind."""
        names = ("corpus", "data", "subset", "test_subset", "fractions", "epochs", "most_epochs", "set")
        asked = {name: str(getattr(self.options, name)) for name in names}
        path = self.folder / "settings.json"
        if path.exists() and (other := {name for name in names if read(path)[name] != asked[name]}):
            sys.exit(f"{self.folder} has results with another --{', --'.join(sorted(other))}: name another --folder")
        write(path, asked)

    def _job(
        self, *, seed: int, labelled: Sequence[int], share: float, wanted: int = 0, strategies: Sequence[str] = ()
    ) -> Job:
        options = self.options
        epochs = min(options.most_epochs, max(options.epochs, round(options.epochs / math.sqrt(share))))
        data, run = str(options.data.resolve()), str((self.folder / "run").resolve())
        return Job(
            options.corpus, data, options.subset, options.test_subset, seed, tuple(labelled), epochs, wanted,
            tuple(strategies), tuple(options.set), run,
        )  # fmt: skip

    def _result(self, name: str, job: Job) -> dict[str, Any]:
        """The result of a training, which is kept."""
        path = self.folder / "results" / f"{name}.json"
        if path.exists() and set(job.strategies) <= set(read(path)["next"]):
            return read(path)
        if time.monotonic() > self._ends:
            raise OutOfTime
        file = self.folder / "job.json"
        write(file, asdict(job))
        file.with_suffix(".result").unlink(missing_ok=True)
        with (self.folder / "log.txt").open("a", encoding="utf-8") as log:
            print(f"\n== {name}", file=log, flush=True)
            done = subprocess.run([sys.executable, __file__, f"--job={file}"], stdout=log, stderr=log, check=False)
        if done.returncode:
            sys.exit(f"{name}: the training ended with exit status {done.returncode}; see {self.folder / 'log.txt'}")
        os.replace(file.with_suffix(".result"), path)
        shutil.rmtree(job.folder, ignore_errors=True)
        found = read(path)
        print(
            f"{name}: {found['labels']:,} {self.corpus.unit}, {self.corpus.score} {found['score']:.4f}, "
            f"{found['seconds']['all']:.0f} s", flush=True,
        )  # fmt: skip
        return found

    def full(self) -> list[dict[str, Any]]:
        """Trainings with all labels."""
        everything = range(len(self.sizes))
        seeds = self.options.seeds[: self.options.full_trainings]
        return [self._result(f"full-{seed}", self._job(seed=seed, labelled=everything, share=1.0)) for seed in seeds]

    def run(self) -> Arms:
        """Trains what is missing, as long as there is time."""
        options = self.options
        arms: Arms = {strategy: {seed: [] for seed in options.seeds} for strategy in options.strategies}
        try:
            goal = options.target * mean(each["score"] for each in self.full())
        except OutOfTime:
            return arms
        for number in range(len(options.fractions)):
            for strategy, by_seed in arms.items():
                if number and all(rounds and rounds[-1]["score"] >= goal for rounds in by_seed.values()):
                    continue
                for seed, rounds in by_seed.items():
                    with suppress(OutOfTime):  # what is there already is read all the same
                        if len(rounds) == number:
                            rounds.append(self._round(strategy, seed, number, rounds))
        return arms

    def _round(self, strategy: str, seed: int, number: int, before: Sequence[dict[str, Any]]) -> dict[str, Any]:
        import numpy as np

        fractions = self.options.fractions
        share, last = fractions[number], number + 1 == len(fractions)
        wanted = 0 if last else math.ceil(fractions[number + 1] * self.total)
        if number == 0 or strategy == "random":
            order = np.random.default_rng(seed).permutation(len(self.sizes)).tolist()
            labelled = list(take(order, self.sizes, math.ceil(share * self.total)))
        else:
            labelled = before[-1]["labelled"] + before[-1]["next"][strategy]
        ranked = [strategy] if number else list(self.options.strategies)
        ranked = [] if last else [each for each in ranked if each != "random"]
        missing = max(0, wanted - sum(self.sizes[each] for each in labelled))
        name = f"{strategy if number else 'start'}-{seed}-{share:g}"
        return self._result(
            name, self._job(seed=seed, labelled=labelled, share=share, wanted=missing, strategies=ranked)
        )


# What is told of it.


def labels_needed(rounds: Sequence[dict[str, Any]], goal: float) -> float | None:
    """Labels at which a curve reaches the goal, between two rounds on a straight line; None if it does not."""
    before: dict[str, Any] | None = None
    for each in rounds:
        if each["score"] >= goal:
            if before is None:
                return float(each["labels"])
            part = (goal - before["score"]) / (each["score"] - before["score"])
            return before["labels"] + part * (each["labels"] - before["labels"])
        before = each
    return None


def summarize(simulation: Simulation, arms: Arms) -> dict[str, Any]:
    """Curves, labels needed, and what they are beside those of random choice."""
    options, full = simulation.options, simulation.full()
    goal = options.target * mean(each["score"] for each in full)
    curves = {
        strategy: [
            describe_point(fraction, [rounds[number] for rounds in by_seed.values() if number < len(rounds)])
            for number, fraction in enumerate(options.fractions)
            if any(number < len(rounds) for rounds in by_seed.values())
        ]
        for strategy, by_seed in arms.items()
    }
    needed = {
        strategy: {seed: labels_needed(rounds, goal) for seed, rounds in by_seed.items()}
        for strategy, by_seed in arms.items()
    }
    ratios = {
        strategy: [found[seed] / needed["random"][seed] for seed in found if found[seed] and needed["random"][seed]]
        for strategy, found in needed.items()
        if "random" in needed and strategy != "random"
    }
    return {
        "corpus": options.corpus, "unit": simulation.corpus.unit, "score": simulation.corpus.score,
        "all_labels": simulation.total, "full_scores": [each["score"] for each in full], "target": options.target,
        "goal": goal, "curves": curves, "labels_needed": needed, "ratios_to_random": ratios,
    }  # fmt: skip


def describe_point(fraction: float, results: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """A round, over seeds."""
    scores = [each["score"] for each in results]
    return {
        "fraction": fraction,
        "labels": mean(each["labels"] for each in results),
        "texts": mean(each["texts"] for each in results),
        "scores": scores,
        "mean": mean(scores),
        "deviation": stdev(scores) if len(scores) > 1 else 0.0,
    }


def write_table(summary: dict[str, Any]) -> str:
    """The summary for a reader, Markdown."""
    unit, all_labels = summary["unit"], summary["all_labels"]
    texts = ("", "") if unit == "texts" else ("texts | ", "---|")
    lines = [
        f"{summary['corpus']}: {summary['score']} on the test split by labelled {unit}; all {all_labels:,} {unit} give "
        f"{mean(summary['full_scores']):.4f}, and {summary['target']:.0%} of that are {summary['goal']:.4f}.",
        "",
        f"| strategy | part | {unit} | {texts[0]}{summary['score']} | deviation | seeds |",
        f"|---|---|---|{texts[1]}---|---|---|",
    ]
    for strategy, points in summary["curves"].items():
        for point in points:
            lines.append(
                f"| {strategy} | {point['fraction']:.1%} | {point['labels']:,.0f} | {_texts_of(point, unit)}"
                f"{point['mean']:.4f} | {point['deviation']:.4f} | {len(point['scores'])} |"
            )
    lines += [
        "",
        f"| strategy | {unit} for {summary['target']:.0%} | of all | beside random, by seed |",
        "|---|---|---|---|",
    ]
    for strategy, by_seed in summary["labels_needed"].items():
        found = [value for value in by_seed.values() if value is not None]
        late = len(by_seed) - len(found)
        missing = f" ({late} of {len(by_seed)} seeds not there yet)" if found and late else ""
        ratios = summary["ratios_to_random"].get(strategy, [])
        beside = f"{mean(ratios):.2f} ({', '.join(f'{ratio:.2f}' for ratio in ratios)})" if ratios else ""
        shown = (f"{mean(found):,.0f}", f"{mean(found) / all_labels:.1%}") if found else ("not there yet", "")
        lines.append(f"| {strategy} | {shown[0]}{missing} | {shown[1]} | {beside} |")
    return "\n".join(lines) + "\n"


def _texts_of(point: dict[str, Any], unit: str) -> str:
    """A cell, unless labels are counted in texts anyway."""
    return "" if unit == "texts" else f"{point['texts']:,.0f} | "


def draw(summary: dict[str, Any], path: Path) -> None:
    """Learning curves: mean and standard deviation over seeds."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot
    from matplotlib.ticker import PercentFormatter

    figure, axes = pyplot.subplots(figsize=(7, 4.5), layout="constrained")
    for strategy, points in summary["curves"].items():
        if not points:
            continue
        shares = [point["labels"] / summary["all_labels"] for point in points]
        means = [point["mean"] for point in points]
        (line,) = axes.plot(shares, means, marker="o", markersize=4, label=strategy)
        low = [point["mean"] - point["deviation"] for point in points]
        high = [point["mean"] + point["deviation"] for point in points]
        axes.fill_between(shares, low, high, alpha=0.2, color=line.get_color(), linewidth=0)
    axes.axhline(mean(summary["full_scores"]), color="black", linewidth=1, label="all labels")
    axes.axhline(summary["goal"], color="grey", linewidth=1, linestyle="--", label=f"{summary['target']:.0%} of it")
    axes.set_xscale("log")
    fractions = {point["fraction"] for points in summary["curves"].values() for point in points}
    axes.set_xticks(sorted(fractions), minor=False)
    axes.set_xticks([], minor=True)
    axes.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=None if min(fractions, default=1) < 0.01 else 0))
    axes.set_xlabel(f"labelled {summary['unit']}, of {summary['all_labels']:,}")
    axes.set_ylabel(f"{summary['score']}, test split")
    axes.set_title(summary["corpus"])
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=150)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", choices=CORPORA, default="conll2003")
    parser.add_argument("--data", type=Path, help="folder of its files; data/CORPUS if not named")
    parser.add_argument("--folder", type=Path, help="of the results; runs/active_learning/CORPUS if not named")
    parser.add_argument("--strategies", type=lambda value: value.split(","), default=["random", "uncertainty"])
    parser.add_argument("--seeds", type=lambda value: [int(each) for each in value.split(",")], default=[0, 1, 2])
    parser.add_argument(
        "--fractions", type=lambda value: [float(each) for each in value.split(",")],
        default=[0.01, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.5], help="parts of all labels, in rising order",
    )  # fmt: skip
    parser.add_argument("--target", type=float, default=0.95, help="part of the score with all labels to be reached")
    parser.add_argument("--epochs", type=int, default=5, help="passes over the data with all labels")
    parser.add_argument("--most_epochs", type=int, default=40, help="passes at most, with few labels")
    parser.add_argument("--full_trainings", type=int, default=1, help="trainings with all labels, of the first seeds")
    parser.add_argument("--subset", type=int, default=0, help="take this many examples of the training file; 0 = all")
    parser.add_argument("--test_subset", type=int, default=0, help="the same of the test file")
    parser.add_argument("--max_minutes", type=float, default=0, help="begin no training after this time; 0 = no limit")
    parser.add_argument("--set", action="append", default=[], help="key=value, as for app.main, for all trainings")
    parser.add_argument("--job", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.data = options.data or PROJECT / "data" / options.corpus
    options.folder = options.folder or PROJECT / "runs" / "active_learning" / options.corpus
    if unknown := [each for each in options.strategies if each not in STRATEGIES]:
        parser.error(f"--strategies must be some of {', '.join(STRATEGIES)}, received {', '.join(unknown)}")
    if not 0 < min(options.fractions) <= max(options.fractions) <= 1 or options.fractions != sorted(options.fractions):
        parser.error(f"--fractions must rise from above 0 to at most 1, received {options.fractions}")
    if options.job is None:
        for name in CORPORA[options.corpus].files:
            if not (options.data / name).is_file():
                parser.error(f"{options.data / name} is missing (data/README.md says where it comes from)")
    return options


def main() -> None:
    options = parse()
    if options.job:
        work(options.job)
        return
    simulation = Simulation(options)
    arms = simulation.run()
    try:
        summary = summarize(simulation, arms)
    except OutOfTime:
        sys.exit("there is no score with all labels yet, beside which others could be told")
    write(options.folder / "summary.json", summary)
    table = write_table(summary)
    (options.folder / "table.md").write_text(table, encoding="utf-8")
    draw(summary, options.folder / "curves.png")
    print(f"\n{table}\n{options.folder / 'curves.png'}")


if __name__ == "__main__":
    main()
