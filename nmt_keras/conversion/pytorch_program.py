"""What `--to=pytorch` writes, with all its options.

Nothing imports this module: `pytorch` reads its text, decides every `if` that asks for an option, one of the names in
capital letters of the first paragraph, and leaves out what is not used then.
"""

import json
import math
import pathlib
import sys

import torch
from safetensors.torch import load_file
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import rnn

FAMILY = "recurrent"
CELL = "lstm"
ATTENTION = "additive"
INPUT_FEEDING = ""
BRIDGE = "dense"
RESIDUAL = False
PRE_NORM = True
ACTIVATION = "relu"
POSITIONS = "sinusoidal"
FACTORED = False
SHARE_EMBEDDINGS = False
TIE_OUTPUT = False
SENTENCEPIECE = True

PAD, UNK, BOS, EOS = 0, 1, 2, 3
SOURCE_VOCAB = 8000  # ids of the source
TARGET_VOCAB = 8000  # V, ids of the target
D_EMBEDDING = 512  # E, the width of the tables
D_MODEL = 512  # D, the width of states
ENCODER_LAYERS = 1
DECODER_LAYERS = 1
BIDIRECTIONAL = True
DIRECTIONS = 2
FIRST_RESIDUAL = 0  # the first layer, from 0, that adds its input
KEY_BIAS = False
NUM_HEADS = 8  # H
D_FF = 2048  # the inner width of feed-forward layers
NORM_EPSILON = 1e-6
MAX_POSITIONS = 128  # those beyond share the last one's vector
MAX_LENGTH = 200  # ids of a translation at most, EOS included
MAX_SOURCE = 256  # ids of a source at most, EOS included
TAGS = ()  # ids before each source: the language to translate into


class Embedding(nn.Module):
    """Ids [...] to vectors [..., D], by a table [V, E] that is scaled by sqrt(E)."""

    def __init__(self, vocab_size):
        super().__init__()
        self.table = nn.Embedding(vocab_size, D_EMBEDDING)
        if FACTORED:
            self.map = nn.Linear(D_EMBEDDING, D_MODEL, bias=False)

    def forward(self, ids):
        if FACTORED:
            return self.map(self.table(ids) * math.sqrt(D_EMBEDDING))
        else:
            return self.table(ids) * math.sqrt(D_EMBEDDING)

    if TIE_OUTPUT:

        def products(self, hidden):
            """Hidden states [..., D] times each vector of the table: [..., V]."""
            if FACTORED:
                hidden = hidden @ self.map.weight
            return hidden @ self.table.weight.T


if FAMILY == "recurrent":

    class Encoder(nn.Module):
        """h_i = f(h_{i-1}, x_i): what recurrent layers make of the source."""

        def __init__(self):
            super().__init__()
            if CELL == "lstm":
                layer = nn.LSTM
            elif CELL == "gru":
                layer = nn.GRU
            else:
                layer = nn.RNN
            units = D_MODEL // DIRECTIONS
            self.layers = nn.ModuleList(
                layer(D_MODEL, units, batch_first=True, bidirectional=BIDIRECTIONAL) for _ in range(ENCODER_LAYERS)
            )

        def forward(self, x, mask):
            """Embedded source [B, S, D], mask [B, S], to h [B, S, D] and the last states of each layer, [B, D]."""
            lengths, last = mask.sum(1).cpu(), []
            for number, layer in enumerate(self.layers):
                packed = rnn.pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
                packed, states = layer(packed)
                h, _ = rnn.pad_packed_sequence(packed, batch_first=True, total_length=x.shape[1])
                if CELL != "lstm":
                    states = (states,)
                last.append([torch.cat(tuple(state), -1) for state in states])  # both directions beside each other
                if RESIDUAL:
                    if number >= FIRST_RESIDUAL:
                        h = x + h
                x = h
            return x * mask.unsqueeze(-1), last

    class Attention(nn.Module):
        """e_{t,i} = a(s_t, h_i), a_t = softmax(e_t), c_t = sum_i a_{t,i} h_i."""

        if ATTENTION == "additive":

            def __init__(self):
                super().__init__()
                self.W = nn.Linear(D_MODEL, D_MODEL, bias=False)
                self.U = nn.Linear(D_MODEL, D_MODEL, bias=KEY_BIAS)
                self.v = nn.Linear(D_MODEL, 1, bias=False)

            def keys(self, h):
                """What does not depend on t."""
                return self.U(h)

            def scores(self, s, keys):
                """e_{t,i} = v^T tanh(W s_t + U h_i) (Bahdanau et al. 2015, A.1.2), [B, S]."""
                return self.v(torch.tanh(self.W(s).unsqueeze(1) + keys)).squeeze(-1)

        elif ATTENTION == "general":

            def __init__(self):
                super().__init__()
                self.W = nn.Linear(D_MODEL, D_MODEL, bias=False)

            def keys(self, h):
                """What does not depend on t."""
                return self.W(h)

            def scores(self, s, keys):
                """e_{t,i} = s_t^T W h_i (Luong et al. 2015, eq. 8), [B, S]."""
                return (keys @ s.unsqueeze(-1)).squeeze(-1)

        else:

            def keys(self, h):
                """What does not depend on t."""
                return h

            def scores(self, s, keys):
                """e_{t,i} = s_t^T h_i (Luong et al. 2015, eq. 8), [B, S]."""
                return (keys @ s.unsqueeze(-1)).squeeze(-1)

        def forward(self, s, h, keys, mask):
            """s_t [B, D] and h [B, S, D] to c_t [B, D] and a_t [B, S]."""
            e = self.scores(s, keys).masked_fill(~mask, -math.inf)
            a = torch.softmax(e, -1)
            c = (a.unsqueeze(1) @ h).squeeze(1)
            return c, a

    class Decoder(nn.Module):
        """s_t = f(s_{t-1}, c_t), and the hidden state tanh(W [c_t; s_t]) that y_t is read from."""

        def __init__(self):
            super().__init__()
            if CELL == "lstm":
                cell = nn.LSTMCell
            elif CELL == "gru":
                cell = nn.GRUCell
            else:
                cell = nn.RNNCell
            widths = [D_MODEL] * DECODER_LAYERS
            if INPUT_FEEDING:
                widths[0] += D_MODEL
            self.cells = nn.ModuleList(cell(width, D_MODEL) for width in widths)
            self.attention = Attention()
            self.combine = nn.Linear(2 * D_MODEL, D_MODEL, bias=False)
            if BRIDGE == "dense":
                if CELL == "lstm":
                    maps = [[nn.Linear(D_MODEL, D_MODEL) for _ in "sc"] for _ in widths]
                else:
                    maps = [[nn.Linear(D_MODEL, D_MODEL)] for _ in widths]
                self.bridge = nn.ModuleList(map(nn.ModuleList, maps))

        def start(self, h, mask, last):
            """What is read of the source, and s_0: layer n begins with the encoder's layer n, counted from the top."""
            states = [last[max(len(last) - DECODER_LAYERS + n, 0)] for n in range(DECODER_LAYERS)]
            if BRIDGE == "dense":
                states = [[f(x) for f, x in zip(maps, state)] for maps, state in zip(self.bridge, states)]
                states = [[torch.tanh(s), *cell] for s, *cell in states]
            if BRIDGE == "zeros":
                states = [[torch.zeros_like(x) for x in state] for state in states]
            memory = h, self.attention.keys(h), mask
            if INPUT_FEEDING == "hidden":
                return memory, (states, torch.zeros_like(h[:, 0]))
            else:
                return memory, states

        def step(self, y, state, memory):
            """One position.

            Args:
                y: y_{t-1}, embedded, [B, D].
                state: of the position before.
                memory: of `start`.

            Returns:
                The hidden state [B, D], a_t [B, S], and the new state.
            """
            h, keys, mask = memory
            if INPUT_FEEDING == "hidden":
                states, fed = state
                x = torch.cat([y, fed], -1)
            elif INPUT_FEEDING == "context":
                states = state
                c, a = self.attention(states[-1][0], h, keys, mask)  # s_{t-1} reads
                x = torch.cat([y, c], -1)
            else:
                states, x = state, y
            new = []
            for number, (cell, old) in enumerate(zip(self.cells, states)):
                if CELL == "lstm":
                    s, inner = cell(x, tuple(old))
                    new.append([s, inner])
                else:
                    s = cell(x, old[0])
                    new.append([s])
                if RESIDUAL:
                    if number >= FIRST_RESIDUAL and x.shape == s.shape:
                        s = x + s
                x = s
            if INPUT_FEEDING != "context":
                c, a = self.attention(x, h, keys, mask)  # s_t reads
            hidden = torch.tanh(self.combine(torch.cat([c, x], -1)))
            if INPUT_FEEDING == "hidden":
                return hidden, a, (new, hidden)
            else:
                return hidden, a, new

else:

    if POSITIONS == "sinusoidal":

        def add_positions(x):
            """x [B, T, D] plus sin(p / 10000^(2i/D)), then cos of the same (Vaswani et al. 2017, 3.5)."""
            count = D_MODEL // 2
            speeds = torch.exp(torch.arange(count, device=x.device) * (-math.log(10_000.0) / count))
            angles = torch.arange(x.shape[1], device=x.device).unsqueeze(1) * speeds
            return x + torch.cat([torch.sin(angles), torch.cos(angles)], -1)

    if POSITIONS == "rotary":

        def turned(x):
            """x [B, H, T, C], its pairs of channels turned by angles that grow with the position (Su et al. 2021)."""
            count = x.shape[-1] // 2
            speeds = torch.exp(torch.arange(count, device=x.device) * (-math.log(10_000.0) / count))
            angles = torch.arange(x.shape[2], device=x.device).unsqueeze(1) * speeds
            first, second = x.chunk(2, -1)
            sin, cos = torch.sin(angles), torch.cos(angles)
            return torch.cat([first * cos - second * sin, first * sin + second * cos], -1)

    if POSITIONS == "learned":

        class Positions(nn.Module):
            """x [B, T, D] plus a learned vector of each position."""

            def __init__(self):
                super().__init__()
                self.table = nn.Embedding(MAX_POSITIONS, D_MODEL)

            def forward(self, x):
                return x + self.table(torch.arange(x.shape[1], device=x.device).clamp(max=MAX_POSITIONS - 1))

    class Attention(nn.Module):
        """a = softmax(q k^T / sqrt(C)), a v for each of H heads (Vaswani et al. 2017, 3.2); C = D / H."""

        def __init__(self):
            super().__init__()
            self.query = nn.Linear(D_MODEL, D_MODEL)
            self.key = nn.Linear(D_MODEL, D_MODEL)
            self.value = nn.Linear(D_MODEL, D_MODEL)
            self.output = nn.Linear(D_MODEL, D_MODEL)

        def forward(self, x, read, visible):
            """x [B, Q, D] reads [B, S, D] where `visible` says so, [B, 1, Q or 1, S]; also a [B, H, Q, S]."""
            projected = self.query(x), self.key(read), self.value(read)
            q, k, v = (y.unflatten(-1, (NUM_HEADS, -1)).transpose(1, 2) for y in projected)
            if POSITIONS == "rotary":
                if read is x:  # self-attention
                    q, k = turned(q), turned(k)
            e = q @ k.transpose(-1, -2) / math.sqrt(D_MODEL // NUM_HEADS)
            a = torch.softmax(e.masked_fill(~visible, -math.inf), -1)
            return self.output((a @ v).transpose(1, 2).flatten(-2)), a

    class FeedForward(nn.Module):
        """Of each position by itself."""

        def __init__(self):
            super().__init__()
            self.inner = nn.Linear(D_MODEL, D_FF)
            if ACTIVATION == "swiglu":
                self.gate = nn.Linear(D_MODEL, D_FF, bias=False)
            self.outer = nn.Linear(D_FF, D_MODEL)

        def forward(self, x):
            if ACTIVATION == "relu":
                return self.outer(torch.relu(self.inner(x)))
            if ACTIVATION == "gelu":
                return self.outer(F.gelu(self.inner(x)))
            if ACTIVATION == "swiglu":
                return self.outer(F.silu(self.inner(x)) * self.gate(x))  # Shazeer 2020, eq. 6

    class Residual(nn.Module):
        """What surrounds a sublayer f: after(x, f(before(x)))."""

        def __init__(self):
            super().__init__()
            self.norm = nn.LayerNorm(D_MODEL, eps=NORM_EPSILON)

        if PRE_NORM:

            def before(self, x):
                return self.norm(x)

            def after(self, x, y):
                return x + y

        else:

            def before(self, x):
                return x

            def after(self, x, y):
                return self.norm(x + y)

    class EncoderLayer(nn.Module):
        """Self-attention and feed-forward."""

        def __init__(self):
            super().__init__()
            self.attention = Attention()
            self.around_attention = Residual()
            self.feed_forward = FeedForward()
            self.around_feed_forward = Residual()

        def forward(self, x, visible):
            y = self.around_attention.before(x)
            x = self.around_attention.after(x, self.attention(y, y, visible)[0])
            return self.around_feed_forward.after(x, self.feed_forward(self.around_feed_forward.before(x)))

    class Encoder(nn.Module):
        """h_1..h_S: what layers of self-attention make of the source."""

        def __init__(self):
            super().__init__()
            if POSITIONS == "learned":
                self.positions = Positions()
            self.layers = nn.ModuleList(EncoderLayer() for _ in range(ENCODER_LAYERS))
            if PRE_NORM:
                self.norm = nn.LayerNorm(D_MODEL, eps=NORM_EPSILON)

        def forward(self, x, mask):
            """Embedded source [B, S, D] and its mask [B, S] to h [B, S, D]."""
            if POSITIONS == "learned":
                x = self.positions(x)
            elif POSITIONS == "sinusoidal":
                x = add_positions(x)
            for layer in self.layers:
                x = layer(x, mask[:, None, None])
            if PRE_NORM:
                x = self.norm(x)
            return x

    class DecoderLayer(nn.Module):
        """Self-attention, attention to the source and feed-forward."""

        def __init__(self):
            super().__init__()
            self.self_attention = Attention()
            self.around_self_attention = Residual()
            self.attention = Attention()
            self.around_attention = Residual()
            self.feed_forward = FeedForward()
            self.around_feed_forward = Residual()

        def forward(self, x, h, mask):
            """x [B, T, D] and h [B, S, D] to x, and what each head reads of the source, a [B, H, T, S]."""
            causal = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool, device=x.device).tril()
            y = self.around_self_attention.before(x)
            x = self.around_self_attention.after(x, self.self_attention(y, y, causal)[0])
            y, a = self.attention(self.around_attention.before(x), h, mask[:, None, None])
            x = self.around_attention.after(x, y)
            return self.around_feed_forward.after(x, self.feed_forward(self.around_feed_forward.before(x))), a

    class Decoder(nn.Module):
        """Layers over the target so far, and the hidden states that y_t are read from."""

        def __init__(self):
            super().__init__()
            if POSITIONS == "learned":
                self.positions = Positions()
            self.layers = nn.ModuleList(DecoderLayer() for _ in range(DECODER_LAYERS))
            if PRE_NORM:
                self.norm = nn.LayerNorm(D_MODEL, eps=NORM_EPSILON)

        def forward(self, x, memory):
            """Embedded target [B, T, D] to hidden states [B, T, D] and a [B, T, S], the last layer's mean of heads."""
            h, mask = memory
            if POSITIONS == "learned":
                x = self.positions(x)
            elif POSITIONS == "sinusoidal":
                x = add_positions(x)
            for layer in self.layers:
                x, a = layer(x, h, mask)
            if PRE_NORM:
                x = self.norm(x)
            return x, a.mean(1)

        def start(self, h, mask):
            """What is read of the source, and the state before the first position: no position, [B, 0, D]."""
            return (h, mask), h[:, :0]

        def step(self, y, state, memory):
            """One position: y_{t-1}, embedded, [B, D], after those in `state`, which are all computed anew.

            Returns:
                The hidden state [B, D], a_t [B, S], and the new state.
            """
            state = torch.cat([state, y.unsqueeze(1)], 1)
            hidden, a = self(state, memory)
            return hidden[:, -1], a[:, -1], state


class Model(nn.Module):
    """p(y_t | y_<t, x) of target ids y and source ids x."""

    def __init__(self):
        super().__init__()
        self.target_embedding = Embedding(TARGET_VOCAB)
        if not SHARE_EMBEDDINGS:
            self.source_embedding = Embedding(SOURCE_VOCAB)
        self.encoder = Encoder()
        self.decoder = Decoder()
        if TIE_OUTPUT:
            self.output_bias = nn.Parameter(torch.zeros(TARGET_VOCAB))
        else:
            self.output = nn.Linear(D_MODEL, TARGET_VOCAB)

    def start(self, source):
        """Source ids [B, S], each with EOS and then PAD, to what the decoder reads, and its first state."""
        mask = source != PAD
        if SHARE_EMBEDDINGS:
            x = self.target_embedding(source)
        else:
            x = self.source_embedding(source)
        if FAMILY == "recurrent":
            h, last = self.encoder(x, mask)
            return self.decoder.start(h, mask, last)
        else:
            return self.decoder.start(self.encoder(x, mask), mask)

    def logits(self, hidden):
        """y_t = g(s_t) before the softmax: hidden states [..., D] to [..., V]."""
        if TIE_OUTPUT:
            return self.target_embedding.products(hidden) + self.output_bias
        else:
            return self.output(hidden)

    def forward(self, source, target):
        """Teacher forcing: source ids [B, S], and target ids [B, T] that begin with BOS, to logits [B, T, V]."""
        memory, state = self.start(source)
        if FAMILY == "recurrent":
            hidden = []
            for y in self.target_embedding(target).unbind(1):
                hidden_t, _, state = self.decoder.step(y, state, memory)
                hidden.append(hidden_t)
            return self.logits(torch.stack(hidden, 1))
        else:
            hidden, _ = self.decoder(self.target_embedding(target), memory)
            return self.logits(hidden)

    @torch.no_grad()
    def translate(self, source, max_length=MAX_LENGTH):
        """The most probable id at each position: source ids [B, S] to a list of target ids a row, without EOS.

        Raises:
            ValueError: `source` is not as `check` wants it.
        """
        check(source, max_length)
        memory, state = self.start(source)
        y = torch.full([len(source)], BOS, device=source.device)
        ended, found = y == EOS, []
        for _ in range(max_length - 1):
            hidden, _, state = self.decoder.step(self.target_embedding(y), state, memory)
            logits = self.logits(hidden)
            logits[:, [PAD, BOS]] = -math.inf  # they never follow
            y = logits.argmax(-1)
            found.append(y)
            ended = ended | (y == EOS)
            if ended.all():
                break
        rows = torch.stack(found, 1).tolist()
        return [row[: row.index(EOS)] if EOS in row else row for row in rows]


def check(source, max_length):
    """Checks source ids [B, S], a sentence a row, each with EOS and then PAD, and the most ids of a translation.

    Raises:
        ValueError: they are something else, or too long.
    """
    if source.dim() != 2 or source.is_floating_point():
        raise ValueError(f"a source is ids [B, S], a sentence a row. Received: {source.dtype} {list(source.shape)}")
    if source.numel() and not 0 <= source.min() <= source.max() < SOURCE_VOCAB:
        raise ValueError(f"ids of a source are 0 to {SOURCE_VOCAB - 1}. Received: {source.min()} to {source.max()}")
    if not (source == EOS).any(1).all():
        raise ValueError(f"each row of a source ends with EOS, the id {EOS}, before any PAD, {PAD}")
    length = int((source != PAD).sum(1).max()) if len(source) else 0
    if length > MAX_SOURCE:
        raise ValueError(f"a source has {length} ids with EOS, at most {MAX_SOURCE} are allowed: give its sentences")
    if max_length < 2:
        raise ValueError(f"max_length counts EOS and is 2 at least. Received: {max_length}")


def load(folder=pathlib.Path(__file__).parent):
    """The model with its weights."""
    model = Model()
    model.load_state_dict(load_file(folder / "model.safetensors"))
    return model.eval()


if SENTENCEPIECE:

    class Translator:
        """Translates texts, a sentence each, greedily, by what is in a folder."""

        def __init__(self, folder=pathlib.Path(__file__).parent):
            import sentencepiece

            folder, sides = pathlib.Path(folder), ("source", "target")
            self.model = load(folder)
            processors = (sentencepiece.SentencePieceProcessor(model_file=f"{folder}/{side}.model") for side in sides)
            self.source, self.target = processors
            names = (folder / f"{side}_vocabulary.json" for side in sides)
            source_pieces, self.target_pieces = (json.loads(name.read_text(encoding="utf-8")) for name in names)
            self.number_of = {piece: number for number, piece in enumerate(source_pieces)}

        def ids(self, text):
            """The ids of a text, with the tag before and EOS at last."""
            if any(each in text.strip() for each in "\r\n"):
                raise ValueError(f"a text is one sentence, and this has several lines: {text[:40]!r}")
            pieces = self.source.encode(" ".join(text.split()), out_type=str)
            return [*TAGS, *(self.number_of.get(piece, UNK) for piece in pieces), EOS]

        def __call__(self, texts):
            """A list of texts to the list of their translations; that of a blank text is empty.

            Raises:
                ValueError: a text has several lines, or more than MAX_SOURCE ids.
            """
            if isinstance(texts, str):
                raise ValueError(f"give a list of texts, as in [text]. Received: {texts[:40]!r}")
            rows = [self.ids(text) for text in texts if text.strip()]
            width = max(map(len, rows), default=1)
            source = torch.tensor([row + [PAD] * (width - len(row)) for row in rows]).reshape(-1, width).long()
            found = iter(self.model.translate(source) if rows else ())
            decoded = (self.target.decode([self.target_pieces[number] for number in ids]) for ids in found)
            return [next(decoded) if text.strip() else "" for text in texts]


def main():
    """Translates what the command line gives."""
    try:
        if SENTENCEPIECE:
            print(*Translator()([" ".join(sys.argv[1:])]))
        else:
            [found] = load().translate(torch.tensor([[*TAGS, *map(int, sys.argv[1:]), EOS]]))
            print(*found)
    except ValueError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
