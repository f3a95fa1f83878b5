"""A program that runs a written PyTorch file: logits and greedy translations of batches of ids.

python -I pytorch_session.py <folder of model.py> <batches.npz> <folder of the results> <ids of a translation at most>

It is a process of its own, since PyTorch and TensorFlow bring a thread pool each, and imports nothing of this project.
"""

import importlib.util
import json
import pathlib
import sys

import numpy as np


def main(folder: str, batches: str, results: str, max_length: str) -> None:
    """Writes `logits_n.npy` of each batch n, `source_n` [B, S] and `target_n` [B, T], which begins with BOS, and
    `translations.json` of all of them."""
    import torch

    spec = importlib.util.spec_from_file_location("written_model", pathlib.Path(folder) / "model.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    model, translations = module.load(), []
    with np.load(batches, allow_pickle=False) as arrays, torch.no_grad():
        for number in range(len(arrays.files) // 2):
            source, target = (torch.from_numpy(arrays[f"{side}_{number}"]) for side in ("source", "target"))
            np.save(pathlib.Path(results) / f"logits_{number}.npy", model(source, target).numpy())
            translations += model.translate(source, max_length=int(max_length))
    (pathlib.Path(results) / "translations.json").write_text(json.dumps(translations))


if __name__ == "__main__":
    main(*sys.argv[1:])
