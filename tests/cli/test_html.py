"""The report: one file that needs nothing else, well-formed, escaped, and complete."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest

from mpc_ray.cli import charts
from mpc_ray.cli.html import MATRIX, page
from mpc_ray.cli.outcome import Outcome, Setting
from mpc_ray.models.shadow import Drift, ShadowReport
from mpc_ray.report import JobReport, Report

VOID = {"meta", "link", "img", "br", "hr", "input"}
DRAWN = {"rect", "line", "circle"}  # of SVG: closed by themselves or by name


class Checker(HTMLParser):
    """Every element is closed in order; collects ids, references, tags and text."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[str] = []
        self.ids: list[str] = []
        self.labelled: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.said: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._note(tag, attrs)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in DRAWN, tag
        self._note(tag, attrs)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.said.append(data)

    def _note(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        for name, value in attrs:
            self.attributes.append((name, value or ""))
            if name == "id":
                self.ids.append(value or "")
            if name == "aria-labelledby":
                self.labelled += (value or "").split()


def read(text: str) -> Checker:
    checker = Checker()
    checker.feed(text)
    checker.close()
    assert checker.open == []
    return checker


def outcome(texts: int = 3, layers: int = 2, drift: float = 0.0, shadow: bool = False) -> Outcome:
    rng = np.random.default_rng(0)
    private = rng.standard_normal((texts, 8))
    functions = ("activation", "softmax", "qkv", "a new one")
    split = {(f"layer {i}", f): 1000 * (i + 1) for i in range(layers) for f in functions}
    split["", "frame headers"] = 80
    job = JobReport(
        batch=texts,
        length=16,
        seconds=2.0,
        rounds=53,
        bytes_sent=(10, 20, 30),
        bytes_sent_offline=(0, 0, 0),
        split=split,
        compute={("layer 0", "activation"): 1.5, ("layer 0", "softmax"): 0.03},
        rounds_split={},
        waiting=0.5,
    )
    setting = Setting(
        "m <b>", "00" * 32, layers, 8, 2, 100, "semi_honest_3pc", "ray", "cpu", True, True, "development only"
    )
    places = tuple(Drift(f"layer {i}/ffn out", 9, 1e-4, 0.3 if i else 1e-3) for i in range(layers))
    names = tuple(f"text {i} <script>&\"'" for i in range(texts))
    seconds = {"start": 1.0, "load": 2.0, "embed": 2.5, "plaintext": 0.01}
    return Outcome(
        setting,
        names,
        private,
        private + drift,
        Report((job,)),
        seconds,
        ShadowReport(places) if shadow else None,
    )


@pytest.mark.parametrize("texts", [1, 2, MATRIX, MATRIX + 1, 300])
def test_it_is_self_contained_and_well_formed(texts: int) -> None:
    text = page(outcome(texts))
    assert "://" not in text
    assert "@import" not in text
    assert "url(" not in text
    found = read(text)
    assert not {"script", "link", "img", "iframe", "object", "embed", "b>"} & set(found.tags)
    assert not {"src", "href", "xlink:href", "onload", "onclick"} & {name for name, _ in found.attributes}
    assert ("http-equiv", "Content-Security-Policy") in found.attributes
    assert any("default-src 'none'" in value for _, value in found.attributes)


@pytest.mark.parametrize("public", [False, True])
def test_it_says_who_sees_the_weights(public: bool) -> None:
    found = outcome()
    seen = replace(found.setting, public_weights=public)
    said = " ".join(read(page(replace(found, setting=seen))).said)
    assert ("every party sees them" in said) == public
    assert ("the parties hold shares" in said) != public


def test_texts_are_escaped() -> None:
    text = page(outcome())
    assert "<script" not in text
    assert "text 0 <script>&\"'" in " ".join(read(text).said)
    assert "<b>," not in text


def test_it_can_be_read_without_seeing_it() -> None:
    text = page(outcome(shadow=True))
    found = read(text)
    assert ("lang", "en") in found.attributes
    assert len(found.ids) == len(set(found.ids))
    assert set(found.labelled) <= set(found.ids)
    drawn = text.count('<svg class="chart"')
    assert drawn >= 6
    assert text.count('role="img"') == drawn
    assert len(found.labelled) == 2 * drawn
    assert found.tags.count("h1") == 1
    assert found.tags.count("caption") == found.tags.count("table")


def test_it_says_what_was_found() -> None:
    said = " ".join(read(page(outcome(drift=0.01))).said)
    for words in (
        "Trust mode",
        "development only",
        "semi_honest_3pc",
        "53",
        "a new one",
        "frame headers",
        "layer 1",
    ):
        assert words in said
    assert "matrix products and the rest" in said
    assert "dashed line, 5e-06, the demo counts as failed" in said
    assert "bound of 1 − cosine: 5e-06" in said


def test_shadow_is_there_when_asked_for() -> None:
    assert "Shadow mode" not in page(outcome())
    text = page(outcome(shadow=True))
    assert "First outside its bound: layer 1/ffn out" in text


def test_every_colour_of_a_chart_is_in_the_style() -> None:
    text = page(outcome(shadow=True))
    style, _, body = text.partition("</style>")
    for kind in set(re.findall(r'<(?:rect|circle) class="(f\d)', body)):
        assert f"rect.{kind}, circle.{kind}" in style
        assert style.count(f"--{kind}:") == 2  # light and dark


def test_bars_are_proportional() -> None:
    svg = charts.bars("t", "d", [charts.Bar("a", 4.0, "4", "f0"), charts.Bar("b", 1.0, "1", "f1")])
    long, short = (float(w) for w in re.findall(r'<rect[^>]* width="([\d.]+)"', svg))
    assert long == pytest.approx(4 * short, abs=0.2)


def test_stacked_parts_touch_and_add_up() -> None:
    rows = {"x": {"a": 3.0, "b": 1.0}, "y": {"b": 2.0}}
    svg = charts.stacked("t", "d", rows, {"a": "f0", "b": "f1"}, str)
    spans = [
        (float(x), float(w)) for x, w in re.findall(r'<rect[^>]* x="([\d.]+)"[^>]* width="([\d.]+)"', svg)
    ]
    (ax, aw), (bx, bw), (_, cw) = spans
    assert ax + aw == pytest.approx(bx, abs=0.2)
    assert aw == pytest.approx(3 * bw, abs=0.5)
    assert cw == pytest.approx(2 * bw, abs=0.5)


def test_dots_are_logarithmic_and_take_zeros() -> None:
    svg = charts.dots("t", "d", ["a", "b", "c", "z"], [charts.Dots("s", [1e-6, 1e-5, 1e-4, 0.0], 1e-3, "f0")])
    a, b, c, z = (float(x) for x in re.findall(r'cx="([\d.]+)"', svg))
    assert c - b == pytest.approx(b - a, abs=0.2)
    assert z == pytest.approx(a, abs=0.2)  # the axis begins at the smallest power of ten


def test_charts_without_rows() -> None:
    for svg in (charts.bars("t", "d", []), charts.dots("t", "d", [], []), charts.heat("t", "d", [], [])):
        read(svg)
