"""Text to ids and back: SentencePiece, bytes, characters, words; white space; making and reading tokenizers."""
