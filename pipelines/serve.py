"""Serves an export by the REST and gRPC interface of TF Serving, to try a client on a laptop.

python -m pipelines.serve --saved_model=saved_models/m30k   # http://127.0.0.1:8501/m30k, grpc://127.0.0.1:8500/m30k

It merges requests as the export's batching_parameters.txt says. It is no replacement for TF Serving: no TLS, one
version, one batch at a time.
"""

import contextlib
import pathlib
import sys
import threading
import urllib.parse
from collections.abc import Sequence

from absl import flags

from nmt_keras.errors import UserError
from nmt_keras.serving.ports import require_free
from nmt_keras.serving.versions import newest_version
from pipelines import _cli, _process


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the job with these arguments, or the process's own; returns the exit status."""
    return _cli.run(_define, _job, __doc__, argv)


def _define(values: flags.FlagValues, argv: list[str]) -> None:
    del argv
    flags.DEFINE_string(
        "saved_model", None, "A SavedModel, or a folder of its versions, of which the newest.", flag_values=values
    )
    flags.DEFINE_string("name", "", "Of the model. Default: that of its folder.", flag_values=values)
    flags.DEFINE_string(
        "host", "127.0.0.1", "Who may connect: this machine alone; 0.0.0.0 is everybody.", flag_values=values
    )
    flags.DEFINE_integer("rest_port", 8501, "0 is a free one.", 0, 65535, flag_values=values)
    flags.DEFINE_integer("grpc_port", 8500, "0 is a free one.", 0, 65535, flag_values=values)
    flags.DEFINE_bool(
        "batching", True, "Merge requests, as TF Serving does with --enable_batching.", flag_values=values
    )


def _job(values: flags.FlagValues) -> int:
    if not values.saved_model:
        raise UserError("--saved_model must be given, as in --saved_model=saved_models/m30k")
    if values.rest_port == values.grpc_port != 0:
        raise UserError(f"--rest_port and --grpc_port are both {values.rest_port}: give two ports")
    if set(values.name) & set("/:"):
        raise UserError(f"--name is a part of addresses, without / and :. Received: {values.name!r}")
    folder = newest_version(pathlib.Path(values.saved_model))
    version = int(folder.name) if folder.name.isdecimal() else 1
    for port, flag in ((values.rest_port, "--rest_port"), (values.grpc_port, "--grpc_port")):
        require_free(values.host, port, flag)
    _process.load_tensorflow()
    from nmt_keras.serving.local_server import Batching, ServedModel, serving

    parameters = folder / "batching_parameters.txt"
    batching = Batching.read(parameters) if values.batching and parameters.exists() else None
    name = values.name or (folder.parent if folder.name.isdecimal() else folder).resolve().name
    try:
        served = ServedModel(folder, name, version, batching)
    except RuntimeError as error:
        raise UserError(f"{folder} is no export that can be served: {error}; give saved_models/<name>") from error
    _process.report(f"warming up version {version} of {name}")
    served.warm_up(folder)
    with serving(served, values.host, values.rest_port, values.grpc_port) as ports:
        merges = f"merging up to {batching.max_batch_size} rows" if batching else "each request on its own"
        _process.report(f"version {version} of {name}, {merges}; this is no replacement for TF Serving")
        if values.host not in ("127.0.0.1", "localhost"):
            _process.report(
                f"warning: everybody who reaches {values.host} can use this model, and nothing is encrypted"
            )
        model = urllib.parse.quote(name)
        _process.report(f"http://{values.host}:{ports.rest}/{model}  grpc://{values.host}:{ports.grpc}/{model}")
        _process.report("Ctrl-C ends it")
        with contextlib.suppress(KeyboardInterrupt):
            threading.Event().wait()
    return 0


if __name__ == "__main__":
    sys.exit(main())
