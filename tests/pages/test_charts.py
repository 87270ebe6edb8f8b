"""What charts draw."""

import xml.etree.ElementTree as ElementTree

import pytest

from gymnast_pages.charts import Chart, Point, Series, ticks


@pytest.mark.parametrize(
    "low, high, expected", [(0, 1, [0, 0.2, 0.4, 0.6, 0.8, 1]), (0, 7, [0, 2, 4, 6]), (-3, 3, [-2, 0, 2])]
)
def test_ticks_are_round_numbers_inside_the_range(low, high, expected):
    assert ticks(low, high) == pytest.approx(expected)


@pytest.mark.parametrize(
    "points", [[Point(3, 0.0)], [Point(1, 5.0), Point(1000, 5.0)], [Point(i, i) for i in range(200)]]
)
def test_any_series_can_be_drawn(points):
    drawing = Chart("t", "y", [Series("<a>", points), Series("b", points, "bars")]).svg()
    assert "nan" not in drawing and "<a>" not in drawing
    ElementTree.fromstring(drawing)
