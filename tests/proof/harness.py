"""Fuzzes one parser in this process until it ends: `harness.py NAME FOLDER [ARGUMENT OF LIBFUZZER…]`. Run by `fuzz.py`.

FOLDER: where the parser may write.
"""

import contextlib
import json
import random
import sys
from pathlib import Path
from typing import Any

import atheris

with atheris.instrument_imports(include=["imagewright", "yaml", "tomllib", "urllib.parse"]):
    from tests.proof.parsers import PARSERS


def changed_as_tree(data: bytes, longest: int, seed: int) -> bytes:
    """JSON with a node of its tree changed; half of the time, or where it is none, bytes changed anywhere."""
    chance = random.Random(seed)
    if chance.random() < 0.5:
        with contextlib.suppress(ValueError, RecursionError):
            changed = json.dumps(_changed(json.loads(data), chance)).encode()
            if len(changed) <= longest:
                return changed
    return bytes(atheris.Mutate(data, longest))


_ODD = (None, True, False, 0, -1, 2**63, 1.5, "", "a", "\ud800", "sha256:", [], {}, [None], {"a": None})


def _changed(node: Any, chance: random.Random) -> Any:
    """A tree with one node replaced, removed, doubled or put in another's place."""
    if not isinstance(node, dict | list) or not node or chance.random() < 0.1:
        return chance.choice(_ODD)
    keys: list[Any] = list(node) if isinstance(node, dict) else list(range(len(node)))
    key = chance.choice(keys)
    made = node.copy()
    match chance.randrange(8):
        case 0:
            del made[key]
        case 1:
            made[key] = node[chance.choice(keys)]
        case 2 if isinstance(made, list):
            made.insert(key, node[key])
        case _:
            made[key] = _changed(node[key], chance)
    return made


def main() -> None:
    """Does not return: libFuzzer ends the process."""
    name, folder, *arguments = sys.argv[1:]
    parser, scratch = PARSERS[name], Path(folder)
    mutator: dict[str, Any] = {"custom_mutator": changed_as_tree} if parser.is_json else {}
    atheris.Setup([sys.argv[0], *arguments], lambda data: parser.takes(data, scratch), **mutator)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
