"""Datasets: safe readers of several file formats, and batches cut to fit a model's inputs."""

from compression.data.dataset import Dataset, Feeds
from compression.data.fit import fit_problems, match_arrays
from compression.data.limits import Limits
from compression.data.opening import inspect_dataset, open_dataset

__all__ = ["Dataset", "Feeds", "Limits", "fit_problems", "inspect_dataset", "match_arrays", "open_dataset"]
