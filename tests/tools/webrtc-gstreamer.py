"""Publishes by WHIP or watches by WHEP with GStreamer's own clients: whipsink with x264 and Opus, whepsrc with libav.

    webrtc-gstreamer.py publish URL KEY SECONDS     360p, 30 frames a second
    webrtc-gstreamer.py view URL SECONDS            counts what is decoded in so many seconds after the first picture

The two elements are built by scripts/build-gst-webrtchttp.sh. While nobody publishes, `view` asks again. A publisher says
{"live":true} when pictures go out. Ends with one line of JSON. Environment: PATIENCE_S=20 (how long to wait for that).
Exit status: 0 when pictures were sent or decoded, 1 when none were, 2 when it could not be tried.
"""

import json
import os
import pathlib
import sys
import time

PATIENCE_S = float(os.environ.get("PATIENCE_S", "20"))
PLUGIN = pathlib.Path(__file__).resolve().parents[2] / "target/gst-webrtchttp/plugin"
# Its own list of plugins: the one in the home folder would remember the test's.
os.environ |= {"GST_PLUGIN_PATH": str(PLUGIN), "GST_REGISTRY": str(PLUGIN / "registry.bin")}

import gi  # noqa: E402  GStreamer reads the environment when it is loaded

gi.require_version("Gst", "1.0")
from gi.repository import GLib, Gst  # noqa: E402

PUBLISH = """
whipsink name=whip
videotestsrc is-live=true ! video/x-raw,width=640,height=360,framerate=30/1
  ! x264enc tune=zerolatency speed-preset=ultrafast key-int-max=60 bitrate=800 ! video/x-h264,profile=constrained-baseline
  ! identity name=video ! rtph264pay aggregate-mode=zero-latency config-interval=-1 pt=96
  ! application/x-rtp,media=video,encoding-name=H264,payload=96,clock-rate=90000 ! whip.
audiotestsrc is-live=true ! audioconvert ! audioresample ! audio/x-raw,channels=2,rate=48000
  ! opusenc ! identity name=audio ! rtpopuspay pt=97
  ! application/x-rtp,media=audio,encoding-name=OPUS,payload=97,clock-rate=48000,encoding-params=(string)2 ! whip.
"""

VIEW = """
whepsrc name=whep audio-caps="application/x-rtp,payload=111,encoding-name=OPUS,media=audio,clock-rate=48000"
  video-caps="application/x-rtp,payload=96,encoding-name=H264,media=video,clock-rate=90000"
whep. ! application/x-rtp,media=video ! rtph264depay ! h264parse ! avdec_h264 ! identity name=video ! fakesink sync=false
whep. ! application/x-rtp,media=audio ! rtpopusdepay ! opusdec ! identity name=audio ! fakesink sync=false
"""


class Run:
    """A pipeline that plays until it fails or is ended, and how many buffers passed its two marks."""

    def __init__(self, text, element, **properties):
        self.pipeline = Gst.parse_launch(text)
        self.error = None
        self.passed = {"video": 0, "audio": 0}
        self.size = None
        for name, value in properties.items():
            self.pipeline.get_by_name(element).set_property(name.replace("_", "-"), value)
        for mark in self.passed:
            self.pipeline.get_by_name(mark).get_static_pad("src").add_probe(Gst.PadProbeType.BUFFER, self.count, mark)
        self.pipeline.set_state(Gst.State.PLAYING)

    def count(self, pad, _info, mark):
        self.passed[mark] += 1
        if mark == "video" and self.size is None:
            caps = pad.get_current_caps().get_structure(0)
            self.size = (caps.get_value("width"), caps.get_value("height"))
        return Gst.PadProbeReturn.OK

    def wait(self, seconds, until=lambda: False):
        """Whether `until` came true before the time was over or the pipeline failed."""
        bus, end = self.pipeline.get_bus(), time.monotonic() + seconds
        while time.monotonic() < end and self.error is None:
            if until():
                return True
            message = bus.timed_pop_filtered(Gst.SECOND // 20, Gst.MessageType.ERROR | Gst.MessageType.EOS)
            if message is not None:
                self.error = str(message.parse_error()[0]) if message.type == Gst.MessageType.ERROR else "it has ended"
        return False

    def close(self):
        """The elements send their DELETE on the way."""
        self.pipeline.set_state(Gst.State.NULL)


def publish(url, key, seconds):
    run = Run(PUBLISH, "whip", whip_endpoint=url, auth_token=key)
    began = run.wait(PATIENCE_S, lambda: run.passed["video"] > 30)
    if began:
        print('{"live":true}', flush=True)
        run.wait(float(seconds))
    told = {"videoFrames": run.passed["video"], "audioPackets": run.passed["audio"], "error": run.error}
    run.close()
    return began and run.error is None, told


def view(url, seconds):
    started = time.monotonic()
    while True:
        run = Run(VIEW, "whep", whep_endpoint=url)
        if run.wait(PATIENCE_S, lambda: run.passed["video"] > 0) or time.monotonic() - started > PATIENCE_S:
            break
        run.close()
        time.sleep(0.3)
    first, before = round((time.monotonic() - started) * 1000), dict(run.passed)
    run.wait(float(seconds))
    told = {mark: run.passed[mark] - before[mark] for mark in before}
    width, height = run.size or (0, 0)
    run.close()
    return told["video"] > 0, {
        "framesDecoded": told["video"], "audioFrames": told["audio"], "width": width, "height": height, "firstFrameMs": first,
        "error": run.error,
    }


def main():
    modes = {("publish", 3): publish, ("view", 2): view}
    mode, arguments = (sys.argv[1:2] or [""])[0], sys.argv[2:]
    run = modes.get((mode, len(arguments)))
    if run is None:
        print("usage: webrtc-gstreamer.py publish URL KEY SECONDS | view URL SECONDS", file=sys.stderr)
        return 2
    Gst.init(None)
    try:
        ok, told = run(*arguments)
    except GLib.Error as error:
        print(f"{error} (`make e2e` builds what is missing)", file=sys.stderr)
        return 2
    print(json.dumps({"client": "gstreamer", "mode": mode} | told), flush=True)
    return 0 if ok else 1


if __name__ == "__main__":
    sys.exit(main())
