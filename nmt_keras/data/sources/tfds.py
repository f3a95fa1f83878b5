"""Translation data sets of TensorFlow Datasets, each language written once as a text file."""

import hashlib
import json
import os
import pathlib
from typing import Any

from nmt_keras import files
from nmt_keras.errors import UserError


def text_of_tfds(name: str, cache_dir: str, language: str, tfds_dir: str | None) -> str:
    """The path of the text of a data set `NAME[#SPLIT]` (split `train` unless given), the feature named by a language.

    Raises:
        UserError: the data set cannot be loaded, or has no such language or split.
    """
    name, _, split = name.partition("#")
    split = split or "train"
    import tensorflow_datasets as tfds  # heavy, and most runs read files

    try:
        builder = tfds.builder(name, data_dir=tfds_dir and os.path.abspath(tfds_dir))
        builder.download_and_prepare()  # its files are part of the key
        key = hashlib.sha256(json.dumps([_fingerprint_of(builder), split, language]).encode()).hexdigest()[:16]
        path = pathlib.Path(cache_dir) / f"tfds-{name.replace('/', '-').replace(':', '-')}-{key}.{language}"
        if path.exists():
            return str(path)
        examples = tfds.load(name, split=split, data_dir=tfds_dir, shuffle_files=False)
    except Exception as error:  # TFDS raises many kinds; the user needs the name and its word on it
        reason = str(error).strip().split("\n")[0]
        raise UserError(f"Cannot load the TFDS data set {name!r}, split {split!r}: {reason}") from error
    if language not in examples.element_spec:
        raise UserError(
            f"The TFDS data set {name!r} has no feature {language!r}; its features: "
            f"{', '.join(sorted(examples.element_spec))}"
        )

    with files.atomic_write(path) as temporary, open(temporary, "wb") as file:
        for example in examples.as_numpy_iterator():
            file.write(example[language].replace(b"\n", b" ") + b"\n")
    return str(path)


def _fingerprint_of(builder: Any) -> list[Any]:
    """The identity of a TFDS builder's prepared data: name, configuration, version, folder and files."""
    folder = pathlib.Path(builder.data_path)
    found = [(path.name, path.stat()) for path in sorted(folder.glob("*")) if path.is_file()]
    return [
        builder.info.full_name,
        str(folder.resolve()),
        [(name, status.st_size, status.st_mtime_ns, status.st_ino) for name, status in found],
    ]
