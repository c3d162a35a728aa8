"""Checkpoints of format 1: archives of `torch.save`, read without torch and without pickle.

An archive is a ZIP file that holds the bytes of the tensors as they are, and a program of the
pickle machine that puts them together. `torch.load`, also with ``weights_only=True``, lets such a
program take any amount of memory (``bytearray(10**12)``; a tensor larger than its storage). Here
the few instructions that plain values and tensors need are carried out by hand, and any other is
refused.
"""

import io
import pickletools
import zipfile
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

ARCHIVE = b"PK\x03\x04"
"""How a ZIP file begins."""
_STORAGES = {
    "torch DoubleStorage": torch.float64,
    "torch FloatStorage": torch.float32,
    "torch HalfStorage": torch.float16,
    "torch BFloat16Storage": torch.bfloat16,
    "torch LongStorage": torch.int64,
    "torch IntStorage": torch.int32,
    "torch ShortStorage": torch.int16,
    "torch CharStorage": torch.int8,
    "torch ByteStorage": torch.uint8,
    "torch BoolStorage": torch.bool,
}
_TENSOR, _ORDERED = "torch._utils _rebuild_tensor_v2", "collections OrderedDict"
_MARK = object()
_CONSTANTS: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_DICT": dict,
    "EMPTY_LIST": list,
    "EMPTY_TUPLE": tuple,
    "MARK": lambda: _MARK,
}
_VALUES = {"BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE"}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


class _Name(str):
    """A name that the program asks for."""


def read_archive(data: bytes) -> dict[str, Any]:
    """Tensors and plain values of an archive.

    Args:
        data: The whole archive.

    Raises:
        ValueError: If it holds anything else, or its parts do not fit into its length.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            entries = archive.infolist()
            if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries) or sum(
                entry.file_size for entry in entries
            ) > len(data):
                raise ValueError("its parts are longer than the file")
            (program,) = [e for e in entries if e.filename.partition("/")[2] == "data.pkl"]
            folder = program.filename.removesuffix("data.pkl") + "data/"
            content = _Machine(lambda key: archive.read(folder + key)).run(archive.read(program))
    except (IndexError, KeyError, zipfile.BadZipFile, NotImplementedError, EOFError) as error:
        raise ValueError(f"{type(error).__name__}: {error}") from None
    if not isinstance(content, dict):
        raise ValueError("it is no mapping")
    if (number := content.pop("format", 1)) != 1:
        raise ValueError(f"an archive has format 1, this one says {number}")
    return content


class _Machine:
    """The pickle machine without its power to call.

    Args:
        read: Gives the bytes of a storage by its name.
    """

    def __init__(self, read: Callable[[str], bytes]) -> None:
        self.read = read
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}
        self.storages: dict[str, Tensor] = {}

    def run(self, program: bytes) -> Any:
        """What the program leaves on the stack."""
        for opcode, argument, _ in pickletools.genops(program):
            if opcode.name == "STOP":
                break
            self._do(opcode.name, argument)
        (content,) = self.stack
        return content

    def _do(self, name: str, argument: Any) -> None:
        stack = self.stack
        if name in _CONSTANTS:
            stack.append(_CONSTANTS[name]())
        elif name in _VALUES:
            stack.append(argument)
        elif name == "GLOBAL":
            stack.append(_Name(argument))
        elif name in ("BINPUT", "LONG_BINPUT"):
            self.memo[argument] = stack[-1]
        elif name in ("BINGET", "LONG_BINGET"):
            stack.append(self.memo[argument])
        elif name in _TUPLES:
            n = _TUPLES[name]
            if len(stack) < n:
                raise ValueError("its program ends early")
            stack[-n:] = [tuple(stack[-n:])]
        elif name == "TUPLE":
            stack.append(tuple(self._marked()))
        elif name in ("APPEND", "APPENDS"):
            items = [stack.pop()] if name == "APPEND" else self._marked()
            _is(list, stack[-1]).extend(items)
        elif name in ("SETITEM", "SETITEMS"):
            items = [stack.pop(-2), stack.pop()] if name == "SETITEM" else self._marked()
            _is(dict, stack[-1]).update(zip(items[::2], items[1::2], strict=True))
        elif name == "BUILD":
            # The versions of a state dict's modules, which nobody asks for
            stack.pop()
            _is(dict, stack[-1])
        elif name == "BINPERSID":
            stack.append(self._storage(*_is(tuple, stack.pop())))
        elif name == "REDUCE":
            arguments, asked = _is(tuple, stack.pop()), stack.pop()
            stack.append(self._made(asked, arguments))
        elif name != "PROTO":
            raise ValueError(f"instruction {name}")

    def _marked(self) -> list[Any]:
        """What lies above the last mark."""
        at = max((k for k, item in enumerate(self.stack) if item is _MARK), default=-1)
        if at < 0:
            raise ValueError("its program lacks a mark")
        items = self.stack[at + 1 :]
        del self.stack[at:]
        return items

    def _storage(self, kind: str, dtype: str, key: str, *_: Any) -> Tensor:
        if kind != "storage" or not isinstance(dtype, _Name) or dtype not in _STORAGES:
            raise ValueError(f"{kind} {dtype}")
        if key not in self.storages:
            data = bytearray(self.read(key))
            self.storages[key] = torch.frombuffer(data, dtype=torch.uint8) if data else torch.empty(
                0, dtype=torch.uint8
            )  # fmt: skip
        return self.storages[key].view(_STORAGES[dtype])

    def _made(self, asked: Any, arguments: tuple[Any, ...]) -> Any:
        if isinstance(asked, _Name) and asked == _ORDERED and not arguments:
            return {}
        if not (isinstance(asked, _Name) and asked == _TENSOR):
            raise ValueError(f"a call of {asked}")
        storage, offset, size, stride, *_ = arguments
        _is(Tensor, storage)
        numbers = (offset, *_is(tuple, size), *_is(tuple, stride))
        if not all(type(n) is int and 0 <= n < 2**48 for n in numbers) or len(size) != len(stride):
            raise ValueError(f"no tensor has the shape {size}")
        n = 1
        for length in size:
            n *= length
        last = offset + sum((k - 1) * step for k, step in zip(size, stride, strict=True))
        if n > len(storage) or (n and last >= len(storage)):
            raise ValueError(f"a tensor of {n} numbers is longer than its storage")
        return storage.as_strided(size, stride, offset)


def _is(kind: type, value: Any) -> Any:
    if not isinstance(value, kind):
        raise ValueError(f"{type(value).__name__} in the place of {kind.__name__}")
    return value
