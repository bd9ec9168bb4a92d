"""The scanner of ordinary JSON Lines: what it accepts is what `json.loads` and Arrow read, to the last byte.

pytest tests/resources/test_scanner.py -m slow        three million lines rather than thirty thousand
"""

from __future__ import annotations

import json
from random import Random

import pytest

from dsir_dagster.resources.corpus import lines, scanner
from dsir_dagster.resources.corpus.fields import RecordFields
from dsir_dagster.resources.corpus.lines import LineBlock
from dsir_dagster.resources.corpus.scanner import scan

FIELDS = [
    RecordFields(("text",), "id", "source"),
    RecordFields(("text",), "m", "x"),
    RecordFields(("text",), "s", None),
    RecordFields(("text",)),
    RecordFields(("",), "text", "é"),
]
GOOD = b'{"text":"a","id":"b"}'

WORDS = [
    "a",
    "word ",
    "x" * 61,
    "y" * 64,
    "z" * 130,
    "é",
    "中文",
    "😀",
    "\x7f",
    "\u2028",
    "[",
    "}",
    ",",
    ":",
    "{",
]
ESCAPES = [r"\n", r"\"", r"\\", r"\/", r"\b\f\r\t", r"\u0041", r"\u00e9", r"\u07FF\u0800\uFFFF", r"\u0000"]
ESCAPES += [r"\ud83d\ude00", r"\uDBFF\uDFFF", r"\n" * 40]
BAD_STRINGS = [
    r"\ud800",
    r"\udc00",
    r"\ud800\ud800",
    r"\ud800\u0041",
    r"\ud83dx",
    r"\x41",
    r"\u00g0",
    r"\u12",
    "\\",
]
BAD_STRINGS += ["\t", "\0", "\x1f", '"', r"\uD83D\uE000", r"\ud83d\n"]
NUMBERS = "0 7 -12 123456789012345678 -12345678901234567 1.5 -0.0 1e5 1E-05 2.5e+3".split()
ODD_NUMBERS = (
    "-0 1.0 1234567890123456789 1e400 01 - -01 1. .5 1e 1e+ +1 NaN 0x1 Infinity -Infinity --1".split()
)
ODD_NUMBERS += "1.5.2 1e5e5 1_0 Inf -NaN 123456789012345678901234567890".split()
NAMES = ["true", "false", "null"]
ODD = "True nul nulll falsE tru undefined 'a' ] } {] [} [1,] [,1] [1;2] [[[ [1[ {a:1} {1:2} {[]:1}".split()
ODD += ["", '{"a"}', '{"a":}', '{"a":1,}', '["a" "b"]', '{"a":1 "b":2}', '{"a":[}', "[" * 70 + "]" * 70]
KEYS = ["text", "id", "source", "m", "s", "x", "", "é", "m.s", "m.id", "metadata", "Text", "tex"]
KEYS += [r"te\u0078t", r"\u006d"]
INTERESTING = b'"\\{}[],:0179eE+-.tfnu \t\r\x00\x1f\x7f\x80\xc3\xa9\xed\xa0\xef\xbb\xbfd8'


def string(draw: Random) -> str:
    """Return a string as JSON, now and then a bad one."""
    parts = [draw.choice(WORDS if draw.random() < 0.7 else ESCAPES) for _ in range(draw.randrange(5))]
    if draw.random() < 0.004:
        parts.insert(draw.randrange(len(parts) + 1), draw.choice(BAD_STRINGS))
    return '"' + "".join(parts) + '"'


def value(draw: Random, depth: int = 0) -> str:
    """Return a value as JSON, now and then a bad or an odd one."""
    kind = draw.random()
    if kind < 0.45:
        return string(draw)
    if kind < 0.65:
        return draw.choice(NUMBERS if draw.random() < 0.98 else ODD_NUMBERS)
    if kind < 0.80 or depth > 3:
        return draw.choice(NAMES if draw.random() < 0.98 else ODD)
    if kind < 0.88:
        return "[" + separated(draw, [value(draw, depth + 1) for _ in range(draw.randrange(3))]) + "]"
    return of(draw, [(draw.choice(KEYS), value(draw, depth + 1)) for _ in range(draw.randrange(4))])


def separated(draw: Random, items: list[str]) -> str:
    return f"{blank(draw)},{blank(draw)}".join(items) + blank(draw)


def blank(draw: Random) -> str:
    kind = draw.random()
    return "" if kind < 0.5 else " " if kind < 0.9 else "\t " if kind < 0.9995 else draw.choice("\r\f\v\xa0")


def of(draw: Random, members: list[tuple[str, str]]) -> str:
    """Return an object as JSON."""
    written = [f'"{key}"{blank(draw)}:{blank(draw)}{value}' for key, value in members]
    return "{" + blank(draw) + separated(draw, written) + "}"


def line(draw: Random, text: str) -> bytes:
    """Return a line that has this text, mostly an ordinary one; the others are bad or odd in any way."""
    members = [(text, string(draw))] if draw.random() < 0.97 else []
    if draw.random() < 0.95:
        keys = draw.sample([key for key in KEYS if key != text], draw.randrange(4))
    else:
        keys = draw.choices(KEYS, k=3)
    members += [(key, value(draw)) for key in keys]
    if draw.random() < 0.5:
        draw.shuffle(members)
    made = of(draw, members).encode()
    kind = draw.random()
    if kind < 0.25:  # a byte or two are others
        at, n = draw.randrange(len(made)), draw.randrange(3)
        new = bytes(draw.choices(INTERESTING, k=draw.randrange(3)))
        made = made[:at] + new + made[at + n :]
    elif kind < 0.28:
        made = made[: draw.randrange(len(made))]
    elif kind < 0.30:
        made = draw.choice([b"\xef\xbb\xbf", b" ", b"", b"[", b"\0"]) + made
        made += draw.choice([b"", b" ", b"}", b"{}", made, b",", b"\0", b"\r", b"\r\r", b"x"])
    return made.replace(b"\n", b" ")


def scanned(data: bytes, n: int, fields: RecordFields) -> list[tuple] | None:
    """Return text, id and origin of each line, or None if the scanner refuses them."""
    found = scan(data, n, fields.names)
    if found is None:
        return None
    by_name = dict(zip(fields.names, (column.to_pylist() for column in found), strict=True))
    nothing = [None] * n
    others = (by_name[name] if name else nothing for name in (fields.id, fields.source))
    return list(zip(by_name[fields.text[0]], *others, strict=True))


def without_scanner(block: LineBlock, patch: pytest.MonkeyPatch) -> object:
    """Parse a block as if the scanner refused it."""
    with patch.context() as patched:
        patched.setattr(scanner, "scan", lambda *_: None)
        return comparable(block)


def comparable(block: LineBlock) -> object:
    batch = block.parse()
    batch.texts.validate(full=True)
    values = [c if c is None else c.to_pylist() for c in (batch.texts, batch.ids, batch.sources)]
    return batch.rows.tolist(), *values, batch.rejected, batch.n_bytes


def check(seed: int, n_lines: int, patch: pytest.MonkeyPatch) -> int:
    """Compare as many lines, one by one with `json.loads`, in blocks with Arrow; return how many are accepted."""
    draw = Random(seed)
    fields = FIELDS[seed % len(FIELDS)]
    accepted: list[bytes] = []
    expected: list[tuple] = []
    refused = [b""]
    for _ in range(n_lines):
        made = line(draw, fields.text[0])
        try:
            text = made.decode()
        except UnicodeDecodeError:
            continue
        found = scanned(made, 1, fields)
        if found is None:
            refused.append(made)
            continue
        assert found == [fields.extract(json.loads(text, parse_constant=pytest.fail))], made
        accepted.append(made.rstrip(b"\r"))
        expected += found
    ends = [draw.choice([b"\n", b"\n", b"\r\n"]) for _ in accepted]
    ends[-1:] = [draw.choice([b"\n", b"", b"\r"])]
    data = b"".join(map(bytes.__add__, accepted, ends))
    block = LineBlock("x", fields, 0, len(accepted), data)
    assert scanned(data, len(accepted), fields) == expected
    assert comparable(block) == without_scanner(block, patch)
    # One line that is refused among them.
    at, bad = draw.randrange(len(accepted)), draw.choice(refused)
    cut = sum(map(len, accepted[:at])) + sum(map(len, ends[:at]))
    assert scan(data[:cut] + bad + b"\n" + data[cut:], len(accepted) + 1, fields.names) is None
    # Short blocks of any lines, with all that is said of them.
    for _ in range(n_lines // 100):
        several = b"\n".join(line(draw, fields.text[0]) for _ in range(draw.randrange(1, 4)))
        several += b"\n" if not several or draw.random() < 0.5 else b""
        block = LineBlock("x", fields, 0, several.count(b"\n") + (not several.endswith(b"\n")), several)
        assert comparable(block) == without_scanner(block, patch), several
    return len(accepted)


@pytest.mark.parametrize("seed", range(len(FIELDS)))
def test_what_is_accepted_is_what_json_and_arrow_read(seed, monkeypatch):
    assert check(seed, 3000, monkeypatch) > 1000


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(100, 1100))
def test_what_is_accepted_is_what_json_and_arrow_read_of_millions(seed, monkeypatch):
    assert check(seed, 3000, monkeypatch) > 1000


@pytest.mark.parametrize(
    ("made", "names", "expected"),
    [
        (GOOD, ("text", "id"), ["a", "b"]),
        (b'{"text": "a", "meta": {"set": "Wiki", "n": [1, {}]}}\r', ("text", "id"), ["a", None]),
        (b'{"url":"u","timestamp":"t","text":"a\\n\\u00e9"}', ("text", "url"), ["a\né", "u"]),
        (b'{"id":17,"n":0.5,"tags":[],"text":"","x":null,"m":{"a":{"b":[[]]}}}', ("text", "id"), ["", "17"]),
        (b'{"text":"a","id":-12,"m":null}', ("text", "id", "m"), ["a", "-12", None]),
        (b'{"text":"a","id":""}', ("text", "id"), ["a", None]),
        (b'{"te\\u0078t":"a","x":' + b"[" * 60 + b"]" * 60 + b"}", ("text",), ["a"]),
    ],
)  # fmt: skip
def test_ordinary_lines_are_accepted(made, names, expected):
    for data in (made, made + b"\n"):
        assert [column.to_pylist() for column in scan(data, 1, names)] == [[each] for each in expected]
    other = scan(GOOD + b"\n" + made + b"\n" + GOOD, 3, names)
    assert [column.to_pylist()[1] for column in other] == expected


@pytest.mark.parametrize(
    "made",
    [
        b"",
        b" ",
        b"\xef\xbb\xbf" + GOOD,
        b" " + GOOD,
        GOOD + b",",
        GOOD + GOOD,
        GOOD[:-1],
        GOOD[:-2],
        b'["text"]',
        b"{}",
        b'{"id":"b"}',
        b'{"text":null}',
        b'{"text":1}',
        b'{"text":["a"]}',
        b'{"text":"a","text":"b"}',
        b'{"text":"a","id":1,"id":2}',
        b'{"text":"a","te\\u0078t":"b"}',
        b'{"text":"a","id":true}',
        b'{"text":"a","id":1.0}',
        b'{"text":"a","id":-0}',
        b'{"text":"a","id":1234567890123456789}',
        b'{"text":"a","id":[]}',
        b'{"text":"a","id":{}}',
        b'{"text":"a","x":"\\ud800"}',
        b'{"text":"a","x":NaN}',
        b'{"text":"a","x":01}',
        b'{"text":"a","x":[1,]}',
        b'{"text":"a","x":{"y":}}',
        b'{"text":"a\tb"}',
        b'{"text":"a\0b"}',
        b'{"text":"a","x":' + b"[" * 61 + b"]" * 61 + b"}",
    ],
)
def test_others_are_refused(made):
    names = ("text", "id")
    assert scan(made, 1, names) is None
    assert scan(GOOD + b"\n" + made + b"\n" + GOOD, 3, names) is None


def test_blocks_that_are_refused_go_on_to_arrow(monkeypatch):
    monkeypatch.setattr(lines, "parse_lines", None)
    fields = FIELDS[0]
    data = b'{"text":"a","id":1.0}\n{"text":"a","id":2.0}'
    assert scan(data, 2, fields.names) is None
    assert comparable(LineBlock("x", fields, 5, 2, data))[:3] == ([5, 6], ["a", "a"], ["1", "2"])
