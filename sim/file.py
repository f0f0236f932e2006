"""The ``.gw`` file: a safetensors container of encoded arrays with a JSON manifest in its metadata.

The manifest is covered by a SHA-256 digest beside it, the arrays by one within it, so that any
changed byte is found before anything is computed. Reading executes nothing.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from pydantic import ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from ..kernels.errors import FormatError, GatewiseError
from .atomic import write_bytes
from .manifest import Manifest
from .network import Network
from .validation import first_problem

__all__ = ["dump_manifest", "load", "payload_digest", "save_network"]

MANIFEST_KEY = "gatewise"
DIGEST_KEY = "gatewise.sha256"


def payload_digest(arrays: Mapping[str, np.ndarray]) -> str:
    """SHA-256 over names, dtypes, shapes and bytes of all arrays, in the order of their names."""
    digest = hashlib.sha256()
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        digest.update(f"{name}:{array.dtype.str}:{array.shape};".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def dump_manifest(manifest: Manifest) -> str:
    """The manifest as compact JSON, defaults left out."""
    content = manifest.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    content["schema"] = manifest.schema_version
    for node, model in zip(content["nodes"], manifest.nodes, strict=True):
        # The discriminators are defaults of their classes, but the reader needs them.
        node["op"] = model.op
        for part in ("weights", "requant"):
            if part in node:
                value = getattr(model, part)
                kind = "scheme" if part == "weights" else "kind"
                node[part][kind] = getattr(value, kind)
    return json.dumps(content, separators=(",", ":"))


def save_network(network: Network, path: str | Path) -> int:
    """Write a ``.gw`` file atomically; returns its bytes."""
    text = dump_manifest(network.manifest)
    metadata = {MANIFEST_KEY: text, DIGEST_KEY: hashlib.sha256(text.encode()).hexdigest()}
    arrays = {name: np.ascontiguousarray(array) for name, array in network.arrays.items()}
    data = _in_order(save(arrays, metadata=metadata))
    write_bytes(path, data)
    return len(data)


def _in_order(data: bytes) -> bytes:
    """The same file with the keys of its header sorted: safetensors leaves the order of metadata to chance."""
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    text = json.dumps(header, sort_keys=True, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + data[8 + length :]


def load(path: str | Path) -> Network:
    """Read a ``.gw`` file; `FormatError` names what is wrong with it."""
    try:
        manifest, arrays = _read(Path(path))
        return Network(manifest, arrays)
    except GatewiseError as error:
        raise type(error)(f"{path}: {error}") from error


def _read(path: Path) -> tuple[Manifest, dict[str, np.ndarray]]:
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            arrays = {name: file.get_tensor(name) for name in file.keys()}
    except OSError as error:
        raise FormatError(f"must be a readable file: {error.strerror or error}") from error
    except (SafetensorError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise FormatError(f"must be a safetensors file: {str(error).splitlines()[0]}") from error
    text = metadata.get(MANIFEST_KEY)
    if text is None:
        raise FormatError(f"must be a Gatewise network: its metadata lacks the key {MANIFEST_KEY!r}")
    if hashlib.sha256(text.encode()).hexdigest() != metadata.get(DIGEST_KEY):
        raise FormatError("the manifest must match its SHA-256 digest: the file was changed or damaged")
    try:
        manifest = Manifest.model_validate_json(text)
    except ValidationError as error:
        raise FormatError(f"manifest: {first_problem(error)}") from error
    if payload_digest(arrays) != manifest.payload_sha256:
        raise FormatError("the arrays must match the manifest's SHA-256 digest: the file was changed or damaged")
    return manifest, arrays
