#!/usr/bin/env python3
"""Processor time and latency of the ladder, of a running server and of GStreamer alone; a page of Markdown.

Time of threads tells codecs from the rest: a child of the server decodes on its sources' threads and encodes on its queues', and
what else happens there (a probe, a copy of what was made) is in the ratio to GStreamer's chain, where it does not happen.
"""

import argparse
import collections
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")
# The default ladder of 1080p30: lines, every so many pictures, kbit/s, ms of buffer, keyframes apart in ms.
LEGIBLE = [(1080, 1, 1500, 1000, 2000), (900, 3, 800, 1000, 2000), (900, 3, 400, 2000, 4000), (720, 6, 200, 2000, 4000)]
LADDER = "1080p 1500k always, 900p10 800k always, 900p10 400k always, 720p5 200k always"
CODEC_THREADS = re.compile(r"^(source:src|queue:src|queue\d+:src|av:|x264)")
WARM_UP_S = 10
CLIP_S = 30
PATIENCE_S = 60


def until(what, look):
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        try:
            if found := look():
                return found
        except OSError:
            pass
        time.sleep(0.1)
    sys.exit(f"{what}: not within {PATIENCE_S} s")


def fetch(url):
    with urllib.request.urlopen(url, timeout=10) as answer:
        return answer.read().decode()


def used(stat):
    """Seconds of processor time of a stat file of /proc."""
    fields = Path(stat).read_text().rsplit(") ", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def threads(pid):
    """Seconds by thread, and its name."""
    found = {}
    for task in Path(f"/proc/{pid}/task").iterdir():
        try:
            found[task.name] = ((task / "comm").read_text().strip(), used(task / "stat"))
        except OSError:
            continue
    return found


def child_of(pid):
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in (task / "children").read_text().split():
            line = Path(f"/proc/{child}/cmdline").read_text()
            # One that measures what pictures cost makes none.
            if "codecast-transcode" in line and "--measure" not in line:
                return int(child)
    return None


def latencies(text):
    """Counts up to each bound, by what is made."""
    found = collections.defaultdict(dict)
    for made, bound, count in re.findall(r'codecast_transcode_latency_seconds_bucket\{le="([^"]+)",made="([^"]+)"\} (\S+)', text):
        found[bound][float(made)] = float(count)
    for made, bound, count in re.findall(r'codecast_transcode_latency_seconds_bucket\{made="([^"]+)",le="([^"]+)"\} (\S+)', text):
        found[made][float(bound)] = float(count)
    return found


def median(before, after):
    """Between the bounds of a bucket, evenly; and how many there were."""
    counts = {bound: count - before.get(bound, 0) for bound, count in after.items()}
    total, below, last = counts[float("inf")], 0, 0
    for bound, count in sorted(counts.items()):
        if count >= total / 2:
            share = (total / 2 - below) / max(count - below, 1)
            return last + (bound - last) * share, int(total)
        last, below = bound, count
    return float("nan"), int(total)


def serve(folder, clip, arguments):
    config = folder / "codecast.toml"
    addresses = "".join(f'[{part}]\naddress = "127.0.0.1:0"\n' for part in ("http", "rtmp", "webrtc"))
    config.write_text(addresses + '[srt]\naddress = "off"\n[tls]\nhttps_address = "off"\nrtmps_address = "off"\n[log]\nlevel = "warn"\n'
                      + f'[transcode]\ncpu_percent = 100\nladder = "{LADDER}"\n')
    ready, running = folder / "ready.json", []
    server = subprocess.Popen([arguments.programs / "codecast", "serve", "--config", config, "--data-dir", folder / "data", "--ready-file", ready],
                              stdout=subprocess.DEVNULL)
    running.append(server)
    try:
        told = json.loads(until("the server is ready", lambda: ready.exists() and ready.read_text()))
        running.append(publisher(clip, f"{told['rtmp']}/{told['stream_key']}"))
        live = f"{told['http']}/live/{told['stream']}"
        until("the stream is there", lambda: fetch(f"{live}/index.m3u8"))
        names = ["video"] + [f"rung-{2 + n}" for n in range(len(LEGIBLE))]
        until("all rungs are made", lambda: all("#EXT-X-PART:" in fetch(f"{live}/{name}.m3u8") for name in names))
        seconds = arguments.seconds + WARM_UP_S + 5
        running.append(subprocess.Popen([arguments.programs / "codecast-load", "follow", "--playlist", f"{live}/index.m3u8", "--viewers",
                                         str(arguments.viewers), "--seconds", str(seconds), "--gzip", "--delta"],
                                        stdout=subprocess.DEVNULL))
        time.sleep(WARM_UP_S)
        child = child_of(server.pid)
        begun, base, own = time.monotonic(), used(f"/proc/{server.pid}/stat"), used(f"/proc/{child}/stat")
        before, heard = threads(child), latencies(fetch(f"{told['http']}/metrics"))
        time.sleep(arguments.seconds)
        span = time.monotonic() - begun
        metrics = fetch(f"{told['http']}/metrics")
        after, now = threads(child), latencies(metrics)
        server_s, child_s = used(f"/proc/{server.pid}/stat") - base, used(f"/proc/{child}/stat") - own
        if child_of(server.pid) != child:
            sys.exit("the child was replaced")
        by_name = collections.Counter()
        for thread, (name, seconds_used) in after.items():
            by_name[name] += seconds_used - before.get(thread, (name, 0))[1]
        shed = sum(float(count) for count in re.findall(r"codecast_transcode_shed_pictures_total\{[^}]*\} (\S+)", metrics))
        return {"span": span, "server": server_s, "child": child_s, "threads": by_name, "shed": shed,
                "latency": {made: median(heard.get(made, {}), now[made]) for made in now if now[made].get(float("inf"))}}
    finally:
        for process in reversed(running):
            process.terminate()
            process.wait()


def publisher(clip, target):
    return subprocess.Popen(["ffmpeg", "-v", "error", "-nostdin", "-re", "-stream_loop", "-1", "-i", clip, "-c", "copy", "-f", "flv", target])


def launch(clip, seconds):
    """The chain of the helper, as fast as it goes: processor seconds of a second of the clip."""
    chain = ["filesrc", f"location={clip}", "!", "flvdemux", "!", "h264parse", "!", "avdec_h264", "output-corrupt=false",
             "max-threads=1", "thread-type=slice", "!", "tee", "name=tee"]
    for lines, divisor, kbit, buffer_ms, gop_ms in LEGIBLE:
        rate = 30 // divisor
        chain += ["tee.", "!", "queue", "max-size-buffers=16", "max-size-bytes=0", "max-size-time=0"]
        chain += ["!", "videorate", "drop-only=true", "!", f"video/x-raw,framerate={rate}/1"] if divisor > 1 else []
        chain += ["!", "videoconvertscale", "method=lanczos", "n-threads=1", "!",
                  f"video/x-raw,format=I420,width={lines * 16 // 9},height={lines}", "!", "x264enc", "tune=zerolatency",
                  "speed-preset=veryfast", "pass=cbr", f"bitrate={kbit}", f"vbv-buf-capacity={buffer_ms}", "bframes=0",
                  "rc-lookahead=0", "sync-lookahead=0", "mb-tree=false", "threads=1", "sliced-threads=false", "aud=false",
                  f"key-int-max={rate * gop_ms // 1000}", "option-string=scenecut=0:open-gop=0", "!",
                  "video/x-h264,profile=high,stream-format=avc,alignment=au", "!", "fakesink", "sync=false", "async=false"]
    process = subprocess.Popen(["gst-launch-1.0", "-q", *chain], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        sys.exit(f"gst-launch-1.0: {os.waitstatus_to_exitcode(status)}")
    return (usage.ru_utime + usage.ru_stime) / seconds


def page(arguments, ours, alone):
    span = ours["span"]
    codec = sum(seconds for name, seconds in ours["threads"].items() if CODEC_THREADS.match(name))
    # A thread that came and went is in the process's time alone: it is counted against us.
    rest = ours["child"] - codec
    other = ours["server"] + rest
    total = ours["server"] + ours["child"]
    cpu = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    yield f"# Cost of the ladder, {time.strftime('%F')}"
    yield ""
    yield f"Command: `{arguments.command.strip()}`. Machine: {os.cpu_count()} cores ({cpu.group(1) if cpu else platform.machine()}), everything on them."
    yield f"Load average at the end {os.getloadavg()[0]:.1f}: beyond 2 or so others had work, and latencies are upper bounds."
    yield f"One publisher of 1080p30 at 4 Mbit/s, `{LADDER}`, {arguments.viewers} viewers at the live edge, {span:.0f} s."
    yield ""
    yield "| Processor | % of one core | % of all |"
    yield "| --- | --- | --- |"
    rows = [("codecs: threads of the helper that decode, scale and encode", codec), ("the rest of the helper", rest), ("`codecast`", ours["server"])]
    for what, seconds in rows:
        yield f"| {what} | {100 * seconds / span:.1f} | {100 * seconds / total:.1f} |"
    yield f"| everything but codec work (target: 5 % of all at most) | {100 * other / span:.1f} | {100 * other / total:.1f} |"
    yield f"| the helper, of the same chain by gst-launch-1.0 ({100 * alone:.1f} % of a core) | {100 * ours['child'] / span / alone:.0f} % | |"
    yield ""
    yield "| Made | latency p50, ms (target: 50 beyond the frame interval) | pictures |"
    yield "| --- | --- | --- |"
    for made, (seconds, count) in sorted(ours["latency"].items()):
        yield f"| {made} | {1000 * seconds:.1f} | {count} |"
    yield ""
    yield f"Pictures left out for an encoder that was too slow: {ours['shed']:.0f}."


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--viewers", type=int, default=50)
    parser.add_argument("--programs", type=Path, default=Path("target/release"), help="where they are, if there already")
    parser.add_argument("--command", default="benches/ladder/measure.py")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        clip = folder / "clip.flv"
        subprocess.run([arguments.programs / "codecast-load", "clip", "--size", "1920x1080", "--kbps", "4000", "--clip-seconds",
                        str(CLIP_S), "--out", clip], check=True, stdout=subprocess.DEVNULL)
        ours = serve(folder, clip, arguments)
        alone = launch(clip, CLIP_S)
    print("\n".join(page(arguments, ours, alone)))


if __name__ == "__main__":
    main()
