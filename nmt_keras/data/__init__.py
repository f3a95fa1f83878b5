"""Raw text to batches of ids: corpora, tokenizers, the batch plan."""
