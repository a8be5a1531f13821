#!/usr/bin/env python3
"""Says how well the text in recorded renditions can be read.

    score.py score CLIP.npz RECORDING [--name legible]    # a folder of record.py's; leaves scores.json in it
    score.py compare RECORDING OTHER                      # both scored: their errors at equal real bitrate

Tables in Markdown on standard output. Each frame is brought back to the clip's size (bicubic), told by its counter, and
compared with the text of the same frame of the source, so that a low frame rate costs nothing here. One loop of the clip
is scored, from where the recording starts.

glyph %     characters that a reader who knows font and place reads right: of the glyphs the one that correlates best
worst 5 %   the same in the worst twentieth of the frames: after scrolls and switches
NCC         mean correlation with the right glyph: sharpness
OCR %       characters that tesseract reads right, which knows neither font nor place; three frames
sharp, ms   media time from a change (a scroll's end, a switch) to the first frame that shows it and reads 99.5 % of the
            characters; where a rung settles below that, 99.5 % of those that it reads once it has settled
unread      frames whose counter is in doubt or out of step, left out
"""

import argparse
import json
import math
import os
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from rapidfuzz.distance import Levenshtein

from record import packets
from truth import FIRST_GLYPH, FPS, HEIGHT, WIDTH, Truth, read_counter

Luma = NDArray[np.uint8]

# The share of characters at which text counts as sharp.
SHARP = 0.995
# Of the frames between a change and the next: what is read once a rung has settled. Not the best, which is chance.
SETTLED_PERCENTILE = 75
WORST_SHARE = 0.05
# How many frames of the source after a page's own a frame still serves for it: less than the next keystrokes matter.
PAGE_LATE_FRAMES = 12
# Keeps a cell without contrast from being divided by nothing.
FLAT = 1e-3


# ---- one frame -------------------------------------------------------------------------------------------------------


class Reader:
    """Reads characters where the truth says that there are any."""

    def __init__(self, truth: Truth):
        self.truth = truth
        glyphs = truth.glyphs.reshape(len(truth.glyphs), -1)
        glyphs = glyphs - glyphs.mean(axis=1, keepdims=True)
        self.glyphs = (glyphs / np.linalg.norm(glyphs, axis=1, keepdims=True)).T

    def read(self, number: int, luma: Luma) -> tuple[float, float]:
        """The share of characters of the numbered frame that are read right, and their mean correlation."""
        text = self.truth.text[number]
        there = self.truth.scored & (text != ord(" "))
        right = text[there].astype(int) - FIRST_GLYPH
        (height, width), (rows, columns) = self.truth.cell, text.shape
        cells = luma[: rows * height, : columns * width].reshape(rows, height, columns, width).transpose(0, 2, 1, 3)
        pixels = cells[there].reshape(len(right), -1).astype(np.float32)
        pixels -= pixels.mean(axis=1, keepdims=True)
        pixels /= np.linalg.norm(pixels, axis=1, keepdims=True) + FLAT
        alike = pixels @ self.glyphs
        return float((alike.argmax(axis=1) == right).mean()), float(alike[np.arange(len(right)), right].mean())

    def ocr(self, number: int, luma: Luma) -> float:
        """The share of the page's characters, without blanks, that tesseract reads."""
        first, last, left, end = self.truth.page
        height, width = self.truth.cell
        page = luma[first * height : last * height, left * width : end * width]
        image = Image.fromarray(page if self.truth.light else 255 - page)
        image = image.resize((image.width * 2, image.height * 2), Image.Resampling.LANCZOS)
        with tempfile.NamedTemporaryFile(suffix=".png") as file:
            image.save(file.name)
            command = ["tesseract", file.name, "-", "--psm", "6"]
            alone = {**os.environ, "OMP_THREAD_LIMIT": "1"}
            said = subprocess.run(command, capture_output=True, check=True, text=True, env=alone).stdout
        written = bytes(self.truth.text[number, first:last, left:end].flatten()).decode().replace(" ", "")
        return max(0.0, 1 - Levenshtein.distance(written, "".join(said.split())) / max(1, len(written)))


# ---- one rendition ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Shown:
    """A frame of a rendition: which one of the clip it is, and how it reads."""

    number: int
    glyphs: float
    ncc: float


@dataclass
class Score:
    """What `score` finds; shares in percent."""

    name: str
    resolution: str
    fps: float
    kbps: float
    coded_kbps: float
    largest_sample_kb: float
    frames: int
    unread: int
    glyph: float
    worst: float
    ncc: float
    ocr: float | None
    sharp_ms: list[int]

    @property
    def error(self) -> float:
        return 100 - self.glyph

    @property
    def size(self) -> str:
        return f"{self.resolution} {self.fps:g}"


def pictures(path: Path, count: int) -> Iterator[Luma]:
    """The first frames of a file, at the clip's size."""
    scale = f"scale={WIDTH}:{HEIGHT}:flags=bicubic,format=gray"
    command = ["ffmpeg", "-v", "error", "-i", str(path), "-vf", scale, "-fps_mode", "passthrough"]
    command += ["-frames:v", str(count), "-f", "rawvideo", "-"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as decoder:
        assert decoder.stdout is not None
        while len(picture := decoder.stdout.read(WIDTH * HEIGHT)) == WIDTH * HEIGHT:
            yield np.frombuffer(picture, np.uint8).reshape(HEIGHT, WIDTH)


def in_step(numbers: list[int | None], times: list[float], loop: int) -> list[bool]:
    """Which counters go with their frame's time as most do. A frame rate that was lowered may move a frame by less than
    the time between two."""
    offsets = [None if n is None else (n - round(at * FPS)) % loop for n, at in zip(numbers, times)]
    known = Counter(offset for offset in offsets if offset is not None)
    if not known:
        return [False] * len(numbers)
    usual, _ = known.most_common(1)[0]
    slack = max(1, round((times[-1] - times[0]) * FPS / max(1, len(times) - 1)))
    return [o is not None and min((o - usual) % loop, (usual - o) % loop) <= slack for o in offsets]


def time_to_sharp(shown: list[Shown], rest: tuple[int, int]) -> int | None:
    """Milliseconds of media from the change that a rest begins with to the first sharp frame in it."""
    change, end = rest
    after = sorted((one for one in shown if change <= one.number < end), key=lambda one: one.number)
    if not after:
        return None
    settled = float(np.percentile([one.glyphs for one in after], SETTLED_PERCENTILE))
    enough = min(SHARP, SHARP * settled)
    return next((round((one.number - change) * 1000 / FPS) for one in after if one.glyphs >= enough), None)


def score(truth: Truth, path: Path, recorded: dict[str, Any]) -> Score:
    reader, loop = Reader(truth), len(truth)
    times = [float(packet["pts_time"]) for packet in packets(path)]
    times = [at for at in times if at < times[0] + loop / FPS - 0.5 / FPS]
    numbers: list[int | None] = []
    read: list[tuple[float, float]] = []
    pages: dict[int, tuple[int, Luma]] = {}
    for luma in pictures(path, len(times)):
        number = read_counter(luma)
        number = number if number is not None and number < loop else None
        numbers.append(number)
        read.append((0.0, 0.0) if number is None else reader.read(number, luma))
        for page in truth.pages:
            if number is not None and page <= number < page + PAGE_LATE_FRAMES:
                pages.setdefault(int(page), (number, luma))
    if len(numbers) != len(times):
        raise ValueError(f"{path}: {len(times)} samples, {len(numbers)} frames")
    shown = [Shown(n, *r) for n, r, fits in zip(numbers, read, in_step(numbers, times, loop)) if fits and n is not None]
    if not shown:
        raise ValueError(f"{path}: no frame's counter can be read")
    glyphs = sorted(s.glyphs for s in shown)
    sharp = [time_to_sharp(shown, (int(change), int(end))) for change, end in truth.rests]
    ocr = [reader.ocr(*page) for page in pages.values()] if shutil.which("tesseract") else []
    return Score(
        name=recorded["name"],
        resolution=recorded["resolution"],
        fps=recorded["fps"],
        kbps=recorded["kbps"],
        coded_kbps=recorded["coded_kbps"],
        largest_sample_kb=recorded["largest_sample_kb"],
        frames=len(numbers),
        unread=len(numbers) - len(shown),
        glyph=100 * float(np.mean(glyphs)),
        worst=100 * glyphs[int(len(glyphs) * WORST_SHARE)],
        ncc=float(np.mean([s.ncc for s in shown])),
        ocr=100 * float(np.mean(ocr)) if ocr else None,
        sharp_ms=[ms for ms in sharp if ms is not None],
    )


def score_all(truth: Truth, folder: Path) -> list[Score]:
    """Each rendition of a recording; two at a time, since decoding and reading take turns. One that cannot be scored is
    told of and left out."""

    def try_one(recorded: dict[str, Any]) -> Score | None:
        try:
            return score(truth, folder / recorded["file"], recorded)
        except (ValueError, subprocess.CalledProcessError) as error:
            print(f"{recorded['name']} is not scored: {error}", file=sys.stderr)
            return None

    recording = json.loads((folder / "recording.json").read_text())
    with ThreadPoolExecutor(2) as pool:
        scores = [one for one in pool.map(try_one, recording) if one is not None]
    (folder / "scores.json").write_text(json.dumps([asdict(one) for one in scores], indent=1) + "\n")
    return scores


# ---- two recordings --------------------------------------------------------------------------------------------------


def load_scores(folder: Path) -> list[Score]:
    return [Score(**fields) for fields in json.loads((folder / "scores.json").read_text())]


@dataclass(frozen=True)
class Comparison:
    """One rung's error beside what the other ladder would have at the same rate. Where that has no rung as cheap or as
    dear, its nearest stands for it: `bound` says on which side of that the truth lies."""

    rung: Score
    other: float
    bound: str

    @property
    def ratio(self) -> float | None:
        return self.rung.error / self.other if self.other > 0 else None


def compare(rungs: list[Score], others: list[Score]) -> list[Comparison]:
    """Errors of the others between two of their rungs are linear over the logarithm of the real bitrate."""
    others = sorted(others, key=lambda one: one.kbps)
    if not others:
        return []
    rates = [math.log(one.kbps) for one in others]
    errors = [one.error for one in others]
    compared = []
    for rung in rungs:
        bound = ">= " if rung.kbps < others[0].kbps else "<= " if rung.kbps > others[-1].kbps else ""
        compared.append(Comparison(rung, float(np.interp(math.log(rung.kbps), rates, errors)), bound))
    return compared


# ---- tables ----------------------------------------------------------------------------------------------------------


def row(*cells: object) -> str:
    return f"| {' | '.join(map(str, cells))} |"


def head(*cells: str) -> list[str]:
    return [row(*cells), row(*["---"] * len(cells))]


def score_table(scores: list[Score], ladder: str) -> str:
    columns = "rung|size|real kbps|of samples|glyph %|worst 5 %|NCC|OCR %|sharp, ms: median / max|largest sample kB|unread"
    rows = head("ladder", *columns.split("|"))
    for s in scores:
        ocr = "-" if s.ocr is None else f"{s.ocr:.1f}"
        sharp = f"{median(s.sharp_ms):.0f} / {max(s.sharp_ms)}" if s.sharp_ms else "-"
        rows.append(
            row(ladder, s.name, s.size, f"{s.kbps:.0f}", f"{s.coded_kbps:.0f}", f"{s.glyph:.1f}", f"{s.worst:.1f}", f"{s.ncc:.3f}",
                ocr, sharp, f"{s.largest_sample_kb:.1f}", f"{s.unread}/{s.frames}")
        )  # fmt: skip
    return "\n".join(rows)


def compare_table(compared: list[Comparison], name: str, other: str) -> str:
    rows = head("rung", "size", "real kbps", f"errors %, {name}", f"errors %, {other} at that rate", "ratio")
    # The sense of a bound turns around where it divides.
    turned = {">= ": "<= ", "<= ": ">= ", "": ""}
    for one in compared:
        ratio = "-" if one.ratio is None else f"{turned[one.bound]}{one.ratio:.3f}"
        rung, other_error = one.rung, f"{one.bound}{one.other:.2f}"
        rows.append(row(rung.name, rung.size, f"{rung.kbps:.0f}", f"{rung.error:.2f}", other_error, ratio))
    return "\n".join(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parts = parser.add_subparsers(dest="part", required=True)
    one = parts.add_parser("score")
    one.add_argument("truth", type=Path)
    one.add_argument("recording", type=Path)
    one.add_argument("--name", default="", help="of the ladder, for the table")
    two = parts.add_parser("compare")
    two.add_argument("recording", type=Path)
    two.add_argument("other", type=Path)
    given = parser.parse_args()
    if given.part == "score":
        print(score_table(score_all(Truth.load(given.truth), given.recording), given.name or given.recording.name))
    else:
        compared = compare(load_scores(given.recording), load_scores(given.other))
        print(compare_table(compared, given.recording.name, given.other.name))


if __name__ == "__main__":
    main()
