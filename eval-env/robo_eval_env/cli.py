"""The command line: `worker`, `check`, `test`, `replay` and `bench`.

Exit codes: 0 done, 1 something that was asked for is broken, 2 the input cannot be understood.
"""

import argparse
import json
import os
import signal
import sys

from robo_eval_env.errors import StreamError, WorkerError

_ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS")
_NICENESS = 10


def main(arguments: list[str] | None = None) -> int:
    """Runs a command and returns its exit code."""
    options = _parser().parse_args(arguments)
    try:
        return options.run(options)
    except (WorkerError, StreamError, OSError) as error:
        print(f"robo_eval_env: {error}", file=sys.stderr)
        return 2 if isinstance(error, StreamError) else 1


def _parser() -> argparse.ArgumentParser:
    """Describes the commands."""
    parser = argparse.ArgumentParser(prog="robo_eval_env", description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    worker = commands.add_parser("worker", help="simulate: frames on standard input and output")
    worker.set_defaults(run=_worker)

    check = commands.add_parser("check", help="import modules and print their versions as JSON")
    check.add_argument("modules", nargs="*", metavar="MODULE")
    check.set_defaults(run=_check)

    test = commands.add_parser("test", help="try what manifests promise; a line of JSON per environment")
    test.add_argument("--simulations", required=True, metavar="FILE", help="JSON list of simulations")
    test.add_argument("--steps", type=int, default=100, help="steps of an episode (default: %(default)s)")
    test.add_argument("--skip-determinism", action="store_true", help="leave out what takes most of the time")
    test.set_defaults(run=_test)

    replay = commands.add_parser("replay", help="play an episode again from its seed and actions")
    replay.add_argument("--episode", required=True, metavar="FILE", help="JSON with `simulation`, `seed`, `actions`")
    replay.add_argument("--film", metavar="FILE.gif", help="film it")
    replay.add_argument("--camera", metavar="NAME", help="camera of the simulator to film with")
    replay.set_defaults(run=_replay)

    bench = commands.add_parser("bench", help="compare steps per CPU second, raw and through a worker")
    bench.add_argument("--simulations", required=True, metavar="FILE", help="JSON list of simulations")
    bench.add_argument("--steps", type=int, default=1600, help="steps of each run (default: %(default)s)")
    bench.add_argument("--slots", type=int, default=8, help="episodes in flight (default: %(default)s)")
    bench.set_defaults(run=_bench)
    return parser


def _worker(_: argparse.Namespace) -> int:
    """Serves frames; whatever libraries print goes to standard error."""
    # The parent decides when to stop: it closes our input. A Ctrl-C in the terminal reaches the whole group.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Miners' answers are timed by the process next to us, which must not wait for simulators.
    os.nice(_NICENESS)
    prepare()
    sink = os.dup(1)
    os.dup2(2, 1)
    from robo_eval_env.worker import serve

    try:
        serve(0, sink)
    except BrokenPipeError:
        # The parent is gone, and with it whoever wanted the answers.
        return 0
    return 0


def prepare() -> None:
    """Limits numerical libraries to one thread; has to run before they are imported."""
    for variable in _ONE_THREAD:
        os.environ.setdefault(variable, "1")
    # Software OpenGL draws small pictures faster without threads of its own.
    os.environ.setdefault("LP_NUM_THREADS", "0")


def _check(options: argparse.Namespace) -> int:
    """Imports modules."""
    prepare()
    from robo_eval_env.check import check

    print(json.dumps(check(options.modules), indent=2, sort_keys=True))
    return 0


def _quiet() -> None:
    """Sends what libraries print to standard error: only what was asked for goes to standard output."""
    sink = os.dup(1)
    os.dup2(2, 1)
    sys.stdout = os.fdopen(sink, "w", encoding="utf-8")


def _replay(options: argparse.Namespace) -> int:
    """Plays an episode again and prints its ending."""
    prepare()
    _quiet()
    from robo_eval_env.replay import replay

    print(json.dumps(replay(options.episode, film=options.film, camera=options.camera)), flush=True)
    return 0


def _test(options: argparse.Namespace) -> int:
    """Tries what manifests promise."""
    prepare()
    _quiet()
    from robo_eval_env.conformance import test

    return 0 if test(options.simulations, steps=options.steps, determinism=not options.skip_determinism) else 1


def _bench(options: argparse.Namespace) -> int:
    """Measures steps per CPU second."""
    prepare()
    from robo_eval_env.bench import bench

    bench(options.simulations, steps=options.steps, slots=options.slots)
    return 0
