"""Publishes by WHIP or watches by WHEP with aiortc, a WebRTC of its own kind: no browser, no libwebrtc.

    webrtc-aiortc.py publish URL KEY CLIP SECONDS      H.264 and Opus, coded anew from a clip that is as long
    webrtc-aiortc.py view URL SECONDS                  counts what is decoded in so many seconds after the first picture

Run by the Python of .tools/e2e-venv. While nobody publishes, `view` asks again. A publisher says {"live":true} when the
connection stands. Ends with one line of JSON. Environment: PATIENCE_S=20 (how long to wait for that, or for a picture).
Exit status: 0 when pictures were sent or decoded, 1 when none were, 2 when it could not be tried.
"""

import asyncio
import json
import os
import sys
import time
import urllib.error
import urllib.parse
import urllib.request

from aiortc import MediaStreamTrack, RTCConfiguration, RTCPeerConnection, RTCRtpSender, RTCSessionDescription
from aiortc.contrib.media import MediaPlayer

PATIENCE_S = float(os.environ.get("PATIENCE_S", "20"))
# A request that hangs has failed: the server answers at once, or says when to ask again.
ANSWER_S_MAX = 10


class Refused(Exception):
    """The server's answer was not 201."""


def request(method, url, key=None, body=None):
    headers = {"content-type": "application/sdp"} | ({"authorization": f"Bearer {key}"} if key else {})
    asked = urllib.request.Request(url, method=method, headers=headers, data=body and body.encode())
    try:
        with urllib.request.urlopen(asked, timeout=ANSWER_S_MAX) as answer:
            return answer.status, answer.headers.get("location"), answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, None, error.read().decode()


async def connect(pc, url, key=None):
    """Offers, and answers the session's address."""
    await pc.setLocalDescription(await pc.createOffer())
    status, location, body = await asyncio.to_thread(request, "POST", url, key, pc.localDescription.sdp)
    if status != 201:
        raise Refused(f"{status}: {body}")
    await pc.setRemoteDescription(RTCSessionDescription(body, "answer"))
    return urllib.parse.urljoin(url, location)


def peer():
    # No STUN server: what is tested runs on this machine.
    pc = RTCPeerConnection(RTCConfiguration(iceServers=[]))
    connected = asyncio.get_running_loop().create_future()

    @pc.on("connectionstatechange")
    def changed():
        if pc.connectionState in ("connected", "failed") and not connected.done():
            connected.set_result(pc.connectionState == "connected")

    return pc, connected


class Counted(MediaStreamTrack):
    """A clip's pictures, counted."""

    kind = "video"

    def __init__(self, track):
        super().__init__()
        self.track, self.sent = track, 0

    async def recv(self):
        frame = await self.track.recv()
        self.sent += 1
        return frame


async def publish(url, key, clip, seconds):
    pc, connected = peer()
    player = MediaPlayer(clip)
    video = Counted(player.video)
    pc.addTrack(player.audio)
    sender = pc.addTrack(video)
    wanted = [codec for codec in RTCRtpSender.getCapabilities("video").codecs if codec.mimeType == "video/H264"]
    next(one for one in pc.getTransceivers() if one.sender is sender).setCodecPreferences(wanted)
    for transceiver in pc.getTransceivers():
        transceiver.direction = "sendonly"
    session = await connect(pc, url, key)
    if not await asyncio.wait_for(connected, PATIENCE_S):
        return False, {"error": "the connection failed"}
    print('{"live":true}', flush=True)
    await asyncio.sleep(float(seconds))
    status, _, _ = await asyncio.to_thread(request, "DELETE", session, key)
    await pc.close()
    return video.sent > 0, {"videoFrames": video.sent, "deleted": status}


class Seen:
    """What a viewer has decoded; counting begins at the first picture."""

    def __init__(self):
        self.started, self.first = time.monotonic(), asyncio.get_running_loop().create_future()
        self.frames = self.audio_frames = self.width = self.height = 0
        # Strong references: the loop holds tasks weakly.
        self.tasks = []

    def watch(self, pc):
        pc.on("track", lambda track: self.tasks.append(asyncio.ensure_future(self.read(track))))

    async def read(self, track):
        while True:
            frame = await track.recv()
            if track.kind == "video":
                self.frames += 1
                self.width, self.height = frame.width, frame.height
                if not self.first.done():
                    self.first.set_result(round((time.monotonic() - self.started) * 1000))
            elif self.first.done():
                self.audio_frames += 1


async def view(url, seconds):
    end, session = time.monotonic() + PATIENCE_S, None
    while session is None:
        pc, connected = peer()
        seen = Seen()
        seen.watch(pc)
        for kind in ("video", "audio"):
            pc.addTransceiver(kind, direction="recvonly")
        try:
            session = await connect(pc, url)
        except Refused as refusal:
            await pc.close()
            if time.monotonic() > end:
                return False, {"error": str(refusal)}
            await asyncio.sleep(0.3)
    try:
        first = await asyncio.wait_for(seen.first, PATIENCE_S)
    except asyncio.TimeoutError:
        return False, {"error": "no picture", "connection": pc.connectionState, "audioFrames": seen.audio_frames}
    await asyncio.sleep(float(seconds))
    told = {"framesDecoded": seen.frames, "audioFrames": seen.audio_frames, "width": seen.width, "height": seen.height}
    told |= {"firstFrameMs": first, "connection": pc.connectionState}
    await asyncio.to_thread(request, "DELETE", session)
    await pc.close()
    return seen.frames > 0, told


def main():
    modes = {("publish", 4): publish, ("view", 2): view}
    mode, arguments = (sys.argv[1:2] or [""])[0], sys.argv[2:]
    run = modes.get((mode, len(arguments)))
    if run is None:
        print("usage: webrtc-aiortc.py publish URL KEY CLIP SECONDS | view URL SECONDS", file=sys.stderr)
        return 2
    try:
        ok, told = asyncio.run(run(*arguments))
    except (Refused, asyncio.TimeoutError) as error:
        ok, told = False, {"error": str(error) or "the connection does not stand"}
    print(json.dumps({"client": "aiortc", "mode": mode} | told), flush=True)
    return 0 if ok else 1


if __name__ == "__main__":
    sys.exit(main())
