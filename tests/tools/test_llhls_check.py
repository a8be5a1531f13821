"""The LL-HLS checker's own test: a small presentation, served in process, with faults planted one at a time.

Time in it is virtual: a blocking reload makes the next part instead of waiting for it, so a run of many seconds of
media takes a fraction of one. Each case names the rules that must be reported, and no other may be.
Run: python3 -m unittest discover --start-directory tests/tools
"""
import gzip, http.server, struct, threading, time, unittest, urllib.parse
from datetime import datetime, timedelta, timezone

import llhls_check

TIMESCALE = 1000
PART_MS, PARTS, TARGET = 200, 5, 1  # a segment of one second in five parts


# ---- media: as little ISO BMFF as the checker reads --------------------------

def box(kind, *content):
    body = b"".join(content)
    return struct.pack(">I4s", 8 + len(body), kind) + body


def words(*values):
    return struct.pack(f">{len(values)}I", *values)


def init_segment(handler):
    tkhd = box(b"tkhd", words(0, 0, 0, 1))
    mdhd = box(b"mdhd", words(0, 0, 0, TIMESCALE, 0))
    hdlr = box(b"hdlr", words(0, 0), handler)
    trex = box(b"trex", words(0, 1, 1, 0, 0, 0))
    return box(b"moov", box(b"trak", tkhd, box(b"mdia", mdhd, hdlr)), box(b"mvex", trex))


def media_part(decode_ms, sync):
    tfhd = box(b"tfhd", words(0, 1))
    tfdt = box(b"tfdt", words(0x01000000), struct.pack(">Q", decode_ms))
    trun = box(b"trun", words(0x000105, 1, 0, 0 if sync else 0x10000, PART_MS))  # data offset, first flags, durations
    return box(b"moof", box(b"traf", tfhd, tfdt, trun)) + box(b"mdat")


# ---- the presentation --------------------------------------------------------

class Presentation:
    """What is published, and what is wrong with it. `made` counts the parts made so far, on all renditions alike."""

    def __init__(self, **faults):
        self.renditions = faults.pop("renditions", {"video": b"vide"})
        self.variant = faults.pop("variant", 'BANDWIDTH=1,AVERAGE-BANDWIDTH=1,CODECS="avc1.64001f",RESOLUTION=640x360,FRAME-RATE=30.000')
        self.ends_after = faults.pop("ends_after", 40)
        self.stop_at = faults.pop("stop_at", None)      # msn before which the publisher stops and comes back
        self.away_s = faults.pop("away_s", 0.75 * TARGET)  # how long the one request in between is held
        self.tagged = faults.pop("tagged", True)        # EXT-X-DISCONTINUITY is written
        self.untagged_when_closed = faults.pop("untagged_when_closed", False)
        self.dated = faults.pop("dated", True)          # EXT-X-PROGRAM-DATE-TIME is written
        self.jump = faults.pop("jump", {})              # {(msn, part): milliseconds added to the decode time from there}
        self.skip = faults.pop("skip", True)            # delta updates are really made
        self.skip_until = faults.pop("skip_until", 6)
        self.slow_s = faults.pop("slow_s", 0)           # real time that a part takes
        self.refuses_absurd = faults.pop("refuses_absurd", True)
        self.made = faults.pop("made", PARTS + 2)       # parts at the start
        self.breaks_hint = faults.pop("breaks_hint", False)  # a publisher that came back ignores what was hinted
        assert not faults, faults
        self.away, self.lock = False, threading.Lock()

    def epoch(self, msn):
        return int(self.stop_at is not None and msn >= self.stop_at)

    def decode_ms(self, msn, part):
        gap = 7000 if self.stop_at is not None and msn >= self.stop_at else 0
        return (msn * PARTS + part) * PART_MS + gap + sum(ms for at, ms in self.jump.items() if (msn, part) >= at)

    def part_uri(self, rendition, n):
        # The first part of a publisher that came back takes the address that was hinted before it came.
        hinted = self.stop_at is not None and n == self.stop_at * PARTS and not self.breaks_hint
        return f"/{rendition}/e{0 if hinted else self.epoch(n // PARTS)}/p{n}.m4s"

    def ended(self):
        return self.made >= self.ends_after

    def playlist(self, rendition, skipped):
        open_msn, open_parts = divmod(self.made, PARTS)
        first = max(0, open_msn - 10)
        hint = self.part_uri(rendition, self.made)
        if self.stop_at is not None and self.made == self.stop_at * PARTS:
            hint = f"/{rendition}/e0/p{self.made}.m4s"  # the publisher is away: nobody knows yet that it comes back
        lines = ["#EXTM3U", "#EXT-X-VERSION:9", f"#EXT-X-TARGETDURATION:{TARGET}", f"#EXT-X-PART-INF:PART-TARGET={PART_MS / 1000}",
                 f"#EXT-X-SERVER-CONTROL:CAN-BLOCK-RELOAD=YES,PART-HOLD-BACK={3 * PART_MS / 1000},CAN-SKIP-UNTIL={self.skip_until}",
                 f"#EXT-X-MEDIA-SEQUENCE:{first}", f'#EXT-X-MAP:URI="/{rendition}/init.mp4"']
        omit = max(0, open_msn - first - self.skip_until) if skipped and self.skip else 0
        if omit:
            lines.append(f"#EXT-X-SKIP:SKIPPED-SEGMENTS={omit}")
        for msn in range(first + omit, open_msn + 1):
            closed = msn < open_msn
            if msn == self.stop_at and self.tagged and (closed or open_parts) and not (closed and self.untagged_when_closed):
                lines.append("#EXT-X-DISCONTINUITY")
            if self.dated and (closed or open_parts):
                at = datetime(2026, 1, 1, tzinfo=timezone.utc) + timedelta(milliseconds=self.decode_ms(msn, 0))
                lines.append(f"#EXT-X-PROGRAM-DATE-TIME:{at.isoformat(timespec='milliseconds')}")
            for part in range(PARTS if closed else open_parts):
                mark = ",INDEPENDENT=YES" if part == 0 else ""
                lines.append(f'#EXT-X-PART:DURATION={PART_MS / 1000},URI="{self.part_uri(rendition, msn * PARTS + part)}"{mark}')
            if closed:
                lines += [f"#EXTINF:{PARTS * PART_MS / 1000},", f"/{rendition}/e{self.epoch(msn)}/s{msn}.m4s"]
        lines.append("#EXT-X-ENDLIST" if self.ended() else f'#EXT-X-PRELOAD-HINT:TYPE=PART,URI="{hint}"')
        lines += [f'#EXT-X-RENDITION-REPORT:URI="/{other}/live.m3u8"' for other in self.renditions if other != rendition]
        return "\n".join(lines) + "\n"

    def hold(self, msn, part):
        """What a blocking reload does: in virtual time the asked part is simply made, except while the publisher is away."""
        with self.lock:
            wanted = msn * PARTS + part + 1
            if self.stop_at is not None and wanted == self.stop_at * PARTS + 1 and not self.away:
                self.away = True
                time.sleep(self.away_s)
                return
            if wanted > self.made:
                time.sleep(self.slow_s)
                self.made = wanted

    def multivariant(self):
        return "\n".join(["#EXTM3U", "#EXT-X-VERSION:9", "#EXT-X-INDEPENDENT-SEGMENTS"] +
                         [line for name in self.renditions for line in (f"#EXT-X-STREAM-INF:{self.variant}", f"/{name}/live.m3u8")]) + "\n"


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def answer(self, status, kind, body):
        body = gzip.compress(body) if kind == "application/vnd.apple.mpegurl" else body
        self.send_response(status)
        self.send_header("Content-Type", kind)
        if kind == "application/vnd.apple.mpegurl":
            self.send_header("Content-Encoding", "gzip")
        self.send_header("Cache-Control", "no-store")
        self.send_header("Access-Control-Allow-Origin", "*")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        p, url = self.server.presentation, urllib.parse.urlsplit(self.path)
        query = dict(urllib.parse.parse_qsl(url.query))
        _, *folders, name = url.path.split("/")
        if name == "index.m3u8":
            return self.answer(200, "application/vnd.apple.mpegurl", p.multivariant().encode())
        if name == "live.m3u8":
            if "_HLS_msn" in query or "_HLS_part" in query:
                if not p.ended() and p.refuses_absurd and not (query.get("_HLS_msn", "").isdigit() and int(query["_HLS_msn"]) <= p.made // PARTS + 2):
                    return self.answer(400, "text/plain", b"absurd")
                if query.get("_HLS_msn", "").isdigit() and not p.ended() and "_HLS_part" in query:
                    p.hold(int(query["_HLS_msn"]), int(query["_HLS_part"]))
            return self.answer(200, "application/vnd.apple.mpegurl", p.playlist(folders[0], "_HLS_skip" in query).encode())
        if name == "init.mp4":
            return self.answer(200, "video/mp4", init_segment(p.renditions[folders[0]]))
        n = int(name[1:].removesuffix(".m4s"))
        if name.startswith("p"):
            return self.answer(200, "video/mp4", media_part(p.decode_ms(*divmod(n, PARTS)), n % PARTS == 0))
        return self.answer(200, "video/mp4", b"".join(media_part(p.decode_ms(n, i), i == 0) for i in range(PARTS)))


def rules(seconds=10, **faults):
    """The rules that the checker reports for a presentation with these faults."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.presentation = Presentation(**faults)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    try:
        report, _ = llhls_check.check(f"http://127.0.0.1:{server.server_port}/index.m3u8", seconds)
        return sorted({rule for _, rule in report.violations}), report
    finally:
        server.shutdown()
        server.server_close()


AUDIO_ONLY = dict(renditions={"audio": b"soun"}, variant='BANDWIDTH=1,AVERAGE-BANDWIDTH=1,CODECS="mp4a.40.2"')


class CheckerTest(unittest.TestCase):
    def expect(self, *wanted, **faults):
        found, report = rules(**faults)
        self.assertEqual(found, sorted(wanted), report.violations)

    def test_a_correct_presentation_passes(self):
        self.expect()
        self.expect(renditions={"video": b"vide", "audio": b"soun"})

    def test_frame_rate_is_asked_of_video_alone(self):
        self.expect(**AUDIO_ONLY)
        self.expect("4.4.6.2 FRAME-RATE absent", variant='BANDWIDTH=1,AVERAGE-BANDWIDTH=1,CODECS="avc1.64001f",RESOLUTION=640x360')
        self.expect("4.4.6.2 FRAME-RATE absent", "4.4.6.2 RESOLUTION absent", variant='BANDWIDTH=1,AVERAGE-BANDWIDTH=1,CODECS="avc1.64001f"')
        self.expect("4.4.6.2 AVERAGE-BANDWIDTH absent", **AUDIO_ONLY | dict(variant='BANDWIDTH=1,CODECS="mp4a.40.2"'))

    def test_a_date_on_the_open_segment_is_a_date(self):
        self.expect(made=2)
        self.expect("authoring: EXT-X-PROGRAM-DATE-TIME", made=2, dated=False)
        self.expect("authoring: EXT-X-PROGRAM-DATE-TIME", dated=False)

    def test_decode_time_jumps_only_behind_a_discontinuity(self):
        self.expect("decode time is not continuous", jump={(3, 0): 40}, **AUDIO_ONLY)
        self.expect("decode time is not continuous", "EXT-X-PROGRAM-DATE-TIME disagrees with EXTINF", jump={(3, 0): 5000})

    def test_a_publisher_may_stop_and_return(self):
        self.expect(stop_at=3)
        self.expect(stop_at=3, renditions={"video": b"vide", "audio": b"soun"})

    def test_a_return_without_discontinuity_is_reported(self):
        self.expect("decode time is not continuous", "EXT-X-PROGRAM-DATE-TIME disagrees with EXTINF",
                    stop_at=3, tagged=False)

    def test_inside_a_segment_behind_a_discontinuity_time_goes_on(self):
        self.expect("decode time is not continuous", stop_at=3, jump={(3, 2): 40})

    def test_a_discontinuity_stays_when_its_segment_closes(self):
        self.expect("6.2.1 EXT-X-DISCONTINUITY came or went when a segment closed", "EXT-X-PROGRAM-DATE-TIME disagrees with EXTINF",
                    stop_at=3, untagged_when_closed=True)

    def test_an_answer_without_news_comes_only_after_the_hold(self):
        self.expect("6.2.5.2 blocking reload returned early", stop_at=3, away_s=0.1)

    def test_a_hint_comes_true_whoever_sends_next(self):
        self.expect("4.4.5.3 preload hint was never published", stop_at=3, breaks_hint=True)

    def test_delta_updates_are_counted_in_seconds(self):
        running = dict(made=12 * PARTS, ends_after=10**6, slow_s=0.02, seconds=0.3)
        self.expect(**running)
        self.expect("6.2.5.1 no delta update though segments could be skipped", skip=False, **running)
        self.expect(skip=False, skip_until=12, **running)

    def test_absurd_directives_are_refused_until_the_end(self):
        self.expect("6.2.5.2 absurd delivery directive accepted", refuses_absurd=False, ends_after=10**6, slow_s=0.02, seconds=0.3)
        self.expect(refuses_absurd=False)


if __name__ == "__main__":
    unittest.main()
