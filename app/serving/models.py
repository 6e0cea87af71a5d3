"""Serving room: a run that is served: its versions, their labels, and new ones that appear while it runs."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from app.config import Config, InputError, RunError, ServeConfig
from app.data.packing import FEATURES
from app.evaluation.manifest import VECTORS_FILE, read_exits
from app.run.directory import RunDirectory
from app.run.files import first_line, json_fault
from app.serving.batching import Batcher
from app.serving.engines import SavedModelEngine, TFLiteEngine, limits_of
from app.serving.errors import RequestError
from app.serving.predict_json import Limits
from app.serving.runs import Plan, Source, check_named_file, describe_source, model_of, plan_versions
from app.tasks.exit_table import FACT as EXITS
from app.tasks.light import LightModel, load_light_model, read_model_facts

LEAST_AGREEING = 0.5  # of the test vectors: fewer, and the files do not belong together
_WARM_UP = "Ann Smith of the U.S. met Bob Jones in St. Louis on Monday. It rained. "


@dataclass(frozen=True)
class Version:
    """A version that is loaded and warm.

    Attributes:
        source: what it was loaded from.
        about: what it says of itself, see `Task.about`.
        engine: computes.
        batcher: asks the engine.
        limits: of ids in its signature `tokenized`; None if nobody knows.
    """

    source: Source
    about: Mapping[str, Any]
    engine: Any
    batcher: Batcher
    limits: Limits | None

    @property
    def number(self) -> int:
        return self.source.version


class ServedModel:
    """A run under its name. Versions are loaded and retired by one thread, and may be asked by any.

    Args:
        name: in the paths.
        run_dir: of the run.
        config: of the run.
        settings: of the server.
        say: tells what an operator has to know.
    """

    def __init__(
        self,
        name: str,
        run_dir: RunDirectory,
        *,
        config: Config,
        settings: ServeConfig,
        threads: int,
        say: Callable[[str], None] = lambda text: None,
    ) -> None:
        self.name, self.run_dir, self.config, self.settings = name, run_dir, config, settings
        self._threads, self._say = threads, say
        self.observe: Callable[[int], None] = lambda texts: None  # called with the number of texts of each batch
        # Called with the layer at which each text of a batch left the network, if it has exits.
        self.observe_layers: Callable[[Iterable[int]], None] = lambda layers: None
        self._versions: dict[int, Version] = {}
        self._labels: dict[str, int] = {}
        self._failed: set[tuple[int, str, str]] = set()
        self._complaint = ""
        self._light: dict[tuple[int, str], LightModel | None] = {}  # of the version that was asked last
        self._lock = threading.Lock()

    @property
    def ready(self) -> bool:
        return bool(self._labels)

    @property
    def versions(self) -> list[int]:
        return sorted(self._versions)

    @property
    def labels(self) -> dict[str, int]:
        return dict(self._labels)

    @property
    def waiting(self) -> int:
        return sum(version.batcher.waiting for version in list(self._versions.values()))

    @property
    def stable(self) -> Version:
        return self.find()

    def find(self, version: int | None = None, label: str | None = None) -> Version:
        """A version by its number or label; without either the stable one.

        Raises:
            RequestError: 404 if there is none, 503 before any is loaded.
        """
        if not self.ready:
            raise RequestError(503, f"the model {self.name} is still being loaded", {"Retry-After": "1"})
        if version is None:
            wanted = label or "stable"
            if wanted not in self._labels:
                raise RequestError(404, f"the model {self.name} has no version with the label {wanted[:60]!r}")
            version = self._labels[wanted]
        found = self._versions.get(version)
        if found is None:
            there = ", ".join(map(str, self.versions))
            raise RequestError(404, f"the model {self.name} has no version {version}; there is {there}")
        return found

    def load(self) -> None:
        """Loads what the run offers, for the first time.

        Raises:
            InputError: it offers nothing, or something that cannot be loaded.
        """
        check_named_file(self.run_dir, self.settings)
        plan = plan_versions(self.run_dir, self.settings)
        self._take(plan, {source.version: self._open(source) for source in plan.sources.values()})

    def refresh(self) -> None:
        """Loads what is new; what was there keeps answering until then, and if the new one cannot be loaded."""
        try:
            plan = plan_versions(self.run_dir, self.settings)
        except InputError as error:
            self._complain(f"{self.name}: {error}; what is loaded keeps answering")
            return
        self._complaint = ""
        kept: dict[int, Version] = {}
        for source in plan.sources.values():
            there = self._versions.get(source.version)
            if there is not None and there.source == source:
                kept[source.version] = there
                continue
            key = (source.version, source.runtime, source.content)
            opened = None if key in self._failed else self._try(source)
            if opened is None:
                self._failed.add(key)
                if there is not None:
                    kept[source.version] = there
            else:
                kept[source.version] = opened
        labels = {name: number for name, number in plan.labels.items() if number in kept}
        stable = labels.get("stable", self._labels["stable"])
        if stable not in kept:
            kept[stable] = self._versions[stable]
        self._take(Plan({}, {**labels, "stable": stable}), kept)

    def open_light(self, version: Version) -> LightModel | None:
        """The model of a version without its network, for what its answers do not say; None if it is not at hand."""
        key = (version.number, version.source.content)
        if key not in self._light:
            folder, found = model_of(version.source, self.run_dir), None
            if folder:
                with suppress(InputError):  # a task of one's own, or a run that has only its exports
                    found = load_light_model(folder, self.config.data)
            self._light = {key: found}
            return found
        return self._light[key]

    def close(self) -> None:
        """Ends the workers after what they have taken is answered."""
        for version in self._versions.values():
            version.batcher.close()
        for version in self._versions.values():
            version.batcher.join()

    def _complain(self, text: str) -> None:
        """Says something once."""
        if text != self._complaint:
            self._complaint = text
            self._say(text)

    def _try(self, source: Source) -> Version | None:
        try:
            opened = self._open(source)
        except Exception as error:
            reason = str(error) if isinstance(error, InputError | RunError) else first_line(error)
            self._say(f"{self.name}: version {source.version} is not taken: {reason}; what is loaded keeps answering")
            return None
        self._say(f"{self.name}: version {source.version} is loaded ({source.runtime})")
        return opened

    def _take(self, plan: Plan, loaded: dict[int, Version]) -> None:
        """From now on these versions are asked; those that are no longer among them end when they have answered."""
        with self._lock:
            old = self._versions
            self._versions, self._labels = loaded, dict(plan.labels)
        for version in old.values():
            if version not in loaded.values():
                version.batcher.close()

    def _open(self, source: Source) -> Version:
        """A version, tested and warm."""
        about = dict(describe_source(source, self.run_dir), model=self.name)
        if self._facts(source).get("pairs"):
            about["pairs"] = True
        engine = self._make_engine(source, about)
        if self.settings.target_latency_ms and engine.why_steady:
            given = f"serve.target_latency_ms={self.settings.target_latency_ms} changes nothing"
            self._say(f"warning: {self.name}, version {source.version}: {given}, {engine.why_steady}")
        check_engine(engine, about, self._vectors(source))
        warm_up(engine, about)
        engine.started()
        batcher = Batcher(
            engine,
            threads=self._threads,
            max_batch=self.settings.max_batch,
            queue_size=self.settings.queue_size,
            observe=self.observe,
            note=engine.note,
        )
        return Version(source, about, engine, batcher, limits_of(self.run_dir))

    def _make_engine(self, source: Source, about: Mapping[str, Any]) -> Any:
        if source.runtime == "tflite":
            engine = TFLiteEngine(
                source.path,
                model_of(source, self.run_dir) or self.run_dir.model,
                threads=self._threads,
                data=self.config.data,
                predict=self.config.predict,
                target_ms=self.settings.target_latency_ms,
                max_f1_loss=self.settings.max_f1_loss,
                observe_layers=lambda layers: self.observe_layers(layers),
            )
            check_vectors(engine, source.path.parent)
            return engine
        return SavedModelEngine(
            source.path,
            about=about,
            facts=self._facts(source),
            predict=self.config.predict,
            target_ms=self.settings.target_latency_ms,
            max_f1_loss=self.settings.max_f1_loss,
            observe_layers=lambda layers: self.observe_layers(layers),
        )

    def _facts(self, source: Source) -> Mapping[str, Any]:
        """What the model of a version knows beside its labels; empty of a run that has only its exports.

        The thresholds of exits are those of the version: the run itself may have learnt since, or an update made it.
        """
        folder = model_of(source, self.run_dir)
        try:
            facts = dict(read_model_facts(folder or self.run_dir.model).facts)
        except InputError:
            facts = {}
        exits = read_exits(source.path)
        if exits or folder is None:
            facts[EXITS] = exits or {}
        return facts

    def _vectors(self, source: Source) -> list[dict[str, Any]]:
        """Rows that a version must give; none for a TFLite file, which has vectors of another kind."""
        path = source.path / VECTORS_FILE
        if source.runtime != "saved_model" or not path.is_file():
            return []
        return _read_lines(path)


def _read_lines(path: Path) -> list[dict[str, Any]]:
    try:
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path} cannot be read: {json_fault(error)}") from error


def warm_up(engine: Any, about: Mapping[str, Any]) -> None:
    """Computes texts of several lengths, so that no user waits for buffers and compilers."""
    text = f"{about['sample_text']} " if about["sample_text"] else _WARM_UP
    for texts in ([text], [text * 4, text], [text * 20]):
        for worker, alone in engine.callers:
            engine.warm_up(texts, worker=worker, alone=alone)


def check_engine(engine: Any, about: Mapping[str, Any], expected: list[dict[str, Any]]) -> None:
    """A version must give the rows it was exported with, or at least an answer.

    Raises:
        InputError: it does not.
    """
    texts = [row["text"] for row in expected] or [about["sample_text"] or _WARM_UP]
    try:
        answered = engine.answer(texts)
        found, outputs = answered.rows(0, len(texts)), answered.outputs(0, len(texts))
    except Exception as error:
        raise InputError(f"it cannot answer its own test texts: {first_line(error)}") from error
    for name, value in outputs.items():
        if value.dtype.kind == "f" and not np.isfinite(value).all():
            raise InputError(f"its output {name} is not a number")
    if expected:
        _require(sum(_alike(*pair) for pair in zip(found, expected, strict=True)), len(expected))


def check_vectors(engine: TFLiteEngine, folder: Path) -> None:
    """A TFLite file must give most of the answers in the test vectors beside it, those of the float model.

    Raises:
        InputError: it does not.
    """
    path = folder / "test_vectors.jsonl"
    if not path.is_file():
        return
    vectors = _read_lines(path)
    agreeing = 0
    for vector in vectors:
        arrays = {name: np.array([vector[name]], np.int32) for name in FEATURES}
        agreeing += engine.agrees(vector, engine.compute_logits(arrays)["logits"])
    _require(agreeing, len(vectors))


def _require(agreeing: int, count: int) -> None:
    if agreeing < LEAST_AGREEING * count:
        raise InputError(f"it gives {agreeing} of the {count} answers in its test vectors")


def _spans(row: Mapping[str, Any]) -> list[tuple[int, int, str]]:
    return [(each["start"], each["end"], each["label"]) for each in row["entities"]]


def _alike(found: Mapping[str, Any], expected: Mapping[str, Any]) -> bool:
    """Whether two rows say the same, whatever the scores."""
    if "entities" in expected:
        return _spans(found) == _spans(expected)
    names = tuple(name for name in ("label", "labels") if name in expected)
    return all(found.get(name) == expected[name] for name in names)
