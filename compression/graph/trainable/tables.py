"""All operators of the trainable view, from one table per kind."""

from compression.graph.trainable.node import Table

OPERATORS: Table = {}
