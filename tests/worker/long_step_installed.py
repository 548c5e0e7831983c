"""Importing this module puts the long step in optimize_graph's place.

Only the sandbox of `long_step_worker` does so, before it forks its children.
"""

from compression.methods.optimize_graph import OptimizeGraph
from tests.worker.long_step import walk

OptimizeGraph.apply = walk  # type: ignore[method-assign]
