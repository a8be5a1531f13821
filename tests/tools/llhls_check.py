#!/usr/bin/env python3
"""Check a live LL-HLS presentation against RFC 8216bis, from outside.

    llhls_check.py http://127.0.0.1:8080/live/demo/index.m3u8 [--seconds 20] [--long-gop] [--json]

Follows every rendition with blocking reloads and partial segments, as a player
at the live edge does, and prints one line per violated rule. Exit status: 0 when
no rule is violated, 1 when one is, 2 when the presentation could not be read.
Standard library only. It knows nothing of the server it tests but one promise:
while a publisher is away, a held request is answered with the unchanged playlist
after 0.75 target durations. A publisher may stop and come back while this runs.

Each rule is shown failing on a planted fault by test_llhls_check.py.
"""
import argparse, gzip, json, re, struct, sys, threading, time, urllib.error, urllib.parse, urllib.request
from datetime import datetime

ATTRIBUTE = re.compile(r'([A-Z0-9-]+)=("[^"]*"|[^,]*)')


def attributes(text):
    return {k: v.strip('"') for k, v in ATTRIBUTE.findall(text)}


def fetch(url, timeout=20):
    request = urllib.request.Request(url, headers={"Accept-Encoding": "gzip"})
    with urllib.request.urlopen(request, timeout=timeout) as reply:
        body = reply.read()
        if reply.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        return reply.status, reply.headers, body


class Report:
    def __init__(self):
        self.lock, self.violations, self.facts = threading.Lock(), {}, {}

    def fail(self, where, rule, detail):
        with self.lock:
            self.violations.setdefault((where, rule), []).append(detail)

    def fact(self, where, name, value):
        with self.lock:
            self.facts.setdefault(where, {})[name] = value


# ---- ISO BMFF ---------------------------------------------------------------

def boxes(data, start=0, end=None):
    end = len(data) if end is None else end
    while start + 8 <= end:
        size, kind = struct.unpack_from(">I4s", data, start)
        head = 8
        if size == 1:
            size, head = struct.unpack_from(">Q", data, start + 8)[0], 16
        elif size == 0:
            size = end - start
        if size < head or start + size > end:
            raise ValueError(f"box {kind!r} at {start} runs past its parent")
        yield kind.decode("latin1"), start + head, start + size
        start += size
    if start != end:
        raise ValueError("trailing bytes after the last box")


def child(data, path, start=0, end=None):
    for kind, s, e in boxes(data, start, end):
        if kind == path[0]:
            return (s, e) if len(path) == 1 else child(data, path[1:], s, e)
    return None


def init_tracks(data):
    """{track_id: (timescale, handler)} of an initialization segment."""
    tracks, moov = {}, child(data, ["moov"])
    if moov is None:
        raise ValueError("no moov box")
    for kind, s, e in boxes(data, *moov):
        if kind != "trak":
            continue
        tkhd, mdhd, hdlr = child(data, ["tkhd"], s, e), child(data, ["mdia", "mdhd"], s, e), child(data, ["mdia", "hdlr"], s, e)
        track_id = struct.unpack_from(">I", data, tkhd[0] + (20 if data[tkhd[0]] else 12))[0]
        timescale = struct.unpack_from(">I", data, mdhd[0] + (20 if data[mdhd[0]] else 12))[0]
        tracks[track_id] = (timescale, data[hdlr[0] + 8:hdlr[0] + 12].decode("latin1"))
    defaults = {}
    mvex = child(data, ["moov", "mvex"])
    if mvex:
        for kind, s, e in boxes(data, *mvex):
            if kind == "trex":
                track_id, _, duration, _, flags = struct.unpack_from(">IIIII", data, s + 4)
                defaults[track_id] = (duration, flags)
    return tracks, defaults


def fragments(data, defaults):
    """[(track_id, base decode time, duration, first sample is sync, any sample is sync)] of a segment or part."""
    found = []
    for kind, s, e in boxes(data):
        if kind != "moof":
            continue
        for inner, ts, te in boxes(data, s, e):
            if inner != "traf":
                continue
            tfhd, tfdt = child(data, ["tfhd"], ts, te), child(data, ["tfdt"], ts, te)
            flags = struct.unpack_from(">I", data, tfhd[0])[0] & 0xFFFFFF
            track_id, at = struct.unpack_from(">I", data, tfhd[0] + 4)[0], tfhd[0] + 8
            duration, sample_flags = defaults.get(track_id, (0, 0))
            if flags & 1: at += 8
            if flags & 2: at += 4
            if flags & 8: duration, at = struct.unpack_from(">I", data, at)[0], at + 4
            if flags & 0x10: at += 4
            if flags & 0x20: sample_flags = struct.unpack_from(">I", data, at)[0]
            base = struct.unpack_from(">Q" if data[tfdt[0]] else ">I", data, tfdt[0] + 4)[0]
            total, sync, some = 0, None, False
            for run, rs, re_ in boxes(data, ts, te):
                if run != "trun":
                    continue
                rflags = struct.unpack_from(">I", data, rs)[0] & 0xFFFFFF
                count, at = struct.unpack_from(">I", data, rs + 4)[0], rs + 8
                first = None
                if rflags & 1: at += 4
                if rflags & 4: first, at = struct.unpack_from(">I", data, at)[0], at + 4
                for i in range(count):
                    this_duration, this_flags = duration, sample_flags
                    if rflags & 0x100: this_duration, at = struct.unpack_from(">I", data, at)[0], at + 4
                    if rflags & 0x200: at += 4
                    if rflags & 0x400: this_flags, at = struct.unpack_from(">I", data, at)[0], at + 4
                    if rflags & 0x800: at += 4
                    if i == 0 and first is not None: this_flags = first
                    if sync is None: sync = not (this_flags >> 16) & 1
                    some = some or not (this_flags >> 16) & 1
                    total += this_duration
            found.append((track_id, base, total, bool(sync), some))
    return found


# ---- playlists --------------------------------------------------------------

class Media:
    """One parsed Media Playlist. Segments and parts are keyed by media sequence number."""

    def __init__(self, text):
        self.text, self.lines = text, text.splitlines()
        self.version = self.target = self.part_target = None
        self.control, self.msn, self.disc = {}, 0, 0
        self.segments, self.parts, self.hint, self.reports = [], {}, None, []
        self.skipped, self.ended, self.map = 0, False, None
        duration, pdt, discontinuity, pending, gap = None, None, False, [], False
        for line in self.lines:
            tag, _, value = line.partition(":")
            if tag == "#EXT-X-VERSION": self.version = int(value)
            elif tag == "#EXT-X-TARGETDURATION": self.target = int(value)
            elif tag == "#EXT-X-SERVER-CONTROL": self.control = attributes(value)
            elif tag == "#EXT-X-PART-INF": self.part_target = float(attributes(value)["PART-TARGET"])
            elif tag == "#EXT-X-MEDIA-SEQUENCE": self.msn = int(value)
            elif tag == "#EXT-X-DISCONTINUITY-SEQUENCE": self.disc = int(value)
            elif tag == "#EXT-X-SKIP": self.skipped = int(attributes(value)["SKIPPED-SEGMENTS"])
            elif tag == "#EXT-X-MAP": self.map = attributes(value)["URI"]
            elif tag == "#EXT-X-DISCONTINUITY": discontinuity = True
            elif tag == "#EXT-X-GAP": gap = True
            elif tag == "#EXT-X-PROGRAM-DATE-TIME":
                pdt = datetime.fromisoformat(value.replace("Z", "+00:00")).timestamp()
            elif tag == "#EXTINF": duration = float(value.split(",")[0])
            elif tag == "#EXT-X-PART": pending.append(attributes(value))
            elif tag == "#EXT-X-PRELOAD-HINT": self.hint = attributes(value)
            elif tag == "#EXT-X-RENDITION-REPORT": self.reports.append(attributes(value))
            elif tag == "#EXT-X-ENDLIST": self.ended = True
            elif line and not line.startswith("#"):
                msn = self.msn + self.skipped + len(self.segments)
                self.segments.append(dict(msn=msn, uri=line, duration=duration, pdt=pdt, gap=gap,
                                          discontinuity=discontinuity, map=self.map))
                self.parts[msn] = pending
                duration, pdt, discontinuity, pending, gap = None, None, False, [], False
        self.next_msn = self.msn + self.skipped + len(self.segments)
        self.parts[self.next_msn] = pending
        # Tags behind the last address belong to the segment that is still open.
        self.open_pdt = pdt
        self.discontinuities = {s["msn"] for s in self.segments if s["discontinuity"]}
        if discontinuity:
            self.discontinuities.add(self.next_msn)
        self.open_pdt = pdt

    def last(self):
        """(msn, part) of the newest part; part is None where the playlist has no parts."""
        if self.parts[self.next_msn]:
            return self.next_msn, len(self.parts[self.next_msn]) - 1
        return self.next_msn - 1, (len(self.parts.get(self.next_msn - 1, [])) or 1) - 1


def with_query(url, **query):
    parts = urllib.parse.urlsplit(url)
    pairs = urllib.parse.parse_qsl(parts.query, keep_blank_values=True) + list(query.items())
    return urllib.parse.urlunsplit(parts._replace(query=urllib.parse.urlencode(pairs)))


class Follower(threading.Thread):
    def __init__(self, url, name, seconds, report, independent):
        super().__init__(daemon=True)
        self.url, self.name_, self.seconds, self.report, self.independent = url, name, seconds, report, independent
        self.init, self.decode_end, self.lags, self.departed = {}, {}, [], None

    def fail(self, rule, detail):
        self.report.fail(self.name_, rule, detail)

    def run(self):
        try:
            self.follow()
        except urllib.error.HTTPError as error:
            self.fail("request refused", f"{error.code} for {error.url}")
        except Exception as error:  # a player would stop here as well
            self.fail("unreadable", f"{type(error).__name__}: {error}")

    def load(self, **query):
        began = time.time()
        status, headers, body = fetch(with_query(self.url, **query))
        kind = headers.get("Content-Type", "").split(";")[0].strip().lower()
        if kind not in ("application/vnd.apple.mpegurl", "audio/mpegurl"):
            self.fail("4: playlist media type", kind)
        if not headers.get("Cache-Control"):
            self.fail("caching: playlist has no Cache-Control", self.url)
        return Media(body.decode("utf-8")), time.time() - began

    def static(self, p):
        """Rules that one playlist, alone, must keep."""
        if not p.lines or p.lines[0] != "#EXTM3U":
            self.fail("4.4.1.1 first line is #EXTM3U", p.lines[:1])
        if p.target is None:
            return self.fail("4.4.3.1 EXT-X-TARGETDURATION", "absent")
        if p.part_target is None:
            return self.fail("4.4.3.7 EXT-X-PART-INF", "absent: this is no low-latency playlist")
        if (p.version or 1) < (9 if p.skipped else 6):
            self.fail("7 EXT-X-VERSION too low", p.version)
        control = p.control
        if control.get("CAN-BLOCK-RELOAD") != "YES":
            self.fail("4.4.3.8 CAN-BLOCK-RELOAD", control)
        hold = float(control.get("PART-HOLD-BACK", 0))
        if hold < 3 * p.part_target - 1e-6:
            self.fail("4.4.3.8 PART-HOLD-BACK under 3 part targets", f"{hold} < 3 x {p.part_target}")
        if "HOLD-BACK" in control and float(control["HOLD-BACK"]) < 3 * p.target - 1e-6:
            self.fail("4.4.3.8 HOLD-BACK under 3 target durations", control["HOLD-BACK"])
        if "CAN-SKIP-UNTIL" in control and float(control["CAN-SKIP-UNTIL"]) < 6 * p.target - 1e-6:
            self.fail("4.4.3.8 CAN-SKIP-UNTIL under 6 target durations", control["CAN-SKIP-UNTIL"])
        for s in p.segments:
            if int(s["duration"] + 0.5) > p.target:
                self.fail("4.4.3.1 EXTINF over TARGETDURATION", f"{s['duration']} > {p.target}")
            parts = p.parts[s["msn"]]
            if parts and abs(sum(float(x["DURATION"]) for x in parts) - s["duration"]) > 0.005:
                self.fail("4.4.4.9 parts do not add up to EXTINF", f"msn {s['msn']}")
        for msn, parts in p.parts.items():
            for i, part in enumerate(parts):
                d = float(part["DURATION"])
                if d > p.part_target + 1e-4:
                    self.fail("4.4.4.9 part over PART-TARGET", f"msn {msn} part {i}: {d} > {p.part_target}")
                final = msn < p.next_msn and i == len(parts) - 1
                exempt = part.get("GAP") == "YES" or part.get("INDEPENDENT") == "YES" or (i + 1 < len(parts) and parts[i + 1].get("GAP") == "YES")
                if d < 0.85 * p.part_target - 1e-4 and not final and not exempt and msn < p.next_msn:
                    self.fail("4.4.4.9 part under 85% of PART-TARGET", f"msn {msn} part {i}: {d}")
        if not p.ended and not p.hint:
            self.fail("4.4.5.3 EXT-X-PRELOAD-HINT", "absent at the live edge")
        if p.segments and not p.segments[-1]["gap"] and p.part_target and not p.parts[p.segments[-1]["msn"]]:
            self.fail("parts missing for the newest segment", f"msn {p.segments[-1]['msn']}")
        stated = [s for s in p.segments if s["pdt"] is not None]
        if not stated and p.open_pdt is None and not p.skipped:
            self.fail("authoring: EXT-X-PROGRAM-DATE-TIME", "absent")
        for a, b in zip(p.segments, p.segments[1:]):
            if a["pdt"] and b["pdt"] and not b["discontinuity"] and abs(a["pdt"] + a["duration"] - b["pdt"]) > 0.1:
                self.fail("EXT-X-PROGRAM-DATE-TIME disagrees with EXTINF", f"msn {b['msn']}: {b['pdt'] - a['pdt'] - a['duration']:+.3f} s")

    def media(self, uri, declared, independent, opens, map_uri, what, continuous):
        began = time.time()
        status, headers, body = fetch(urllib.parse.urljoin(self.url, uri))
        if not headers.get("Cache-Control"):
            self.fail("caching: media has no Cache-Control", what)
        if map_uri and map_uri not in self.init:
            self.init[map_uri] = init_tracks(fetch(urllib.parse.urljoin(self.url, map_uri))[2])
        tracks, defaults = self.init[map_uri]
        spans, first, any_sync = {}, {}, {}
        for track_id, base, duration, sync, some in fragments(body, defaults):
            if track_id not in tracks:
                self.fail("fragment of an unknown track", f"{what}: track {track_id}")
                continue
            begin, end = spans.get(track_id, (base, base))
            if track_id in spans and base != end:
                self.fail("gap between fragments of one part", f"{what}: {base - end:+d} ticks")
            spans[track_id] = (min(begin, base), base + duration)
            first.setdefault(track_id, sync)
            any_sync[track_id] = any_sync.get(track_id, False) or some
        if not spans:
            self.fail("no media in a part or segment", what)
        lead = next((t for t in spans if tracks[t][1] == "vide"), next(iter(spans), None))
        for track_id, (begin, end) in spans.items():
            scale, handler = tracks[track_id]
            if continuous and track_id in self.decode_end and abs(begin - self.decode_end[track_id]) > 1:
                self.fail("decode time is not continuous", f"{what} {handler}: {(begin - self.decode_end[track_id]) / scale:+.4f} s")
            self.decode_end[track_id] = end
            if track_id == lead and abs((end - begin) / scale - declared) > 0.03:
                self.fail("declared duration disagrees with the media", f"{what}: {declared} s, media {(end - begin) / scale:.4f} s")
            if handler == "vide" and independent and opens and not first[track_id]:
                self.fail("first part of a segment opens without a sync sample", what)
            if handler == "vide" and independent and not any_sync[track_id]:
                self.fail("INDEPENDENT part contains no sync sample", what)
        return body, time.time() - began

    def follow(self):
        p, _ = self.load()
        self.static(p)
        if p.part_target is None or p.target is None:
            return
        msn, part = p.last()
        end, seen, sizes = time.time() + self.seconds, {}, {}
        while time.time() < end and not p.ended:
            part += 1
            if msn < p.next_msn and part >= len(p.parts.get(msn, [])):
                msn, part = msn + 1, 0
            n, waited = self.load(_HLS_msn=msn, _HLS_part=part)
            self.lags.append(waited)
            self.static(n)
            got_msn, got_part = n.last()
            if (got_msn, got_part) < (msn, part) and not (n.next_msn > msn):
                if waited < 0.7 * n.target and not n.ended:  # later: the publisher is away, and the server answers with what it has
                    self.fail("6.2.5.2 blocking reload returned early", f"asked {msn}.{part}, got {got_msn}.{got_part}")
                time.sleep(0.05)
            if waited > 3 * n.target:
                self.fail("blocking reload over 3 target durations", f"{waited:.2f} s")
            if n.msn < p.msn:
                self.fail("6.2.2 MEDIA-SEQUENCE went back", f"{p.msn} -> {n.msn}")
            if (n.target, n.part_target) != (p.target, p.part_target):
                self.fail("6.2.1 TARGETDURATION or PART-TARGET changed", f"{p.target}/{p.part_target} -> {n.target}/{n.part_target}")
            for s in p.segments:
                if s["msn"] < n.msn and not s["gap"] and not n.skipped:
                    self.departed = s["uri"]
            old = {s["msn"]: s for s in p.segments}
            for s in n.segments:
                o = old.get(s["msn"])
                if o and (o["uri"], o["duration"], o["discontinuity"]) != (s["uri"], s["duration"], s["discontinuity"]):
                    self.fail("6.2.1 a published segment changed", f"msn {s['msn']}")
                # An open segment with parts is published too: its discontinuity stays when it closes.
                if s["msn"] == p.next_msn and p.parts[s["msn"]] and (s["msn"] in p.discontinuities) != s["discontinuity"]:
                    self.fail("6.2.1 EXT-X-DISCONTINUITY came or went when a segment closed", f"msn {s['msn']}")
            for m, parts in p.parts.items():
                now = n.parts.get(m)
                if now and [x["URI"] for x in now][:len(parts)] != [x["URI"] for x in parts][:len(now)]:
                    self.fail("6.2.1 a published part changed", f"msn {m}")
            if p.hint and p.hint.get("TYPE") == "PART":
                offered = {x["URI"] for parts in n.parts.values() for x in parts}
                if (got_msn, got_part) >= (msn, part) and p.hint["URI"] not in offered and n.hint and n.hint["URI"] != p.hint["URI"]:
                    self.fail("4.4.5.3 preload hint was never published", p.hint["URI"])
            for m in sorted(n.parts):
                for i, x in enumerate(n.parts[m]):
                    if (m, i) in seen or (m, i) < (msn, part) or x.get("GAP") == "YES":
                        continue
                    map_uri = next((s["map"] for s in n.segments if s["msn"] == m), n.map)
                    # The decode time may jump at the first part behind a discontinuity or a gap, also of an open segment; not inside one.
                    gap = any(s["gap"] for s in n.segments if s["msn"] == m - 1)
                    fresh = i == 0 and (gap or m in n.discontinuities)
                    body, _ = self.media(x["URI"], float(x["DURATION"]), x.get("INDEPENDENT") == "YES", i == 0, map_uri, f"msn {m} part {i}", not fresh and bool(seen))
                    seen[(m, i)] = body
                    if i == 0 and x.get("INDEPENDENT") != "YES" and self.independent:
                        self.fail("first part of a segment is not INDEPENDENT", f"msn {m}")
            for s in n.segments:
                key, whole = s["msn"], n.parts[s["msn"]]
                if key in sizes or not whole or any((key, i) not in seen for i in range(len(whole))):
                    continue
                if any("BYTERANGE" in x for x in whole):
                    continue
                sizes[key] = True
                body = fetch(urllib.parse.urljoin(self.url, s["uri"]))[2]
                if body != b"".join(seen[(key, i)] for i in range(len(whole))):
                    self.fail("a segment is not the sum of its parts", f"msn {key}")
            p, (msn, part) = n, n.last()
        self.report.fact(self.name_, "parts", len(seen))
        if self.lags:
            lags = sorted(self.lags)
            self.report.fact(self.name_, "reload wait p50/p95/max s", [round(lags[int(len(lags) * q)], 3) for q in (0.5, 0.95)] + [round(lags[-1], 3)])
        self.probes(p)

    def probes(self, p):
        """Delta update, absurd requests, gzip."""
        if "CAN-SKIP-UNTIL" in p.control and not p.ended:
            n, _ = self.load(_HLS_skip="YES")
            # In seconds, not in segments: those of a scene cut or of a short life last less than a target duration.
            behind = sum(s["duration"] for s in n.segments[1:])
            if not n.skipped and behind > float(p.control["CAN-SKIP-UNTIL"]):
                self.fail("6.2.5.1 no delta update though segments could be skipped", f"{behind:.1f} s follow the first segment")
            self.report.fact(self.name_, "delta update skips", n.skipped)
        elif "CAN-SKIP-UNTIL" not in p.control:
            self.fail("authoring: delta updates (CAN-SKIP-UNTIL)", "absent")
        # Where the playlist has ended, delivery directives are ignored, absurd ones too.
        absurd = () if p.ended else ({"_HLS_msn": p.next_msn + 50}, {"_HLS_part": 0}, {"_HLS_msn": "x"})
        for query in absurd:
            try:
                status, _, _ = fetch(with_query(self.url, **query), timeout=8)
                self.fail("6.2.5.2 absurd delivery directive accepted", f"{query}: {status}")
            except urllib.error.HTTPError as error:
                if error.code != 400:
                    self.fail("6.2.5.2 absurd delivery directive", f"{query}: {error.code}")
            except OSError as error:
                self.fail("6.2.5.2 absurd delivery directive hangs", f"{query}: {error}")
        if self.departed:
            try:
                fetch(urllib.parse.urljoin(self.url, self.departed), timeout=8)
            except OSError as error:
                self.fail("6.2.2 a segment is gone as soon as it leaves the playlist", f"{self.departed}: {error}")
        _, headers, _ = fetch(self.url)
        if headers.get("Content-Encoding") != "gzip":
            self.fail("authoring: playlists are served with gzip", "not compressed")
        if headers.get("Access-Control-Allow-Origin") is None:
            self.fail("browser: no Access-Control-Allow-Origin", self.url)


def alignment(playlists, report):
    """Equal media sequence number must mean equal content: same discontinuity, same time."""
    seen = {}
    for name, p in playlists.items():
        for s in p.segments:
            if s["pdt"] is None:
                continue
            other, at, discontinuity = seen.setdefault(s["msn"], (name, s["pdt"], s["discontinuity"]))
            # A frame of sound is never cut: those of AAC at 8 kHz last 128 ms.
            if abs(at - s["pdt"]) > 0.13:
                report.fail(name, "segments of one media sequence number start apart", f"msn {s['msn']}: {s['pdt'] - at:+.3f} s against {other}")
            if discontinuity != s["discontinuity"]:
                report.fail(name, "EXT-X-DISCONTINUITY not on every rendition", f"msn {s['msn']} against {other}")
    if len({(p.msn, p.disc) for p in playlists.values()}) > 2:
        report.fail("multivariant", "EXT-X-DISCONTINUITY-SEQUENCE differs", {n: (p.msn, p.disc) for n, p in playlists.items()})


def check(url, seconds, long_gop=False):
    """Follow everything at an address for some seconds. Returns (report, number of renditions)."""
    report = Report()
    text, renditions = fetch(url)[2].decode(), []
    if "#EXT-X-STREAM-INF" in text:
        lines = text.splitlines()
        for i, line in enumerate(lines):
            tag, _, value = line.partition(":")
            if tag == "#EXT-X-STREAM-INF":
                a = attributes(value)
                # 4.4.6.2: RESOLUTION and FRAME-RATE speak of video; a variant of sound alone has neither.
                video = re.search("avc|hvc|hev|av01|vp09", a.get("CODECS", "")) or "RESOLUTION" in a
                for needed in ("BANDWIDTH", "AVERAGE-BANDWIDTH", "CODECS") + (("RESOLUTION", "FRAME-RATE") if video else ()):
                    if needed not in a:
                        report.fail("multivariant", f"4.4.6.2 {needed} absent", value)
                renditions.append(lines[i + 1])
            elif tag in ("#EXT-X-MEDIA", "#EXT-X-I-FRAME-STREAM-INF"):
                a = attributes(value)
                if tag == "#EXT-X-MEDIA" and "URI" in a and a.get("TYPE") in ("AUDIO", "VIDEO"):
                    renditions.append(a["URI"])
        if "#EXT-X-INDEPENDENT-SEGMENTS" not in text and not long_gop:
            report.fail("multivariant", "4.4.2.1 EXT-X-INDEPENDENT-SEGMENTS absent", "")
    else:
        renditions = [url]
        report.fail("multivariant", "authoring: a multivariant playlist", "the address is a media playlist")
    independent = "#EXT-X-INDEPENDENT-SEGMENTS" in text or "#EXT-X-STREAM-INF" not in text
    followers = [Follower(urllib.parse.urljoin(url, r), r, seconds, report, independent) for r in dict.fromkeys(renditions)]
    for f in followers: f.start()
    for f in followers: f.join(seconds + 60)
    for f in followers:
        if f.is_alive():
            report.fail(f.name_, "follower did not finish", "a request hangs")
        if not report.facts.get(f.name_, {}).get("parts"):
            report.fail(f.name_, "no part was followed", "")
    # Renditions of one presentation must be aligned: compare reports and sequence numbers.
    playlists = {}
    for r in dict.fromkeys(renditions):
        try:
            playlists[r] = Media(fetch(urllib.parse.urljoin(url, r))[2].decode())
        except Exception as error:
            report.fail(r, "unreadable at the end", str(error))
    if len(playlists) > 1:
        for r, p in playlists.items():
            if p.part_target is not None and len(p.reports) < len(playlists) - 1:
                report.fail(r, "4.4.5.4 EXT-X-RENDITION-REPORT for every other rendition", f"{len(p.reports)} of {len(playlists) - 1}")
        edges = [p.next_msn for p in playlists.values()]
        if max(edges) - min(edges) > 1:
            report.fail("multivariant", "renditions drift apart in media sequence", edges)
        if len({p.target for p in playlists.values()}) > 1:
            report.fail("multivariant", "6.2.4 target durations differ", {r: p.target for r, p in playlists.items()})
        if len({tuple(sorted(p.control.items())) for p in playlists.values()}) > 1:
            report.fail("multivariant", "6.2.4 EXT-X-SERVER-CONTROL differs", {r: p.control for r, p in playlists.items()})
        if len({p.part_target for p in playlists.values()}) > 1:
            report.fail("multivariant", "part targets differ", {r: p.part_target for r, p in playlists.items()})
        alignment(playlists, report)
    return report, len(followers)


def main():
    options = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    options.add_argument("url")
    options.add_argument("--seconds", type=float, default=20)
    options.add_argument("--long-gop", action="store_true", help="the publisher's keyframes lie further apart than a segment may last")
    options.add_argument("--json", action="store_true")
    options = options.parse_args()
    try:
        report, followed = check(options.url, options.seconds, options.long_gop)
    except OSError as error:
        print(f"cannot read {options.url}: {error}")
        return 2
    if options.json:
        print(json.dumps({"violations": [{"where": w, "rule": r, "count": len(d), "first": str(d[0])} for (w, r), d in report.violations.items()], "facts": report.facts}, indent=1))
    else:
        for where, facts in report.facts.items():
            print(f"  {where}: {facts}")
        for (where, rule), details in report.violations.items():
            print(f"FAIL {where}: {rule} ({len(details)}x) {details[0]}")
        print(f"{followed} renditions followed, {len(report.violations)} rules violated")
    return 1 if report.violations else 0


if __name__ == "__main__":
    sys.exit(main())
