#!/usr/bin/env python3
"""Writes a clip of somebody who codes live, and what stands where in each of its frames.

    generate.py OUT/code [--font dejavu|liberation|jetbrains|hack] [--size 14|16|20] [--theme dark|light]
                         [--scene editor|terminal] [--camera room|snow]

OUT/code.mp4 is what an encoder such as OBS sends: H.264, 1080p30, 20 s, visually lossless, a keyframe every 2 s, no
B-frames. It loops: `ffmpeg -re -stream_loop -1 -i OUT/code.mp4 -c copy -f flv rtmp://...`. OUT/code.npz is its Truth.

The text is that of Python's own library, so that it differs a little from one version of Python to another. Needs
ffmpeg and the font.
"""

import argparse
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from truth import FIRST_GLYPH, FPS, HEIGHT, LAST_GLYPH, STRIP_TOP, WIDTH, Truth, paint_counter

FRAMES = 20 * FPS
GOP_FRAMES = 2 * FPS

FONTS = {
    "dejavu": "dejavu/DejaVuSansMono.ttf",
    "liberation": "liberation/LiberationMono-Regular.ttf",
    "jetbrains": "jetbrains-mono/JetBrainsMono-Regular.ttf",
    "hack": "hack/Hack-Regular.ttf",
}

Rgb = tuple[int, int, int]
# Inks: d text, k keyword, s string, c comment, n number, g line number, w white, o good, y warning. Papers: E editor,
# S side bar, T terminal, B status bar.
THEMES: dict[str, dict[str, Rgb]] = {
    "dark": {
        "d": (212, 212, 212), "k": (86, 156, 214), "s": (206, 145, 120), "c": (106, 153, 85), "n": (181, 206, 168),
        "g": (110, 110, 110), "w": (255, 255, 255), "o": (35, 209, 139), "y": (229, 192, 16),
        "E": (30, 30, 30), "S": (37, 37, 38), "T": (24, 24, 24), "B": (0, 122, 204),
    },
    "light": {
        "d": (0, 0, 0), "k": (0, 0, 255), "s": (163, 21, 21), "c": (0, 128, 0), "n": (9, 134, 88),
        "g": (110, 118, 129), "w": (255, 255, 255), "o": (16, 124, 65), "y": (148, 98, 0),
        "E": (255, 255, 255), "S": (243, 243, 243), "T": (248, 248, 248), "B": (0, 122, 204),
    },
}  # fmt: skip

# What a camera sends, in the corner over the status bar. Seeded, so that each run sends the same.
CAMERA_LEFT, CAMERA_TOP = 1590, 830
MOVING = f"gradients=s=320x180:r={FPS}:speed=0.02:n=4:seed=1"
NOISE = "noise=alls=14:allf=t:all_seed=1"
CAMERAS = {
    # A room's colours that turn slowly, with a sensor's noise, new in each frame.
    "room": f"{MOVING}:c0=0x70503c:c1=0xd2a98c:c2=0x2c3a4a:c3=0x8a9aa5,format=yuv420p,{NOISE}",
    # Nothing but noise of full contrast: the filter adds to single bytes of deeper samples. The worst that can come.
    "snow": f"{MOVING},{NOISE}",
}

KEYWORDS = frozenset(
    "def class return if else elif for while in not and or import from as try except raise with None True False self "
    "yield lambda pass is".split()
)
TYPED_FIRST = (
    "        result = self.compute(values[index], limit=42)\n"
    "        if not result.ok and retry_count > 0:\n"
    "            raise ValueError('bad input: %r' % (values,))\n"
)
TYPED_SECOND = (
    "    for name, size in sorted(table.items()):\n"
    "        total += size * weights.get(name, 1.0)\n"
    "        print(f'{name:<20} {size:>8}')\n"
)
# 8 characters a second.
FRAMES_A_KEY = 4
SIDE_COLUMNS = 30
TERMINAL_ROWS = 12


class Screen:
    """The cells of one frame: what stands there, in which ink, on which paper."""

    def __init__(self, rows: int, columns: int):
        self.rows, self.columns = rows, columns
        self.cells = np.zeros((3, rows, columns), np.uint8)
        self.fill(slice(0, rows), slice(0, columns), "E")
        # Row and column of the caret, where it is shown.
        self.caret: tuple[int, int] | None = None

    def fill(self, rows: slice, columns: slice, paper: str) -> None:
        for plane, value in enumerate(" d" + paper):
            self.cells[plane, rows, columns] = ord(value)

    def write(self, row: int, column: int, text: str, inks: str = "d") -> None:
        """In one ink, or in one for each character. What does not fit is cut off."""
        text = text[: self.columns - column]
        inks = inks * len(text) if len(inks) == 1 else inks[: len(text)]
        self.cells[0, row, column : column + len(text)] = np.frombuffer(text.encode(), np.uint8)
        self.cells[1, row, column : column + len(text)] = np.frombuffer(inks.encode(), np.uint8)


@dataclass
class Document:
    """A file that somebody types into."""

    lines: list[str]
    row: int
    typed: Iterator[str]
    column: int = 0

    def __post_init__(self) -> None:
        self.lines.insert(self.row, "")

    def go_to(self, row: int) -> None:
        self.row, self.column = row, 0
        self.lines.insert(row, "")

    def type_one(self) -> None:
        key = next(self.typed, None)
        if key == "\n":
            self.go_to(self.row + 1)
        elif key is not None:
            self.lines[self.row] += key
            self.column += 1


@dataclass
class Scene:
    """What is on the screen over time. Frames come in order, once."""

    screens: Iterator[Screen]
    rests: list[tuple[int, int]]
    scored_columns: slice
    page_rows: slice
    page_columns: slice
    pages: list[int] = field(default_factory=lambda: [132, 252, 444])


def plain(module: object, first: int, last: int) -> list[str]:
    """Lines of a module's source, in ASCII."""
    source = Path(module.__file__ or "").read_text(encoding="utf-8")  # type: ignore[attr-defined]
    lines = source.splitlines()[first:last]
    return ["".join(c if " " <= c <= "~" else "?" for c in line.expandtabs(4)) for line in lines]


def colour(line: str) -> str:
    """An ink for each character, as an editor that knows Python roughly."""
    inks, at = ["d"] * len(line), 0
    while at < len(line):
        c, end = line[at], at + 1
        if c == "#":
            inks[at:] = "c" * (len(line) - at)
            break
        if c in "'\"":
            end = line.find(c, at + 1) + 1 or len(line)
            inks[at:end] = "s" * (end - at)
        elif c.isalpha() or c == "_":
            while end < len(line) and (line[end].isalnum() or line[end] == "_"):
                end += 1
            if line[at:end] in KEYWORDS:
                inks[at:end] = "k" * (end - at)
        elif c.isdigit():
            inks[at] = "n"
        at = end
    return "".join(inks)


def draw_code(screen: Screen, lines: list[str], top: int, rows: int, column: int) -> None:
    for row, (at, line) in enumerate(list(enumerate(lines, 1))[top : top + rows]):
        screen.write(row, column, f"{at:4d} ", "g")
        screen.write(row, column + 5, line, colour(line))


def draw_status(screen: Screen, text: str) -> None:
    screen.fill(slice(screen.rows - 1, screen.rows), slice(0, screen.columns), "B")
    screen.write(screen.rows - 1, 0, text, "w")


def editor(rows: int, columns: int) -> Scene:
    """0-6 s typing; 6-9 s wheel, 3 lines every 200 ms; 9-12 s typing; at 12 s another file; 12-16 s typing; 16-18 s ten
    lines a second in the terminal under it; 18-20 s still."""
    code_rows = rows - TERMINAL_ROWS - 1

    def screens() -> Iterator[Screen]:
        document, top = Document(plain(argparse, 600, 900), 20, iter(TYPED_FIRST)), 0
        terminal = ["$ cargo test --workspace", "   Compiling codecast v0.1.0", "    Finished test target(s) in 3.21s"]
        for n in range(FRAMES):
            if n == 12 * FPS:
                document, top = Document(plain(shutil, 300, 600), 15, iter(TYPED_SECOND)), 0
            types = n < 6 * FPS or 9 * FPS <= n < 16 * FPS
            if types and n % FRAMES_A_KEY == 0:
                document.type_one()
            if 6 * FPS <= n < 9 * FPS and n % 6 == 0:
                top += 3
            if n == 9 * FPS:
                document.go_to(top + 20)
            if 16 * FPS <= n < 18 * FPS and n % 3 == 0:
                terminal.append(f"test media::segment::case_{n:03d} ... ok ({n % 7}.{n * 37 % 1000:03d} ms)")

            screen = Screen(rows, columns)
            screen.fill(slice(0, rows - 1), slice(0, SIDE_COLUMNS), "S")
            screen.write(0, 0, "  EXPLORER")
            for row in range(1, rows - 1):
                screen.write(row, 0, "  > src" if (row - 1) % 7 == 0 else f"      module_{row - 1:02d}.py")
            draw_code(screen, document.lines, top, code_rows, SIDE_COLUMNS)
            screen.fill(slice(code_rows, rows - 1), slice(SIDE_COLUMNS, columns), "T")
            for row, line in enumerate(terminal[-TERMINAL_ROWS:], code_rows):
                screen.write(row, SIDE_COLUMNS + 1, line)
            draw_status(screen, f"  main*   Ln {document.row + 1}, Col {document.column + 1}   UTF-8   Python")
            caret = document.row - top, SIDE_COLUMNS + 5 + document.column
            if 0 <= caret[0] < code_rows and caret[1] < columns and (types or n // 15 % 2 == 0):
                screen.caret = caret
            yield screen

    # Until the wheel turns; after its last turn; the other file; after the last line in the terminal.
    return Scene(
        screens=screens(),
        rests=[(0, 180), (264, 360), (360, 480), (537, FRAMES)],
        scored_columns=slice(SIDE_COLUMNS, columns),
        page_rows=slice(0, code_rows),
        page_columns=slice(SIDE_COLUMNS, min(SIDE_COLUMNS + 100, columns)),
    )


def log_line(n: int) -> tuple[str, str]:
    """The nth line of a build's and a test run's output, with its inks."""
    crates = ("media-core", "packager", "ingest", "edge", "transport", "transcode")
    crate, long = crates[n * 5 % 6], n * 37 % 1000
    kinds = (
        (f"   Compiling {crate} v0.{n % 9}.{n % 7} (crates/{crate})", 13, "o"),
        (f"test {crate.replace('-', '_')}::window::case_{n:03d}_keeps_{long} ... ok ({n % 7}.{long:03d} ms)", 0, "d"),
        (f"warning: unused variable: `sample_{long}` --> {crate}/src/lib.rs:{long}:{n % 80}", 7, "y"),
        (f"2026-03-{n % 28 + 1:02d}T12:{n % 60:02d}:00.{long:03d}Z  INFO {crate}: segment done msn={n} bytes={n * 7919 % 99991}", 24, "c"),
        (f"-rw-r--r-- 1 dev dev {n * 7919 % 99991:8d} Mar {n % 28 + 1:2d} 12:{n % 60:02d} {crate}_{long}.rs", 10, "k"),
    )
    text, marked, ink = kinds[(n * 3 + n // 7) % len(kinds)]
    return text, ink * marked + "d" * (len(text) - marked)


def terminal(rows: int, columns: int) -> Scene:
    """A terminal that fills the screen. 0-4 s ten lines a second; 4-6 s typing; 6-9 s three lines every 200 ms; 9-12 s
    typing; at 12 s a pager, at 13.5 s its next page; at 16 s back, ten lines a second for 2 s; 18-20 s still."""
    high = rows - 1
    prompt = ("dev@codecast:~/src$ ", "o")

    def screens() -> Iterator[Screen]:
        log = [log_line(n) for n in range(high)]
        command, keys = "", iter(TYPED_FIRST.replace("\n", " "))
        for n in range(FRAMES):
            scrolls = n < 4 * FPS or 16 * FPS <= n < 18 * FPS
            if scrolls and n % 3 == 0:
                log.append(log_line(high + n))
            if 6 * FPS <= n < 9 * FPS and n % 6 == 0:
                log.extend(log_line(high + n + line) for line in range(3))
            types = 4 * FPS <= n < 6 * FPS or 9 * FPS <= n < 12 * FPS
            if types and n % FRAMES_A_KEY == 0:
                command += next(keys, "")

            screen = Screen(rows, columns)
            screen.fill(slice(0, high), slice(0, columns), "T")
            draw_status(screen, f"  [0] 1:cargo*  2:less  3:git          {n // FPS:02d} s")
            if 12 * FPS <= n < 16 * FPS:
                page = 300 if n < 27 * FPS // 2 else 300 + high
                for row, line in enumerate(plain(shutil, page, page + high)):
                    screen.write(row, 1, line, colour(line) or "d")
            else:
                for row, (line, inks) in enumerate(log[-(high - 1) :]):
                    screen.write(row, 1, line, inks)
                screen.write(high - 1, 1, *prompt)
                screen.write(high - 1, 1 + len(prompt[0]), command)
                screen.caret = high - 1, min(1 + len(prompt[0]) + len(command), columns - 1)
            yield screen

    return Scene(
        screens=screens(),
        rests=[(117, 180), (264, 360), (360, 405), (405, 480), (537, FRAMES)],
        scored_columns=slice(0, columns),
        page_rows=slice(0, high - 1),
        page_columns=slice(1, min(101, columns)),
    )


SCENES = {"editor": editor, "terminal": terminal}


class Painter:
    """Turns screens into pictures; cells that stayed the same are not painted again."""

    def __init__(self, font: str, size: int, theme: str):
        self.font = ImageFont.truetype(f"/usr/share/fonts/truetype/{FONTS[font]}", size)
        self.width = round(self.font.getlength("M"))
        self.height = max(round(size * 1.25), sum(self.font.getmetrics()))
        self.theme, self.light = THEMES[theme], theme == "light"
        self.picture = np.empty((HEIGHT, WIDTH, 3), np.uint8)
        self.picture[:] = self.theme["E"]
        self.painted: dict[tuple[int, ...], NDArray[np.uint8]] = {}
        self.before: NDArray[np.uint8] | None = None

    def paint(self, screen: Screen) -> NDArray[np.uint8]:
        """A picture that is overwritten by the next one."""
        changed = screen.cells > 0 if self.before is None else screen.cells != self.before
        for row, column in np.argwhere(changed.any(axis=0)):
            self.place(row, column)[:] = self.cell(tuple(int(v) for v in screen.cells[:, row, column]))
        self.before = screen.cells
        if screen.caret is None:
            return self.picture
        picture, (row, column) = self.picture.copy(), screen.caret
        self.place(row, column, picture)[:, :2] = 0 if self.light else 220
        return picture

    def place(self, row: int, column: int, picture: NDArray[np.uint8] | None = None) -> NDArray[np.uint8]:
        top, left = row * self.height, column * self.width
        return (self.picture if picture is None else picture)[top : top + self.height, left : left + self.width]

    def cell(self, key: tuple[int, ...]) -> NDArray[np.uint8]:
        if key not in self.painted:
            glyph, ink, paper = (chr(code) for code in key)
            self.painted[key] = self.draw(glyph, self.theme[ink], self.theme[paper])
        return self.painted[key]

    def draw(self, glyph: str, ink: Rgb, paper: Rgb) -> NDArray[np.uint8]:
        image = Image.new("RGB", (self.width, self.height), paper)
        ImageDraw.Draw(image).text((0, 0), glyph, font=self.font, fill=ink)
        return np.asarray(image)

    def glyphs(self) -> NDArray[np.float32]:
        """Each glyph as a reader who knows the font expects it."""
        ink, paper = ((0, 0, 0), (255, 255, 255)) if self.light else ((255, 255, 255), (0, 0, 0))
        drawn = [self.draw(chr(code), ink, paper).mean(axis=2) for code in range(FIRST_GLYPH, LAST_GLYPH + 1)]
        return np.stack(drawn).astype(np.float32)


def start_encoder(path: Path, camera: str | None) -> subprocess.Popen[bytes]:
    """Takes pictures in RGB on standard input."""
    yuv = "scale=out_color_matrix=bt709:out_range=tv:flags=accurate_rnd+full_chroma_int,format=yuv420p"
    inputs = f"-f rawvideo -pix_fmt rgb24 -s {WIDTH}x{HEIGHT} -r {FPS} -i -".split()
    graph = f"[0:v]{yuv}[v]"
    if camera:
        inputs += ["-f", "lavfi", "-i", CAMERAS[camera]]
        graph = f"[0:v]{yuv}[text];[text][1:v]overlay={CAMERA_LEFT}:{CAMERA_TOP}:shortest=1,format=yuv420p[v]"
    x264 = f"-c:v libx264 -preset veryfast -tune zerolatency -crf 12 -g {GOP_FRAMES} -keyint_min {GOP_FRAMES} -sc_threshold 0 -bf 0"
    tags = "-colorspace bt709 -color_primaries bt709 -color_trc bt709 -color_range tv -movflags +faststart"
    command = ["ffmpeg", "-v", "error", "-y", *inputs, "-filter_complex", graph, "-map", "[v]", *x264.split(), *tags.split(), str(path)]
    return subprocess.Popen(command, stdin=subprocess.PIPE)


def scored_cells(scene: Scene, painter: Painter, rows: int, columns: int, camera: bool) -> NDArray[np.bool_]:
    """All of the scene's text but the status bar, and what the camera covers."""
    scored = np.zeros((rows, columns), np.bool_)
    scored[: rows - 1, scene.scored_columns] = True
    if camera:
        scored[CAMERA_TOP // painter.height :, CAMERA_LEFT // painter.width :] = False
    return scored


def generate(out: Path, font: str, size: int, theme: str, scene_name: str, camera: str | None) -> Truth:
    painter = Painter(font, size, theme)
    rows, columns = STRIP_TOP // painter.height, WIDTH // painter.width
    scene = SCENES[scene_name](rows, columns)
    out.parent.mkdir(parents=True, exist_ok=True)
    encoder = start_encoder(out.with_suffix(".mp4"), camera)
    assert encoder.stdin is not None
    text = np.empty((FRAMES, rows, columns), np.uint8)
    for n, screen in enumerate(scene.screens):
        picture = painter.paint(screen)
        paint_counter(picture, n)
        encoder.stdin.write(picture.data)
        text[n] = screen.cells[0]
    encoder.stdin.close()
    if encoder.wait() != 0:
        raise SystemExit("ffmpeg could not encode the clip")
    truth = Truth(
        text=text,
        scored=scored_cells(scene, painter, rows, columns, camera is not None),
        glyphs=painter.glyphs(),
        page=np.array([scene.page_rows.start, scene.page_rows.stop, scene.page_columns.start, scene.page_columns.stop]),
        pages=np.array(scene.pages),
        rests=np.array(scene.rests),
        light=painter.light,
    )
    truth.save(out.with_suffix(".npz"))
    return truth


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="path of the clip, without an ending")
    parser.add_argument("--font", choices=FONTS, default="dejavu")
    parser.add_argument("--size", type=int, choices=(14, 16, 20), default=16)
    parser.add_argument("--theme", choices=THEMES, default="dark")
    parser.add_argument("--scene", choices=SCENES, default="editor")
    parser.add_argument("--camera", choices=CAMERAS)
    given = parser.parse_args()
    truth = generate(given.out, given.font, given.size, given.theme, given.scene, given.camera)
    letters = int(((truth.text[100] != ord(" ")) & truth.scored).sum())
    print(f"{given.out}: cells of {truth.cell[1]}x{truth.cell[0]} px, {letters} characters are read in frame 100")


if __name__ == "__main__":
    main()
