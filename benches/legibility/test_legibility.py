"""The bench's own tests: what it says of pictures of which the answer is known. Needs ffmpeg; no server, no network.

    python -B -m unittest discover -s benches/legibility
"""

import http.server
import subprocess
import tempfile
import threading
import unittest
from functools import partial
from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from generate import GOP_FRAMES, Painter, editor
from record import media_playlist, packets, record, variants_of
from reference import Files
from score import Reader, Score, Shown, compare, in_step, pictures, score, time_to_sharp
from truth import FPS, HEIGHT, STRIP_TOP, WIDTH, Truth, gray_code, paint_counter, read_counter

# Of the editor's scene: a second of typing.
FRAMES = FPS


def rgb_and_truth() -> tuple[list[NDArray[np.uint8]], Truth]:
    painter = Painter("dejavu", 16, "dark")
    scene = editor(STRIP_TOP // painter.height, WIDTH // painter.width)
    frames, text = [], []
    for number, screen in zip(range(FRAMES), scene.screens):
        picture = painter.paint(screen).copy()
        paint_counter(picture, number)
        frames.append(picture)
        text.append(screen.cells[0])
    scored = np.zeros(text[0].shape, np.bool_)
    scored[:-1, scene.scored_columns] = True
    page = np.array([scene.page_rows.start, scene.page_rows.stop, scene.page_columns.start, scene.page_columns.stop])
    return frames, Truth(np.stack(text), scored, painter.glyphs(), page, np.array([]), np.array([[0, FRAMES]]), painter.light)


def rendition(fps: float = FPS) -> dict[str, object]:
    return dict(name="r", resolution="1x1", fps=fps, kbps=1.0, coded_kbps=1.0, largest_sample_kb=1.0)


def rung(kbps: float, glyph: float) -> Score:
    return Score("r", "1x1", 30, kbps, kbps, 1, 1, 0, glyph, glyph, 1, None, [])


class Pictures(unittest.TestCase):
    frames: ClassVar[list[NDArray[np.uint8]]]
    truth: ClassVar[Truth]
    folder: ClassVar[tempfile.TemporaryDirectory[str]]

    @classmethod
    def setUpClass(cls) -> None:
        cls.frames, cls.truth = rgb_and_truth()
        cls.folder = tempfile.TemporaryDirectory()

    @classmethod
    def tearDownClass(cls) -> None:
        cls.folder.cleanup()

    def encode(self, name: str, *settings: str) -> Path:
        """The frames twice over, as H.264 in fMP4."""
        path = Path(self.folder.name) / name
        raw = f"-f rawvideo -pix_fmt rgb24 -s {WIDTH}x{HEIGHT} -r {FPS} -i -".split()
        x264 = f"-c:v libx264 -preset veryfast -tune zerolatency -pix_fmt yuv420p -g {GOP_FRAMES} -movflags +empty_moov".split()
        command = ["ffmpeg", "-v", "error", *raw, *x264, *settings, str(path)]
        subprocess.run(command, input=b"".join(frame.tobytes() for frame in self.frames * 2), check=True)
        return path

    def test_all_is_read_in_the_truth_itself(self) -> None:
        reader = Reader(self.truth)
        for number in (0, FRAMES - 1):
            glyphs, ncc = reader.read(number, self.frames[number][..., 1])
            self.assertEqual(glyphs, 1.0)
            self.assertGreater(ncc, 0.99)

    def test_a_light_theme_is_read_too(self) -> None:
        painter = Painter("liberation" if Path("/usr/share/fonts/truetype/liberation").exists() else "dejavu", 14, "light")
        scene = editor(STRIP_TOP // painter.height, WIDTH // painter.width)
        screen = next(scene.screens)
        scored = np.ones(screen.cells[0].shape, np.bool_)
        scored[-1] = False
        none = np.array([])
        truth = Truth(screen.cells[:1], scored, painter.glyphs(), none, none, none, painter.light)
        self.assertEqual(Reader(truth).read(0, painter.paint(screen)[..., 1])[0], 1.0)

    def test_little_is_read_at_240p_but_every_counter(self) -> None:
        path = self.encode("240.mp4", "-vf", "scale=426:240", "-b:v", "200k", "-maxrate", "200k", "-bufsize", "200k")
        self.assertEqual([read_counter(luma) for luma in pictures(path, 2 * FRAMES)], list(range(FRAMES)) * 2)
        found = score(self.truth, path, rendition())
        self.assertEqual((found.frames, found.unread), (FRAMES, 0))
        self.assertLess(found.glyph, 50)

    def test_a_rung_with_fewer_frames_is_told_by_its_counter(self) -> None:
        path = self.encode("900.mp4", "-vf", f"select=eq(mod(n\\,3)\\,1),setpts=N/{FPS // 3}/TB,scale=1600:900", "-r", "10", "-crf", "20")
        found = score(self.truth, path, rendition(10))
        self.assertEqual((found.frames, found.unread), (FRAMES // 3, 0))
        self.assertGreater(found.glyph, 99.5)
        # The first frame that is shown is the clip's second one.
        self.assertEqual(found.sharp_ms, [33])

    def test_a_counter_in_doubt_is_not_read(self) -> None:
        luma = np.zeros((HEIGHT, WIDTH), np.uint8)
        self.assertIsNone(read_counter(luma))
        paint_counter(luma, 341)
        self.assertEqual(read_counter(luma), 341)
        # As after half a change of a block.
        luma[STRIP_TOP:, 640:704] = 124
        self.assertIsNone(read_counter(luma))

    def test_renditions_are_recorded_whole(self) -> None:
        root = Path(self.folder.name) / "hls"
        root.mkdir()
        hls = "-f hls -hls_segment_type fmp4 -hls_time 1 -hls_playlist_type vod"
        self.encode("hls/low.m3u8", "-vf", "scale=426:240", "-g", str(FPS), *hls.split())
        index = '#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=200000,RESOLUTION=426x240,CODECS="avc1"\nlow.m3u8\n'
        (root / "index.m3u8").write_text(index)
        with http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Files, directory=str(root))) as server:
            threading.Thread(target=server.serve_forever, daemon=True).start()
            (found,) = record(f"http://127.0.0.1:{server.server_port}/index.m3u8", root / "out", seconds=1, warm_up_s=1)
            server.shutdown()
        self.assertEqual((found.name, found.resolution, found.seconds, found.fps), ("low", "426x240", 1.0, FPS))
        media = (root / "low1.m4s").stat().st_size
        self.assertEqual(found.kbps, round(media * 8 / 1000, 1))
        self.assertLess(found.coded_kbps, found.kbps)
        self.assertEqual(len(packets(root / "out" / "low.mp4")), FRAMES)


class Arithmetic(unittest.TestCase):
    def test_one_block_changes_from_a_frame_to_the_next(self) -> None:
        for number in range(1023):
            self.assertEqual((gray_code(number) ^ gray_code(number + 1)).bit_count(), 1)

    def test_errors_are_compared_at_equal_rates(self) -> None:
        others = [rung(800, 96), rung(200, 36), rung(3200, 100)]
        (between,) = compare([rung(400, 99)], others)
        # Halfway from 200 to 800, as rates go.
        self.assertAlmostEqual(between.other, 34)
        self.assertAlmostEqual(between.ratio or 0, 1 / 34)
        cheaper, dearer = compare([rung(100, 50), rung(6400, 100)], others)
        self.assertEqual((cheaper.other, cheaper.bound), (64, ">= "))
        self.assertEqual((dearer.other, dearer.bound, dearer.ratio), (0, "<= ", None))

    def test_time_to_sharp_is_from_the_change_to_the_first_frame_as_good_as_settled(self) -> None:
        def check(readings: list[float], expected: int | None) -> None:
            shown = [Shown(10 + 3 * at, share, 1.0) for at, share in enumerate(readings)]
            self.assertEqual(time_to_sharp(shown, (10, 100)), expected)

        check([1.0] * 8, 0)
        check([0.2, 0.9, 0.995, 1.0, 1.0, 1.0, 1.0, 1.0], 200)
        # A rung that never reads more than nine characters of ten.
        check([0.2, 0.5, 0.9, 0.9, 0.9, 0.9, 0.9, 0.9], 200)
        check([], None)

    def test_counters_out_of_step_are_left_out(self) -> None:
        times = [at / FPS for at in range(6)]
        self.assertEqual(in_step([598, 599, 0, 1, 300, None], times, 600), [True, True, True, True, False, False])

    def test_playlists_are_read_as_they_are_written(self) -> None:
        text = (
            '#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=9,RESOLUTION=16x9,AUDIO="a"\nvideo.m3u8\n'
            '#EXT-X-STREAM-INF:BANDWIDTH=9,RESOLUTION=16x9,AUDIO="b"\nvideo.m3u8\n'
            "#EXT-X-STREAM-INF:BANDWIDTH=1,CODECS=\"opus\"\nsound.m3u8\n"
        )
        self.assertEqual([variant.url for variant in variants_of(text, "http://h/live/a/index.m3u8")], ["http://h/live/a/video.m3u8"])
        text = (
            "#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXT-X-SERVER-CONTROL:CAN-BLOCK-RELOAD=YES,PART-HOLD-BACK=0.6\n"
            '#EXT-X-MEDIA-SEQUENCE:7\n#EXT-X-MAP:URI="init-1.mp4"\n#EXTINF:2.0,\n7.m4s\n#EXT-X-GAP\n#EXTINF:2.0,\n8.m4s\n'
            '#EXT-X-DISCONTINUITY\n#EXT-X-MAP:URI="init-2.mp4"\n#EXT-X-PART:DURATION=0.2,URI="9.1.m4s"\n#EXTINF:1.5,\n9.m4s\n'
        )
        playlist = media_playlist(text, "http://h/a/video.m3u8")
        self.assertTrue(playlist.can_block)
        seen = [(s.msn, s.url, s.seconds, s.init, s.gap, s.discontinuity) for s in playlist.segments]
        self.assertEqual(
            seen,
            [
                (7, "http://h/a/7.m4s", 2.0, "http://h/a/init-1.mp4", False, False),
                (8, "http://h/a/8.m4s", 2.0, "http://h/a/init-1.mp4", True, False),
                (9, "http://h/a/9.m4s", 1.5, "http://h/a/init-2.mp4", False, True),
            ],
        )


if __name__ == "__main__":
    unittest.main()
