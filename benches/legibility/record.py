#!/usr/bin/env python3
"""Records every video rendition of an HLS presentation at once, live or not, and says what each really costs.

    record.py URL OUT --seconds 20 [--warm-up 40]

URL is the Multivariant Playlist's. OUT gets one fMP4 file for each variant and recording.json. All of them are followed
during the warm-up as well, so that a server which makes a rung only for its viewers makes all of them.

A recording is one unbroken stretch: it starts anew after a gap, a discontinuity, a Segment that was missed, or another
Media Initialization Section, and where none is as long as it should be before time is up, the longest one is kept.
Whole Segments are read: their Parts are the same bytes, sooner. Standard library and ffprobe.
"""

import argparse
import gzip
import json
import re
import subprocess
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

ATTRIBUTE = re.compile(r'([A-Z0-9-]+)=("[^"]*"|[^,]*)')
# A server holds a request for a Segment that is being made; longer than any Segment here lasts.
FETCH_TIMEOUT_S = 15
# Beyond warm-up and recording: the helper program's start, a rung's first Segment, and one stretch lost.
GRACE_S = 60
# After an error the next try, for a rung that is only being started; and the most of them in a row.
RETRY_S, RETRIES_MAX = 0.5, 60


def attributes(text: str) -> dict[str, str]:
    return {name: value.strip('"') for name, value in ATTRIBUTE.findall(text)}


def fetch(url: str) -> bytes:
    request = urllib.request.Request(url, headers={"Accept-Encoding": "gzip"})
    with urllib.request.urlopen(request, timeout=FETCH_TIMEOUT_S) as reply:
        body: bytes = reply.read()
        return gzip.decompress(body) if reply.headers.get("Content-Encoding") == "gzip" else body


# ---- playlists -------------------------------------------------------------------------------------------------------


@dataclass
class Variant:
    name: str
    url: str
    bandwidth: int
    resolution: str


@dataclass
class Segment:
    msn: int
    url: str
    seconds: float
    init: str | None
    gap: bool
    discontinuity: bool


@dataclass
class MediaPlaylist:
    segments: list[Segment] = field(default_factory=list)
    target_s: float = 2.0
    ended: bool = False
    can_block: bool = False


def variants_of(text: str, url: str) -> list[Variant]:
    """Those with pictures, each rendition once: a variant may be listed again for each group of sound."""
    found: dict[str, Variant] = {}
    lines = text.splitlines()
    for line, uri in zip(lines, lines[1:]):
        if not line.startswith("#EXT-X-STREAM-INF:"):
            continue
        given = attributes(line)
        if "RESOLUTION" in given:
            name = re.sub(r"\.m3u8$", "", urllib.parse.urlsplit(uri).path).replace("/", "-")
            found.setdefault(uri, Variant(name, urllib.parse.urljoin(url, uri), int(given["BANDWIDTH"]), given["RESOLUTION"]))
    return list(found.values())


def media_playlist(text: str, url: str) -> MediaPlaylist:
    playlist = MediaPlaylist()
    msn, seconds, init, gap, discontinuity = 0, 0.0, None, False, False
    for line in text.splitlines():
        tag, _, value = line.partition(":")
        match tag:
            case "#EXT-X-MEDIA-SEQUENCE":
                msn = int(value)
            case "#EXT-X-TARGETDURATION":
                playlist.target_s = float(value)
            case "#EXT-X-SERVER-CONTROL":
                playlist.can_block = attributes(value).get("CAN-BLOCK-RELOAD") == "YES"
            case "#EXT-X-ENDLIST":
                playlist.ended = True
            case "#EXT-X-MAP":
                init = urllib.parse.urljoin(url, attributes(value)["URI"])
            case "#EXT-X-BYTERANGE":
                raise ValueError(f"{url}: byte ranges are not read")
            case "#EXTINF":
                seconds = float(value.split(",")[0])
            case "#EXT-X-GAP":
                gap = True
            case "#EXT-X-DISCONTINUITY":
                discontinuity = True
            case _ if line and not line.startswith("#"):
                playlist.segments.append(Segment(msn, urllib.parse.urljoin(url, line), seconds, init, gap, discontinuity))
                msn, gap, discontinuity = msn + 1, False, False
    return playlist


# ---- recording -------------------------------------------------------------------------------------------------------


@dataclass
class Stretch:
    """Segments that follow each other, and the initialization section before them."""

    init: bytes = b""
    media: list[bytes] = field(default_factory=list)
    seconds: float = 0.0


@dataclass
class Rendition:
    """What was recorded of a variant. Rates are of media bytes over their EXTINF, and of samples alone."""

    name: str
    file: str
    resolution: str
    bandwidth: int
    seconds: float
    kbps: float
    coded_kbps: float
    fps: float
    largest_sample_kb: float


class Recorder:
    """Follows one variant; `run` is a thread's."""

    def __init__(self, variant: Variant, seconds: float, warm_up_s: float):
        self.variant, self.seconds, self.warm_up_s = variant, seconds, warm_up_s
        self.deadline = time.monotonic() + warm_up_s + seconds + GRACE_S
        self.longest, self.stretch = Stretch(), Stretch()
        self.init_url: str | None = None
        self.next_msn: int | None = None
        # Whether the server holds a request for what is being made.
        self.blocks = False
        self.error = ""

    def run(self) -> None:
        failures = 0
        while time.monotonic() < self.deadline and failures < RETRIES_MAX:
            try:
                if self.read_more():
                    return
                failures = 0
            except (OSError, urllib.error.URLError, ValueError) as error:
                self.error, failures = str(error), failures + 1
                time.sleep(RETRY_S)

    def read_more(self) -> bool:
        """Whether the recording is finished: long enough, or all that there is."""
        playlist = self.reload()
        for segment in playlist.segments:
            if self.next_msn is None or segment.msn >= self.next_msn:
                self.take(segment)
            if self.longest.seconds >= self.seconds:
                return True
        if not playlist.ended and not self.blocks:
            time.sleep(playlist.target_s / 2)
        return playlist.ended

    def reload(self) -> MediaPlaylist:
        """The playlist with the next Segment, where the server waits for it. A live one is joined at its newest."""
        query = f"?_HLS_msn={self.next_msn}" if self.blocks and self.next_msn is not None else ""
        playlist = media_playlist(fetch(self.variant.url + query).decode(), self.variant.url)
        if self.next_msn is None and not playlist.ended and playlist.segments:
            self.next_msn = playlist.segments[-1].msn
        self.blocks = playlist.can_block
        return playlist

    def take(self, segment: Segment) -> None:
        missed = self.next_msn is not None and segment.msn != self.next_msn
        if segment.gap:
            self.next_msn, self.stretch = segment.msn + 1, Stretch()
            return
        init = self.stretch.init
        if segment.init != self.init_url or not init:
            init = fetch(segment.init) if segment.init else b""
        media = fetch(segment.url)
        self.next_msn, self.init_url = segment.msn + 1, segment.init
        if self.warm_up_s > 0:
            self.warm_up_s -= segment.seconds
            return
        if missed or segment.discontinuity or init != self.stretch.init:
            self.stretch = Stretch(init)
        self.stretch.media.append(media)
        self.stretch.seconds += segment.seconds
        if self.stretch.seconds > self.longest.seconds:
            self.longest = self.stretch

    def save(self, out: Path) -> Rendition:
        path = out / f"{self.variant.name}.mp4"
        path.write_bytes(b"".join([self.longest.init, *self.longest.media]))
        sizes = [int(packet["size"]) for packet in packets(path)]
        seconds = self.longest.seconds
        return Rendition(
            name=self.variant.name,
            file=path.name,
            resolution=self.variant.resolution,
            bandwidth=self.variant.bandwidth,
            seconds=round(seconds, 3),
            kbps=round(sum(map(len, self.longest.media)) * 8 / seconds / 1000, 1),
            coded_kbps=round(sum(sizes) * 8 / seconds / 1000, 1),
            fps=round(len(sizes) / seconds, 2),
            largest_sample_kb=round(max(sizes) / 1000, 1),
        )


def packets(path: Path) -> list[dict[str, Any]]:
    """The samples of a file, in the order of presentation."""
    entries = "packet=pts_time,size,flags"
    command = ["ffprobe", "-v", "error", "-select_streams", "v:0", "-show_entries", entries, "-of", "json", str(path)]
    said = json.loads(subprocess.run(command, capture_output=True, check=True, text=True).stdout)
    return sorted(said["packets"], key=lambda packet: float(packet["pts_time"]))


def record(url: str, out: Path, seconds: float, warm_up_s: float) -> list[Rendition]:
    variants = variants_of(fetch(url).decode(), url)
    recorders = [Recorder(variant, seconds, warm_up_s) for variant in variants]
    threads = [threading.Thread(target=recorder.run) for recorder in recorders]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    out.mkdir(parents=True, exist_ok=True)
    renditions = []
    for recorder in recorders:
        if recorder.longest.seconds < seconds:
            print(f"{recorder.variant.name}: {recorder.longest.seconds:.1f} s of {seconds:.1f}. {recorder.error}")
        if recorder.longest.media:
            renditions.append(recorder.save(out))
    (out / "recording.json").write_text(json.dumps([asdict(rendition) for rendition in renditions], indent=1) + "\n")
    return renditions


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url")
    parser.add_argument("out", type=Path)
    parser.add_argument("--seconds", type=float, required=True, help="of each rendition")
    parser.add_argument("--warm-up", type=float, default=0, metavar="SECONDS", help="of media, followed but not kept")
    given = parser.parse_args()
    renditions = record(given.url, given.out, given.seconds, given.warm_up)
    for r in renditions:
        print(f"{r.name}: {r.resolution} {r.fps:g} fps, {r.kbps:g} kbit/s ({r.coded_kbps:g} of samples), {r.seconds:g} s, "
              f"largest sample {r.largest_sample_kb:g} kB")  # fmt: skip
    if not renditions or any(rendition.seconds < given.seconds for rendition in renditions):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
