"""Small datasets written to disk in the published layouts."""

import gzip
import io
import struct

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image


def noise(seed, *, height=8, width=8):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def png(pixels):
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, format="PNG")
    return stream.getvalue()


def write_class_folders(root, class_names, per_class, *, height=8, width=8, seed=0, suffix=".png"):
    """PNG images named 0, 1, ...; returns name of class -> pixels in order of name."""
    written = {}
    for number, name in enumerate(class_names):
        (root / name).mkdir(parents=True)
        written[name] = []
        for image in range(per_class):
            pixels = noise((seed, number, image), height=height, width=width)
            (root / name / f"{image:03d}{suffix}").write_bytes(png(pixels))
            written[name].append(pixels)
    return written


def write_parquet(path, images, labels, *, image_column="image", label_column="label", metadata=None):
    """``images`` are encoded; ``metadata`` goes to the schema."""
    cells = pa.array(
        [{"bytes": content, "path": None} for content in images],
        type=pa.struct([("bytes", pa.binary()), ("path", pa.string())]),
    )
    table = pa.table({image_column: cells, label_column: labels})
    pq.write_table(table.replace_schema_metadata(metadata), path)


def write_idx(path, array):
    header = struct.pack(">HBB", 0, 8, array.ndim) + struct.pack(f">{array.ndim}I", *array.shape)
    content = header + array.astype(np.uint8).tobytes()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
