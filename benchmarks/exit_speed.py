"""What early exits save in time: words (or texts) a second with them and without, by the exports of one run.

    python -m app.main --mode=export --run_dir=runs/exits --set export.formats=saved_model,int8,int8_early
    python benchmarks/exit_speed.py --run_dir=runs/exits --max_f1_loss=0,0.2,0.5

Each contestant answers the same documents of a corpus; they take turns, and each has its median over `--rounds`.
Rows are asked one by one and several at a time; TFLite files with exits get them one by one. A SavedModel takes its
threshold with each call, a TFLite file has the one that it was exported with.
Prints a Markdown table; `operations` is the share of the encoder's.
"""

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median
from typing import Any

PROJECT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(PROJECT))

from app.config.loading import load_config  # noqa: E402


@dataclass
class Contestant:
    """One way to answer.

    Attributes:
        name: shown.
        predictor: that answers.
        early: what counts its operations, if it has exits.
        seconds: of each round.
        score: of the task, on the documents.
    """

    name: str
    predictor: Any
    early: Any = None
    seconds: list[float] = field(default_factory=list)
    score: float = 0.0

    @property
    def operations(self) -> float:
        return float(self.early.measure()["exit_operations"]) if self.early else 1.0


class Runtimes:
    """The exports of a run as predictors.

    Args:
        run_dir: of the run; batch_sizes: rows at a time, of those without exits; threads: of LiteRT.
    """

    def __init__(self, run_dir: Path, *, batch_sizes: Sequence[int], threads: int) -> None:
        from app.evaluation.runtimes import build_predictor
        from app.run.directory import RunDirectory
        from app.tasks.bundle import load_model
        from app.tasks.network import build_encoder

        self.run = RunDirectory(run_dir)
        self.config = load_config(str(run_dir / "config.yaml"), [])
        self.model = load_model(self.run.model)
        self.batch_sizes, self.threads = batch_sizes, threads
        encoder = build_encoder(self.model, self.config.data)
        self._predictor = build_predictor(self.model, encoder, batch_size=1, forward=lambda features: features)

    def saved_model(self, losses: Sequence[float]) -> list[Contestant]:
        """The SavedModel without exits, and with each threshold that loses so many points at most."""
        from app.evaluation.exits import SavedModelEarlyForward
        from app.evaluation.runtimes import SavedModelForward, load_saved_model
        from app.tasks.exit_table import find_threshold

        loaded = load_saved_model(self.run.saved_model)
        full = SavedModelForward.of(loaded, labels=len(self.model.labels))
        found = [self._full(f"SavedModel, {size} rows", full, size) for size in self.batch_sizes]
        for loss in losses:
            config = replace(self.config.predict, max_f1_loss=loss)
            threshold = find_threshold(self.model.facts, self.model.config.exit_layers, config)
            for size in self.batch_sizes:
                early = SavedModelEarlyForward(loaded, threshold)
                name = f"SavedModel with exits, {loss:g} points, {size} rows"
                found.append(Contestant(name, replace(self._predictor, early=early, batch_size=size), early))
        return found

    def tflite(self, name: str) -> list[Contestant]:
        """A TFLite file, and that with exits beside it if there is one."""
        from app.evaluation.exits import TFLiteEarlyForward
        from app.evaluation.litert import load_tflite

        labels = self.model.labels
        full = load_tflite(self.run.tflite, name, labels=labels, threads=self.threads)
        found = [self._full(f"{name}, {size} rows", full.forward, size) for size in self.batch_sizes]
        if (self.run.tflite / f"{name}_early.tflite").is_file():
            file = load_tflite(self.run.tflite, f"{name}_early", labels=labels, threads=self.threads)
            # It has its own threshold, which is not asked for here.
            unit_input, unknown = self.model.task.unit_input, float("nan")
            early = TFLiteEarlyForward(file.run, self.model, unit_input=unit_input, threshold=unknown)
            found.append(Contestant(f"{name} with exits", replace(self._predictor, early=early), early))
        return found

    def _full(self, name: str, forward: Callable[..., Any], size: int) -> Contestant:
        return Contestant(name, replace(self._predictor, forward=forward, batch_size=size))


def measure(contestants: Sequence[Contestant], examples: Sequence[Any], *, rounds: int) -> None:
    """Lets them take turns, after one round that warms up and is scored."""
    for number in range(rounds + 1):
        for each in contestants:
            if each.early:
                each.early.begin()
            began = time.perf_counter()
            answers = list(each.predictor.answer(examples))
            took = time.perf_counter() - began
            if number:
                each.seconds.append(took)
            else:
                task, model = each.predictor.task, each.predictor.model
                each.score = float(task.score(model, examples, answers, each.predictor.config).headline)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run_dir", type=Path, required=True)
    parser.add_argument("--corpus", help="file to answer; the run's validation corpus if not named")
    parser.add_argument("--words", type=int, default=10_000, help="words of whole documents, about; 0 = all")
    parser.add_argument("--max_f1_loss", type=lambda value: [float(each) for each in value.split(",")], default=[0.5])
    parser.add_argument("--files", type=lambda value: value.split(","), default=["int8"], help="TFLite files")
    parser.add_argument(
        "--batch_sizes", type=lambda value: [int(each) for each in value.split(",")], default=[1, 4],
        help="rows at a time",
    )  # fmt: skip
    parser.add_argument("--threads", type=int, default=2, help="of LiteRT")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()

    from app.evaluation.frontier_rounds import sample_documents

    runtimes = Runtimes(options.run_dir, batch_sizes=options.batch_sizes, threads=options.threads)
    task, config = runtimes.model.task, runtimes.config
    path = options.corpus or config.data.valid_path
    examples = list(task.open_corpus(config, path, split="valid", labels=runtimes.model.labels).examples())
    examples = sample_documents(task, examples, options.words)
    units = sum(task.count_units(example) for example in examples)
    contestants = runtimes.saved_model(options.max_f1_loss)
    for name in options.files:
        contestants += runtimes.tflite(name)
    measure(contestants, examples, rounds=options.rounds)
    print(f"{units:,} {task.unit} of {path}, {options.rounds} rounds\n")
    print(f"| by | {task.unit}/s | {task.headline_name} | operations |\n|---|---|---|---|")
    for each in contestants:
        print(f"| {each.name} | {units / median(each.seconds):,.0f} | {each.score:.4f} | {each.operations:.2f} |")


if __name__ == "__main__":
    main()
