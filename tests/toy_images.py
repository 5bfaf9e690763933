"""Image files that no program would save."""

import io
import struct
import zlib

from PIL import Image


def bomb(width: int, height: int) -> bytes:
    """A PNG of some hundred bytes whose header announces width x height pixels."""
    stream = io.BytesIO()
    Image.new("RGB", (1, 1)).save(stream, "PNG")
    content = bytearray(stream.getvalue())
    content[16:24] = struct.pack(">II", width, height)  # in the first chunk, IHDR
    content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
    return bytes(content)
