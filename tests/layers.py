"""Small models with every kind of layer, for the tests of the model for many tasks and
of the inner loop."""

import torch
import torch.nn.functional as F
from torch import nn

from metalearn_book.foundations.tasks import SinusoidTasks, TaskBatch

D = 6


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=generator(seed), dtype=torch.float64)


class Attention(nn.Module):
    def __init__(self, kind):
        super().__init__()
        self.kind, self.qkv = kind, nn.Linear(D, 3 * D)

    def forward(self, x):
        q, k, v = self.qkv(x).chunk(3, -1)
        if self.kind == "sdpa":
            return F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return (q @ k.transpose(-1, -2)).softmax(-1) @ v


class MultiHead(nn.Module):
    def __init__(self, need_weights):
        super().__init__()
        self.need_weights, self.attend = (
            need_weights,
            nn.MultiheadAttention(D, 2, batch_first=True),
        )

    def forward(self, x):
        return self.attend(x, x, x, need_weights=self.need_weights)[0]


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.out = nn.Embedding(9, D), nn.Linear(D, 9, bias=False)
        self.out.weight = self.embed.weight

    def forward(self, ids):
        return self.out(torch.tanh(self.embed(ids)))


class Shared(nn.Module):
    "One BatchNorm module used under two names."

    def __init__(self):
        super().__init__()
        self.first = nn.Sequential(nn.Linear(D, D), nn.BatchNorm1d(D))
        self.second = nn.Sequential(nn.Linear(D, D), self.first[1])

    def forward(self, x):
        return self.second(torch.tanh(self.first(x)))


def stack(*layers):
    return nn.Sequential(nn.Linear(D, D), *layers, nn.Linear(D, D))


def conv(layer):
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), layer, nn.Tanh(), nn.Flatten(), nn.Linear(4 * 16, 3)
    )


def bert_config():
    from transformers import BertConfig

    return BertConfig(
        vocab_size=9,
        hidden_size=8,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=8,
        num_labels=3,
    )


def gpt2_config():
    from transformers import GPT2Config

    return GPT2Config(
        vocab_size=9,
        n_embd=8,
        n_layer=2,
        n_head=2,
        n_positions=8,
        num_labels=3,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    )


def hugging_face(name):
    import transformers

    return getattr(transformers, name)(
        bert_config() if name.startswith("Bert") else gpt2_config()
    )


class Pooled(nn.Module):
    "A Hugging Face encoder inside a module of one's own."

    def __init__(self):
        super().__init__()
        from transformers import BertModel

        self.encoder, self.head = (
            BertModel(bert_config(), add_pooling_layer=False),
            nn.Linear(8, 3),
        )

    def forward(self, input_ids, attention_mask):
        h, m = (
            self.encoder(
                input_ids=input_ids, attention_mask=attention_mask
            ).last_hidden_state,
            attention_mask[..., None],
        )
        return self.head((h * m).sum(1) / m.sum(1))


VECTORS, SEQUENCES, PICTURES = draw(2, 4, D), draw(2, 4, 3, D), draw(2, 4, 1, 6, 6)
IDS = torch.randint(1, 9, (2, 4, 5), generator=generator(3))
MASK = torch.ones(2, 4, 5, dtype=torch.long)
MASK[:, 1, 3:] = 0
MASK[0, 2, 4:] = 0
TEXT = {"input_ids": IDS * MASK, "attention_mask": MASK}
CASES = {
    "linear": (lambda: stack(nn.Tanh()), VECTORS),
    "layer_norm": (lambda: stack(nn.LayerNorm(D)), VECTORS),
    "rms_norm": (lambda: stack(nn.RMSNorm(D)), VECTORS),
    "batch_norm_1d": (lambda: stack(nn.BatchNorm1d(D)), VECTORS),
    "batch_norm_untracked": (
        lambda: stack(nn.BatchNorm1d(D, track_running_stats=False)),
        VECTORS,
    ),
    "batch_norm_not_affine": (lambda: stack(nn.BatchNorm1d(D, affine=False)), VECTORS),
    "batch_norm_shared": (Shared, VECTORS),
    "conv": (lambda: conv(nn.Identity()), PICTURES),
    "batch_norm_2d": (lambda: conv(nn.BatchNorm2d(4)), PICTURES),
    "group_norm": (lambda: conv(nn.GroupNorm(2, 4)), PICTURES),
    "instance_norm": (lambda: conv(nn.InstanceNorm2d(4, affine=True)), PICTURES),
    "max_pool": (
        lambda: nn.Sequential(
            nn.Conv2d(1, 4, 3), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(16, 3)
        ),
        PICTURES,
    ),
    "embedding": (lambda: nn.Sequential(nn.Embedding(9, D), nn.Linear(D, D)), IDS),
    "tied": (Tied, IDS),
    "dropout_off": (lambda: stack(nn.Dropout(0.5)), VECTORS),
    "hand_attention": (lambda: Attention("hand"), SEQUENCES),
    "sdpa": (lambda: Attention("sdpa"), SEQUENCES),
    "multi_head": (lambda: MultiHead(False), SEQUENCES),
    "multi_head_weights": (lambda: MultiHead(True), SEQUENCES),
    "encoder_layer": (
        lambda: nn.TransformerEncoderLayer(D, 2, 8, dropout=0.0, batch_first=True),
        SEQUENCES,
    ),
    "bert": (lambda: hugging_face("BertForSequenceClassification"), TEXT),
    "bert_tokens": (lambda: hugging_face("BertForTokenClassification"), TEXT),
    "encoder_inside": (Pooled, TEXT),
    "gpt2": (lambda: hugging_face("GPT2LMHeadModel"), TEXT),
    "gpt2_no_mask": (lambda: hugging_face("GPT2LMHeadModel"), {"input_ids": IDS}),
    "gpt2_classifier": (lambda: hugging_face("GPT2ForSequenceClassification"), TEXT),
}


def build(make):
    torch.manual_seed(0)
    model = make().double().eval()
    for m in model.modules():
        m.training = isinstance(m, nn.modules.batchnorm._BatchNorm)
    for p in model.parameters():
        p.data += 0.1 * torch.randn_like(p)
    return model


def flat(tensors):
    return torch.cat([t.reshape(-1) for t in tensors])


def sines():
    t = SinusoidTasks(k_shot=5, n_query=5).sample(3, generator(1))
    return TaskBatch(
        t.support.map(torch.Tensor.double), t.query.map(torch.Tensor.double)
    )


def network(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(1, 8), nn.Tanh(), nn.Linear(8, 1)).double()
