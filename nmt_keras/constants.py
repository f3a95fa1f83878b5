"""The four special ids. Every tokenizer of the project uses them and nothing else defines them."""

PAD_ID = 0
UNK_ID = 1
BOS_ID = 2
EOS_ID = 3
