"""Small images of each kind, and files that only look like one."""

import struct
import zlib


def png(width: int = 2, height: int = 2, tail: bytes = b"") -> bytes:
    """Return a PNG that decoders accept, of one color. A huge one is a decompression bomb."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    packer = zlib.compressobj(9)
    row = b"\0" * (1 + width)
    rows = b"".join([*(packer.compress(row) for _ in range(height)), packer.flush()])
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    chunks = chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks + tail


def jpeg(*sizes: tuple[int, int]) -> bytes:
    """Return the headers of a JPEG with a frame of each of these sizes, and a scan."""
    frames = b"".join(
        b"\xff\xc0\x00\x0b\x08" + struct.pack(">HH", height, width) + b"\x01\x01\x11\x00"
        for width, height in sizes
    )
    comment = b"\xff\xfe\x00\x08<html>"
    return b"\xff\xd8\xff\xe0\x00\x06JFIF" + comment + frames + b"\xff\xda\x00\x02\x00\xff\xd9"


def gif(width: int, height: int, *frames: tuple[int, int]) -> bytes:
    """Return a GIF with a canvas, and frames of these sizes at its corner."""
    head = b"GIF89a" + struct.pack("<HHBBB", width, height, 0x80, 0, 0) + b"\0" * 6
    loop = b"\x21\xff\x0bNETSCAPE2.0\x03\x01\0\0\0"
    images = b"".join(
        b"\x2c" + struct.pack("<HHHHB", 0, 0, *frame, 0x00) + b"\x02\x02\x4c\x01\0"
        for frame in frames
    )
    return head + loop + images + b"\x3b"


def webp(kind: bytes, width: int, height: int) -> bytes:
    """Return the headers of a WebP: simple (`VP8 `), lossless (`VP8L`) or extended (`VP8X`)."""
    match kind:
        case b"VP8 ":
            data = b"\0\0\0\x9d\x01\x2a" + struct.pack("<HH", width | 0x4000, height)
        case b"VP8L":
            data = b"\x2f" + struct.pack("<I", width - 1 | height - 1 << 14)
        case _:
            sides = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
            data = b"\0\0\0\0" + sides
    chunk = kind + struct.pack("<I", len(data)) + data
    return b"RIFF" + struct.pack("<I", len(chunk) + 4) + b"WEBP" + chunk
