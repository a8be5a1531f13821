// What a publishing and a watching peer connection have in common: codecs in order, the exchange of descriptions, the
// ICE restart.
import { iceServers, type Link } from '../core/answer';
import type { IceState } from '../core/session';
import { iceFragment, withIce, withStereo } from '../core/sdp';
import { type Answered, offer, restart, type SessionUrl } from './signal';

/** Whether this browser has WebRTC at all. */
export const hasWebRtc = (): boolean => 'RTCPeerConnection' in window;

/** H.264 first, then the others with what repairs them. False when the browser has no H.264. */
export function preferH264(transceiver: RTCRtpTransceiver, codecs: RTCRtpCodec[] | undefined): boolean {
  const h264 = (codecs ?? []).filter(({ mimeType }) => /^video\/h264$/i.test(mimeType));
  if (h264.length === 0) return false;
  // Packets of one frame may be cut anywhere in mode 1; mode 0 forces small slices.
  const order = [...h264.filter((one) => one.sdpFmtpLine?.includes('packetization-mode=1')), ...h264];
  transceiver.setCodecPreferences([...new Set([...order, ...codecs!])]);
  return true;
}

/** A connection whose encryption has failed or was closed is as lost as one without a path. */
export function watchPath(pc: RTCPeerConnection, report: (state: IceState) => void): void {
  pc.addEventListener('iceconnectionstatechange', () => report(pc.iceConnectionState));
  pc.addEventListener('connectionstatechange', () => { if (pc.connectionState === 'failed') report('failed'); });
}

export interface Opened {
  session: SessionUrl;
  links: Link[];
}

/**
 * Offers at once, before any candidate is known: the server is ICE-lite and finds us by our checks. Gathering begins
 * only with the answer, so that relays named in it take part (RFC 9725 4.6).
 */
export async function open(pc: RTCPeerConnection, endpoint: string, key: string | null, gone: AbortSignal): Promise<Opened> {
  const plain = await pc.createOffer();
  const local = { type: 'offer', sdp: withStereo(plain.sdp ?? '') } as const;
  const { sdp, session, links }: Answered = await offer(endpoint, local.sdp, key, gone);
  const opened = { session, links };
  if (gone.aborted) return opened;
  const servers = iceServers(links);
  if (servers.length > 0) pc.setConfiguration({ ...pc.getConfiguration(), iceServers: servers });
  // A browser may insist on its own words; the server then still sends both channels.
  await pc.setLocalDescription(local).catch(() => pc.setLocalDescription(plain));
  await pc.setRemoteDescription({ type: 'answer', sdp: key === null ? sdp : withStereo(sdp) });
  return opened;
}

/** False when the server would not, or the answer was of no use. */
export async function restartIce(pc: RTCPeerConnection, session: SessionUrl): Promise<boolean> {
  try {
    const answer = pc.currentRemoteDescription?.sdp ?? '';
    const offered = await pc.createOffer({ iceRestart: true });
    await pc.setLocalDescription(offered);
    const fragment = await restart(session, iceFragment(offered.sdp ?? ''));
    const renewed = fragment === null ? null : withIce(answer, fragment);
    if (renewed === null) return false;
    await pc.setRemoteDescription({ type: 'answer', sdp: renewed });
    return true;
  } catch {
    return false;
  }
}
