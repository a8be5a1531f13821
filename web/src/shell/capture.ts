// Screens, cameras and microphones, as one stream of at most one picture and one sound.
import type { Source } from '../core/studio';

export interface Chosen {
  picture: 'screen' | 'camera' | 'none';
  /** A device, or '' for the browser's own choice. */
  camera: string;
  /** A device, '' for the browser's own choice, or null for no microphone. */
  microphone: string | null;
}

export class NotCaptured extends Error {
  constructor(readonly source: Source, override readonly name: string) {
    super(`${source}: ${name}`);
  }
}

export interface Captured {
  stream: MediaStream;
  stop(): void;
}

const device = (id: string): MediaTrackConstraints => (id === '' ? {} : { deviceId: { exact: id } });

async function opened(source: Source, open: () => Promise<MediaStream>): Promise<MediaStream> {
  try {
    return await open();
  } catch (error) {
    throw new NotCaptured(source, error instanceof Error ? error.name : 'unknown');
  }
}

/** Throws `NotCaptured`. `ended` is told when a source stops by itself. */
export async function capture(chosen: Chosen, ended: (source: Source) => void): Promise<Captured> {
  const { mediaDevices } = navigator as { mediaDevices?: MediaDevices };
  if (mediaDevices === undefined) throw new NotCaptured(chosen.picture === 'camera' ? 'camera' : 'screen', 'insecure');
  const streams: MediaStream[] = [], sources: [Source, () => Promise<MediaStream>][] = [];
  if (chosen.picture === 'screen') {
    sources.push(['screen', () => mediaDevices.getDisplayMedia({ video: { frameRate: { ideal: 30 } }, audio: { echoCancellation: false, noiseSuppression: false, autoGainControl: false } })]);
  } else if (chosen.picture === 'camera') {
    sources.push(['camera', () => mediaDevices.getUserMedia({ video: { ...device(chosen.camera), width: { ideal: 1280 }, height: { ideal: 720 }, frameRate: { ideal: 30 } } })]);
  }
  const { microphone } = chosen;
  if (microphone !== null) sources.push(['microphone', () => mediaDevices.getUserMedia({ audio: device(microphone) })]);
  try {
    for (const [source, open] of sources) {
      const stream = await opened(source, open);
      streams.push(stream);
      for (const track of stream.getTracks()) if (source !== 'screen' || track.kind === 'video') track.addEventListener('ended', () => ended(source));
    }
  } catch (error) {
    for (const stream of streams) stop(stream);
    throw error;
  }
  const mixed = mix(streams.flatMap((stream) => stream.getAudioTracks()));
  const stream = new MediaStream([...streams.flatMap((one) => one.getVideoTracks()), ...mixed.tracks]);
  // A screen is to stay legible, a face to move smoothly.
  for (const track of stream.getVideoTracks()) track.contentHint = chosen.picture === 'screen' ? 'detail' : 'motion';
  return { stream, stop: () => { streams.forEach(stop); mixed.close(); } };
}

const stop = (stream: MediaStream): void => stream.getTracks().forEach((track) => track.stop());

/** The computer's sound and the voice become one: WHIP carries one sound. */
function mix(tracks: MediaStreamTrack[]): { tracks: MediaStreamTrack[]; close(): void } {
  if (tracks.length < 2) return { tracks, close: () => {} };
  const context = new AudioContext(), out = context.createMediaStreamDestination();
  for (const track of tracks) context.createMediaStreamSource(new MediaStream([track])).connect(out);
  return { tracks: out.stream.getAudioTracks(), close: () => void context.close() };
}

/** Names are empty before the first permission; such devices are left out. */
export async function devices(kind: 'videoinput' | 'audioinput'): Promise<{ id: string; label: string }[]> {
  const { mediaDevices } = navigator as { mediaDevices?: MediaDevices };
  const listed = await mediaDevices?.enumerateDevices().catch(() => []) ?? [];
  return listed.filter((one) => one.kind === kind && one.deviceId !== '' && one.deviceId !== 'default' && one.label !== '')
    .map(({ deviceId, label }) => ({ id: deviceId, label }));
}
