"""What quantization_peers.md says, from what became of each model by case."""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from pydantic import BaseModel

from benchmarks.measuring import geometric_mean
from compression import runtime

SAMPLES = 16
JUDGED, LARGE, OF_LARGE = 64, 200_000, 16
"""Samples to judge by; fewer where one has so many numbers. A sure classifier is wrong on few of them."""
OVER = {"onnxruntime": 3.0, "nncf": 1.0}
"""dB that we are to be above the best mode of each."""
LEAST_DB, MARGIN_DB = 20.0, 0.5
"""What is asked for of any model; and on top, since other samples are judged by."""
ASKED = "modelpress: a job, asked for more"


class Judged(BaseModel):
    """SQNR of the worst output in dB, and how many layers compute in integers."""

    here_db: float
    """As onnxruntime runs it on this processor."""
    exact_db: float
    """With the graph as it is written: products of integers come out exactly, as VNNI has them."""
    kernels: int
    """Of integers, for convolutions and products, that onnxruntime makes of the graph."""
    speedup: float | None = None
    """Over the original here, one thread; None in rows from before this was measured."""


class Row(BaseModel):
    """What became of one model by case, or why nothing did."""

    judged: dict[str, Judged] = {}
    failed: dict[str, str] = {}

    def best(self, tool: str, *, exact: bool) -> Judged | None:
        found = [item for name, item in self.judged.items() if name.startswith(tool) and name != ASKED]
        return max(found, key=lambda item: item.exact_db if exact else item.here_db, default=None)

    @property
    def wanted_db(self) -> float:
        """What the job is asked for: more than what others reach, and 20 dB of any model."""
        reached = [(self.best(tool, exact=False), more) for tool, more in OVER.items()]
        return max([LEAST_DB, *(found.here_db + more for found, more in reached if found)])


def page(rows: Mapping[str, Row], known: Sequence[str]) -> Iterator[str]:
    """Lines of the page; cases in the order of `known`."""
    yield "# Models in integers, beside onnxruntime and NNCF\n"
    yield "Written by `python -m benchmarks.quantization_peers --models .corpus --nncf FOLDER` on"
    vnni = "with" if runtime.has_vnni() else "without"
    yield f"{runtime.device_description('cpu')}, {vnni} VNNI. SQNR in dB of the worst output on {JUDGED} samples"
    yield f"({OF_LARGE} where one has over {LARGE:,} numbers) that nobody calibrated on; {SAMPLES} others were"
    yield "calibrated on. Speedups are over the model as it came: medians of paired inferences on one thread."
    yield f"{len(rows)} models, each out of a Python wheel of that name.\n"
    yield from _asked(rows)
    yield "## Whole models in integers\n"
    yield "Here every tool puts integers wherever it can: compared are ranges, rounding and what is done"
    yield "for accuracy, not placement.\n"
    yield "Here is as onnxruntime runs the result on this processor, where products with int8 weights saturate"
    yield "unless there is VNNI. Two ways around that: weights of 7 bits, which our first mode takes without VNNI, and"
    yield "uint8 weights around 128. Exact is the same graph without onnxruntime's rewriting, so that no product"
    yield "saturates. Kernels are the convolutions and products that onnxruntime computes in integers; the others run"
    yield "in floats between QuantizeLinear and DequantizeLinear. A classifier that is sure of nearly every sample is"
    yield "judged by the few it is not sure of, so that some dB up or down mean little there.\n"
    for exact in (False, True):
        yield from _totals(list(rows.values()), exact=exact)
    yield from _bests(rows)
    yield "## Here, by mode\n"
    cases = [
        case for case in known if case != ASKED and any(case in r.judged | r.failed for r in rows.values())
    ]
    yield "| model | " + " | ".join(cases) + " |"
    yield "|---|" + "---|" * len(cases)
    for name, row in rows.items():
        yield f"| {name} | {' | '.join(_cell(row, case) for case in cases)} |"


def _asked(rows: Mapping[str, Row]) -> Iterator[str]:
    """The job that is asked for more, beside what the others make."""
    ran = {name: row for name, row in rows.items() if ASKED in row.judged}
    if not ran:
        return
    yield "## A job, asked for more than theirs\n"
    least = " and ".join(f"{more:g} dB more than {tool}'s best mode" for tool, more in OVER.items())
    yield f"A job with `min_output_sqnr_db` at {least}, at least at"
    yield f"{LEAST_DB:g}, and {MARGIN_DB:g} to spare. It puts integers where measurement says. Theirs are their best"
    yield "modes.\n"
    for tool, more in OVER.items():
        gaps = [(row.judged[ASKED], found) for row in ran.values() if (found := row.best(tool, exact=False))]
        enough = sum(ours.here_db - theirs.here_db >= more for ours, theirs in gaps)
        timed = [(ours.speedup, theirs.speedup) for ours, theirs in gaps if ours.speedup and theirs.speedup]
        yield f"- At least {more:g} dB above {tool}: {enough} of {len(gaps)} models."
        if timed:
            yield f"  Speedups, geometric means of {len(timed)}: {geometric_mean([ours for ours, _ in timed]):.2f}x,"
            yield f"  theirs {geometric_mean([theirs for _, theirs in timed]):.2f}x."
    yield ""
    yield "| model | modelpress | | onnxruntime | | nncf | |"
    yield "|---|---|---|---|---|---|---|"
    for name, row in ran.items():
        shown = (row.judged[ASKED], *(row.best(tool, exact=False) for tool in OVER))
        yield f"| {name} | {' | '.join(_both(item) for item in shown)} |"
    yield ""


def _both(found: Judged | None) -> str:
    if found is None:
        return " | "
    return f"{found.here_db:.1f} dB | {'' if found.speedup is None else f'{found.speedup:.2f}x'}"


def _cell(row: Row, case: str) -> str:
    found = row.judged.get(case)
    return f"{found.here_db:.1f}" if found else row.failed.get(case, "not run").replace("|", "/")


def _bests(rows: Mapping[str, Row]) -> Iterator[str]:
    """The best of each tool's modes."""
    tools = ("modelpress", "onnxruntime", "nncf")
    columns = [f"{tool}, {how}" for how in ("here", "exact", "kernels") for tool in tools]
    yield "## The best mode of each\n"
    yield "| model | " + " | ".join(columns) + " |"
    yield "|---|" + "---|" * len(columns)
    for name, row in rows.items():
        here, exact = ([row.best(tool, exact=exact) for tool in tools] for exact in (False, True))
        cells = [f"{item.here_db:.1f}" if item else "" for item in here]
        cells += [f"{item.exact_db:.1f}" if item else "" for item in exact]
        cells += [str(item.kernels) if item else "" for item in here]
        yield f"| {name} | {' | '.join(cells)} |"
    yield ""


def _totals(rows: Sequence[Row], *, exact: bool) -> Iterator[str]:
    for tool, least in OVER.items():
        pairs = [(row.best("modelpress", exact=exact), row.best(tool, exact=exact)) for row in rows]
        gaps = [_db(ours, exact) - _db(theirs, exact) for ours, theirs in pairs if ours and theirs]
        none = sum(ours is not None and theirs is None for ours, theirs in pairs)
        if gaps:
            enough, where = sum(gap >= least for gap in gaps), "Exact" if exact else "Here"
            yield f"- {where}, our best mode is {np.median(gaps):+.1f} dB (median) from the best of {tool}'s,"
            yield f"  and at least {least:g} dB above it on {enough} of {len(gaps)} models; {none} more it cannot"
            yield "  quantize."
    yield ""


def _db(found: Judged, exact: bool) -> float:
    return found.exact_db if exact else found.here_db
