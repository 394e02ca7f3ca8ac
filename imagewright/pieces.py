"""JSON in pieces: what is said of 10,000 targets is never in memory as one text."""

import json
from collections.abc import Iterator, Mapping


def pieces(members: Mapping[str, object], *, in_order: bool = False) -> Iterator[str]:
    """The text of an object, piece by piece: as `json.dumps` writes it without blanks and without escapes.

    Members that are lists, or iterators, are taken one by one. in_order: names sorted, for a hash.
    """
    encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), sort_keys=in_order).encode
    yield "{"
    for at, name in enumerate(sorted(members) if in_order else members):
        value = members[name]
        yield f"{',' * bool(at)}{encode(name)}:"
        if isinstance(value, Mapping):
            yield from pieces(value, in_order=in_order)
        elif isinstance(value, list | tuple | Iterator):
            yield "["
            for number, one in enumerate(value):
                yield f"{',' * bool(number)}{encode(one)}"
            yield "]"
        else:
            yield encode(value)
    yield "}"
