"""A page to try a model on, or two side by side: translation as you type, other words, alignment, attention.

python -m pipelines.demo --run_dir=runs/m30k    # or --saved_model=saved_models/m30k, --server=grpc://host:8500/m30k
Then open the address that it prints. It answers this machine alone unless --host says otherwise; it is no server for
production: pipelines.export and TF Serving are.
"""

import contextlib
import sys
from collections.abc import Sequence

from absl import flags

from nmt_keras.errors import UserError
from nmt_keras.serving.ports import require_free
from pipelines import _cli, _process

_MOST = 2  # models


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the job with these arguments, or the process's own; returns the exit status."""
    return _cli.run(_define, _job, __doc__, argv)


def _define(values: flags.FlagValues, argv: list[str]) -> None:
    del argv
    flags.DEFINE_multi_string(
        "run_dir", [], "The run directory of a training job; several with commas are an ensemble.", flag_values=values
    )
    flags.DEFINE_multi_string(
        "saved_model", [], "A SavedModel, or a folder of its versions, of which the newest.", flag_values=values
    )
    flags.DEFINE_multi_string(
        "server", [], "TF Serving: grpc://host:port/model or http://host:port/model.", flag_values=values
    )
    flags.DEFINE_string("checkpoint", "best", "Of runs: best, latest, averaged, ema or a step.", flag_values=values)
    flags.DEFINE_integer("beam_size", None, "Of runs. Default: the recipe's.", 1, flag_values=values)
    flags.DEFINE_string(
        "host", "127.0.0.1", "Who may connect: this machine alone; 0.0.0.0 is everybody.", flag_values=values
    )
    flags.DEFINE_integer("port", 8080, "0 is a free one.", 0, 65535, flag_values=values)


def _job(values: flags.FlagValues) -> int:
    names = [*values.run_dir, *values.saved_model, *values.server]
    if not 1 <= len(names) <= _MOST:
        raise UserError(
            "One model must be given, or two to compare, by --run_dir, --saved_model or --server. "
            f"Received: {', '.join(names) or 'none'}"
        )
    for name in ("checkpoint", "beam_size"):
        if values[name].present and not values.run_dir:
            raise UserError(f"--{name} goes with --run_dir: an export keeps what it was made with")
    require_free(values.host, values.port)
    _process.load_tensorflow()
    from nmt_keras.api import load
    from nmt_keras.serving.demo import Demo, Model, Server

    options = {} if values.beam_size is None else {"beam_size": values.beam_size}
    with contextlib.ExitStack() as stack:
        models = []
        for name in values.run_dir:
            client = load(name.split(","), checkpoint=values.checkpoint, report=_process.report, **options)
            models.append(Model(name, stack.enter_context(client)))
        for name in [*values.saved_model, *values.server]:
            models.append(Model(name, stack.enter_context(load(name, report=_process.report))))
        server = stack.enter_context(Server(Demo(models), values.host, values.port))
        if values.host not in ("127.0.0.1", "localhost", "::1"):
            _process.report(
                f"warning: everybody who reaches {values.host} can use these models, and nothing is encrypted"
            )
        _process.report(f"open {server.url} in a browser; Ctrl-C ends it")
        with contextlib.suppress(KeyboardInterrupt):
            server.serve_forever()
    return 0


if __name__ == "__main__":
    sys.exit(main())
