"""The direction of imports: each room may import the rooms on the floors below it; and who may know which library."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

APP = Path(__file__).parent.parent / "app"
FILES = sorted(APP.rglob("*.py"))
# From the ground up. A room may import those before it, never itself from outside, nor those after it; rooms that
# share a floor know nothing of each other.
FLOORS: list[set[str]] = [
    {"one_keras"},
    {"config"},
    {"run"},
    {"text"},
    {"data"},
    {"encoder"},
    {"tasks"},
    {"training"},
    {"evaluation"},
    {"export"},
    {"compression"},
    {"search"},
    {"feedback"},
    {"serving"},
    {"checks"},
    {"modes"},
    {"api"},
    {"main"},
]
FLOOR = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}
TRAINING = ("updating", "verdict")  # of the feedback room: what trains and scores
LIGHT = [
    "__init__",
    "main",
    "api",
    "checks",
    *(f"config/{path.stem}" for path in sorted((APP / "config").glob("*.py"))),
    "run/directory",
    "run/environment",
    "run/files",
    "run/request",
    "run/screen",
    "run/surroundings",
    "data/sentence",
    "data/json_lines",
    "data/tables",
    "data/text_lines",
    "data/tfds",
    "data/documents",
    "data/inputs",
    "tasks/classification/corpus",
    "tasks/classification/corpus_checks",
    "tasks/classification/holdout",
    "tasks/classification/labelled_text",
    "tasks/classification/min_score",
    "tasks/classification/readers",
    "tasks/tagging/labels",
    "tasks/tagging/corpus_heads",
    "evaluation/manifest",
    *(f"feedback/{path.stem}" for path in sorted((APP / "feedback").glob("*.py")) if path.stem not in TRAINING),
    *(f"feedback/formats/{path.stem}" for path in sorted((APP / "feedback" / "formats").glob("*.py"))),
    "evaluation/other_run",
    "serving/hosts",
    "serving/runs",
    "encoder/sources",
    "training/cluster",
    "training/distillation/__init__",
    "training/distillation/teachers",
]
HEAVY = ("tensorflow", "keras", "official", "numpy", "sklearn", "matplotlib", "tensorflow_", "app.one_keras")
# library -> the places that may import it, files or folders below app/
ONLY = {
    "tensorflow_addons": {"tasks/tagging/crf.py", "training/optimizers.py"},
    "tensorflow_model_optimization": {"compression/"},
    "yaml": {"config/loading.py"},
    "sqlalchemy": {"feedback/", "search/database.py"},
    "optuna": {"search/"},
    "jinja2": {"evaluation/pages.py"},
    "matplotlib": {"evaluation/plots.py", "evaluation/frontier_plot.py", "search/pictures.py"},
    "absl.flags": {"main.py"},
    "absl.app": {"main.py"},
    "keras": set(),
    "tensorflow.keras": set(),
    "tensorflow.python": set(),
    "tf_keras": set(),
    "keras_core": {"one_keras.py"},
}


def imported(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """(absolute dotted name, line) of everything imported; `from a import b` gives "a.b"."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"relative import at line {node.lineno}"
            yield from ((f"{node.module}.{alias.name}", node.lineno) for alias in node.names)


def is_in(name: str, package: str) -> bool:
    return name == package or name.startswith(f"{package}.")


def room_of(path: str) -> str:
    return path.partition("/")[0].removesuffix(".py")


def may_import(path: str, name: str) -> bool:
    """Whether a file may import something of the program: its own room, or a room on a lower floor."""
    ours, theirs = room_of(path), name.split(".")[1]
    if ours == theirs:
        return ours not in ("modes",)  # a mode stands alone
    return theirs in FLOOR and ours in FLOOR and FLOOR[theirs] < FLOOR[ours]


def breaches(path: str, source: str) -> list[str]:
    """What a file at app/`path` does against the rules."""
    tree = ast.parse(source)
    names = list(imported(tree))
    found = []
    for name, line in names:
        for library, places in ONLY.items():
            if is_in(name, library) and not any(path == place or path.startswith(place) for place in places):
                found.append(
                    f"line {line}: {library} may be imported only in {sorted(places) or 'one_keras.py'}"
                )
        if is_in(name, "app") and not may_import(path, name):
            found.append(f"line {line}: {name} is not for app/{path}")
    found += [
        f"line {node.lineno}: {ast.unparse(node)}, take keras from app.one_keras"
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and ast.unparse(node) in ("tf.keras", "tensorflow.keras")
        if path != "one_keras.py"
    ]
    optimization = [line for name, line in names if is_in(name, "tensorflow_model_optimization")]
    one_keras = [line for name, line in names if is_in(name, "app.one_keras")]
    if optimization and not (one_keras and min(one_keras) < min(optimization)):
        found.append("import app.one_keras before tensorflow_model_optimization")
    return found


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.relative_to(APP).as_posix())
def test_imports_go_one_way(file):
    path = file.relative_to(APP).as_posix()
    assert breaches(path, file.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("data/packing.py", "from app.tasks.tagging.crf import decode"),
        ("training/fit.py", "from app.evaluation import predictor"),
        ("export/gate.py", "from app.compression import step"),
        ("evaluation/plots.py", "from app.search import study"),
        ("modes/tune.py", "import optuna"),
        ("tasks/tagging/crf.py", "import app.modes.finetune"),
        ("config/__init__.py", "from app.run.directory import atomic"),
        ("text/words.py", "from app.data.packing import pack"),
        ("modes/finetune.py", "from app.main import MODES"),
        ("modes/finetune.py", "from app.modes.predict import tag_texts"),
        ("tasks/network.py", "import tensorflow_addons as tfa"),
        ("tasks/network.py", "from tensorflow_addons.text import crf_decode"),
        ("tasks/network.py", "import tensorflow as tf\nx = tf.keras.layers.Dense(2)"),
        ("tasks/network.py", "from tensorflow import keras"),
        ("tasks/network.py", "from tensorflow.keras import layers"),
        ("tasks/network.py", "from keras import layers"),
        ("tasks/network.py", "import tf_keras"),
        ("data/packing.py", "def f():\n    import yaml"),
        ("modes/predict.py", "from absl import flags"),
        ("training/fit.py", "import tensorflow_model_optimization"),
        ("compression/prune.py", "import tensorflow_model_optimization\nfrom app.one_keras import keras"),
    ],
)
def test_a_breach_is_noticed(path, source):
    assert breaches(path, source)


def test_every_room_has_its_floor():
    rooms = {path.name for path in APP.iterdir() if path.is_dir() and any(path.glob("*.py"))}
    files = {path.stem for path in APP.glob("*.py")} - {"__init__"}
    assert rooms | files <= set(FLOOR)




@pytest.mark.parametrize("name", LIGHT)
def test_light_modules_import_nothing_heavy_at_module_level(name):
    tree = ast.parse((APP / f"{name}.py").read_text(encoding="utf-8"))
    guarded = [
        node for node in tree.body if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
    ]
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    late = {line for node in guarded + functions for _, line in imported(node)}
    heavy = [found for found, line in imported(tree) if line not in late and found.startswith(HEAVY)]
    assert heavy == []
