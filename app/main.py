"""The command line: `python -m app.main --mode=MODE`. The only file that knows flags.

A mode is imported when it runs, so that `--help`, `--dry_run` and a mistake are answered without TensorFlow.
"""

from __future__ import annotations

import difflib
import os
import signal
import sys
from collections.abc import Sequence
from typing import NoReturn

from absl import app as absl_app
from absl import flags, logging

from app.config import InputError, LostWorkerError, RunError, Terminated
from app.config.loading import to_yaml
from app.config.paths import escape_controls, expand, expand_list, shown
from app.run import surroundings
from app.run.directory import Request, RunDirectory
from app.run.files import first_line, full_disk, reason_of
from app.run.request import MODES, import_mode, load_run_config
from app.run.screen import heartbeat
from app.tasks import import_tasks

DONE, FAILED, BAD_INPUT, INTERRUPTED = 0, 1, 2, 130
TERMINATED = 143  # 128 + SIGTERM: schedulers start it again
LOST_WORKER = 138  # Kubeflow's code for a failure that starting again may mend


_MODE = flags.DEFINE_string("mode", "", "what to do")
_CONFIG = flags.DEFINE_string("config", "", "YAML file; keys it leaves out keep their defaults")
_SET = flags.DEFINE_multi_string("set", [], "section.key=value over the config; repeatable")
_RUN_DIR = flags.DEFINE_string("run_dir", "", "where everything is written (default: runs/MODE)")
_DRY_RUN = flags.DEFINE_bool("dry_run", False, "print the resolved configuration and the plan, do nothing")
_OVERWRITE = flags.DEFINE_bool("overwrite", False, "training: start over in an existing run directory")
_INPUT = flags.DEFINE_multi_string(
    "input", [], "predict: text or .jsonl file, folder, glob, several of these (a,b); or - for stdin"
)
_OUTPUT = flags.DEFINE_string("output", "", "predict: file for the JSON lines (default: stdout)")
_TASK_MODULE = flags.DEFINE_string(
    "task_module", "", "module that registers a task of your own, such as my_task (docs/tasks.md)"
)
_FLAGS = (_MODE, _CONFIG, _SET, _RUN_DIR, _DRY_RUN, _OVERWRITE, _INPUT, _OUTPUT, _TASK_MODULE)
_HELP = {"-h", "-help", "--help", "-helpshort", "--helpshort", "-helpfull", "--helpfull"}


def help_text() -> str:
    def meaning(flag_name: str) -> str:
        return flags.FLAGS[flag_name].help.partition(";\n")[0]  # absl adds a line to repeatable flags

    modes = "\n".join(f"  {name:<12}{mode.description}" for name, mode in MODES.items())
    options = "\n".join(f"  --{flag.name:<12}{meaning(flag.name)}" for flag in _FLAGS)
    return f"""\
usage: python -m app.main --mode=MODE [--config=configs/NAME.yaml] [--set section.key=value]...
                          [--run_dir=runs/NAME] [--dry_run]

modes:
{modes}

flags:
{options}

examples:
  python -m app.main --mode=finetune
  python -m app.main --mode=finetune --config=configs/finetune_conll2003.yaml --run_dir=runs/conll2003
  python -m app.main --mode=evaluate --set data.test_path=data/wikigold/test.conll
  echo "Ada Lovelace lived in London." | python -m app.main --mode=predict --input=-

All settings with their meaning: app/config. The ones in effect: --dry_run.
Exit status: 0 done, 1 failed run, 2 bad usage, config or input; 130 Ctrl-C, 143 SIGTERM, 138 another worker
was lost: the same command resumes. APP_TRACEBACK=1 shows tracebacks.
"""


def parse_flags(argv: Sequence[str]) -> list[str]:
    """Parses the flags; answers `--help` and a bad flag itself and exits."""
    if not _HELP.isdisjoint(argv[1 : argv.index("--")] if "--" in argv else argv[1:]):
        print(help_text(), end="")
        sys.exit(DONE)
    try:
        return list(flags.FLAGS(argv))
    except flags.Error as error:
        _complain(f"{error} (--help lists the flags)")
        sys.exit(BAD_INPUT)


def main(argv: Sequence[str]) -> int:
    """Runs the mode and turns every way it can end into an exit status and one sentence."""
    try:
        if len(argv) > 1:
            raise InputError(
                f"unexpected argument {argv[1]!r}: everything is a --flag=value (--help lists them)"
            )
        name, request = build_request()
        from app import checks  # reads corpora, which --help need not wait for

        if _DRY_RUN.value:
            print(describe(name, request), end="", flush=True)
            checks.check(name, request)
        else:
            checks.check(name, request)
            logging.set_verbosity(logging.WARNING)
            is_quick = MODES[name].is_quick(request.config)
            if not is_quick:
                print(f"{name}: loading TensorFlow ...", file=sys.stderr, flush=True)
            with heartbeat(f"{name}: loading TensorFlow", shown=not is_quick):
                module = import_mode(name, is_quick=is_quick)
            module.run(request)
        sys.stdout.flush()
        return DONE
    except KeyboardInterrupt as stop:
        mode = MODES.get(_MODE.value)
        how, status = ("terminated", TERMINATED) if isinstance(stop, Terminated) else ("interrupted", INTERRUPTED)
        again = " without --overwrite" if _OVERWRITE.value else ""
        resumes = bool(mode and "overwrite" in mode.accepts)
        _complain(f"{how}; {mode.stopped.format(again=again)}" if mode and resumes else how, label="stopped")
        return status
    except BrokenPipeError:
        # The reader (head, less) has gone; stdout must not be flushed again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except Exception as error:
        if os.environ.get("APP_TRACEBACK") == "1":
            import traceback

            traceback.print_exc()
        _complain(explain(error))
        status = BAD_INPUT if isinstance(error, InputError) else FAILED
        status = LOST_WORKER if isinstance(error, LostWorkerError) else status
        if getattr(error, "leave_at_once", False):  # one of several workers
            sys.stderr.flush()
            os._exit(status)  # TensorFlow's own way out waits for the worker that is gone
        return status


def build_request() -> tuple[str, Request]:
    """The mode's name and what is asked of it, from the flags.

    Raises:
        InputError: anything about the flags or the configuration is wrong.
    """
    name = _MODE.value
    if name not in MODES:
        received = f", received {name!r}" if name else ""
        nearest = difflib.get_close_matches(name, MODES, n=1)
        hint = f"; did you mean {nearest[0]}?" if nearest else ""
        raise InputError(f"--mode must be one of {', '.join(MODES)}{received}{hint}")
    mode = MODES[name]
    for flag in (_OVERWRITE, _INPUT, _OUTPUT):
        takers = [other for other in MODES if flag.name in MODES[other].accepts]
        if flag.value and name not in takers:
            raise InputError(f"--{flag.name} belongs to --mode={' or '.join(takers)}, received --mode={name}")
    if "input" in mode.accepts and not any(_INPUT.value):
        raise InputError(f"--mode={name} needs --input=FILE, or --input=- for stdin")
    if _TASK_MODULE.value:
        import_tasks(_TASK_MODULE.value)
    run_dir = RunDirectory(expand(_RUN_DIR.value, name="--run_dir") or f"runs/{mode.works_on or name}")
    config = load_run_config(name, run_dir, expand(_CONFIG.value, name="--config") or None, list(_SET.value))
    first, *others = [expand_list(path, name="--input") for path in _INPUT.value or [""]]
    target = expand("" if _OUTPUT.value == "-" else _OUTPUT.value, name="--output")  # "-" is standard output
    return name, Request(config, run_dir, _OVERWRITE.value, first, target, tuple(others))


def describe(name: str, request: Request) -> str:
    """What `--dry_run` prints: the plan as comments and the configuration, together a valid config file."""
    plan = MODES[name].description
    acts = name == "update" and MODES[name].is_quick(request.config)
    if "overwrite" in MODES[name].accepts and not acts:
        state = request.run_dir.plan_training(request.config, mode=name, overwrite=request.overwrite)
        where = {
            "new": "new",
            "resume": "resume the run that is there",
            "overwrite": "delete the run that is there",
            "replace": "take the place of a run of another configuration without any checkpoint",
            "finished": "score the finished run that is there",
        }[state]
    else:
        where = "exists" if request.run_dir.is_run() else "new"
    settings = to_yaml(request.config, masked=True)
    return f"# {name}: {plan}\n# run directory: {shown(request.run_dir)} ({where})\n{settings}"


def explain(error: Exception) -> str:
    """One sentence for the user; what a library says is cut to its first line."""
    if isinstance(error, InputError | RunError):
        return str(error)
    text = first_line(error)
    if full_disk(error):
        what = f"{error.filename} could not be written" if isinstance(error, OSError) and error.filename else text
        return (
            f"{reason_of(error)}: {what}; files that have their final names are complete and safe: free some space and "
            "run the same command again"
        )
    if isinstance(error, MemoryError) or type(error).__name__ == "ResourceExhaustedError":
        return "out of memory; lower the batch size or data.max_length, or raise training.accumulation_steps"
    if isinstance(error, OSError):
        return text
    return f"{type(error).__name__}: {text[:500]} (APP_TRACEBACK=1 shows where)"


def _complain(message: str, *, label: str = "error") -> None:
    try:
        sys.stdout.flush()
    except OSError:  # a full disk or a closed terminal, which must not be written to again at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    print(f"{label}: {escape_controls(message)}", file=sys.stderr)  # one line, whatever a path in it holds


def _terminate(*_: object) -> NoReturn:
    raise Terminated


if __name__ == "__main__":
    surroundings.prepare()
    signal.signal(signal.SIGTERM, _terminate)
    absl_app.run(main, flags_parser=parse_flags)
