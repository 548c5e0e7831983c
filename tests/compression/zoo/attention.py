"""Transformers in small, with the attention of known architectures."""

import torch
from torch import nn
from torch.nn import functional as F


class FusedAttention(nn.Module):
    """ViT (arXiv:2010.11929) as timm writes it: one projection for queries, keys and values."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x):
        count, length, width = x.shape
        qkv = self.qkv(x).reshape(count, length, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        query, key, value = qkv.unbind(0)
        weights = (query @ key.transpose(-2, -1) * (width // self.heads) ** -0.5).softmax(-1)
        return self.out((weights @ value).transpose(1, 2).reshape(count, length, width))


class Attention(nn.Module):
    """BERT (arXiv:1810.04805): three projections."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.key = nn.Linear(width, width), nn.Linear(width, width)
        self.value, self.out = nn.Linear(width, width), nn.Linear(width, width)

    def split(self, x):
        return x.view(*x.shape[:2], self.heads, -1).transpose(1, 2)

    def forward(self, x):
        query, key, value = self.split(self.query(x)), self.split(self.key(x)), self.split(self.value(x))
        mixed = F.scaled_dot_product_attention(query, key, value)
        return self.out(mixed.transpose(1, 2).flatten(2))


class Block(nn.Module):
    def __init__(self, attention: nn.Module, width: int, hidden: int) -> None:
        super().__init__()
        self.attention = attention
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.up, self.down = nn.Linear(width, hidden), nn.Linear(hidden, width)

    def forward(self, x):
        x = x + self.attention(self.norm1(x))
        return x + self.down(F.gelu(self.up(self.norm2(x))))


class ViT(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 16, 4, stride=4)
        self.token = nn.Parameter(torch.randn(1, 1, 16))
        self.places = nn.Parameter(torch.randn(1, 5, 16))
        self.blocks = nn.Sequential(*[Block(FusedAttention(16, 4), 16, 32) for _ in range(2)])
        self.norm = nn.LayerNorm(16)
        self.head = nn.Linear(16, 5)

    def forward(self, x):
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(len(x), -1, -1), x], 1) + self.places
        return self.head(self.norm(self.blocks(x))[:, 0])


def vit() -> nn.Module:
    return ViT()


class Bert(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(30, 16)
        self.places = nn.Embedding(8, 16)
        self.norm = nn.LayerNorm(16)
        self.blocks = nn.Sequential(*[Block(Attention(16, 4), 16, 32) for _ in range(2)])
        self.head = nn.Linear(16, 3)

    def forward(self, tokens):
        places = torch.arange(tokens.shape[1], device=tokens.device)
        x = self.norm(self.words(tokens) + self.places(places))
        return self.head(torch.tanh(self.blocks(x)[:, 0]))


def bert() -> nn.Module:
    return Bert()


class CausalAttention(nn.Module):
    """GPT-2: one projection, split in three along the width; a triangle hides what comes later."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.register_buffer("mask", torch.tril(torch.ones(1, 1, 8, 8)))

    def forward(self, x):
        count, length, width = x.shape
        parts = self.qkv(x).split(width, 2)
        query, key, value = (part.view(count, length, self.heads, -1).transpose(1, 2) for part in parts)
        scores = query @ key.transpose(-2, -1) / (query.size(-1) ** 0.5)
        scores = scores.masked_fill(self.mask[:, :, :length, :length] == 0, float("-inf"))
        return self.out((scores.softmax(-1) @ value).transpose(1, 2).contiguous().view(count, length, width))


class Gpt(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(30, 16)
        self.blocks = nn.Sequential(*[Block(CausalAttention(16, 4), 16, 32) for _ in range(2)])
        self.norm = nn.LayerNorm(16)

    def forward(self, tokens):
        return F.linear(self.norm(self.blocks(self.words(tokens))), self.words.weight)


def gpt() -> nn.Module:
    return Gpt()


class RotaryAttention(nn.Module):
    """Llama (arXiv:2302.13971): rotated halves, and several heads of queries to one of keys (arXiv:2305.13245)."""

    def __init__(self, width: int, heads: int, shared: int) -> None:
        super().__init__()
        self.size, self.repeats = width // heads, heads // shared
        self.query = nn.Linear(width, width, bias=False)
        self.key = nn.Linear(width, self.size * shared, bias=False)
        self.value = nn.Linear(width, self.size * shared, bias=False)
        self.out = nn.Linear(width, width, bias=False)
        self.register_buffer("rates", 1 / 100 ** (torch.arange(0, self.size, 2) / self.size))

    def rotated(self, x):
        angles = torch.outer(torch.arange(x.shape[2]).float(), self.rates)
        angles = torch.cat([angles, angles], -1)
        first, second = x[..., : self.size // 2], x[..., self.size // 2 :]
        return x * angles.cos() + torch.cat([-second, first], -1) * angles.sin()

    def split(self, x):
        return x.view(*x.shape[:2], -1, self.size).transpose(1, 2)

    def repeat(self, x):
        count, heads, length, size = x.shape
        x = x[:, :, None].expand(count, heads, self.repeats, length, size)
        return x.reshape(count, heads * self.repeats, length, size)

    def forward(self, x):
        query, key = self.rotated(self.split(self.query(x))), self.rotated(self.split(self.key(x)))
        key, value = self.repeat(key), self.repeat(self.split(self.value(x)))
        mixed = F.scaled_dot_product_attention(query, key, value, is_causal=True)
        return self.out(mixed.transpose(1, 2).reshape(*x.shape[:2], -1))


class RmsNorm(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x):
        return self.weight * x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6)


class LlamaBlock(nn.Module):
    def __init__(self, width: int, heads: int, shared: int, hidden: int) -> None:
        super().__init__()
        self.attention = RotaryAttention(width, heads, shared)
        self.norm1, self.norm2 = RmsNorm(width), RmsNorm(width)
        self.gate, self.up = nn.Linear(width, hidden, bias=False), nn.Linear(width, hidden, bias=False)
        self.down = nn.Linear(hidden, width, bias=False)

    def forward(self, x):
        x = x + self.attention(self.norm1(x))
        y = self.norm2(x)
        return x + self.down(F.silu(self.gate(y)) * self.up(y))


class Llama(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(30, 16)
        self.blocks = nn.Sequential(*[LlamaBlock(16, 4, 2, 24) for _ in range(2)])
        self.norm = RmsNorm(16)
        self.head = nn.Linear(16, 30, bias=False)

    def forward(self, tokens):
        return self.head(self.norm(self.blocks(self.words(tokens))))


def llama() -> nn.Module:
    return Llama()


class Window(nn.Module):
    """Swin (arXiv:2103.14030): attention in windows that move, with a bias for each pair of places."""

    def __init__(self, width: int, heads: int, shift: int) -> None:
        super().__init__()
        self.shift, self.side = shift, 4
        self.attention = FusedAttention(width, heads)
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.bias = nn.Parameter(torch.randn(heads, 16, 16))
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def windows(self, x):
        count, height, width, channels = x.shape
        x = x.view(count, height // self.side, self.side, width // self.side, self.side, channels)
        return x.permute(0, 1, 3, 2, 4, 5).reshape(-1, self.side**2, channels)

    def attend(self, x):
        layer, (count, length, width) = self.attention, x.shape
        qkv = layer.qkv(x).reshape(count, length, 3, layer.heads, width // layer.heads).permute(2, 0, 3, 1, 4)
        weights = (qkv[0] @ qkv[1].transpose(-2, -1) + self.bias).softmax(-1)
        return layer.out((weights @ qkv[2]).transpose(1, 2).reshape(count, length, width))

    def forward(self, x):
        count, height, width, channels = x.shape
        y = torch.roll(self.norm1(x), (-self.shift, -self.shift), (1, 2))
        y = self.attend(self.windows(y))
        y = y.view(count, height // self.side, width // self.side, self.side, self.side, channels)
        y = y.permute(0, 1, 3, 2, 4, 5).reshape(count, height, width, channels)
        x = x + torch.roll(y, (self.shift, self.shift), (1, 2))
        return x + self.mlp(self.norm2(x))


class Swin(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 8, 2, stride=2)
        self.stage1 = nn.Sequential(Window(8, 2, 0), Window(8, 2, 2))
        self.norm, self.merge = nn.LayerNorm(32), nn.Linear(32, 16, bias=False)
        self.stage2 = Window(16, 4, 0)
        self.head = nn.Linear(16, 5)

    def forward(self, x):
        x = self.stage1(self.patches(x).permute(0, 2, 3, 1))
        x = torch.cat([x[:, 0::2, 0::2], x[:, 1::2, 0::2], x[:, 0::2, 1::2], x[:, 1::2, 1::2]], -1)
        return self.head(self.stage2(self.merge(self.norm(x))).mean((1, 2)))


def swin() -> nn.Module:
    return Swin()


class Geglu(nn.Module):
    """A gated unit (arXiv:2002.05202) whose gate and value come from one projection."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.both, self.last = nn.Linear(6, 10), nn.Linear(10, 24), nn.Linear(12, 3)
        self.left, self.right = nn.Linear(3, 8), nn.Linear(3, 8)
        self.mix = nn.Parameter(torch.randn(8, 8, 2))

    def forward(self, x):
        value, gate = self.both(torch.relu(self.first(x))).chunk(2, -1)
        y = self.last(value * F.gelu(gate))
        return torch.einsum("...i,...j,ijk->...k", self.left(y), self.right(y), self.mix)


def geglu() -> nn.Module:
    return Geglu()


def encoder() -> nn.Module:
    """torch's own encoder layer."""
    layer = nn.TransformerEncoderLayer(16, 4, 24, batch_first=True, norm_first=True, dropout=0.0)
    return nn.Sequential(nn.TransformerEncoder(layer, 1, enable_nested_tensor=False), nn.Linear(16, 3))
