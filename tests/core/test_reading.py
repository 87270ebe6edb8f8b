"""JSON files that others wrote: the same meaning, or one error with file and key."""

import json
from dataclasses import asdict, dataclass, field

import pytest

from gymnast_core.config.ranges import Range
from gymnast_core.errors import CheckpointError, DataError
from gymnast_core.reading import as_record, read_json, read_json_lines, read_object


def written(tmp_path, content):
    path = tmp_path / "config.json"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


@pytest.mark.parametrize(
    "content, words",
    [
        ("{", "is not valid JSON"),
        ("", "is not valid JSON"),
        (b"\xff\xfe{\x00}\x00", "is not UTF-8 text"),
        ("[" * 100_000, "is nested too deeply"),
        ("[" * 300 + "]" * 300, "is nested more than 200 levels deep"),
        ('{"a": 1, "b": 2, "a": 3}', "the key 'a' stands there twice"),
        ('{"a": NaN}', "NaN is not a number of JSON"),
        ('{"a": -Infinity}', "-Infinity is not a number of JSON"),
        ('{"a": ' + "9" * 10_000 + "}", "is not valid JSON"),
    ],
)
def test_a_damaged_file_is_one_error_that_names_it(tmp_path, content, words):
    path = written(tmp_path, content)
    with pytest.raises(CheckpointError) as error:
        read_json(path, CheckpointError)
    assert str(path) in str(error.value)
    assert words in str(error.value)
    assert len(str(error.value)) < 400


def test_a_file_that_is_missing_a_folder_or_too_large_is_the_same_kind_of_error(tmp_path):
    path = written(tmp_path, "{}")
    with pytest.raises(DataError, match="No such file"):
        read_json(tmp_path / "other.json")
    with pytest.raises(DataError, match="directory"):
        read_json(tmp_path)
    with pytest.raises(DataError, match="more than the 1"):
        read_json(path, max_bytes=1)


def test_byte_order_marks_and_unusual_line_ends_are_read(tmp_path):
    assert read_json(written(tmp_path, "\ufeff" + '{"a": 1}')) == {"a": 1}
    # U+2028, U+0085 and a form feed end a line for str.splitlines, but not for JSON Lines.
    rows = [{"task": "pick\u2028up"}, {"task": "a\u0085b\u000c"}]
    text = "\ufeff" + "\r\n".join(json.dumps(row, ensure_ascii=False) for row in rows) + "\n\n"
    assert read_json_lines(written(tmp_path, text)) == rows


def test_a_damaged_line_is_named(tmp_path):
    with pytest.raises(DataError, match="line 2 is not valid JSON"):
        read_json_lines(written(tmp_path, '{"a": 1}\n{"a": \n'))


def test_nan_is_read_where_it_may_stand(tmp_path):
    value = read_json(written(tmp_path, '{"a": NaN}'), allow_nan=True)["a"]
    assert value != value


@pytest.mark.parametrize(
    "ask, fault",
    [
        (lambda o: o.integer("text"), "text is \"3\"; it must be a whole number"),
        (lambda o: o.integer("flag"), "flag is true; it must be a whole number"),
        (lambda o: o.integer("half"), "half is 0.5; it must be a whole number"),
        (lambda o: o.integer("three", Range(least=4)), "three is 3; it must be at least 4"),
        (lambda o: o.integer("huge"), "it must be a finite number"),
        (lambda o: o.number("text"), "it must be a number"),
        (lambda o: o.number("flag"), "it must be a number"),
        (lambda o: o.flag("three"), "it must be true or false"),
        (lambda o: o.text("three"), "it must be a text"),
        (lambda o: o.text("text", ("a", "b")), "it must be one of a, b"),
        (lambda o: o.numbers("three"), "it must be a list"),
        (lambda o: o.numbers("list", length=2), "it must have 2 entries, not 3"),
        (lambda o: o.numbers("list", Range(most=2)), "it must be at most 2, in every entry"),
        (lambda o: o.integers("halves"), "it must be a whole number, in every entry"),
        (lambda o: o.texts("list"), "it must be a text, in every entry"),
        (lambda o: o.flags("list"), "it must be true or false, in every entry"),
        (lambda o: o.object("list"), "it must be an object"),
        (lambda o: o.objects("list"), "it must be an object, in every entry"),
        (lambda o: o.integer("nothing"), "nothing is missing; there are 'three'"),
        (lambda o: o.integer("null"), "null is null; it must be a whole number"),
        (lambda o: o.object("inner").integer("depth"), "inner: depth is missing; there are no keys"),
    ],
)  # fmt: skip
def test_a_key_that_cannot_be_right_is_named_with_its_file(tmp_path, ask, fault):
    content = {"three": 3, "text": "3", "flag": True, "half": 0.5, "huge": 10**30, "list": [1, 2, 3]}
    content |= {"halves": [1, 0.5], "null": None, "inner": {}}
    path = written(tmp_path, json.dumps(content))
    with pytest.raises(CheckpointError) as error:
        ask(read_object(path, CheckpointError))
    assert str(error.value).startswith(str(path))
    assert fault in str(error.value)


def test_values_that_are_right_are_returned(tmp_path):
    content = {"n": 3, "x": 1, "on": False, "name": "a", "xs": [1, 2.5], "inner": {"k": [True]}, "null": None}
    content["rows"] = [{"i": 0}, {"i": 1}]
    found = read_object(written(tmp_path, json.dumps(content)))
    assert (found.integer("n", Range(least=3)), found.number("x"), found.flag("on")) == (3, 1.0, False)
    assert (found.text("name", ("a",)), found.numbers("xs", length=2)) == ("a", [1.0, 2.5])
    assert found.object("inner").flags("k") == [True]
    assert [row.integer("i") for row in found.objects("rows")] == [0, 1]
    assert found.integer("missing", default=7) == 7
    assert found.integer("null", default=None) is None


def test_a_list_where_an_object_belongs_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"must hold an object .* not a list"):
        read_object(written(tmp_path, "[]"))


@dataclass(frozen=True)
class Row:
    name: str
    count: int = 0
    share: float | None = None
    tags: list[str] = field(default_factory=list)
    more: dict[str, float] = field(default_factory=dict)


@pytest.mark.parametrize(
    "value, fault",
    [
        ([], "must hold an object"),
        ({"nme": "a"}, "No key 'nme'. Did you mean 'name'?"),
        ({"count": 1}, "name is missing"),
        ({"name": 1}, "name is 1; it must be a text"),
        ({"name": "a", "count": 1.5}, "count is 1.5; it must be a whole number"),
        ({"name": "a", "count": True}, "count is True; it must be a whole number"),
        ({"name": "a", "share": "x"}, "share is 'x'; it must be a number or null"),
        ({"name": "a", "tags": [1]}, "tags is [1]; it must be a list"),
        ({"name": "a", "more": {"b": "c"}}, "it must be an object"),
    ],
)
def test_a_row_that_is_no_row_is_named(value, fault):
    with pytest.raises(DataError, match=r"rows\.jsonl, line 3") as error:
        as_record(Row, value, "rows.jsonl, line 3")
    assert fault in str(error.value)


def test_a_row_comes_back():
    row = Row("a", 2, 0.5, ["b"], {"c": 1.0})
    assert as_record(Row, json.loads(json.dumps(asdict(row))), "here") == row
    assert as_record(Row, {"name": "a", "share": 1}, "here") == Row("a", share=1)
