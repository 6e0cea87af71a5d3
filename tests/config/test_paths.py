"""Paths as users write them: expanded, literal where they exist, and odd ones made plain for libraries."""

import glob
import os
import subprocess
import sys
from pathlib import Path

import pytest

from app.config import PATH_KINDS, InputError, fields_by_key, flatten
from app.config.loading import load_config, to_yaml
from app.config.paths import escape_existing, existing_folder, expand, expand_list, plain, real_names, shown, split_list

PROJECT = Path(__file__).parents[2]
ODD_NAMES = [
    "a[1]", "[ab]", "a*", "a?", "a\\b", "two words ", "line\nend", "it's", 'a "b"', "-a", "a,b", "a$b", "~a", "é",
    os.fsdecode(b"\xff"), os.fsdecode(b"[\xe9]\n"), "n" * 255,
]  # fmt: skip
PATH_SETTINGS = [key for key, known in fields_by_key().items() if "path" in known.metadata]


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch) -> Path:
    """A home folder, the value of $PLACE, and an empty folder to work in."""
    for name in ("home", "place", "here"):
        (tmp_path / name).mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PLACE", str(tmp_path / "place"))
    monkeypatch.delenv("NOWHERE", raising=False)
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "home"


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("", ""),
        ("a/b.txt", "a/b.txt"),
        ("~/a", "{0}/home/a"),
        ("$PLACE/a", "{0}/place/a"),
        ("${{PLACE}}/a$5", "{0}/place/a$5"),
        ("a/~/b", "a/~/b"),
        ("there/$NOWHERE.txt", "there/$NOWHERE.txt"),  # a file of that very name
        ("$NOWHERE in a name/new", "$NOWHERE in a name/new"),  # a folder of that very name
        ("$NOWHERE in a name/~$PLACE", "$NOWHERE in a name/~{0}/place"),
    ],
)
def test_home_and_variables_are_replaced_unless_a_file_or_folder_has_that_very_name(written, meant, tmp_path):
    for name in ("there", "$NOWHERE in a name"):
        Path(name).mkdir()
    Path("there/$NOWHERE.txt").touch()
    assert expand(written.format(), name="--input") == meant.format(tmp_path)


@pytest.mark.parametrize(
    ("written", "part"),
    [
        ("gs://bucket/run", "must be a path on this machine, received 'gs://bucket/run': copy the files here or mount"),
        ("S3://bucket", "must be a path on this machine"),
        ("$NOWHERE/a", "the environment variable NOWHERE is not set"),
        ("a\0b", "a NUL byte is in no file name"),
        ("a" * 256, "255 between two slashes; received 'aaaa"),
        ("a/" * 2500, "at most 4,095 bytes long"),
    ],
)
def test_what_can_be_no_path_here_is_refused_with_the_name_of_the_setting(written, part):
    with pytest.raises(InputError) as refused:
        expand(written, name="--run_dir")
    assert str(refused.value).startswith("--run_dir") and part in str(refused.value)


def test_every_setting_that_is_a_path_says_so():
    frontier = {"benchmark.frontier.other_runs", "benchmark.frontier.peer_python"}
    others = {"backbone.source", "init_from", "distill.teachers", "predict.other_run", *frontier}
    named = {key for key in fields_by_key() if key.endswith(("_path", "_dir"))}
    assert set(PATH_SETTINGS) == named | others
    assert all(fields_by_key()[key].metadata["path"] in PATH_KINDS for key in PATH_SETTINGS)


@pytest.mark.parametrize("key", PATH_SETTINGS)
def test_every_path_setting_is_expanded_and_none_but_a_librarys_own_may_be_remote(key, tmp_path):
    beside = ["predict.rank=disagreement"] if key == "predict.other_run" else []

    def value(written: str) -> str:
        found = flatten(load_config(None, [*beside, f"{key}={written}"]))[key]
        return found if isinstance(found, str) else found[0]

    assert value("~/a b") == f"{tmp_path}/home/a b"
    if key == "data.tfds_dir":
        assert value("gs://bucket/a") == "gs://bucket/a"
        return
    with pytest.raises(InputError, match=rf"^{key} must be a path on this machine, received 'gs://bucket/a'"):
        value("gs://bucket/a")


def test_handles_of_libraries_are_no_paths_and_a_preset_folder_is_one(tmp_path):
    config = load_config(None, ["backbone.source=preset:gs://a/b", "data.train_path=tfds:conll2003"])
    assert (config.backbone.source, config.data.train_path) == ("preset:gs://a/b", "tfds:conll2003")
    assert load_config(None, ["backbone.source=preset:~/p"]).backbone.source == f"preset:{tmp_path}/home/p"


def test_the_paths_of_a_runs_own_configuration_are_not_expanded_again(tmp_path):
    Path("$NOWHERE").touch()
    config = load_config(None, ["data.train_path=$NOWHERE"])
    Path("config.yaml").write_text(to_yaml(config), encoding="utf-8")
    Path("$NOWHERE").unlink()  # or the run has moved to another machine
    assert load_config(None, defaults="config.yaml") == config


@pytest.mark.parametrize("name", ODD_NAMES)
def test_a_file_of_any_name_can_be_a_setting_and_comes_back_from_the_runs_configuration(name):
    Path(name).touch()
    config = load_config(
        None, [f"data.train_path={name}", f"pretrain.train_path={name},other", f"distill.teachers={name},b"]
    )
    assert config.data.train_path == name and config.distill.teachers == (name, "b")
    assert split_list(config.pretrain.train_path) == [name, "other"]
    Path("config.yaml").write_text(to_yaml(config), encoding="utf-8")
    assert load_config(None, defaults="config.yaml") == config


def test_commas_separate_paths_except_in_the_name_of_one_that_exists(tmp_path):
    for name in ("a,b.txt", "c, d"):
        Path(name).touch()
    assert split_list("x, a,b.txt ,c, d,e*,,") == ["x", "a,b.txt", "c, d", "e*"]
    Path("e,f").mkdir()
    assert split_list("e,f/*.txt,g,e,f,h/*,i") == ["e,f/*.txt", "g", "e,f", "h/*", "i"]
    assert expand_list("a,b.txt", name="it") == "a,b.txt"
    assert expand_list("~/*.txt, $PLACE/b", name="it") == f"{tmp_path}/home/*.txt,{tmp_path}/place/b"


def test_the_beginning_of_a_glob_that_is_a_folder_is_no_glob():
    Path("a[1]/b*").mkdir(parents=True)
    assert existing_folder("a[1]/b*/c/*.txt") == ("a[1]/b*", "c/*.txt")
    Path("a[1]/b*/c.txt").touch()
    assert glob.glob(escape_existing("a[1]/b*/*.txt")) == ["a[1]/b*/c.txt"]
    assert existing_folder("*.txt") == ("", "*.txt") and existing_folder("/no*") == ("/", "no*")


@pytest.mark.parametrize("name", ODD_NAMES)
def test_a_plain_path_leads_to_the_same_place_and_has_nothing_that_a_pattern_has(name):
    folder = Path(name) / "deep"
    folder.mkdir(parents=True)
    path = plain(folder / "file")
    assert not set("*?[]\\") & set(path) and path.encode("utf-8") == os.fsencode(path)
    Path(path).write_text("content")
    assert (folder / "file").read_text() == "content"
    assert real_names(f"no {path}") in (f"no {folder}/file", f"no {Path.cwd()}/{folder}/file")


def test_usual_paths_stay_and_the_links_for_others_go_with_the_process(tmp_path):
    assert plain("runs/a b") == "runs/a b"
    code = (
        "import os, sys\nfrom app.config.paths import plain\n"
        "parent = plain('[a]/x')\n"
        "if not os.fork():\n    print(plain('[a]/x') != parent, plain('[b]'), sep='\\n', flush=True)\n    sys.exit()\n"
        "os.wait()\nprint(parent, os.path.islink(os.path.dirname(parent)), sep='\\n')"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": str(PROJECT), "TMPDIR": str(tmp_path)},
        capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    others, of_the_fork, of_the_parent, was_there = done.stdout.split()
    assert (others, was_there) == ("True", "True")
    assert of_the_fork.startswith(str(tmp_path)) and of_the_parent.startswith(str(tmp_path))
    assert not list(tmp_path.glob("paths-*"))


def test_a_path_is_shown_as_one_line_of_valid_text():
    assert shown(os.fsdecode(b"a\nb\x1b[1m\xff\xc3\xa9")) == "a\\nb\\x1b[1m\\udcff\u00e9"


def test_a_home_folder_that_there_is_not_is_an_error_like_an_unset_variable():
    with pytest.raises(InputError, match="--run_dir: there is no home folder ~nobody_here"):
        expand("~nobody_here/x", name="--run_dir")
