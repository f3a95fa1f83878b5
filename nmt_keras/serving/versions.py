"""The versions of an export, in the folders that TF Serving reads: `saved_models/<name>/<version>`."""

import json
import pathlib

from nmt_keras.errors import UserError

_MODEL = "saved_model.pb"


def newest_version(folder: pathlib.Path) -> pathlib.Path:
    """The folder of the newest version of an export, or `folder` itself, if it is that of a version.

    Raises:
        UserError: `folder` is neither; the message says what it is.
    """
    if (folder / _MODEL).exists():
        return folder
    versions = [path.parent for path in folder.glob(f"*/{_MODEL}") if path.parent.name.isdecimal()]
    if versions:
        return max(versions, key=lambda path: int(path.name))
    if not folder.exists():
        raise UserError(f"There is no folder {folder}; give an export, saved_models/<name> or a version of it")
    inside = sorted({path.parent.parent.name for path in folder.glob(f"*/*/{_MODEL}") if path.parent.name.isdecimal()})
    if inside:
        raise UserError(f"{folder} is a folder of exports; give one of them, such as {folder / inside[0]}")
    if (folder / "config.json").exists():
        raise UserError(
            f"{folder} is no export, it is a run directory; export it, or give it as --run_dir to a job "
            "that takes one"
        )
    raise UserError(f"{folder} is no export of this toolkit; give saved_models/<name>, or a version of it")


def needs_of(folder: pathlib.Path) -> str:
    """What a version of an export says that it needs of a machine; "" where it says nothing."""
    try:
        card = json.loads((folder / "parity.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return ""
    return str(card.get("needs", "")) if isinstance(card, dict) else ""
