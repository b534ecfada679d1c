"""An excerpt has the members of its shape, wherever the value is cut."""

import msgspec
import pytest

from gateway.metering.excerpt import (
    MAX_KEY,
    MAX_VALUE,
    MAX_WORD,
    TOO_LONG,
    Excerpt,
    Leaf,
    Text,
    shape_of,
)
from gateway.metering.reading import Form

SHAPE = {
    "whole": Leaf.WHOLE,
    "word": Leaf.WORD,
    "number": Leaf.NUMBER,
    "text": Leaf.TEXT,
    "inner": {"number": Leaf.NUMBER, "texts": [Leaf.TEXT]},
    "list": [{"number": Leaf.NUMBER}],
}
SAME = None  # the excerpt is the value itself
VALUES = [
    # a whole value
    (b'{"whole":{"a": [1, {"b": "}"}], "c": "\\"]"}}', SAME),
    (b'{"whole":[[], {}, [[{"deep": [[[1]]]}]]]}', SAME),
    (b'{"whole":"a \\"word\\" \\\\"}', SAME),
    (b'{"whole":-12.5e3}', SAME),
    (b'{"whole":null,"number":1}', SAME),
    (b'{"whole":%b}' % (b"7" * MAX_WORD), SAME),
    (b'{"whole":%b}' % (b"7" * (MAX_WORD + 1)), b'{"whole":%b}' % TOO_LONG),
    # a word
    (b'{"word":"auto"}', SAME),
    (b'{"word":"\\u0061ut\\u006f"}', b'{"word":"auto"}'),
    (b'{"word":"%b"}' % (b"x" * MAX_WORD), SAME),
    (b'{"word":"%b"}' % (b"\\u0078" * MAX_WORD), b'{"word":"%b"}' % (b"x" * MAX_WORD)),
    (b'{"word":"%b"}' % (b"x" * 200), b'{"word":"%b"}' % (b"x" * (MAX_WORD + 1))),
    (b'{"word":"%b"}' % (b"x" * 12 * MAX_WORD), b'{"word":"%b"}' % (b"x" * (MAX_WORD + 1))),
    (b'{"word":"%b"}' % (b"x" * (12 * MAX_WORD + 1)), b'{"word":null}'),
    (b'{"word":"\\x"}', b'{"word":null}'),
    (b'{"word":5}', b'{"word":null}'),
    (b'{"word":["auto"],"number":1}', b'{"word":null,"number":1}'),
    # a number
    (b'{"number":0}', SAME),
    (b'{"number":-31}', SAME),
    (b'{"number":1000000000000000000}', SAME),
    (b'{"number":10000000000000000000}', b'{"number":null}'),
    (b'{"number":01}', b'{"number":null}'),
    (b'{"number":1.5}', b'{"number":null}'),
    (b'{"number":true}', b'{"number":null}'),
    (b'{"number":"7"}', b'{"number":null}'),
    (b'{"number":{"number":7},"word":"a"}', b'{"number":null,"word":"a"}'),
    # the size of a text
    (b'{"text":"four"}', b'{"text":4}'),
    (b'{"text":""}', b'{"text":0}'),
    (b'{"text":"\xc3\xa9"}', b'{"text":2}'),
    (b'{"text":"\\n\\"\\\\"}', b'{"text":3}'),
    (b'{"text":"\\u20ac\\u20ac"}', b'{"text":6}'),
    (b'{"text":17}', b'{"text":null}'),
    (b'{"text":["four"]}', b'{"text":null}'),
    # members
    (b"{}", SAME),
    (b'{"":1,"number":2}', b'{"number":2}'),
    (b'\xef\xbb\xbf { "number" : 1 , "text" : "a" } ', b'{"number":1,"text":1}'),
    (b'{"other":{"number":1},"inner":{"number":2}}', b'{"inner":{"number":2}}'),
    (
        b'{"inner":{"word":"a","texts":["a","bc",5],"number":1}}',
        b'{"inner":{"texts":[1,2,null],"number":1}}',
    ),
    (
        b'{"list":[{"number":1},{},{"other":{}},7,{"number":2}]}',
        b'{"list":[{"number":1},{},{},null,{"number":2}]}',
    ),
    (b'{"list":[],"inner":{}}', SAME),
    (b'{"list":{"number":1},"inner":[1]}', b'{"list":null,"inner":null}'),
    (b'{"n\\u0075mber":1}', b'{"number":1}'),
    (b'{"%b":1,"number":2}' % (b"n" * (MAX_KEY + 1)), b'{"number":2}'),
    (b'{"a":"\\"number\\":1","b":[[["\\\\"]]],"c":{"d":"{"},"number":2}', b'{"number":2}'),
]  # fmt: skip
MALFORMED = [
    b'{"number":}', b'{"number" 1}', b'{"number"=1}', b"{,}", b'{"number":1,}', b'{"number":1]',
    b'{"number":1 "text":2}', b'{"list":[1}', b'{"list":[,]}', b'{"list":[]]}', b"{} {}", b"{}x",
    b"{1:2}", b'{"inner":{"number":1]}', b'{\xef\xbb\xbf"number":1}',
]  # fmt: skip
UNFINISHED = [
    b"", b"{", b'{"number', b'{"number"', b'{"number":', b'{"number":1', b'{"number":1,',
    b'{"text":"four', b'{"other":[1', b'{"whole":{"a":1}',
]  # fmt: skip


class Inner(msgspec.Struct):
    number: int
    texts: list[Text] | None = None


class Outer(msgspec.Struct):
    whole: msgspec.Raw
    word: str | None
    number: int | None
    text: Text
    inner: Inner | None
    items: list[Inner | None] = msgspec.field(name="list")


def test_the_shape_of_a_struct_has_a_leaf_for_each_field():
    inner = {"number": Leaf.NUMBER, "texts": [Leaf.TEXT]}
    assert shape_of(Outer) == {
        "whole": Leaf.WHOLE,
        "word": Leaf.WORD,
        "number": Leaf.NUMBER,
        "text": Leaf.TEXT,
        "inner": inner,
        "list": [inner],
    }
    excerpt = Form(Inner).excerpt()
    excerpt.feed(b'{"texts":["four"],"number":7,"other":1}')
    assert excerpt.result() == b'{"texts":[4],"number":7}'


def excerpt_of(*pieces: bytes) -> bytes | None:
    """Return the excerpt of a value that arrives in pieces."""
    excerpt = Excerpt(SHAPE)
    for piece in pieces:
        excerpt.feed(piece)
    return excerpt.result()


@pytest.mark.parametrize(("value", "expected"), VALUES, ids=lambda value: (value or b"")[:40])
def test_an_excerpt_is_the_same_wherever_the_value_is_cut(value: bytes, expected: bytes | None):
    expected = value if expected is SAME else expected
    assert excerpt_of(value) == expected
    assert excerpt_of(*(value[at : at + 1] for at in range(len(value)))) == expected
    for at in range(1, min(len(value), 100)):
        assert excerpt_of(value[:at], value[at:]) == expected, at


@pytest.mark.parametrize("value", [*MALFORMED, *UNFINISHED])
def test_what_is_not_one_whole_object_has_no_excerpt(value: bytes):
    assert excerpt_of(value) is None
    assert excerpt_of(*(value[at : at + 1] for at in range(len(value)))) is None


def test_a_whole_value_is_kept_up_to_a_size_and_its_excess_is_reported():
    for opening, closing in ((b'"', b'"'), (b"[", b"]")):
        fits = MAX_VALUE - (2 if opening == b"[" else 0)
        value = b'{"whole":%b%b%b}' % (opening, b"7" * fits, closing)
        assert excerpt_of(value) == value
        longer = value.replace(b"77", b"777", 1)
        assert excerpt_of(longer) == b'{"whole":%b}' % TOO_LONG


def test_texts_are_counted_before_they_end():
    excerpt = Excerpt(SHAPE)
    excerpt.feed(b'{"text":"four","inner":{"texts":["ab')
    assert excerpt.text == 6
    excerpt.feed(b'c\\n"],"texts":["d"]},"word":"not counted","whole":"nor this')
    assert excerpt.text == 9


def test_a_rejected_excerpt_stays_rejected():
    excerpt = Excerpt(SHAPE)
    excerpt.feed(b'{"number":1}')
    assert excerpt.result() == b'{"number":1}'
    excerpt.reject()
    excerpt.feed(b"\n")
    assert excerpt.result() is None
