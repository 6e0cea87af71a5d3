"""The direction of imports: main -> modes -> rooms -> {artifacts, config}; and who may know which library."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

APP = Path(__file__).parent.parent / "app"
FILES = sorted(APP.rglob("*.py"))
ROOMS = {"data", "models", "training", "evaluation", "compression", "export", "serving"}
FOUNDATION = {"app.config", "app.artifacts", "app.files", "app.heartbeat", "app.one_keras", "app.paths", "app.quiet"}
LIGHT = [
    "__init__",
    "main",
    "config",
    "config_loading",
    "config_rules",
    "artifacts",
    "environment",
    "files",
    "paths",
    "quiet",
    "checks",
    "heartbeat",
    "surroundings",
    "data/sentence",
    "data/labels",
    "data/heads",
    "evaluation/manifest",
    "export/versions",
    "models/sources",
    "training/cluster",
]
HEAVY = ("tensorflow", "keras", "official", "numpy", "sklearn", "matplotlib", "tensorflow_", "app.one_keras")
# library -> the places that may import it, files or folders below app/
ONLY = {
    "tensorflow_addons": {"models/crf.py", "training/optimizers.py"},
    "tensorflow_model_optimization": {"compression/"},
    "yaml": {"config_loading.py"},
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


def may_import(path: str, name: str) -> bool:
    room = path.partition("/")[0]
    if room == "modes":
        return not is_in(name, "app.main") and not is_in(name, "app.config_loading")
    if room in ROOMS:
        return any(is_in(name, allowed) for allowed in FOUNDATION | {f"app.{room}"})
    allowed = {
        "main.py": {
            "app.artifacts", "app.checks", "app.config", "app.config_loading", "app.files", "app.heartbeat",
            "app.paths", "app.surroundings",
        },
        "checks.py": {
            "app.artifacts", "app.config", "app.files", "app.surroundings", *(f"app.{room}" for room in ROOMS)
        },
        "surroundings.py": {"app.config"},
        "artifacts.py": {"app.config", "app.config_loading", "app.environment", "app.files"},
        "config_loading.py": {"app.config", "app.config_rules", "app.paths"},
        "files.py": {"app.config", "app.paths"},
        "paths.py": {"app.config"},
        "config_rules.py": {"app.config"},
    }
    return any(is_in(name, each) for each in allowed.get(path, set()))


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.relative_to(APP).as_posix())
def test_imports_go_one_way(file):
    path = file.relative_to(APP).as_posix()
    assert breaches(path, file.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("data/conll.py", "from app.models.crf import decode"),
        ("training/fit.py", "from app.evaluation import scores"),
        ("models/crf.py", "import app.modes.finetune"),
        ("config.py", "from app.artifacts import atomic"),
        ("config.py", "from app.config_rules import impossible_combinations"),
        ("modes/finetune.py", "from app.main import MODES"),
        ("models/heads.py", "import tensorflow_addons as tfa"),
        ("models/heads.py", "from tensorflow_addons.text import crf_decode"),
        ("models/heads.py", "import tensorflow as tf\nx = tf.keras.layers.Dense(2)"),
        ("models/heads.py", "from tensorflow import keras"),
        ("models/heads.py", "from tensorflow.keras import layers"),
        ("models/heads.py", "from keras import layers"),
        ("models/heads.py", "import tf_keras"),
        ("data/jsonl.py", "def f():\n    import yaml"),
        ("modes/predict.py", "from absl import flags"),
        ("training/fit.py", "import tensorflow_model_optimization"),
        ("compression/prune.py", "import tensorflow_model_optimization\nfrom app.one_keras import keras"),
    ],
)
def test_a_breach_is_noticed(path, source):
    assert breaches(path, source)


def test_rooms_are_all_known():
    folders = {path.name for path in APP.iterdir() if path.is_dir() and any(path.glob("*.py"))}
    assert folders <= ROOMS | {"modes"}


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
