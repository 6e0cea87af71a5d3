"""Modes room: what a compression has done so far, in `compression.json`, and its table, in `compression.txt`."""

import json
from typing import Any

from app.artifacts import RunDirectory
from app.config import InputError

_COLUMNS = (
    ("after", "step", "{}"),
    ("parameters", "parameters", "{:,}"),
    ("not zero", "nonzero_parameters", "{:,}"),
    ("sparsity", "sparsity", "{:.3f}"),
    ("values", "distinct_values", "{:,}"),
    ("weights MB", "weights_mb", "{:.2f}"),
    ("gzip MB", "gzip_mb", "{:.2f}"),
    ("valid F1", "valid_f1", "{:.4f}"),
    ("other F1", "other_f1", "{:.4f}"),
    ("pieces/word", "pieces_per_word", "{:.3f}"),
    ("Keras ms", "latency_ms", "{:.2f}"),
)


class CompressionState:
    """Parts of steps that are done, numbers that were found once, and the table; every change is on disk at once.

    Args:
        run_dir: of the compression.
        writes: whether this process writes; other workers only read along.
    """

    def __init__(self, run_dir: RunDirectory, *, writes: bool) -> None:
        self._run_dir, self._writes = run_dir, writes
        self.done: list[str] = []
        self.numbers: dict[str, float] = {}
        self.rows: list[dict[str, Any]] = []
        self.finished = False
        if run_dir.compression_json.is_file():
            try:
                vars(self).update(json.loads(run_dir.compression_json.read_text(encoding="utf-8")))
            except ValueError as error:
                raise InputError(f"{run_dir.compression_json} is not valid JSON: {error}; use --overwrite") from error

    def save(self) -> None:
        if self._writes:
            values = {name: getattr(self, name) for name in ("done", "numbers", "rows", "finished")}
            self._run_dir.write_json(self._run_dir.compression_json, values)
            self._run_dir.write_text(self._run_dir.compression_txt, self.table())

    def table(self) -> str:
        """The rows as text: columns that no row has are left out."""
        columns = [column for column in _COLUMNS if any(row.get(column[1]) is not None for row in self.rows)]
        cells = [[title for title, _, _ in columns]]
        for row in self.rows:
            cells.append([form.format(row[key]) if row.get(key) is not None else "-" for _, key, form in columns])
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        lines = ["  ".join([line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])]) for line in cells]
        return "".join(f"{line.rstrip()}\n" for line in lines)
