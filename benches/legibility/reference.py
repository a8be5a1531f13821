#!/usr/bin/env python3
"""The ladders as ffmpeg alone would make them, as HLS that was recorded: what a server's rungs are measured beside.

    reference.py CLIP.mp4 OUT --ladder legible|motion|av1      # until it is stopped, serves OUT/index.m3u8 on a free port

The address is printed once it is there. Two loops of the clip are in it, so that the second one can be scored as it is
in a stream that has been running. x264 veryfast, zero latency, one thread, exact frame drop, bicubic.
"""

import argparse
import http.server
import resource
import signal
import subprocess
import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from truth import FPS

LOOPS = 2
CLIP_S = 20


@dataclass(frozen=True)
class Rung:
    height: int
    fps: int
    kbps: int
    gop_s: int = 2
    # How many seconds of its rate the encoder may send at once.
    buffer_s: int = 1
    av1: bool = False

    @property
    def width(self) -> int:
        return self.height * 16 // 9 // 2 * 2

    @property
    def name(self) -> str:
        return f"{self.height}p{self.fps}-{self.kbps}k{'-av1' if self.av1 else ''}"

    @property
    def encoder(self) -> str:
        """One thread of a real-time encoder, without frames that wait for later ones."""
        if self.av1:
            return "libaom-av1 -usage realtime -cpu-used 8 -lag-in-frames 0 -aom-params tune-content=screen:cpu-used=9:enable-palette=1"
        return "libx264 -preset veryfast -tune zerolatency -sc_threshold 0"


LADDERS = {
    "legible": [Rung(1080, 30, 1500), Rung(900, 10, 800), Rung(900, 10, 400, 4, 2), Rung(720, 5, 200, 4, 2)],
    # What an AV1 rung would be: libaom with the tools for screens (docs/decisions/0009-no-av1-rung-yet.md).
    "av1": [
        Rung(1080, 10, 400, 4, 2, av1=True),
        Rung(1080, 10, 200, 4, 2, av1=True),
        Rung(720, 5, 200, 4, 2, av1=True),
        Rung(720, 5, 100, 4, 2, av1=True),
    ],
    "motion": [Rung(1080, 30, 3000), Rung(720, 30, 1500), Rung(480, 30, 800), Rung(360, 30, 400), Rung(240, 30, 200)],
}


def encode(clip: Path, out: Path, rung: Rung) -> None:
    step = FPS // rung.fps
    filters = f"select=not(mod(n\\,{step})),setpts=N/{rung.fps}/TB,scale={rung.width}:{rung.height}:flags=bicubic,format=yuv420p"
    gop = rung.gop_s * rung.fps
    coding = (
        f"-c:v {rung.encoder} -threads 1 -b:v {rung.kbps}k -maxrate {rung.kbps}k -bufsize {rung.kbps * rung.buffer_s}k "
        f"-g {gop} -keyint_min {gop}"
    )
    hls = f"-f hls -hls_segment_type fmp4 -hls_playlist_type vod -hls_time {rung.gop_s} -hls_fmp4_init_filename {rung.name}-init.mp4"
    command = ["ffmpeg", "-v", "error", "-y", "-stream_loop", str(LOOPS - 1), "-i", str(clip), "-vf", filters, "-r", str(rung.fps)]
    command += [*coding.split(), *hls.split(), "-hls_segment_filename", f"{out}/{rung.name}-%d.m4s", f"{out}/{rung.name}.m3u8"]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    print(f"{rung.name}: {cpu / (LOOPS * CLIP_S):.3f} CPU-seconds a second, decoding and scaling included", file=sys.stderr)


class Files(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        """Says nothing."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clip", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--ladder", choices=LADDERS, required=True)
    given = parser.parse_args()
    # As an exception, so that an encoder that runs is ended too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    given.out.mkdir(parents=True, exist_ok=True)
    lines = ["#EXTM3U", "#EXT-X-VERSION:7"]
    for rung in LADDERS[given.ladder]:
        encode(given.clip, given.out, rung)
        lines.append(f"#EXT-X-STREAM-INF:BANDWIDTH={rung.kbps * 1000},RESOLUTION={rung.width}x{rung.height}")
        lines.append(f"{rung.name}.m3u8")
    (given.out / "index.m3u8").write_text("\n".join(lines) + "\n")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Files, directory=str(given.out))) as server:
        print(f"http://127.0.0.1:{server.server_port}/index.m3u8", flush=True)
        server.serve_forever()


if __name__ == "__main__":
    main()
