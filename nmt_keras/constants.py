"""The four special ids, and the texts of placeholders and of terms.

Every tokenizer of the project uses them, and nothing else defines them.
"""

PAD_ID = 0
UNK_ID = 1
BOS_ID = 2
EOS_ID = 3

# Texts that stand for what is copied, a piece each, in text that a model with placeholders learns from. The brackets
# are those of OpenNMT's tokenizer, which no language writes with.
PLACEHOLDERS = tuple(
    f"\N{FULLWIDTH LEFT WHITE PARENTHESIS}{number}\N{FULLWIDTH RIGHT WHITE PARENTHESIS}" for number in range(1, 9)
)

# Texts, a piece each, before a source term, between it and what it is in the translation, and after that, in text that
# a model with annotated terms reads (Dinu et al. 2019).
TERM_MARKS = tuple(
    f"\N{FULLWIDTH LEFT WHITE PARENTHESIS}{name}\N{FULLWIDTH RIGHT WHITE PARENTHESIS}" for name in ("t", "=", "/t")
)
EXPORT_PRECISIONS = ("float32", "bfloat16", "int8", "int8_compute")  # of weights; the last one of products too
