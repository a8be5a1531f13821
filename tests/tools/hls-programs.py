"""Plays live HLS with programs that are no browsers, all at once, and says what each decoded: a line of JSON each.

    /usr/bin/python3 -B tests/tools/hls-programs.py URL SECONDS PLAYER...

PLAYER: vlc, mpv, ffplay or gstreamer (playbin3, whose HLS is hlsdemux2). `frames` are decoded pictures, `playedS` is how
far the player's clock went, jumps left out, `said` what it wrote about errors; a field is absent where the program does
not tell. Nothing is shown or heard, all play in real time. Debian's own Python, for gi.
"""

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time

# Between two readings of a clock; a longer step is a jump of a discontinuity or a seek.
STEP_MAX_S = 3.0
SAID_MAX = 600


class Clock:
    """The sum of the small steps forward of a clock that may jump."""

    def __init__(self):
        self.last, self.sum = None, 0.0

    def push(self, now):
        if self.last is not None and 0 < now - self.last < STEP_MAX_S:
            self.sum += now - self.last
        self.last = now


def run(command, seconds, environment=None, typed=()):
    """All that a program says in so long; `typed` are the lines that it is told at the end, a second apart."""
    process = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={**os.environ, **(environment or {})},
        text=True,
        errors="replace",
    )
    said = []

    def read():
        while chunk := process.stdout.read(1):
            said.append(chunk)

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    ended = wait(process, seconds)
    for line in () if ended else typed:
        process.stdin.write(line + "\n")
        process.stdin.flush()
        wait(process, 1)
    if not typed and not ended:
        process.send_signal(signal.SIGINT)
        wait(process, 5)
    if process.poll() is None:
        process.kill()
    process.wait()
    reader.join(5)
    return "".join(said)


def wait(process, seconds):
    try:
        process.wait(seconds)
        return True
    except subprocess.TimeoutExpired:
        return False


def errors(said, pattern):
    lines = [line for line in re.split(r"[\r\n]+", said) if re.search(pattern, line)]
    return "\n".join(dict.fromkeys(lines))[:SAID_MAX]


def version(command):
    said = subprocess.run(command, capture_output=True, text=True).stdout
    found = re.search(r"\d+\.\d+[.\d]*", said)
    return found.group(0) if found else ""


def vlc(url, seconds):
    # It refuses root: then it runs as nobody, with a home of its own.
    with tempfile.TemporaryDirectory() as home:
        as_nobody = []
        if os.geteuid() == 0:
            os.chmod(home, 0o777)
            as_nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
        command = as_nobody + ["vlc", "-I", "rc", "--rc-fake-tty", "--vout", "dummy", "--aout", "dummy"]
        said = run(command + ["--no-color", url], seconds, {"HOME": home, "XDG_CONFIG_HOME": home}, ("stats", "quit"))

    def number(name):
        return next((int(n) for n in re.findall(rf"{name}\s*:\s*(\d+)", said)), 0)

    return {
        "version": version(as_nobody + ["vlc", "--version"]),
        "frames": number("frames displayed"),
        "audioFrames": number("audio decoded"),
        "lost": number("frames lost"),
        "said": errors(said, r"(?i)(?:stream|demux|decoder) error"),
    }


def mpv(url, seconds):
    status = "T=${=time-pos} V=${estimated-vf-fps} D=${decoder-frame-drop-count}"
    # One line for each status, which it writes twenty times a second.
    command = ["mpv", "--no-config", "--vo=null", "--ao=null", "--no-input-terminal", f"--term-status-msg={status}", url]
    said = run(command, seconds)
    clock = Clock()
    for time_ in re.findall(r"T=([\d.]+)", said):
        clock.push(float(time_))
    tracks = re.findall(r"\((?:\+\) )?[^()]*?(h264|hevc|aac)[^()]*\)", said)
    return {
        "version": version(["mpv", "--version"]),
        "playedS": round(clock.sum, 2),
        "tracks": sorted(set(tracks)),
        "said": errors(said, r"(?i)error|fail"),
    }


def ffplay(url, seconds):
    drivers = {"SDL_VIDEODRIVER": "dummy", "SDL_AUDIODRIVER": "dummy"}
    said = run(["ffplay", "-hide_banner", "-loglevel", "info", "-stats", url], seconds, drivers)
    clock = Clock()
    for time_ in re.findall(r"(?:^|[\r\n])\s*([\d.]+) (?:A-V|M-V|M-A)", said):
        clock.push(float(time_))
    return {
        "version": version(["ffplay", "-version"]),
        "playedS": round(clock.sum, 2),
        "tracks": sorted(set(re.findall(r"(?:Video|Audio): (\w+)", said))),
        "said": errors(said, r"(?i)error|fail|invalid|non-monoton"),
    }


def gstreamer(url, seconds):
    # In a process of its own: a failed assertion of a plugin ends it.
    said = run([sys.executable, "-B", __file__, "--gstreamer", url, str(seconds)], seconds + 10)
    found = [json.loads(line) for line in said.splitlines() if line.startswith("{")]
    return found[0] if found else {"frames": 0, "said": errors(said, r"ERROR|rror:")}


def gstreamer_here(url, seconds):
    import gi

    gi.require_version("Gst", "1.0")
    from gi.repository import Gst

    Gst.init(None)
    counts, clock, wrong, demuxers = {"video": 0, "audio": 0}, Clock(), [], set()
    lock = threading.Lock()
    player = Gst.ElementFactory.make("playbin3")
    player.set_property("uri", url)

    def count(kind):
        def handoff(*_):
            with lock:
                counts[kind] += 1

        sink = Gst.ElementFactory.make("fakesink")
        sink.set_property("sync", True)
        sink.set_property("signal-handoffs", True)
        sink.connect("handoff", handoff)
        player.set_property(f"{kind}-sink", sink)

    count("video")
    count("audio")

    def added(_bin, _within, element):
        factory = element.get_factory()
        if factory and "hls" in factory.get_name():
            demuxers.add(factory.get_name())

    player.connect("deep-element-added", added)
    player.set_state(Gst.State.PLAYING)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        message = player.get_bus().timed_pop_filtered(250 * Gst.MSECOND, Gst.MessageType.ERROR | Gst.MessageType.EOS)
        if message is not None:
            wrong.append(str(message.parse_error()[0]) if message.type == Gst.MessageType.ERROR else "ended")
            break
        found, position = player.query_position(Gst.Format.TIME)
        if found:
            clock.push(position / Gst.SECOND)
    player.set_state(Gst.State.NULL)
    return {
        "version": ".".join(str(number) for number in Gst.version()[:3]),
        "frames": counts["video"],
        "audioFrames": counts["audio"],
        "playedS": round(clock.sum, 2),
        "demuxers": sorted(demuxers),
        "said": "\n".join(wrong)[:SAID_MAX],
    }


PLAYERS = {"vlc": vlc, "mpv": mpv, "ffplay": ffplay, "gstreamer": gstreamer}


def main():
    if sys.argv[1:2] == ["--gstreamer"]:
        print(json.dumps(gstreamer_here(sys.argv[2], float(sys.argv[3]))))
        return
    if len(sys.argv) < 4 or not set(sys.argv[3:]) <= set(PLAYERS):
        sys.exit("usage: hls-programs.py URL SECONDS PLAYER...   with PLAYER one of " + ", ".join(PLAYERS))
    url, seconds, names = sys.argv[1], float(sys.argv[2]), sys.argv[3:]

    def play(name):
        try:
            found = PLAYERS[name](url, seconds)
        except (OSError, subprocess.SubprocessError) as error:
            found = {"said": f"cannot be run: {error}"}
        print(json.dumps({"player": name, "seconds": seconds, **found}), flush=True)

    threads = [threading.Thread(target=play, args=(name,)) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


main()
