"""How long cheap mistakes take to be told: each is a whole process; seconds, exit status and message.

    python benchmarks/mistakes.py

Every line should be under one second, with exit status 2. Nothing here imports TensorFlow, and no mistake should.
"""

import hashlib
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(PROJECT))

from app.config import BackboneConfig, Config, DataConfig  # noqa: E402
from app.feedback.store import FILE_NAME, Correction, open_store  # noqa: E402
from app.run.directory import RunDirectory, locked_folder  # noqa: E402

GOOD = "-DOCSTART- O\n\nAda B-PER\nlived O\nin O\nLondon B-LOC\n. O\n"
PIECES = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "ada", "lived", "in", "london", ".")


@dataclass(frozen=True)
class Call:
    """Arguments of the program.

    Attributes:
        name: what is wrong with them, or what they ask for.
        arguments: beside what every call has.
        says: part of the message, empty if nothing is wrong.
        environment: variables beside those of this process.
    """

    name: str
    arguments: tuple[str, ...]
    says: str = ""
    environment: dict[str, str] = field(default_factory=dict)


def settings(**values: object) -> tuple[str, ...]:
    """`--set` flags; two underscores stand for the dot."""
    return tuple(f"--set={key.replace('__', '.')}={value}" for key, value in values.items())


RANDOM = settings(backbone__source="random", backbone__vocabulary_path="vocab.txt", data__max_length=32,
                  data__overlap_tokens=8)  # fmt: skip
CORPORA = settings(data__train_path="good.conll", data__valid_path="good.conll", data__test_path="good.conll")
TRAIN = ("--mode=finetune", *RANDOM, *CORPORA)
EVALUATE = ("--mode=evaluate", "--run_dir=finished")
PREDICT = ("--mode=predict", "--run_dir=finished")
UPDATE = ("--mode=update", "--set=init_from=finished")
TUNE = ("--mode=tune", *RANDOM, *CORPORA)
FRONT = ("--mode=tune", "--set=tune.objectives=score,size", "--set=init_from=finished")
PROMOTE = ("--mode=update", "--run_dir=served", "--set=update.promote=stable")
CLASSIFIER = ("--mode=evaluate", "--run_dir=classifier")
CLASSIFY = ("--mode=finetune", *RANDOM, "--set=task=classification")
TEXTS = "text,label\nIt broke.,bad\nIt came.,good\nIt is late.,bad\nIt works.,good\n"
CLASSIFIES = {"task": "classification", "labels": ["bad", "good"], "facts": {"coverage": [[0.9, 0.8], [0.5, 0.6]]}}
TWO = '{"cluster": {"%s": ["localhost:%d", "localhost:1"]}, "task": {"type": "worker", "index": 0}}'


SAMPLE = PROJECT / "data" / "sample" / "finance" / "train.csv"
CLASSIFICATION = (  # what is wrong, training corpus, test corpus, part of the message
    ("empty text", "empty_text.csv", "", "empty_text.csv, line 3: the text is empty"),
    ("empty label", "empty_label.csv", "", "empty_label.csv, line 3: the label is empty"),
    ("no label column", "no_label.csv", "", "no_label.csv, line 1: no column 'label' (data.label_column)"),
    ("one label only", "one_label.csv", "", "one_label.csv has a single label ('bad'), at least two are needed"),
    ("label that is not learnt", "texts.csv", "new_label.csv", "new_label.csv, line 3: unknown label 'ugly'"),
    ("pairs beside single texts", "texts.csv", "pairs.csv", "pairs.csv has pairs of texts, texts.csv has single texts"),
    ("pairs of other labels", "texts.csv", "others.csv", "others.csv has pairs of texts, texts.csv has single texts"),
    ("folder without classes", "half_bert", "", "half_bert holds no folder for each class"),
    ("empty class", "classes", "", "classes/good holds no .txt file"),
)


SPACES = (  # what is wrong, the space, part of the message
    ("misspelt setting in a space", "{training.learning_rat: [1e-3, 2e-3]}",
     "unknown key training.learning_rat in tune.space in --set; did you mean training.learning_rate?"),
    ("section in a space", "{training: [1, 2]}", "training in tune.space in --set is a section"),
    ("space of one number", "{training.learning_rate: 1e-3}", "rate must be a list of values, or {low"),
    ("space that is no mapping", "[training.learning_rate]", "tune.space must be a mapping"),
    ("space that is no YAML", "{training.learning_rate: [1e-3", "tune.space is not valid YAML"),
    ("one value in a space", "{training.batch_size: [4]}", "at least two different values"),
    ("value that is not allowed", "{model.head: [crf, softmx]}", "did you mean softmax?"),
    ("value of another type", "{training.batch_size: [4, many]}", "training.batch_size must be an integer"),
    ("bound that is not allowed", "{backbone.dropout: {low: 0, high: 1}}", "backbone.dropout must be at least 0 and"),
    ("empty range", "{training.learning_rate: {low: 1e-3, high: 1e-4}}", "needs low below high"),
    ("logarithm of 0", "{backbone.dropout: {low: 0, high: 0.5, log: true}}", "needs low above 0 for log: true"),
    ("logarithm in steps", "{training.epochs: {low: 1, high: 9, log: true, step: 2}}", "log or step, not both"),
    ("step that is too large", "{training.epochs: {low: 1, high: 3, step: 9}}", "at most high - low"),
    ("misspelt bound", "{training.epochs: {low: 1, hgh: 3}}", "{low: NUMBER, high: NUMBER}"),
    ("range of names", "{model.head: {low: 1, high: 3}}", "model.head is no number and needs a list"),
    ("searched corpus", "{data.train_path: [a, b]}", "cannot be searched, it is the same in all trials"),
    ("searched seed", "{seed: [1, 2]}", "seed cannot be searched"),
    ("searched port", "{serve.port: [1, 2]}", "serve.port cannot be searched, it does not change what"),
    ("searched setting of another task", "{classification.multi_label: [true, false]}", "is the same in all trials"),
)


def mistakes(port: int) -> list[Call]:
    """Calls in a folder that `prepare` has filled; `port` is taken."""
    return [
        Call("misspelt mode", ("--mode=finetun",), "did you mean finetune?"),
        Call("misspelt setting", ("--mode=finetune", "--set=training.epoch=3"), "did you mean training.epochs?"),
        Call("missing corpus", (*TRAIN, *settings(data__train_path="none.conll")), "train_path: none.conll is missing"),
        Call("missing test corpus", (*TRAIN, *settings(data__test_path="none.jsonl")), "none.jsonl is missing"),
        Call("missing corpus, dry run", (*TRAIN, "--set=data.valid_path=none", "--dry_run"), "none is missing"),
        Call("folder as a corpus", (*TRAIN, *settings(data__train_path="half_bert")), "half_bert is a folder, not a f"),
        Call("fault in a line", (*TRAIN, *settings(data__valid_path="bad.conll")), "bad.conll, line 4: wrong number"),
        Call("fault in JSON", (*TRAIN, *settings(data__valid_path="bad.jsonl")), "bad.jsonl, line 1: 1 tokens but 2"),
        Call("corpus without tags", (*TRAIN, *settings(data__train_path="text.txt")), "text.txt, line 1: "),
        Call("missing backbone", (*TRAIN, *settings(backbone__source="models/bert")), "received 'models/bert'"),
        Call("misspelt preset", (*TRAIN, "--set=backbone.source=preset:bert_basic"), "'bert_basic' is not a preset"),
        Call("half a backbone", (*TRAIN, *settings(backbone__source="half_bert")), "model.safetensors is missing"),
        Call("missing vocabulary", (*TRAIN, *settings(backbone__vocabulary_path="v")), "v is missing: a backbone"),
        Call("too long for the backbone", (*TRAIN, "--set=init_from=finished", "--set=data.max_length=128"),
             "must be at most 64"),
        Call("exit above the layers", ("--mode=finetune", *CORPORA, "--set=model.exit_layers=[2,12]"),
             "of the backbone, which has 6, in strictly rising order: 1 to 5; received [2, 12]"),
        Call("exit above the layers of a run", (*TRAIN, "--set=init_from=finished", "--set=model.exit_layers=[2]"),
             "of the backbone, which has 2, in strictly rising order: 1 to 1; received [2]"),
        Call("start that is no run", (*TRAIN, "--set=init_from=runs/none"), "init_from: runs/none does not exist"),
        Call("start that did not finish", (*TRAIN, "--set=init_from=unfinished"), "the run has not finished"),
        Call("run below a file", (*TRAIN, "--run_dir=good.conll/run"), "good.conll is not a folder"),
        Call("run of another kind", (*TRAIN, "--run_dir=finished", "--set=seed=5"), "run with another configuration"),
        Call("folder of other files", (*TRAIN, "--run_dir=."), "holds other files"),
        Call("run that is being written", (*TRAIN, "--run_dir=locked"), "another process is writing locked"),
        Call("several machines, unnamed", (*TRAIN, "--set=training.strategy=multi_worker"), "TF_CONFIG with at least"),
        Call("several machines, misspelt", TRAIN, "'Worker' must be written 'worker'",
             {"TF_CONFIG": TWO % ("Worker", 1)}),
        Call("worker's port taken", TRAIN, f"listen at localhost:{port}", {"TF_CONFIG": TWO % ("worker", port)}),
        Call("batch that cannot be shared out", (*TRAIN, "--set=training.logical_devices=3"), "be a multiple of 3"),
        Call("scoring without a model", ("--mode=evaluate", "--run_dir=unfinished"), "the run has not finished"),
        Call("unknown type", (*EVALUATE, "--set=data.test_path=other.conll"),
             "other.conll, line 3: unknown tag 'B-XYZ'"),
        Call("no TFLite file", (*EVALUATE, "--set=predictor=tflite"), "--mode=export"),
        Call("no SavedModel", (*EVALUATE, "--set=predictor=saved_model"), "no SavedModel"),
        Call("altered model", ("--mode=predict", "--run_dir=altered", "--input=text.txt"), "not the expected file"),
        Call("missing input", (*PREDICT, "--input=none.txt"), "No such file"),
        Call("misspelt ranking", (*PREDICT, "--input=text.txt", "--set=predict.rank=margn"),
             "must be one of empty, uncertainty"),
        Call("first texts of no ranking", (*PREDICT, "--input=text.txt", "--set=predict.top=5"), "predict.top"),
        Call("too many texts to rank", (*PREDICT, "--input=vocab.txt", "--set=predict.rank=margin",
                                        "--set=predict.rank_limit=9"), "more than 9 texts (predict.rank_limit)"),
        Call("comparison with no run", (*PREDICT, "--input=text.txt", "--set=predict.rank=disagreement",
                                        "--set=predict.other_run=runs/none"), "runs/none does not exist"),
        Call("output that is a folder", (*PREDICT, "--input=text.txt", "--output=locked"),
             "--output=locked is a folder"),
        Call("output below a file", (*PREDICT, "--input=text.txt",
                                     "--output=good.conll/out"), "good.conll is not a folder"),
        Call("export without a corpus", ("--mode=export", "--run_dir=finished", "--set=data.test_path="), "is empty"),
        Call("early exits of a model without", ("--mode=export", "--run_dir=finished",
                                                   "--set=export.formats=int8,int8_early"), "the model has no exits"),
        Call("nothing exported", ("--mode=serve", "--run_dir=finished"), "holds no SavedModel"),
        Call("port taken", ("--mode=serve", "--run_dir=served", f"--set=serve.port={port}"), f"port={port} cannot"),
        Call("no text", ("--mode=pretrain", *RANDOM, "--set=pretrain.train_path=texts/*.txt"), "no file matches texts"),
        Call("binary text", ("--mode=pretrain", *RANDOM, "--set=pretrain.train_path=binary.txt"), "a binary file"),
        Call("missing teacher", ("--mode=distill", *CORPORA, "--set=distill.teachers=none"), "none does not exist"),
        Call("layer the teacher lacks", ("--mode=distill", *CORPORA, "--set=distill.teachers=finished",
                                         "--set=data.max_length=32", "--set=data.overlap_tokens=8"),
             "must name layers of finished, 0 to 1"),
        Call("compression of itself", ("--mode=compress", *CORPORA, "--set=init_from=finished", "--run_dir=finished"),
             "must not be the run that is compressed"),
        Call("update of itself", (*UPDATE, "--run_dir=finished"), "must not be the run that is updated"),
        Call("update without corrections", ("--mode=update", "--set=init_from=served"), "feedback.sqlite is missing"),
        Call("update of what did not finish", ("--mode=update", "--set=init_from=unfinished"), "has not finished"),
        Call("correction with a new label", ("--mode=update", "--set=init_from=relabelled"), "have the label XYZ"),
        Call("corrections of another model", (*UPDATE, "--set=update.model=other"), "answers by other (update.model)"),
        Call("replayed corpus that moved", (*UPDATE, "--set=data.train_path=gone.conll"), "gone.conll is missing"),
        Call("update that nothing is compared on", (*UPDATE, "--set=data.test_path="), "must be no worse"),
        Call("update by several machines", UPDATE, "an update is trained by one process",
             {"TF_CONFIG": TWO % ("worker", _free_port())}),
        Call("two things at once", (*PROMOTE, "--set=update.roll_back=true"), "does one thing and ends"),
        Call("promoted by another name", ("--mode=update", "--run_dir=served", "--set=update.promote=newest"),
             "must be stable, canary or the number"),
        *(Call(name, (*TUNE, f"--set=tune.space={space}"), says) for name, space, says in SPACES),
        Call("searched exit above the layers",
             ("--mode=tune", *CORPORA, "--set=tune.space={model.exit_layers: [[2], [6]]}"), "1 to 5; received [6]"),
        Call("search without validation", (*TUNE, "--set=data.valid_path="), "needs a validation corpus"),
        Call("search for size alone", (*TUNE, "--set=tune.objectives=size"), "tune.objectives must have score"),
        Call("search in another database", (*TUNE, "--set=tune.storage=oracle://me:s3cret@host/name"),
             "received oracle://me:***@host/name"),
        Call("search of a missing corpus", (*TUNE, "--set=data.train_path=none.conll"), "none.conll is missing"),
        Call("search by several machines", TUNE, "the same tune.storage",
             {"TF_CONFIG": TWO % ("worker", _free_port())}),
        Call("front of no run", ("--mode=tune", "--set=tune.objectives=score,size", "--set=init_from=none"),
             "none does not exist"),
        Call("front of itself", (*FRONT, "--run_dir=finished"), "must not be the run that is compressed"),
        Call("front of an idle step", (*FRONT, "--set=tune.space={compression.cluster.values: [8, 16]}"),
             "compression.cluster.values has no effect without the step"),
        Call("front of heads", (*FRONT, "--set=tune.space={model.head: [crf, softmax]}"), "is the same in all trials"),
        Call("front of epochs", (*FRONT, "--set=tune.space={training.epochs: [2, 4]}"),
             "does not change what --mode=compress trains"),
        Call("benchmark of no exports", ("--mode=benchmark", "--run_dir=finished",
                                         "--set=benchmark.objective=frontier"), "--mode=export"),
        *(Call(name, (*CLASSIFY, f"--set=data.train_path={train}", f"--set=data.test_path={test}"), says)
          for name, train, test, says in CLASSIFICATION),
        Call("table for a tagger", (*TRAIN, "--set=data.train_path=texts.csv"), "need --set task=classification"),
        Call("labelled texts for a tagger", (*TRAIN, "--set=data.train_path=labels.jsonl"),
             "need --set task=classification"),
        Call("folder of classes for a tagger", (*TRAIN, "--set=data.train_path=folder"),
             "need --set task=classification"),
        Call("sample that nobody named", ("--mode=distill", "--set=distill.teachers=finished",
                                          "--set=data.max_length=32", "--set=data.overlap_tokens=8",
                                          "--set=distill.student_layers=0,1"),
             "is the sample's, which is read where data.train_path is not set"),
        Call("pairs for a model of single texts", (*CLASSIFIER, "--set=data.test_path=others.csv"),
             "others.csv has pairs of texts, the model learns from single texts"),
        Call("precision that cannot be had", (*CLASSIFIER, "--set=predict.target_precision=0.9"),
             "the most is 0.8"),
        Call("table for a tagger to tag", (*PREDICT, "--input=texts.csv"), "texts.csv is a table"),
        Call("wrong column of the sample", (*CLASSIFY, f"--set=data.train_path={SAMPLE}",
                                            "--set=data.label_column=sentimnt"),
             "did you mean data.label_column=sentiment?"),
        Call("minimum score of several labels", (*CLASSIFY, "--set=predict.min_score=0.5",
                                                 "--set=classification.multi_label=true"), "a threshold of its own"),
        Call("whole sequences of labels", ("--mode=distill", "--set=task=classification",
                                           "--set=distill.chain_weight=1"), "is only for task=tagging"),
        Call("entities of labelled texts", (*CLASSIFY, "--set=training.entity_mask_fraction=0.1"),
             "is only for task=tagging"),
        Call("benchmark without a corpus", ("--mode=benchmark", *RANDOM, "--set=data.train_path="), "trains on it"),
    ]  # fmt: skip


def good_calls() -> list[Call]:
    """Calls with which nothing is wrong, as dry runs."""
    made = [
        Call("finetune", (*TRAIN,)),
        Call("finetune from a run", (*TRAIN, "--set=init_from=finished", "--set=data.max_length=0")),
        Call("finetune MiniLM", ("--mode=finetune", *CORPORA)),
        Call("finetune with exits", ("--mode=finetune", *CORPORA, "--set=model.exit_layers=[1,5]")),
        Call("one of two workers", TRAIN, "", {"TF_CONFIG": TWO % ("worker", _free_port())}),
        Call("classification", (*CLASSIFY, *settings(data__train_path="texts.csv", data__test_path="texts.csv"))),
        Call("classification of a folder", (*CLASSIFY, "--set=data.train_path=folder")),
        Call("pretrain on a glob", ("--mode=pretrain", *RANDOM, "--set=pretrain.train_path=t*t.txt,good.conll",
                                    "--set=pretrain.valid_path=", "--set=pretrain.max_length=32")),
        Call("distill", ("--mode=distill", *CORPORA, "--set=distill.teachers=finished", "--set=data.max_length=32",
                         "--set=data.overlap_tokens=8", "--set=distill.student_layers=0,1")),
        Call("compress", ("--mode=compress", "--set=init_from=finished")),
        Call("update", UPDATE),
        Call("promote", PROMOTE),
        Call("tune", TUNE),
        Call("tune layers and exits", (*TUNE, "--set=backbone.num_layers=2", "--set=tune.space={backbone.num_layers: "
                                       "[4, 6], model.exit_layers: [[2], [3]]}")),
        Call("tune a classifier", ("--mode=tune", *CLASSIFY[1:], *settings(
            data__train_path="texts.csv", data__valid_path="texts.csv", data__test_path="none.csv",
            tune__space="{model.pooling: [cls, mean]}"))),
        Call("tune a front", FRONT),
        Call("evaluate", ("--mode=evaluate", "--run_dir=finished")),
        Call("predict", (*PREDICT, "--input=text.txt", "--output=new/folder/out.jsonl")),
        Call("predict a table", ("--mode=predict", "--run_dir=classifier", "--input=texts.csv")),
        Call("precision that can be had", (*CLASSIFIER, "--set=predict.target_precision=0.75")),
        Call("predict a pipe", (*PREDICT, "--input=-")),
        Call("rank", (*PREDICT, "--input=vocab.txt", "--set=predict.rank=margin", "--set=predict.rank_limit=10")),
        Call("export", ("--mode=export", "--run_dir=finished")),
        Call("serve", ("--mode=serve", "--run_dir=served", "--set=serve.port=0")),
        Call("benchmark", ("--mode=benchmark", *RANDOM, *CORPORA)),
        Call("benchmark of pretraining", ("--mode=benchmark", *RANDOM, "--set=benchmark.objective=masked_lm",
                                          "--set=pretrain.train_path=text.txt", "--set=pretrain.max_length=32")),
    ]  # fmt: skip
    return [Call(each.name, (*each.arguments, "--dry_run"), "", each.environment) for each in made]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("", 0))
        return int(probe.getsockname()[1])


@contextmanager
def prepare(folder: Path) -> Iterator[int]:
    """Fills a folder with corpora and runs, locks one of them, and takes a port, whose number it yields."""
    texts = {
        "good.conll": GOOD,
        "bad.conll": "Ada B-PER\nlived O\nin O\nLondon X Y Z B-LOC\n",
        "other.conll": "Ada B-PER\nlived O\nlong B-XYZ\n",
        "bad.jsonl": '{"tokens": ["Ada"], "tags": ["O", "O"]}\n',
        "texts.csv": TEXTS,
        "empty_text.csv": "text,label\nIt broke.,bad\n  ,good\n",
        "empty_label.csv": "text,label\nIt broke.,bad\nIt came.,\n",
        "no_label.csv": "text,topic,mood\nIt broke.,parcel,bad\n",
        "one_label.csv": "text,label\nIt broke.,bad\nIt is late.,bad\n",
        "new_label.csv": "text,label\nIt broke.,bad\nIt is old.,ugly\n",
        "pairs.csv": "text_a,text_b,label\nIt broke.,It came.,bad\n",
        "labels.jsonl": '{"text": "It broke.", "label": "bad"}\n',
        "others.csv": "text_a,text_b,label\nIt broke.,It came.,entailment\n",
        "classes/bad/1.txt": "It broke.\n",
        "classes/good/1.md": "It came.\n",
        "folder/bad/1.txt": "It broke.\n",
        "folder/good/1.txt": "It came.\n",
        "text.txt": "Ada lived in London, and nobody has tagged it.\n",
        "vocab.txt": "".join(f"{piece}\n" for piece in PIECES),
        "half_bert/config.json": json.dumps({"vocab_size": len(PIECES), "max_position_embeddings": 64}),
        "half_bert/vocab.txt": "".join(f"{piece}\n" for piece in PIECES),
    }
    for name, text in texts.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    (folder / "binary.txt").write_bytes(b"\x7fELF\0\0\0\n")
    for name in ("finished", "served", "altered", "unfinished", "locked", "relabelled"):
        write_run(folder / name, finished=name not in ("unfinished", "locked"))
    for name, label in (("finished", "PER"), ("relabelled", "XYZ")):
        answer = {"entities": [{"start": 0, "end": 3, "label": label}]}
        with open_store(f"sqlite:///{folder / name / FILE_NAME}", folder) as store:
            store.add([Correction("Ada lived.", "tagging", answer)])
    write_run(folder / "classifier", finished=True, classifies=True)
    (folder / "altered" / "model" / "tagger.json").write_text("{}", encoding="utf-8")
    version = folder / "served" / "export" / "saved_model" / "1"
    version.mkdir(parents=True)
    (version / "saved_model.pb").touch()
    with locked_folder(folder / "locked", otherwise=""), socket.create_server(("", 0)) as server:
        yield server.getsockname()[1]


def write_run(folder: Path, *, finished: bool, classifies: bool = False) -> None:
    """A run directory whose weights are empty files: as far as a check looks, it is whole."""
    task, corpus = ("classification", "texts.csv") if classifies else ("tagging", "good.conll")
    data = DataConfig(corpus, corpus, corpus, max_length=32, overlap_tokens=8)
    backbone = BackboneConfig(source="random", vocabulary_path="vocab.txt")
    run_dir = RunDirectory(folder)
    run_dir.write_config(Config(task=task, data=data, backbone=backbone))
    if not finished:
        return
    labels = ["O", "B-LOC", "I-LOC", "B-PER", "I-PER"]
    contents = {
        "backbone.json": json.dumps({"max_positions": 64, "num_layers": 2}),
        "tagger.json": json.dumps({"labels": labels, **(CLASSIFIES if classifies else {})}),
        "vocab.txt": "".join(f"{piece}\n" for piece in PIECES),
        "backbone.weights.h5": "",
        "head.safetensors": "",
    }
    for name, content in contents.items():
        run_dir.write_text(run_dir.model / name, content)
    sums = (f"{hashlib.sha256(text.encode()).hexdigest()}  {name}\n" for name, text in contents.items())
    run_dir.write_text(run_dir.model / "SHA256SUMS", "".join(sums))


def main() -> None:
    with tempfile.TemporaryDirectory() as name, prepare(Path(name)) as port:
        print(f"{'mistake':<34}{'seconds':>8}{'status':>8}  message")
        for call in mistakes(port):
            command = [sys.executable, "-m", "app.main", *call.arguments]
            variables = {**os.environ, "PYTHONPATH": str(PROJECT), **call.environment}
            began = time.perf_counter()
            done = subprocess.run(
                command, cwd=name, env=variables, capture_output=True, text=True, stdin=subprocess.DEVNULL
            )
            seconds = time.perf_counter() - began
            print(f"{call.name:<34}{seconds:>8.2f}{done.returncode:>8}  {done.stderr.strip()[:150]}", flush=True)


if __name__ == "__main__":
    main()
