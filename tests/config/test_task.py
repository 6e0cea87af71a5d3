"""What is learnt: the setting `task`, the settings that go with it, and where a run hands them on."""

import dataclasses

import pytest
from absl import flags
from absl.testing import flagsaver

from app.config import TASK_DEFAULTS, TASKS, Config, InputError, flatten, register_task, task_names
from app.config.loading import load_config, load_setting, to_yaml
from app.main import build_request
from app.run.directory import RunDirectory

FINANCE = [f"data/sample/finance/{split}.csv" for split in ("train", "valid", "test")]
CLASSIFY = "task=classification"


@pytest.fixture
def write(tmp_path):
    def write_file(text: str, name: str = "own.yaml") -> str:
        (tmp_path / name).write_text(text, encoding="utf-8")
        return str(tmp_path / name)

    return write_file


def refusal(*overrides: str, path: str | None = None, **files) -> str:
    with pytest.raises(InputError) as raised:
        load_config(path, overrides, **files)
    return str(raised.value)


def test_tagging_is_the_task_of_whoever_names_none_and_of_a_run_that_says_nothing(write):
    assert load_config(None).task == "tagging"
    assert load_config(None, defaults=write("data: {train_path: a.conll}")).task == "tagging"


def test_a_misspelt_task_is_told_the_nearest_one():
    said = refusal("task=classifcation")
    assert said == (
        "task must be one of tagging, classification (did you mean classification?), received 'classifcation' in --set"
    )


def test_a_registered_task_is_taken_with_its_own_defaults_and_all_settings(write):
    before, defaults = list(task_names), dict(TASK_DEFAULTS)
    try:
        assert "task must be one of" in refusal("task=relation_extraction")
        register_task("relation_extraction", {"data.train_path": "relations.jsonl", "training.epochs": "3"})
        register_task("relation_extraction")
        config = load_config(None, ["task=relation_extraction", "model.head=crf", "data.label_column=relation"])
        assert (config.task, config.data.train_path, config.training.epochs) == (
            "relation_extraction",
            "relations.jsonl",
            3,
        )
        assert load_config(write(to_yaml(config))) == config
        assert "did you mean relation_extraction?" in refusal("task=relation_extracton")
        assert task_names == [*before, "relation_extraction"]
    finally:
        task_names[:] = before
        TASK_DEFAULTS.clear()
        TASK_DEFAULTS.update(defaults)
    assert "task must be one of tagging, classification," in refusal("task=relation_extraction")


@pytest.mark.parametrize("name", ["", "Relation", "relation-extraction", "1st", "a b", "größe"])
def test_a_task_that_is_no_identifier_cannot_be_registered(name):
    with pytest.raises(ValueError, match="lower-case identifier"):
        register_task(name)
    assert tuple(task_names) == TASKS


def corpora_of(config: Config) -> tuple[str, ...]:
    data = config.data
    return data.train_path, data.valid_path, data.test_path, data.label_column


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ([], [*FINANCE, "sentiment"]),
        (["data.train_path=mine.csv"], ["mine.csv", "", "", "label"]),
        (["data.train_path=mine"], ["mine", "", "", "label"]),
        (["data.train_path=mine.csv", "data.test_path=t.csv"], ["mine.csv", "", "t.csv", "label"]),
        (["data.train_path=mine.csv", "data.label_column=topic"], ["mine.csv", "", "", "topic"]),
        (["data.train_path=mine.csv", "data.label_column=sentiment"], ["mine.csv", "", "", "sentiment"]),
        (["data.train_path=mine.csv", f"data.valid_path={FINANCE[1]}"], ["mine.csv", FINANCE[1], "", "label"]),
        (["data.train_path=data/sample/train.conll"], ["data/sample/train.conll", "", "", "label"]),
        ([f"data.train_path=./{FINANCE[0]}"], [f"./{FINANCE[0]}", *FINANCE[1:], "sentiment"]),
        (["data.label_column=topic"], [*FINANCE, "topic"]),
        (["data.valid_fraction=0.1"], [FINANCE[0], "", FINANCE[2], "sentiment"]),
        (["data.test_path=t.csv"], [*FINANCE[:2], "t.csv", "sentiment"]),
        (["data.train_path="], ["", *FINANCE[1:], "sentiment"]),
    ],
)
def test_the_sample_of_classification_goes_only_with_its_own_training_corpus(write, settings, expected):
    config = load_config(None, [CLASSIFY, *settings])
    assert corpora_of(config) == tuple(expected)
    lines = "".join(f"{setting.replace('=', ': ', 1)}\n" for setting in (CLASSIFY, *settings))
    assert load_config(write(lines)) == config
    assert load_config(write(to_yaml(config))) == config  # what --dry_run prints
    assert load_config(None, defaults=write(to_yaml(config))) == config


def test_a_run_on_the_sample_takes_the_usual_column_of_another_training_corpus(write):
    run = write(to_yaml(load_config(None, [CLASSIFY])), "run.yaml")
    assert corpora_of(load_config(None, ["data.train_path=mine.csv"], defaults=run)) == ("mine.csv", "", "", "label")
    assert load_config(None, ["data.test_path=other.csv"], defaults=run).data.label_column == "sentiment"


def test_a_run_on_ones_own_corpus_keeps_its_column_whatever_its_name(write):
    mine = [CLASSIFY, "data.train_path=mine.csv", "data.label_column=sentiment"]
    run = write(to_yaml(load_config(None, mine)), "run.yaml")
    assert load_config(None, ["data.train_path=more.csv"], defaults=run).data.label_column == "sentiment"


OTHERS = {
    "tagging": [
        "classification.multi_label=true",
        "classification.label_separator=;",
        "classification.label_smoothing=0.1",
        "classification.class_weights=balanced",
        "classification.out_of_scope_label=none",
        "data.text_column=body",
        "data.label_column=topic",
        "data.pair_columns=a,b",
        "predict.target_precision=0.9",
    ],
    "classification": ["model.head=softmax", "data.scheme=iob2", "data.word_column=1", "data.tag_column=2"],
}
OF_OTHERS = [(task, setting) for task, settings in OTHERS.items() for setting in settings]


@pytest.mark.parametrize(("task", "setting"), OF_OTHERS)
def test_a_setting_of_the_other_task_is_refused_wherever_the_user_sets_it(write, task, setting):
    key, _, value = setting.partition("=")
    (other,) = set(TASKS) - {task}
    start = f"{key} is only for task={other}; received {key}="
    named = "" if task == "tagging" else f"task: {task}\n"
    assert refusal(f"task={task}", setting).startswith(start)
    path = write(f"{named}{key}: [{value}]" if "," in value else f"{named}{key}: '{value}'")
    assert refusal(path=path).startswith(start) and f"({path})" in refusal(path=path)
    run = write(to_yaml(load_config(None, [f"task={task}"])), "run.yaml")
    assert refusal(setting, defaults=run).startswith(start)
    assert flatten(load_config(None, [f"task={other}", setting]))[key] != flatten(Config())[key]


def test_the_default_of_the_other_task_may_stand_in_a_file_but_not_in_set(write):
    assert load_config(write("model: {head: crf}\ntask: classification")).model.head == "crf"
    assert "model.head is only for task=tagging" in refusal(CLASSIFY, "model.head=crf")
    assert "only for task=classification" in refusal("classification.multi_label=false")


@pytest.mark.parametrize(
    ("settings", "parts"),
    [
        (["data.format=csv"], ["tagging have the format auto or conll or jsonl", "data.format=csv (--set)"]),
        ([CLASSIFY, "data.format=conll"], ["format auto or csv or tsv or jsonl or folder", "task=classification"]),
        ([CLASSIFY, "data.format=cvs"], ["data.format must be one of", "did you mean csv?"]),
        ([CLASSIFY, "data.pair_columns=a"], ["the names of two columns, or none", "data.pair_columns=[a]"]),
        ([CLASSIFY, "data.pair_columns=a,b,c"], ["the names of two columns"]),
        ([CLASSIFY, "data.pair_columns=a,a"], ["the names of two columns"]),
        ([CLASSIFY, "data.label_column=text"], ["the label needs a column of its own", "data.text_column=text"]),
        ([CLASSIFY, "data.label_column=text_a"], ["the label needs a column of its own"]),
        ([CLASSIFY, "data.label_column="], ["the label needs a column of its own"]),
        ([CLASSIFY, "data.text_column=", "data.pair_columns="], ["the text needs the name of a column, or a pair"]),
        ([CLASSIFY, "classification.label_smoothing=1"], ["at least 0 and below 1", "'1'"]),
        ([CLASSIFY, "classification.class_weights=balance"], ["one of none, balanced (did you mean balanced?)"]),
        ([CLASSIFY, "model.pooling=max"], ["model.pooling must be one of auto, cls, mean"]),
        ([CLASSIFY, "predict.target_precision=1.1"], ["at least 0 and at most 1"]),
        (
            [CLASSIFY, "predict.target_precision=0.9", "predict.min_score=0.5"],
            ["one of them must be 0", "predict.min_score=0.5 (--set)", "predict.target_precision=0.9 (--set)"],
        ),
    ],
)
def test_what_a_setting_of_classification_may_be(settings, parts):
    said = refusal(*settings)
    assert all(part in said for part in parts), said


@pytest.mark.parametrize(
    "settings",
    [
        ["data.format=csv"],
        ["data.format=tsv"],
        ["data.format=folder"],
        ["data.format=jsonl"],
        ["data.pair_columns="],
        ["classification.multi_label=true", "classification.label_smoothing=0.1", "classification.label_separator=,"],
        ["model.pooling=mean"],
    ],
)
def test_what_classification_allows(settings):
    assert load_config(None, [CLASSIFY, *settings]).task == "classification"


def test_tagging_ignores_the_pooling():
    assert load_config(None, ["model.pooling=mean"]).model.pooling == "mean"


def test_one_setting_is_read_before_the_others_make_sense(write):
    path = write("init_from: runs/a\nclassification: {multi_label: true}")
    assert load_setting("init_from", path) == "runs/a"
    assert load_setting("init_from", path, ["model.head=softmax", "init_from=runs/b"]) == "runs/b"
    assert load_setting("distill.teachers", path) == ("runs/finetune",)


# Which runs hand on what.


def make_run(path, *settings: str, mode: str = "finetune") -> str:
    with RunDirectory(path).open_for_training(load_config(None, settings), mode=mode):
        pass
    return str(path)


def config_of(mode: str, *settings: str, run_dir: str = "") -> Config:
    """As the command line would give it to the mode."""
    flags.FLAGS.mark_as_parsed()
    with flagsaver.flagsaver(
        mode=mode, set=list(settings), run_dir=run_dir, config="", input=["-"] if mode == "predict" else []
    ):
        return build_request()[1].config


OWN = [
    CLASSIFY,
    "classification.multi_label=true",
    "classification.label_separator=;",
    "classification.class_weights=balanced",
    "data.train_path=mine.csv",
    "data.text_column=body",
    "data.label_column=topic",
    "model.pooling=mean",
]


@pytest.fixture
def classified(tmp_path) -> str:
    return make_run(tmp_path / "classified", *OWN)


@pytest.mark.parametrize("mode", ["evaluate", "predict", "export", "serve", "compress", "benchmark"])
def test_modes_on_a_run_have_its_task_and_all_that_belongs_to_it(classified, mode):
    more = ["benchmark.objective=frontier"] if mode == "benchmark" else []
    more += [f"init_from={classified}"] if mode == "compress" else []
    found = flatten(config_of(mode, *more, run_dir="" if mode == "compress" else classified))
    expected = flatten(load_config(None, [*OWN, *more]))
    assert found == expected


@pytest.mark.parametrize("mode", ["finetune", "distill"])
def test_a_run_that_is_made_from_another_has_its_task_and_the_other_defaults_of_that(classified, mode):
    source = f"init_from={classified}" if mode == "finetune" else f"distill.teachers={classified}"
    config = config_of(mode, source)
    assert (config.task, config.classification.multi_label) == ("classification", True)
    # Corpus and hyper-parameters are the new run's own.
    assert corpora_of(config) == (*FINANCE, "sentiment") and config.data.text_column == "text"
    assert (config.classification.class_weights, config.model.pooling) == ("none", "auto")
    own = config_of(mode, source, "data.train_path=more.csv", "classification.label_smoothing=0.1")
    assert corpora_of(own) == ("more.csv", "", "", "label") and own.classification.label_smoothing == 0.1
    assert config_of(mode, source, CLASSIFY) == config


@pytest.mark.parametrize(
    ("mode", "setting"),
    [
        (mode, setting)
        for mode in ("evaluate", "predict", "export", "serve", "compress", "finetune", "distill")
        for setting in ("task=tagging", "classification.multi_label=false")
    ],
)
def test_another_task_than_the_runs_is_refused(classified, mode, setting):
    key, _, value = setting.partition("=")
    source = {"distill": "distill.teachers"}.get(mode, "init_from") + f"={classified}"
    run_dir = "" if mode in ("compress", "finetune", "distill") else classified
    theirs = {"task": "classification", "classification.multi_label": "true"}[key]
    with pytest.raises(InputError) as refused:
        config_of(mode, source, setting, run_dir=run_dir)
    assert str(refused.value) == f"{key} must be that of the run, {theirs}; received {key}={value} (--set)"


def test_a_run_of_before_there_were_tasks_is_one_of_tagging(tmp_path):
    path = make_run(tmp_path / "old")
    run = RunDirectory(path)
    lines = run.config_yaml.read_text().splitlines(keepends=True)
    cut = lines.index("classification:\n")
    lines[cut : cut + 1 + len(dataclasses.fields(Config().classification))] = []
    run.config_yaml.write_text("".join(line for line in lines if not line.startswith("task:")))
    assert run.read_config() == Config()
    for mode, key in (("finetune", "init_from"), ("distill", "distill.teachers"), ("compress", "init_from")):
        assert config_of(mode, f"{key}={path}").task == "tagging"
        with pytest.raises(InputError, match=r"task must be that of the run, tagging; received task=classification"):
            config_of(mode, f"{key}={path}", CLASSIFY)
    with pytest.raises(InputError, match=r"task was 'tagging', now 'classification'"):
        run.model.mkdir()
        run.plan_training(load_config(None, [CLASSIFY, "data.train_path=mine.csv"]), mode="finetune")


def test_runs_of_two_tasks_cannot_teach_together(classified, tmp_path):
    other = make_run(tmp_path / "tagger")
    with pytest.raises(InputError) as refused:
        config_of("distill", f"distill.teachers={classified},{other}")
    assert str(refused.value) == (
        "task must be the same in all runs to start or learn from; it is classification in "
        f"{classified}/config.yaml and tagging in {other}/config.yaml"
    )


def test_a_pretrained_backbone_teaches_any_task_and_what_is_no_run_hands_on_nothing(tmp_path):
    pretrained = make_run(tmp_path / "pretrained", mode="pretrain")
    assert config_of("distill", f"distill.teachers={pretrained}", CLASSIFY).task == "classification"
    assert config_of("finetune", f"backbone.source={pretrained}", CLASSIFY).task == "classification"
    assert config_of("finetune", "init_from=nowhere").task == "tagging"
