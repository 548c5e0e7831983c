import csv
import io
import subprocess
import sys

import pytest

from compression.comparison import Comparison, Entry, compare, to_csv
from compression.measurements import Measurements
from tests.compression.sample_measurements import measurements, output


def entry(name, ratio=2.0, speed=1.0, *, model="a", **other):
    extra = {key: other.pop(key) for key in ("evaluation_data",) if key in other}
    measured = measurements(ratio, speed, **other)
    return Entry(
        id=f"job_{name}", name=name, model_id=f"mdl_{model}", model_name=model, measurements=measured, **extra
    )


def rows(comparison):
    return {row.name: row for row in comparison.rows}


def test_every_model_has_one_row_before_its_jobs():
    found = compare([entry("one"), entry("two", model="b"), entry("three")])
    assert [row.name for row in found.rows] == ["a", "one", "three", "b", "two"]
    assert [row.kind for row in found.rows] == ["original", "job", "job", "original", "job"]


def test_values_and_differences():
    found = rows(compare([entry("one", 4.0, 2.0, changes={"accuracy": (-0.02, True)})]))
    assert found["a"].values["size_bytes"] == 1_000_000 and found["a"].deltas == {}
    job = found["one"]
    assert job.values["size_ratio"] == 4.0 and job.values["speedup"] == 2.0 and job.speed == "faster"
    assert job.deltas["size_bytes"] == 250_000 - 1_000_000
    assert job.deltas["accuracy"] == pytest.approx(-0.02)
    assert job.deltas["latency_p50_ms"] == pytest.approx(-1.0)
    assert job.deltas["sqnr_db"] is None
    assert job.verdict.startswith("4.0x smaller")


def test_metric_columns_stand_in_order_and_tell_which_way_is_better():
    found = compare([entry("one", changes={"mse": (0.1, True), "accuracy": (0.0, False)})])
    columns = {column.key: column for column in found.columns}
    keys = list(columns)
    assert keys.index("accuracy") < keys.index("mse") < keys.index("sqnr_db")
    assert (columns["accuracy"].better, columns["mse"].better, columns["sparsity"].better) == (
        "higher",
        "lower",
        "none",
    )


def test_texts_and_main_columns_make_a_short_table():
    found = compare(
        [entry("one", 3.9, 1.6, fidelity={"y": output(None)}, changes={"accuracy": (-0.01, False)})]
    )
    short = [column.key for column in found.columns if column.main]
    assert short == [
        "size_bytes",
        "size_ratio",
        "sparsity",
        "macs",
        "latency_p50_ms",
        "speedup",
        "accuracy",
        "sqnr_db",
    ]
    texts = rows(found)["one"].text
    assert [texts[key] for key in short] == [
        "256 kB",
        "3.90x",
        "0.0%",
        "12.0 M",
        "1.25 ms",
        "1.60x",
        "94.0%",
        "equal",
    ]
    assert texts["agreement"] == "99.0%" and rows(found)["a"].text["cosine"] == "–"


def test_best_in_column():
    found = rows(compare([entry("small", 8.0, 0.5), entry("fast", 2.0, 3.0, fidelity={"y": output(None)})]))
    assert "sqnr_db" in found["fast"].best and "sqnr_db" not in found["small"].best
    assert "size_bytes" in found["small"].best and "size_ratio" in found["small"].best
    assert "speedup" in found["fast"].best
    assert "parameters" not in found["fast"].best
    assert "sparsity" not in found["small"].best


def test_fidelity_columns_take_the_worst_output():
    mixed = {"a": output(50, agreement=None), "b": output(12, max_abs_error=3.0, agreement=0.7)}
    values = rows(compare([entry("one", fidelity=mixed)]))["one"].values
    assert (values["sqnr_db"], values["agreement"], values["max_abs_error"]) == (12, 0.7, 3.0)


def test_pareto_front_by_metric_drops_what_is_beaten_everywhere():
    found = rows(
        compare(
            [
                entry("good", 4.0, 1.5, changes={"accuracy": (-0.01, False)}),
                entry("beaten", 3.0, 1.2, changes={"accuracy": (-0.02, False)}),
                entry("tiny", 8.0, 0.5, changes={"accuracy": (-0.10, True)}),
            ]
        )
    )
    assert {name for name, row in found.items() if row.pareto} == {"a", "good", "tiny"}


def test_pareto_front_by_fidelity_takes_equal_outputs_for_the_best():
    found = compare([entry("lossless", 2.0, 1.1, fidelity={"y": output(None)}), entry("lossy", 1.9, 1.0)])
    assert found.quality == "sqnr_db"
    flags = {row.name: row.pareto for row in found.rows}
    assert flags == {"a": False, "lossless": True, "lossy": False}


def test_pareto_front_by_fidelity_is_drawn_per_model():
    found = rows(compare([entry("one", 2.0), entry("two", 9.0, 3.0, model="b")]))
    assert found["one"].pareto and found["two"].pareto


def test_equal_rows_are_both_on_the_front():
    found = rows(compare([entry("one", 2.0, 2.0), entry("twin", 2.0, 2.0)]))
    assert found["one"].pareto and found["twin"].pareto


def test_the_same_job_named_twice_is_ranked_twice():
    found = compare([entry("one", 2.0, 2.0), entry("one", 1.5, 1.5)])
    assert [row.pareto for row in found.rows[1:]] == [True, False]
    assert [("size_bytes" in row.best) for row in found.rows] == [False, True, False]


def test_unmeasured_latency_loses_and_does_not_fail():
    found = rows(compare([entry("timed", 2.0, 2.0), entry("untimed", 2.0, None)]))
    assert found["timed"].pareto and not found["untimed"].pareto
    assert found["untimed"].values["latency_p50_ms"] is None and found["untimed"].speed == "not measured"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"device": "a GPU"}, "devices"),
        ({"batch_size": 8}, "batch sizes"),
        ({"threads": 4}, "thread counts"),
        ({"samples": 10}, "numbers of samples"),
        ({"data": "synthetic"}, "evaluation data"),
        ({"evaluation_data": "dst_other"}, "evaluation data"),
    ],
)
def test_entries_measured_otherwise_are_warned_of(change, words):
    found = compare([entry("one"), entry("two", **change)])
    assert len(found.warnings) == 1 and words in found.warnings[0]
    assert not compare([entry("one"), entry("two")]).warnings


def test_several_models_without_a_metric_are_warned_of():
    assert "its own original" in compare([entry("one"), entry("two", model="b")]).warnings[0]


def test_a_metric_that_only_some_have_is_not_used_for_the_front():
    found = compare([entry("one", changes={"accuracy": (0.0, False)}), entry("two")])
    assert found.quality == "sqnr_db" and "Only some rows" in found.warnings[0]


def test_json_round_trip():
    found = compare([entry("one", changes={"f1": (-0.1, True)}), entry("two", model="b")])
    assert Comparison.model_validate_json(found.model_dump_json()) == found
    measured = measurements(3.9, 0.9, changes={"f1": (-0.1, True)})
    assert Measurements.model_validate_json(measured.model_dump_json()) == measured


def test_csv_has_a_line_per_row_and_quotes_formulas():
    found = compare([entry('=HYPERLINK("x")', 4.0), entry('with, comma and "quotes"')])
    table = list(csv.DictReader(io.StringIO(to_csv(found))))
    assert len(table) == 3
    assert table[1]["name"] == '\'=HYPERLINK("x")' and table[2]["name"] == 'with, comma and "quotes"'
    assert float(table[1]["size_ratio"]) == 4.0 and float(table[1]["delta_size_bytes"]) == -750_000
    assert table[0]["delta_size_bytes"] == "" and table[0]["kind"] == "original"


def test_no_entries_make_an_empty_table():
    found = compare([])
    assert found.rows == () and to_csv(found).count("\r\n") == 1


def test_importing_it_loads_no_numerics():
    code = (
        "import sys, compression.comparison as _; print({'numpy', 'torch', 'onnxruntime'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
