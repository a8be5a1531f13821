"""What stands where in each frame of a clip, and the counter by which a frame that was recorded tells which one it is.

`generate.py` writes it, `score.py` reads it. No encoding, no files but the truth's own.
"""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

WIDTH, HEIGHT, FPS = 1920, 1080, 30

# The counter: a strip under the text. Its blocks are 64x40 px, so that 14x9 are left of one at 240p, and lie on
# macroblocks of the source. The two outer blocks of the code are always dark and always light: what lies between is
# measured against them, whatever an encoder did to the contrast.
STRIP_TOP = 1040
BLOCK_WIDTH = 64
BITS = 10
DARK, LIGHT = 24, 224
# Where a block is read: the middle half, away from neighbours and from the picture's edge.
INSET_X, INSET_Y = 16, 10
# A block this near to the middle between dark and light is not read, nor one of a strip with less contrast than this.
DOUBT = 0.2
CONTRAST_MIN = 60

# The glyphs that are told apart: printable ASCII without the space.
FIRST_GLYPH, LAST_GLYPH = 33, 126


@dataclass(frozen=True)
class Truth:
    """One clip. Cells lie on a grid from the picture's upper left corner."""

    # ASCII codes [frame, row, column].
    text: NDArray[np.uint8]
    # Which cells are read [row, column]: editor and terminal, but neither side bar, status bar nor camera.
    scored: NDArray[np.bool_]
    # The luma of each glyph, as light or dark as the theme has it [glyph, cell height, cell width].
    glyphs: NDArray[np.float32]
    # First and last row, first and last column of what tesseract reads, last exclusive.
    page: NDArray[np.int64]
    # The frames that tesseract reads.
    pages: NDArray[np.int64]
    # From a change (the last step of a scroll, a switch of files, the loop's start) until text moves again: the first
    # frame and the one after the last, for each. Typing moves no other text.
    rests: NDArray[np.int64]
    # Dark text on a light ground.
    light: bool

    def __len__(self) -> int:
        return len(self.text)

    @property
    def cell(self) -> tuple[int, int]:
        """Height and width."""
        return self.glyphs.shape[1], self.glyphs.shape[2]

    def save(self, path: Path) -> None:
        np.savez_compressed(path, **asdict(self))

    @classmethod
    def load(cls, path: Path) -> "Truth":
        with np.load(path) as stored:
            fields: dict[str, Any] = dict(stored)
        return cls(**{**fields, "light": bool(fields["light"])})


def gray_code(number: int) -> int:
    """From one number to the next one bit changes: a counter that costs an encoder one block a frame."""
    return number ^ (number >> 1)


def paint_counter(picture: NDArray[np.uint8], number: int) -> None:
    """Into a picture [row, column, channel] or [row, column] of the clip's size."""
    bits = [gray_code(number) >> bit & 1 for bit in reversed(range(BITS))]
    for at, light in enumerate([0, *bits, 1]):
        picture[STRIP_TOP:, at * BLOCK_WIDTH : (at + 1) * BLOCK_WIDTH] = LIGHT if light else DARK


def read_counter(luma: NDArray[np.uint8]) -> int | None:
    """The number in a picture that was brought back to the clip's size, or None where a block is in doubt."""
    strip = luma[STRIP_TOP + INSET_Y : HEIGHT - INSET_Y, : (BITS + 2) * BLOCK_WIDTH]
    blocks = strip.reshape(len(strip), BITS + 2, BLOCK_WIDTH)[:, :, INSET_X:-INSET_X].mean(axis=(0, 2))
    dark, light = blocks[0], blocks[-1]
    if light - dark < CONTRAST_MIN:
        return None
    shares = (blocks[1:-1] - dark) / (light - dark)
    if np.abs(shares - 0.5).min() < DOUBT:
        return None
    number = 0
    for share in shares:
        number = number << 1 | (int(share > 0.5) ^ (number & 1))
    return number
