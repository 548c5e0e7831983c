import json
import re
from html.parser import HTMLParser

import pytest

from compression.charts import HEIGHT, WIDTH, scatter
from compression.comparison import Entry, compare
from compression.figures import difference, figure
from compression.pareto import pareto_front
from compression.report import render_comparison_html, render_report_html
from tests.compression.sample_measurements import layer, measurements, output

ATTACK = "<script>alert('x')</script>\"' onload=\"x"
VOID = {"meta", "br"}


class Page(HTMLParser):
    """Checks that tags are balanced and collects what they say."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.words, self.attributes = [], [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, name, value) for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] != "style":
            self.words.append(data)

    @property
    def text(self):
        return re.sub(r"\s+", " ", "".join(self.words))


def entry(name, ratio=2.0, speed=1.0, *, model="a", **other):
    measured = measurements(ratio, speed, **other)
    return Entry(
        id=f"job_{name}", name=name, model_id=f"mdl_{model}", model_name=model, measurements=measured
    )


def document(**other):
    measured = measurements(3.7, 1.6, changes={"accuracy": (-0.03, True), "mse": (0.1, False)})
    before = [layer("conv", parameters=500), layer("gone"), *(layer(f"l{i}") for i in range(25))]
    after = [
        layer("conv", parameters=500, dtype="int8", sparsity=0.5, sqnr_db=33.0),
        layer("new", op_type="Gemm"),
    ]
    measured = measured.model_copy(
        update={
            "original": measured.original.model_copy(update={"layers": tuple(before)}),
            "compressed": measured.compressed.model_copy(update={"layers": tuple(after)}),
            "notes": ("a note of the evaluation",),
        }
    )
    steps = [
        {
            "method": "prune_magnitude",
            "parameters": {
                "method": "prune_magnitude",
                "sparsity": 0.5,
                "made_of": {"width": 0.5, "depth": None, "parts": ["a", "b"]},
                "layers": {"include": ["*"], "exclude": ["head"]},
            },
            "seconds": 1.25,
            "size_bytes": 1000,
            "layers": [
                {"layer": "conv", "changed": True, "note": "half set to zero", "numbers": {"sparsity": 0.5}}
            ],
            "notes": ["a note of the step"],
            "details": {},
        }
    ]
    found = {"name": "my job", "seed": 3, "versions": {"python": "3.11"}, "steps": steps}
    return found | {"measurements": measured.model_dump(mode="json")} | other


def assert_safe_and_self_contained(text):
    page = Page(text)
    assert "script" not in page.tags and "link" not in page.tags and "img" not in page.tags
    assert not any(name.startswith("on") or name in {"src", "href"} for _, name, _ in page.attributes)
    assert "http:" not in text and "https:" not in text and "url(" not in text and "@import" not in text


def test_comparison_page_shows_every_row_and_warning():
    found = compare([entry("one", 3.9, 0.96), entry("two", 2.0, 1.5, threads=4)])
    page = Page(render_comparison_html(found, title="My models"))
    for words in ("My models", "one", "two", "3.90x smaller", "0.96x, slower", *found.warnings):
        assert words in page.text
    for row in found.rows:
        assert row.verdict in page.text and row.id in page.text
    assert page.tags.count("figure") == 2


def test_report_page_shows_steps_layers_metrics_and_notes():
    page = Page(render_report_html(document()))
    for words in (
        "my job",
        "3.7x smaller, 1.6x faster, accuracy -3.0 points.",
        "prune_magnitude",
        "sparsity: 0.5",
        "made_of: width 0.5, parts a, b",
        "layers: * without head",
        "1 of 1 layers changed",
        "half set to zero",
        "a note of the step",
        "a note of the evaluation",
        "33.0 dB",
        "from float32",
        "gone",
        "The 20 largest of 28 layers",
        "8 smaller layers",
        "seed 3",
        "python 3.11",
        "−3.0 points",
        "MSE",
    ):
        assert words in page.text, words


def test_report_needs_measurements_only():
    text = render_report_html(
        {"measurements": measurements(2, None, fidelity={}, data="synthetic", samples=0)}
    )
    page = Page(text)
    assert "Compressed model" in page.text and "outputs could not be compared" in page.text


def test_report_on_synthetic_inputs_claims_no_quality():
    page = Page(render_report_html({"measurements": measurements(data="synthetic")}))
    assert "no measure of how well it does its task" in page.text


def test_names_are_escaped_and_nothing_is_loaded():
    hostile = entry(ATTACK, model=ATTACK)
    comparison = render_comparison_html(compare([hostile, entry("two")]), title=ATTACK)
    measured = measurements(fidelity={ATTACK: output()}, device=ATTACK, notes=(ATTACK,))
    measured = measured.model_copy(
        update={"original": measured.original.model_copy(update={"layers": (layer(ATTACK),)})}
    )
    steps = [
        {
            "method": ATTACK,
            "parameters": {ATTACK: ATTACK},
            "layers": [{"layer": ATTACK, "changed": False, "note": ATTACK, "numbers": {ATTACK: 1.0}}],
            "notes": [ATTACK],
        }
    ]
    report = render_report_html(
        {
            "name": ATTACK,
            "job_id": ATTACK,
            "steps": steps,
            "versions": {ATTACK: ATTACK},
            "measurements": measured,
        }
    )
    for text in (comparison, report):
        assert "<script" not in text and "&lt;script&gt;" in text
        assert_safe_and_self_contained(text)


def test_pages_are_self_contained():
    assert_safe_and_self_contained(render_report_html(document()))
    assert_safe_and_self_contained(render_comparison_html(compare([entry("one"), entry("two", model="b")])))


def test_tables_have_headers_and_charts_have_names():
    for text in (
        render_report_html(document()),
        render_comparison_html(compare([entry("one"), entry("two")])),
    ):
        page = Page(text)
        assert ("html", "lang", "en") in page.attributes
        assert all(
            ("scope" in pair) for pair in [a for a in page.attributes if a[0] == "th" and a[1] != "class"]
        )
        assert page.tags.count("th") == sum(
            name == "scope" for tag, name, _ in page.attributes if tag == "th"
        )
        named = sum(name in {"aria-label", "aria-hidden"} for tag, name, _ in page.attributes if tag == "svg")
        assert page.tags.count("svg") == named


@pytest.mark.parametrize("scheme", [0, 1])
def test_text_contrast_is_4_5_in_both_schemes(scheme):
    css = re.findall(r":root \{(.*?)\}", render_report_html(document()), re.DOTALL)[scheme]
    colours = dict(re.findall(r"--([a-z-]+): (#[0-9a-f]{6})", css))
    for ink in ("ink", "soft", "accent", "good", "bad"):
        for ground in ("page", "card", "faint"):
            if (ink, ground) not in {("accent", "faint"), ("bad", "faint")}:
                assert contrast(colours[ink], colours[ground]) >= 4.5, (ink, ground)
    assert contrast(colours["warn-ink"], colours["warn"]) >= 4.5
    assert contrast(colours["card"], colours["accent"]) >= 4.5


def contrast(one, other):
    """WCAG 2.2's contrast ratio of two sRGB colours."""

    def luminance(colour):
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize(
    "entries",
    [
        [entry("one", 3.9, 1.2), entry("two", 1.1, 0.4)],
        [entry("one", 1.0, 1.0, fidelity={"y": output(None)})],
        [entry("one", 100.0, 30.0, fidelity={"y": output(-12)}), entry("two", 900.0, 1.0)],
        [entry("one", changes={"accuracy": (0.0, False)})],
        [entry(str(i), 4.0, 1.0, changes={"accuracy": (0.0, False)}) for i in range(9)],
    ],
)
def test_marks_and_labels_lie_inside_the_chart(entries):
    comparison = compare(entries)
    for key in ("size_bytes", "latency_p50_ms"):
        chart = scatter(comparison, key)
        assert len(chart.marks) == len(comparison.rows)
        for mark in chart.marks:
            assert chart.left <= mark.x <= chart.right and chart.top <= mark.y <= chart.bottom
            assert 0 < mark.text_x < WIDTH and 0 < mark.text_y < HEIGHT
        places = [tick.at for tick in chart.x_ticks]
        assert places == sorted(places) and 2 <= len(places) <= 12


def test_a_chart_needs_two_marks():
    assert scatter(compare([]), "size_bytes") is None
    assert scatter(compare([entry("one", 2.0, None)]), "latency_p50_ms") is None
    assert "Results" in render_comparison_html(compare([]))


def test_smaller_and_better_lies_to_the_left_and_above():
    chart = scatter(compare([entry("a", 4.0, fidelity={"y": output(40)}), entry("b", 2.0)]), "size_bytes")
    first, second = (mark for mark in chart.marks if mark.row.kind == "job")
    assert first.x < second.x and first.y < second.y


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (None, "ms", "–"),
        (0, "bytes", "0 B"),
        (999_999, "bytes", "1.00 MB"),
        (2_345, "bytes", "2.35 kB"),
        (3_000_000_000, "bytes", "3.00 GB"),
        (0.0123, "ms", "0.0123 ms"),
        (12_345.0, "ms", "12.3 s"),
        (0.9725, "share", "97.2%"),
        (3.9, "x", "3.90x"),
        (39.6, "x", "40x"),
        (34.04, "dB", "34.0 dB"),
        (25_000.0, "1/s", "25.0 k/s"),
        (12_000_000, "", "12.0 M"),
        (7, "", "7"),
        (1.5e-7, "", "1.50e-07"),
        (0.25, "", "0.250"),
    ],
)
def test_figures(value, unit, text):
    assert figure(value, unit) == text


@pytest.mark.parametrize(
    ("value", "before", "unit", "text"),
    [
        (270, 1000, "bytes", "−73%"),
        (1004, 1000, "bytes", "+0.4%"),
        (0.92, 0.95, "share", "−3.0 points"),
        (0.9498, 0.95, "share", "−0.02 points"),
        (5, 5, "", ""),
        (None, 5, "", ""),
        (5, 0, "", "+5"),
        (2.0, 1.0, "x", ""),
    ],
)
def test_differences(value, before, unit, text):
    assert difference(value, before, unit) == text


def test_pareto_front_is_that_of_every_pair_by_hand():
    points = [(1.0, 3.0), (2.0, 2.0), (3.0, 1.0), (2.0, 3.0), (2.0, 2.0), (9.0, 9.0)]
    assert pareto_front(points, [0] * 6) == [True, True, True, False, True, False]
    assert pareto_front(points, [0, 0, 0, 0, 0, 1])[-1]


def test_report_document_survives_json():
    text = json.dumps(document())
    assert render_report_html(json.loads(text)) == render_report_html(document())
