"""Recurrent taggers in small."""

import torch
from torch import nn


class Tagger(nn.Module):
    """Two layers in both directions, then a neuron per class."""

    def __init__(self, kind: type[nn.RNNBase]) -> None:
        super().__init__()
        self.words = nn.Linear(6, 8)
        self.rnn = kind(8, 10, num_layers=2, bidirectional=True, batch_first=True)
        self.head = nn.Linear(20, 3)

    def forward(self, x):
        return self.head(self.rnn(torch.relu(self.words(x)))[0])


def lstm() -> nn.Module:
    return Tagger(nn.LSTM)


def gru() -> nn.Module:
    return Tagger(nn.GRU)


class LastState(nn.Module):
    """Reads the last hidden state; begins with one that is learned."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.RNN(6, 12)
        self.start = nn.Parameter(torch.randn(1, 1, 12))
        self.head = nn.Linear(12, 3)

    def forward(self, x):
        return self.head(self.rnn(x, self.start.expand(-1, x.shape[1], -1).contiguous())[1][0])


def rnn() -> nn.Module:
    return LastState()


class Mixed(nn.Module):
    """Convolution over time, then LSTM: channels become the inputs of the recurrence."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(6, 8, 3, padding=1)
        self.rnn = nn.LSTM(8, 12, batch_first=True)
        self.head = nn.Linear(12, 3)

    def forward(self, x):
        y = torch.relu(self.conv(x.transpose(1, 2))).transpose(1, 2)
        return self.head(self.rnn(y)[0].mean(1))


def conv_lstm() -> nn.Module:
    return Mixed()
