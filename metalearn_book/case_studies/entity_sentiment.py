from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from pathlib import Path
from random import Random

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from metalearn_book.book.patch import patch
from metalearn_book.case_studies.few_shot_classifier import _ready_encoder
from metalearn_book.case_studies.few_shot_classifier import _save_encoder
from metalearn_book.case_studies.few_shot_classifier import _BY_NAME, _device_here
from metalearn_book.case_studies.sentiment import _check_encoder, outer_optimizer
from metalearn_book.case_studies.sequence_labels import PooledF1
from metalearn_book.case_studies.text_classification import _class_numbers, fit_head
from metalearn_book.case_studies.text_classification import _penalty_of
from metalearn_book.case_studies.text_meta_training import TopLayers
from metalearn_book.case_studies.words_and_marks import _check_mark, split_words
from metalearn_book.data import Span, SpanTexts
from metalearn_book.data.arguments import choice, floating, real, several, shapes
from metalearn_book.data.arguments import shown, whole
from metalearn_book.data.files import open_saved, path_of, write_saved
from metalearn_book.foundations.encoders import TextEncoder, fingerprint
from metalearn_book.foundations.encoders import length_batches, load_encoder, pad_batch
from metalearn_book.foundations.encoders import pool, special_tokens, zero_head
from metalearn_book.foundations.estimators import Classifier, class_array, is_blank
from metalearn_book.foundations.estimators import label_list, label_numbers
from metalearn_book.foundations.estimators import _whole_characters, one_column
from metalearn_book.foundations.estimators import own_modes, usable_device
from metalearn_book.foundations.fine_tuning import shuffled_batches, warmup_linear

_NEWS = {
    "Positive": "{x} shares rose {n} percent|{x} beat the forecasts|{x} won an order"
    "|strong demand lifted {x}|analysts upgraded {x}|{x} raised its dividend",
    "Negative": "{x} shares fell {n} percent|{x} missed the forecasts|{x} lost an order"
    "|a recall hurt {x}|analysts downgraded {x}|{x} cut its dividend",
    "Neutral": "{x} will report on {day}|{x} named a new chairman|{x} is based in Oslo"
    "|{x} declined to comment|{x} opened an office in Lima|{x} makes pumps",
}
_JOINED = "{a} while {b}.|{a}, and {b}.|{b} after {a}.|{a}; {b}."
_NAMES = {  # of the training and of the test part
    "train": "Alda Brint Corvo Denholm Estrel Fanlow Gerrick Halvor Istria Jorvik",
    "test": "Kelmar Lundby Morvan Nestor Ostrava Pelagia Quillon Rosdal Sundby Tarkin",
}

def invented_news(n: int = 120, seed: int = 0) -> SpanTexts:
    """n invented passages about one or two companies each, with a label for each, in
    the form of FinEntity; every third is of the part `test`, with names of its own.
    """
    n, rng = whole("n", n), Random(whole("seed", seed, 0))
    pick = lambda options: options[int(rng.random() * len(options))]
    texts, spans, part = [], [], []
    for i in range(n):
        part.append("test" if i % 3 == 2 else "train")
        names = _NAMES[part[-1]].split()
        x = pick(names)
        two = [x, pick([v for v in names if v != x])]
        labels = [pick(list(_NEWS)) for _ in two]
        a, b = (
            pick(_NEWS[v].split("|")).format(
                x=name, n=2 + int(rng.random() * 8), day=pick(["Monday", "Friday"])
            )
            for name, v in zip(two, labels)
        )
        both = pick(_JOINED.split("|")).format(a=a, b=b) if rng.random() < 0.8 else ""
        text = both or f"{a}."
        texts.append(text)
        marks = [(text.find(v), c, v) for v, c in zip(two, labels) if v in text]
        spans.append(tuple(Span(s, s + len(v), c, v) for s, c, v in sorted(marks)))
    return SpanTexts("invented_news", texts, [()] * n, spans, part, "generated")

def entity_mentions(
    data: SpanTexts,  # texts with labelled spans
) -> tuple[list[tuple], list[str], list[int]]:
    """(text, (start, end)) of each marked span, its label, and the row of its text. A
    place with two labels is left out, and a copy of a span counts once.
    """
    if not isinstance(data, SpanTexts):
        raise ValueError(f"data must be SpanTexts, got {shown(data)}")
    mentions, labels, rows = [], [], []
    for row, (text, spans) in enumerate(zip(data.texts, data.spans)):
        found = {}
        for s in spans:
            found.setdefault((s.start, s.end), set()).add(s.label)
        for place, names in found.items():
            if len(names) == 1:
                mentions.append((text, place))
                labels.append(names.pop()), rows.append(row)
    return mentions, labels, rows

def entity_places(
    text: str,
    entity: str,  # words of the text
) -> list[tuple[int, int]]:
    """Every place (start, end) at which the entity stands as whole words. ValueError
    where there is none, with what comes near.
    """
    entity = entity.strip() if isinstance(entity, str) else entity
    if not isinstance(entity, str) or is_blank(entity):
        raise ValueError(f"an entity must be words of its text, got {shown(entity)}")
    starts, ends = ({w[i] for w in split_words(text)} for i in (0, 1))
    found, inside, at = [], 0, text.find(entity)
    while at >= 0:
        whole_words = at in starts and at + len(entity) in ends
        found += [(at, at + len(entity))] * whole_words
        inside += not whole_words
        at = text.find(entity, at + 1)
    if found:
        return found
    near = "only inside of longer words" if inside else "not at all"
    if not inside and entity.lower() in text.lower():
        near = "only in other letters, capital or small"
    raise ValueError(
        f"the entity {entity!r} is {near} in the text {text[:40]!r}; write it as the "
        "text does, or give its offsets as (text, (start, end))"
    )

def read_mention(mention) -> tuple[str, list[tuple[int, int]]]:
    """The text of a mention and the places in it that are asked about, none for the
    text as a whole. ValueError for what is no mention.

    mention: a text; (text, entity), as of `entity_places`; (text, (start, end)) or
    (text, start, end), offsets in characters of `text[start:end]`.
    """
    parts = [mention] if isinstance(mention, str) else mention
    if not isinstance(parts, (list, tuple)) or len(parts) not in (1, 2, 3):
        raise ValueError(
            f"{shown(mention)} is no mention; give a text, (text, entity) or "
            "(text, (start, end))"
        )
    text, *asked = parts
    if not isinstance(text, str) or is_blank(text):
        raise ValueError(f"the text of a mention must be words, got {shown(text)}")
    _whole_characters(text, "the text of a mention")
    if not asked:
        return str(text), []
    if len(asked) == 1 and isinstance(asked[0], str):
        return str(text), entity_places(text, asked[0])
    place = asked[0] if len(asked) == 1 else asked
    if not isinstance(place, (list, tuple)) or len(place) != 2:
        raise ValueError(f"offsets must be (start, end), got {shown(place)}")
    start, end = (whole(n, v, 0) for n, v in zip(("start", "end"), place))
    _check_mark(text, split_words(text), (start, end, "entity"))
    return str(text), [(start, end)]

def _tokens_at(encoding, places: list[tuple[int, int]], text: str) -> list[list[int]]:
    "Which tokens belong to each place. ValueError for a place without any."
    found = [
        [j for j, (a, b) in enumerate(encoding.offsets) if a < end and b > start]
        for start, end in places
    ]
    for (start, end), at in zip(places, found):
        if not at:
            raise ValueError(
                f"the encoder reads nothing at {start} to {end} of {text[:40]!r}: "
                f"{text[start:end]!r} holds no token"
            )
    return found


def _cut(ids: list[int], at: list[int], room: int) -> tuple[list[int], list[int]]:
    "The window with these tokens in its middle, and where they are in it."
    if len(at) > room:
        raise ValueError(f"an entity of {len(at)} tokens, and a window holds {room}")
    start = (at[0] + at[-1] + 1) // 2 - room // 2
    start = min(max(start, 0), max(len(ids) - room, 0))
    return ids[start : start + room], [j - start for j in at]

def mention_windows(
    encoder: TextEncoder, mentions: Sequence, window: int | None = None
) -> tuple[list[list[int]], list[list[int]], list[int]]:
    """Token numbers of windows, the positions in each that are asked about, and the
    mention that each belongs to. ValueError, with the number, for what is no mention.

    mentions: as of `read_mention`. window: tokens, at most; None: the encoder's limit.
    """
    _check_encoder(encoder)
    limit = encoder.max_length
    limit = limit if window is None else whole("window", window, 8, limit)
    before, behind = special_tokens(encoder.tokenizer)
    room, ids, at, owner, known = limit - len(before) - len(behind), [], [], [], {}
    backend = encoder.tokenizer.backend_tokenizer
    for i, mention in enumerate(one_column(mentions, "mentions")):
        try:
            text, places = read_mention(mention)
            if text not in known:
                known[text] = backend.encode(text, add_special_tokens=False)
            for piece, where in _pieces(known[text], places, room, text):
                ids.append([*before, *piece, *behind])
                at.append([len(before) + j for j in where])
                owner.append(i)
        except ValueError as error:
            raise ValueError(f"mentions[{i}]: {error}") from error
    if not ids:
        raise ValueError("mentions is empty; pass a text or (text, entity) at least")
    return ids, at, owner

def _pieces(encoding, places: list, room: int, text: str) -> list[tuple[list, list]]:
    "The windows of one mention, and the tokens in each that are asked about."
    ids = encoding.ids
    if not ids:
        raise ValueError(f"the encoder reads nothing in {text[:40]!r}")
    found = _tokens_at(encoding, places, text)
    if not places:  # the whole text, in pieces where it does not fit
        cuts = [ids[i : i + room] for i in range(0, len(ids), room)]
        return [(piece, list(range(len(piece)))) for piece in cuts]
    if len(ids) <= room:
        return [(ids, sorted({j for at in found for j in at}))]
    return [_cut(ids, at, room) for at in found]

def near_weights(at: Sequence[Sequence[int]], width: int, reach: float = 8.0) -> Tensor:
    """`(n, width)`: weights of the tokens by their distance to the asked ones, Eq.
    (SE-2). at: positions in each of n windows. reach: τ, 0 for the asked ones alone.
    """
    width, reach = whole("width", width), real("reach", reach, 0)
    weights = torch.zeros(len(several("at", at)), width, device="cpu")
    for row, some in enumerate(at):
        some = [whole("a position", j, 0, width - 1) for j in several("at", some)]
        places = torch.arange(width, device="cpu")[:, None]
        far = (places - torch.tensor(some, device="cpu")).abs().amin(1)
        weights[row] = torch.exp(-far / reach) if reach else (far == 0).float()
    return weights


def mention_pool(hidden: Tensor, mask: Tensor, near: Tensor) -> Tensor:
    """Eq. (SE-2): states `(n, T, dim)`, the mask of real tokens and the weights of
    `near_weights`, both `(n, T)` -> `(n, 2 dim)`, of length 1.
    """
    shapes(hidden=(hidden, "n T dim"), mask=(mask, "n T"), near=(near, "n T"))
    floating(hidden=hidden, mask=mask, near=near)
    if hidden.is_meta or (near < 0).any() or not (near * mask).sum(1).gt(0).all():
        raise ValueError(
            "near must hold weights of 0 or more, with some at real tokens of each "
            f"text, got {shown(near)} on {near.device}"
        )
    halves = [pool(hidden, m) for m in (near * mask, mask)]
    return torch.cat([F.normalize(h, dim=-1) for h in halves], -1) / math.sqrt(2)

def _spread(at: list, ids: list, width: int, reach: float) -> Tensor:
    "Weights of the tokens; all ones where the whole window is asked about."
    near = near_weights(at, width, reach)
    for row, (some, own) in enumerate(zip(at, ids)):
        if len(some) >= len(own) - 2:
            near[row] = 1.0
    return near

def mention_vectors(
    encoder: TextEncoder,
    mentions: Sequence,  # N mentions, as of `read_mention`
    batch_size: int = 32,  # windows in a batch
    window: int | None = None,  # as in `mention_windows`
    reach: float = 8.0,  # τ
) -> Tensor:  # (N, 2 dim), of length 1, on the CPU
    "Eq. (SE-2) of each mention; of several windows the mean. A text is read once."
    ids, at, owner = mention_windows(encoder, mentions, window)
    batch_size, reach = whole("batch_size", batch_size), real("reach", reach, 0)
    groups = {}  # windows with the same tokens share one pass
    for i, row in enumerate(ids):
        groups.setdefault(tuple(row), []).append(i)
    texts = list(groups)
    total = torch.zeros(owner[-1] + 1, 2 * encoder.dim, device="cpu")
    with torch.no_grad():
        for some in length_batches([len(t) for t in texts], batch_size):
            batch = encoder.batch([texts[i] for i in some])
            hidden = encoder.model(**batch).last_hidden_state.float().cpu()
            mask = batch["attention_mask"].float().cpu()
            rows = [(q, i) for q, t in enumerate(some) for i in groups[texts[t]]]
            of, own = zip(*rows)
            some = [at[i] for i in own], [ids[i] for i in own]
            near = _spread(*some, mask.shape[1], reach)
            z = mention_pool(hidden[list(of)], mask[list(of)], near)
            total.index_add_(0, torch.tensor([owner[i] for i in own]), z)
    return F.normalize(total, dim=-1)

class MentionTop(nn.Module):
    """The top layers of an encoder with a linear head on Eq. (SE-2): hidden `(n, T,
    dim)`, mask and near `(n, T)` -> logits `(n, n_classes)`. The head starts from zero.
    """

    def __init__(self, encoder: TextEncoder, n_top: int = 2, n_classes: int = 3):
        super().__init__()
        _check_encoder(encoder)
        self.top = TopLayers(encoder, n_top)
        self.head = zero_head(2 * encoder.dim, whole("n_classes", n_classes, 2))

    def forward(self, hidden: Tensor, mask: Tensor, near: Tensor) -> Tensor:
        "Logits of n windows."
        shapes(hidden=(hidden, "n T dim"), mask=(mask, "n T"), near=(near, "n T"))
        additive = (1 - mask[:, None, None, :]) * torch.finfo(hidden.dtype).min
        for layer in self.top.layers:
            hidden = layer(hidden, additive)
        return self.head(mention_pool(hidden, mask, near))

def _below(
    encoder: TextEncoder, ids: list[list[int]], n_top: int, batch_size: int = 32
) -> list[Tensor]:
    "States `(T, dim)` below the top of each window; equal windows share theirs."
    different = list(dict.fromkeys(map(tuple, ids)))
    found = {}
    with torch.no_grad():
        for some in length_batches([len(t) for t in different], batch_size):
            batch = encoder.batch([different[i] for i in some])
            out = encoder.model(**batch, output_hidden_states=True)
            states = out.hidden_states[-1 - n_top].float()
            for row, i in zip(states, some):
                found[different[i]] = row[: len(different[i])].clone()
    return [found[tuple(row)] for row in ids]


def _steps_of(n: int) -> int:
    "Steps of tuning where none are given: six passes in batches of 16, 20 to 300."
    return min(max(20, 6 * math.ceil(n / 16)), 300)

def tune_mentions(
    encoder: TextEncoder,  # the start; a copy is tuned
    mentions: Sequence,  # N mentions
    y: Tensor,  # (N,): labels 0..n_classes-1
    n_classes: int,
    *,
    steps: int | None = None,  # of AdamW, 16 windows each; None: by N
    n_top: int = 2,  # layers that are tuned
    lr: float = 3e-4,  # peak rate of the layers
    head_lr: float = 0.02,  # and of the head
    window: int | None = None,  # as in `mention_windows`
    reach: float = 8.0,  # τ
    seed: int = 0,  # of batches and dropout
) -> tuple[TextEncoder, Tensor, Tensor]:  # weight (n_classes, 2 dim), bias
    "The encoder with a tuned top, and the head that was tuned with it."
    ids, at, owner = mention_windows(encoder, mentions, window)
    y, seed = _class_numbers(y, n_classes)[owner], whole("seed", seed, 0)
    steps = _steps_of(len(ids)) if steps is None else whole("steps", steps, 0)
    encoder = copy.deepcopy(encoder).eval()
    net = MentionTop(encoder, n_top, n_classes).to(encoder.model.device)
    states, reach = _below(encoder, ids, n_top), real("reach", reach, 0)
    with torch.random.fork_rng(), torch.enable_grad():
        torch.manual_seed(seed)
        batches = list(shuffled_batches(len(ids), 16, steps))
        net.train()
        _descend(net, batches, states, (ids, at, reach), y, real("lr", lr, 0), head_lr)
    own = encoder.model.encoder.layer[-n_top:]
    own.load_state_dict(net.top.layers.state_dict())
    encoder.requires_grad_(False)
    return encoder, net.head.weight.detach().cpu(), net.head.bias.detach().cpu()

def _descend(net, batches, states, places, y, lr: float, head_lr: float) -> None:
    "AdamW on batches of windows, each as wide as its longest."
    ids, at, reach = places
    optimizer = outer_optimizer(net, lr, head_lr)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: warmup_linear(step, max(len(batches), 1))
    )
    for rows in batches:
        hidden = nn.utils.rnn.pad_sequence([states[i] for i in rows], batch_first=True)
        batch = pad_batch([ids[i] for i in rows])
        mask = batch["attention_mask"].to(hidden)
        some = [at[i] for i in rows], [ids[i] for i in rows]
        near = _spread(*some, mask.shape[1], reach).to(hidden)
        loss = F.cross_entropy(net(hidden, mask, near), y[rows].to(hidden.device))
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step(), schedule.step()

class EntitySentiment(Classifier):
    """Sentiment towards an entity of a text, as scikit-learn has classifiers. Examples
    are mentions, as of `read_mention`: (text, entity), (text, (start, end)), or a text.

    encoder: a name, folder or id of the hub for `load_encoder`, or a `TextEncoder`.
    tune: "top", the layers named by `n_top` are tuned on the examples, or "none": a
    logistic head on frozen vectors, with the penalty of `fit_head`. steps: of tuning;
    None: by the number of examples. lr, head_lr: peak rates. window: tokens that are
    read around an entity; None: all that the encoder can. reach: τ of Eq. (SE-2).
    batch_size: windows that are encoded at a time. seed: of tuning. device: where the
    encoder runs; None: where it is.

    After `fit`: `classes_`, `encoder_`, `weight_` `(C, 2 dim)` and `bias_` `(C,)`.
    """

    def __init__(
        self,
        encoder="minilm",
        tune="top",
        n_top=2,
        steps=None,
        lr=3e-4,
        head_lr=0.02,
        window=None,
        reach=8.0,
        penalty=None,
        batch_size=32,
        seed=0,
        device=None,
    ):
        self.encoder, self.tune, self.n_top, self.steps = encoder, tune, n_top, steps
        self.lr, self.head_lr, self.window, self.reach = lr, head_lr, window, reach
        self.penalty, self.batch_size = penalty, batch_size
        self.seed, self.device = seed, device

@patch
def _checked(self: EntitySentiment) -> dict:
    "The parameters as Python's own objects; ValueError for what cannot be used."
    p = self.get_params()
    if not isinstance(p["encoder"], (str, Path, TextEncoder)):
        raise ValueError(f"encoder={p['encoder']!r} is no name, folder or TextEncoder")
    p["tune"] = choice("tune", p["tune"], ("top", "none"))
    for name, least in (("n_top", 1), ("batch_size", 1), ("seed", 0)):
        p[name] = whole(name, p[name], least)
    for name, least in (("steps", 1), ("window", 8)):
        p[name] = p[name] if p[name] is None else whole(name, p[name], least)
    p |= {name: real(name, p[name], 0) for name in ("lr", "head_lr", "reach")}
    if p["penalty"] is not None:
        p["penalty"] = _penalty_of("logistic", p["penalty"])
    device = usable_device(p["device"])
    return p | {"device": None if device is None else str(device)}

@patch
def fit(self: EntitySentiment, mentions: Sequence, labels: Sequence) -> EntitySentiment:
    """Mentions with one label each, strings or whole numbers -> self. ValueError for
    what cannot be used, such as one class alone, before the encoder runs.
    """
    p = self._checked()
    mentions = _all_read(mentions)
    classes, y = label_numbers(labels, len(mentions), "mentions")
    with own_modes():
        encoder, n = _ready_encoder(p), len(classes)
        reading = {"window": p["window"], "reach": p["reach"]}
        if p["tune"] == "top":
            more = {k: p[k] for k in ("steps", "n_top", "lr", "head_lr", "seed")}
            found = tune_mentions(encoder, mentions, y, n, **more, **reading)
            encoder, weight, bias = found
        else:
            z = mention_vectors(encoder, mentions, p["batch_size"], **reading)
            weight, bias = fit_head(z, y, n, "logistic", None, p["penalty"])
    self.__dict__.update({"encoder_": encoder, "weight_": weight, "bias_": bias})
    self.__dict__.update({"params_": p, "classes_": classes})
    return self

def _all_read(mentions) -> list:
    "The mentions as a list. ValueError, with the number, for what is none."
    if isinstance(mentions, str):
        raise ValueError(f"mentions must be a list, got the one text {mentions[:40]!r}")
    mentions = one_column(mentions, "mentions")
    for i, mention in enumerate(mentions):
        try:
            read_mention(mention)
        except ValueError as error:
            raise ValueError(f"mentions[{i}]: {error}") from error
    if not mentions:
        raise ValueError("mentions is empty; pass a text or (text, entity) at least")
    return mentions


@patch
def _logits(self: EntitySentiment, mentions: Sequence) -> Tensor:
    "Logits `(N, C)`, float64."
    self.check_fitted()
    p, mentions = self.params_, _all_read(mentions)
    size = whole("batch_size", self.batch_size)
    with own_modes():
        z = mention_vectors(self.encoder_, mentions, size, p["window"], p["reach"])
        return (z @ self.weight_.T + self.bias_).double()

@patch
def predict_proba(self: EntitySentiment, mentions: Sequence) -> np.ndarray:
    "Probabilities `(N, C)`, columns in the order of `classes_`; rows sum to 1."
    return self._logits(mentions).softmax(-1).numpy()


@patch
def predict(self: EntitySentiment, mentions: Sequence) -> np.ndarray:
    "The most probable label of each mention, `(N,)`."
    return self.classes_[self._logits(mentions).argmax(-1).numpy()]


@patch
def score(self: EntitySentiment, mentions: Sequence, labels: Sequence) -> float:
    "Share of right answers. ValueError where there is not one label for each mention."
    self.check_fitted()
    labels = label_list(labels, len(_all_read(mentions)), "mentions")
    answers = self.predict(mentions).tolist()
    return float(np.mean([a == v for a, v in zip(answers, labels)]))

@patch
def save(self: EntitySentiment, folder: str | Path) -> Path:
    """Write the classifier as it was fitted as a folder, in place of a saved one that
    is there already. ValueError for a folder that holds something else.
    """
    from safetensors.torch import save_file

    self.check_fitted()
    p = self.params_
    own = p["tune"] == "top" or p["encoder"] not in _BY_NAME

    def fill(part: Path) -> None:
        head = {"weight": self.weight_.contiguous(), "bias": self.bias_.contiguous()}
        save_file(head, part / "head.safetensors")
        if own:
            _save_encoder(self.encoder_, part / "encoder")

    about = {
        "params": p | {"encoder": p["encoder"] if p["encoder"] in _BY_NAME else None},
        "classes": self.classes_.tolist(),
        "own_encoder": own,
        "fingerprint": fingerprint(self.encoder_),
    }
    return write_saved(folder, "entity_sentiment", about, fill)

@patch
@classmethod
def load(cls: EntitySentiment, folder: str | Path, device=None) -> EntitySentiment:
    """A saved classifier. FileNotFoundError where there is none, RuntimeError where it
    is damaged or its encoder is another one now. device: where the encoder is to run.

    An encoder that was passed to the constructor as an object is the saved one here.
    """
    from safetensors.torch import load_file

    folder = path_of(folder)
    with open_saved(folder, "entity_sentiment") as about, own_modes():
        p, own = about["params"], about["own_encoder"]
        encoder = load_encoder(folder / "encoder" if own else p["encoder"])
        if fingerprint(encoder) != about["fingerprint"]:
            raise RuntimeError(
                f"the encoder of {folder} is not the one that the classifier was "
                "fitted with; install the version of then, or fit again"
            )
        encoder = encoder.to(_device_here(p["device"], device))
        self = cls(**p | ({} if p["encoder"] else {"encoder": encoder}))
        head = load_file(folder / "head.safetensors")
    found = {"encoder_": encoder, "weight_": head["weight"], "bias_": head["bias"]}
    self.__dict__.update(found | {"params_": self.get_params()})
    self.classes_ = class_array(about["classes"])
    return self

def macro_f1(
    y: Sequence,  # labels of N mentions
    guess: Sequence,  # answers to them
    groups: Sequence,  # the text of each
    minus: Sequence | None = None,  # answers of another method
    n_boot: int = 2000,
    seed: int = 0,
) -> PooledF1:
    """Macro F1 over the classes of `y`, or its difference to that of `minus`, with the
    interval by resampling groups. ValueError for columns of different lengths.
    """
    columns = {"y": y, "guess": guess, "groups": groups}
    columns |= {} if minus is None else {"minus": minus}
    columns = {n: np.array(one_column(v, n), dtype=object) for n, v in columns.items()}
    if len({len(v) for v in columns.values()}) > 1 or not len(columns["y"]):
        sizes = {n: len(v) for n, v in columns.items()}
        raise ValueError(f"the columns must have one length above 0, got {sizes}")
    n_boot, seed = whole("n_boot", n_boot, 2), whole("seed", seed, 0)
    counts = [_f1_counts(columns["y"], columns["guess"], columns["groups"])]
    if minus is not None:
        counts.append(_f1_counts(columns["y"], columns["minus"], columns["groups"]))
    draws = np.random.default_rng(seed).multinomial(
        len(counts[0]), [1 / len(counts[0])] * len(counts[0]), n_boot
    )
    draws = np.concatenate([np.ones_like(draws[:1]), draws])
    values = [_f1_of(np.einsum("bg,gkc->bkc", draws, c)) for c in counts]
    value = values[0] - values[1] if minus is not None else values[0]
    low, high = np.percentile(value[1:], [2.5, 97.5])
    return PooledF1(float(value[0]), float(high - low) / 2, minus is not None)

def _f1_counts(y: np.ndarray, guess: np.ndarray, groups: np.ndarray) -> np.ndarray:
    "`(groups, 2, classes)`: twice the hits, and answers plus labels, of each class."
    known = {g: i for i, g in enumerate(dict.fromkeys(groups.tolist()))}
    classes = list(dict.fromkeys(y.tolist()))
    counts = np.zeros((len(known), 2, len(classes)))
    for label, answer, group in zip(y.tolist(), guess.tolist(), groups.tolist()):
        for c, name in enumerate(classes):
            hit, said, true = label == answer == name, answer == name, label == name
            counts[known[group], :, c] += 2 * hit, said + true
    return counts


def _f1_of(counts: np.ndarray) -> np.ndarray:
    "Macro F1 of counts `(..., 2, classes)`; a class that is nowhere has 0."
    return (counts[..., 0, :] / np.maximum(counts[..., 1, :], 1)).mean(-1)

def demo(encoder: str | TextEncoder | None = None, steps: int = 60) -> float:
    """Learn from invented news, answer about new companies, and print a few answers ->
    the share of right ones. encoder: None: "minilm", or the untrained "tiny" where that
    one can't be loaded, which is said. steps: of tuning.
    """
    if encoder is None:
        try:
            encoder = load_encoder("minilm")
        except (OSError, RuntimeError, ValueError) as error:
            print(f"without a pretrained encoder, which makes it weak: {error}")
            encoder = "tiny"
    news = invented_news(120)
    mentions, labels, rows = entity_mentions(news)
    train, test = (
        [i for i, row in enumerate(rows) if news.part[row] == part]
        for part in ("train", "test")
    )
    model = EntitySentiment(encoder, steps=steps)
    model.fit([mentions[i] for i in train], [labels[i] for i in train])
    answers = model.predict([mentions[i] for i in test]).tolist()
    for i, answer in list(zip(test, answers))[:6]:
        text, (start, end) = mentions[i]
        print(f"{text[start:end]:10} {answer:10} {text}")
    right = float(np.mean([labels[i] == a for i, a in zip(test, answers)]))
    print(f"{right:.0%} of {len(test)} mentions of companies that are new are right")
    return right