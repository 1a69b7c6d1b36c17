"""What passes between the grader and a child that runs student code: JSON and plain
arrays in frames with a length. No pickle, so that nothing that arrives can run.

A frame is 8 bytes of lengths (JSON, arrays), then the JSON, then the bytes of all
arrays. `decode` believes nothing: it runs in the grader on what student code may have
written.
"""

from __future__ import annotations

import json
import math
import struct

import numpy as np

HEAD = struct.Struct("<II")
MOST_JSON, MOST_BYTES = 4 << 20, 32 << 20  # what a frame may hold
MOST_VALUES = 300_000  # outside arrays; each takes up to half a kilobyte when decoded
DTYPES = ("bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32")
DTYPES += ("uint64", "float16", "float32", "float64")
PLAIN = frozenset((type(None), bool, int, float, str))  # what JSON has itself


class BadFrame(ValueError):
    "What came is no frame of this protocol, or one that is too large."


def _plain(value, arrays: list, depth: int = 0):
    if depth > 40:
        raise TypeError("the answer is nested more than 40 levels deep")
    if type(value) in PLAIN:
        return value
    if type(value) in (list, tuple):
        if PLAIN.issuperset(map(type, value)):  # most lists, and quicker so
            return list(value)
        return [_plain(v, arrays, depth + 1) for v in value]
    if isinstance(value, dict):
        keys = [k.item() if isinstance(k, np.generic) else k for k in value]
        if not all(isinstance(k, (str, int)) for k in keys):
            raise TypeError("the keys of a dict must be strings or whole numbers")
        items = zip(keys, value.values())
        return {"dict": [[str(k), _plain(v, arrays, depth + 1)] for k, v in items]}
    if hasattr(value, "detach") and hasattr(value, "cpu"):  # a tensor, on any device
        value = value.detach().cpu()
        for resolve in ("resolve_conj", "resolve_neg"):
            value = getattr(value, resolve, lambda value=value: value)()
        value = value.to_dense() if getattr(value, "is_sparse", False) else value
        value = value.float() if "bfloat16" in str(value.dtype) else value
        value = value.numpy()
    if isinstance(value, (set, frozenset, range)):
        return [_plain(v, arrays, depth + 1) for v in sorted(value)]
    if isinstance(value, np.generic) and not isinstance(value, np.void):
        value = _native(np.asarray(value))
        if value.dtype.name in DTYPES:  # NumPy's numbers can more than Python's
            return {"scalar": [value.dtype.name, value.item()]}
        return _plain(value.item(), arrays, depth + 1)
    if isinstance(value, np.ndarray):
        value = _native(np.asarray(value))
        if value.dtype.name not in DTYPES:
            raise TypeError(f"an array of {value.dtype} can't be an answer")
        arrays.append(np.ascontiguousarray(value).tobytes())
        shape = [int(n) for n in value.shape]
        return {"array": [value.dtype.name, shape]}
    if isinstance(value, (int, float, str)):  # of a subclass: its plain value
        base = next(t for t in (int, float, str) if isinstance(value, t))
        return base.__call__(value)
    if isinstance(value, (list, tuple)):
        return [_plain(v, arrays, depth + 1) for v in list.__iter__(list(value))]
    raise TypeError(
        f"a {type(value).__name__} can't be an answer: return numbers, strings, lists, "
        "dicts, NumPy arrays or PyTorch tensors"
    )


def _native(array: np.ndarray) -> np.ndarray:
    "In this machine's order of bytes, and in a precision that every machine has."
    if array.dtype.kind == "f" and array.dtype.itemsize > 8:
        return array.astype(np.float64)
    return array.astype(array.dtype.newbyteorder("="), copy=False)


def _count(told: bytes) -> int:
    "No fewer values than a text of JSON holds."
    return sum(map(told.count, (b",", b"[", b"{")))


def encode(value) -> bytes:
    "A value as a frame; TypeError for what is neither JSON nor an array."
    arrays: list[bytes] = []
    told = json.dumps(_plain(value, arrays)).encode()
    data = b"".join(arrays)
    if _count(told) > MOST_VALUES:
        raise TypeError(
            f"the answer holds more than {MOST_VALUES} values outside arrays: it is "
            "too large; return NumPy arrays"
        )
    if len(told) > MOST_JSON or len(data) > MOST_BYTES:
        raise TypeError(
            f"the answer is too large: {(len(told) + len(data)) / 2**20:.0f} MB"
        )
    return HEAD.pack(len(told), len(data)) + told + data


def sizes(head: bytes) -> tuple[int, int]:
    "The lengths that the first 8 bytes announce; BadFrame where they are too large."
    told, data = HEAD.unpack(head)
    if told > MOST_JSON or data > MOST_BYTES:
        raise BadFrame("an answer that is larger than allowed")
    return told, data


class _Reader:
    def __init__(self, data: bytes):
        self.data, self.at = data, 0

    def value(self, told, depth: int = 0):
        if depth > 50:
            raise BadFrame("nested too deep")
        if isinstance(told, list):
            if PLAIN.issuperset(map(type, told)):
                return told
            return [self.value(v, depth + 1) for v in told]
        if not isinstance(told, dict):
            return told
        if set(told) == {"dict"} and isinstance(told["dict"], list):
            return {str(k): self.value(v, depth + 1) for k, v in told["dict"]}
        if set(told) == {"array"}:
            return self.array(*told["array"])
        if set(told) == {"scalar"}:
            return self.scalar(*told["scalar"])
        raise BadFrame("an object of unknown form")

    def scalar(self, dtype, value):
        if dtype not in DTYPES or type(value) not in (bool, int, float):
            raise BadFrame("a number of unknown form")
        return np.dtype(dtype).type(value)

    def array(self, dtype, shape):
        if dtype not in DTYPES or not isinstance(shape, list) or len(shape) > 12:
            raise BadFrame("an array of unknown form")
        if not all(type(n) is int and 0 <= n <= MOST_BYTES for n in shape):
            raise BadFrame("an array of impossible shape")
        size = math.prod(shape) * np.dtype(dtype).itemsize
        if size > len(self.data) - self.at:
            raise BadFrame("an array that is longer than its bytes")
        found = np.frombuffer(self.data[self.at : self.at + size], dtype)
        self.at += size
        return found.reshape(shape).copy()


def decode(told: bytes, data: bytes):
    "The value of a frame, as new plain objects; BadFrame for anything else."
    try:
        if _count(told) > MOST_VALUES:
            raise BadFrame(f"more than {MOST_VALUES} values outside arrays")
        return _Reader(data).value(json.loads(told))
    except BadFrame:
        raise
    except (ValueError, TypeError, RecursionError, OverflowError, MemoryError) as e:
        raise BadFrame(f"no valid frame ({type(e).__name__})") from None
