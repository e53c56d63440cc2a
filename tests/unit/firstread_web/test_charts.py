"""Charts: what they draw, and what they say to somebody who cannot see them."""

from __future__ import annotations

import re
from xml.etree import ElementTree

from firstread_web.charts import Series, bars, line


def test_bars_stand_on_top_of_each_other() -> None:
    chart = bars("Studies <an hour>", [Series("scored", [1, 3]), Series("failed", [0, 1])])
    root = ElementTree.fromstring(str(chart.svg))
    assert root.attrib["aria-label"] == "Studies <an hour>, last 24 hours: scored 4, failed 1 in all"
    rects = [one for one in root if one.tag == "rect"]
    bottoms = [float(one.attrib["y"]) + float(one.attrib["height"]) for one in rects]
    assert [round(y) for y in bottoms[:2]] == [90, 90]
    assert bottoms[2] == float(rects[1].attrib["y"]), "the second series stands on the first"
    assert chart.legend == [("scored", "colour-0"), ("failed", "colour-1")]


def test_a_line_breaks_where_nothing_is_known() -> None:
    chart = line("Free disk", Series("GiB", [1.0, 2.0, None, 4.0]), " GiB")
    points = re.findall(r'points="([^"]+)"', str(chart.svg))
    assert [len(piece.split()) for piece in points] == [2, 2], "a point alone is drawn as a dot"
    assert "4 GiB now, 4 GiB at most" in str(chart.svg)
    assert "not known now" in str(line("Workers", Series("workers", [None, None])).svg)
