"""The headers of MPEG audio frames: how long a frame is, and how many of them the tag of a file promises.

ISO/IEC 11172-3 and 13818-3; the tag is that of Xing and LAME, a frame of silence that comes first.
"""

import io

_KBITS_MPEG1 = (
    (32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),  # layer I
    (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),  # layer III
)
_KBITS_MPEG2 = (
    (32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
)
_RATES_HZ = {3: (44_100, 48_000, 32_000), 2: (22_050, 24_000, 16_000), 0: (11_025, 12_000, 8_000)}
LONGEST_FRAME_BYTES = 2881


def frame_bytes(header: bytes) -> int:
    """How long the frame with this header (4 bytes or more) is; 0 where it is no header, or gives no bit rate."""
    if len(header) < 4 or header[0] != 0xFF or header[1] & 0xE0 != 0xE0:
        return 0
    version, layer = header[1] >> 3 & 3, 3 - (header[1] >> 1 & 3)  # 3 is MPEG-1; 0, 1, 2 are the layers I, II, III
    kbits, rate, padding = header[2] >> 4, header[2] >> 2 & 3, header[2] >> 1 & 1
    if version == 1 or layer == 3 or kbits in (0, 15) or rate == 3:
        return 0
    bits_a_second = 1000 * (_KBITS_MPEG1 if version == 3 else _KBITS_MPEG2)[layer][kbits - 1]
    rate_hz = _RATES_HZ[version][rate]
    if layer == 0:
        return 4 * (12 * bits_a_second // rate_hz + padding)
    return (144 if version == 3 or layer == 1 else 72) * bits_a_second // rate_hz + padding


def adts_bytes(header: bytes) -> int:
    """How long the frame of AAC with this header (6 bytes or more) is; 0 where it is no header. ISO/IEC 13818-7."""
    if len(header) < 6 or header[0] != 0xFF or header[1] & 0xF6 != 0xF0:
        return 0
    return (header[3] & 3) << 11 | header[4] << 3 | header[5] >> 5


def promised_frames(file: io.IOBase, second_frame: int) -> int:
    """How many frames a tag promises that ends where the second frame begins (bytes into the file); 0 without a tag."""
    start = max(0, second_frame - LONGEST_FRAME_BYTES)
    file.seek(start)
    before = file.read(second_frame - start)
    at = max(before.rfind(b"Xing"), before.rfind(b"Info"))
    if at < 0 or len(before) < at + 12 or not before[at + 7] & 1:
        return 0
    return int.from_bytes(before[at + 8 : at + 12], "big")
