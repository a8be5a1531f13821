// One WHIP session: a peer connection that only sends. It lives until `close`, never heals itself, and reports.
import type { Refusal } from '../core/answer';
import type { IceState } from '../core/session';
import type { Encoding } from '../core/studio';
import { open, preferH264, watchPath } from './peer';
import { Refused, remove, type SessionUrl } from './signal';

export interface Reports {
  refused(refusal: Refusal): void;
  unusable(why: string): void;
  ice(state: IceState): void;
}

export interface Outgoing {
  stream: MediaStream;
  encodings: Encoding[];
  /** Rather fewer pictures than smaller ones. */
  keepsSize: boolean;
}

/** Sampled by `read`; null where the browser does not say. */
export interface Figures {
  bitsPerSecond: number | null;
  frames: number;
  packets: number;
  width: number | null;
  height: number | null;
  framesPerSecond: number | null;
  /** Of the packets sent, as the server counts them, 0 to 1. */
  lost: number | null;
  roundTripMs: number | null;
  /** Layers that carry a picture now. */
  layers: number;
  limit: 'none' | 'cpu' | 'bandwidth' | 'other';
  codec: string;
}

const AUDIO_BITS_PER_SECOND = 128_000;

export class WhipSession {
  private readonly pc = new RTCPeerConnection({ bundlePolicy: 'max-bundle' });
  private readonly gone = new AbortController();
  private session: SessionUrl | null = null;
  private last: { bytes: number; atMs: number; framesOf: Map<string, number> } | null = null;

  constructor(endpoint: string, key: string, outgoing: Outgoing, private readonly reports: Reports) {
    const { pc } = this;
    watchPath(pc, (state) => this.unlessGone(() => reports.ice(state)));
    void this.open(endpoint, key, outgoing);
  }

  private unlessGone(what: () => void): void {
    if (!this.gone.signal.aborted) what();
  }

  private async open(endpoint: string, key: string, outgoing: Outgoing): Promise<void> {
    const { pc, gone: { signal }, reports } = this;
    try {
      const senders = this.attach(outgoing);
      const { session } = await open(pc, endpoint, key, signal);
      if (signal.aborted) return remove(session);
      this.session = session;
      await Promise.all(senders.map((sender) => tune(sender, outgoing.keepsSize)));
    } catch (error) {
      this.unlessGone(() => {
        if (error instanceof Refused) reports.refused(error.refusal);
        else reports.unusable(`This browser could not use the server's answer (${error instanceof Error ? error.message : String(error)}).`);
      });
    }
  }

  private attach({ stream, encodings }: Outgoing): RTCRtpSender[] {
    const { pc } = this;
    const [video] = stream.getVideoTracks(), [audio] = stream.getAudioTracks();
    const senders: RTCRtpSender[] = [];
    if (video !== undefined) {
      const transceiver = pc.addTransceiver(video, { direction: 'sendonly', streams: [stream], sendEncodings: encodings });
      preferH264(transceiver, RTCRtpSender.getCapabilities?.('video')?.codecs); // without it, the server says whether it takes another
      senders.push(transceiver.sender);
    }
    if (audio !== undefined) {
      pc.addTransceiver(audio, { direction: 'sendonly', streams: [stream], sendEncodings: [{ maxBitrate: AUDIO_BITS_PER_SECOND }] });
    }
    return senders;
  }

  async read(): Promise<Figures> {
    // The types of the DOM know an RTCStats only as its three common fields.
    const report = await this.pc.getStats() as unknown as ReadonlyMap<string, Record<string, any>>;
    const all = [...report.values()], atMs = performance.now();
    const sent = all.filter(({ type }) => type === 'outbound-rtp'), video = sent.filter(({ kind }) => kind === 'video');
    const bytes = sum(sent, 'bytesSent'), last = this.last;
    const framesOf = new Map(video.map((one) => [String(one.id), one.framesEncoded ?? 0]));
    this.last = { bytes, atMs, framesOf };
    const active = video.filter((one) => one.framesEncoded > (last?.framesOf.get(String(one.id)) ?? 0));
    const largest = [...active, ...video].sort((a, b) => (b.frameHeight ?? 0) - (a.frameHeight ?? 0))[0];
    const heard = all.filter(({ type }) => type === 'remote-inbound-rtp');
    const trips = heard.map(({ roundTripTime }) => roundTripTime).filter((seconds) => seconds !== undefined);
    const pair = all.find(({ type, nominated, currentRoundTripTime }) => type === 'candidate-pair' && nominated && currentRoundTripTime !== undefined);
    const seconds: number | undefined = trips[0] ?? pair?.currentRoundTripTime;
    return {
      bitsPerSecond: last === null || atMs === last.atMs ? null : Math.max(0, bytes - last.bytes) * 8000 / (atMs - last.atMs),
      frames: sum(video, 'framesEncoded'), packets: sum(sent, 'packetsSent'),
      width: largest?.frameWidth ?? null, height: largest?.frameHeight ?? null, framesPerSecond: largest?.framesPerSecond ?? null,
      lost: heard.length === 0 ? null : Math.max(...heard.map(({ fractionLost }) => fractionLost ?? 0)),
      roundTripMs: seconds === undefined ? null : seconds * 1000,
      layers: active.length, limit: largest?.qualityLimitationReason ?? 'none',
      codec: String(report.get(largest?.codecId)?.mimeType ?? '').replace(/^video\//i, ''),
    };
  }

  close(): void {
    if (this.gone.signal.aborted) return;
    this.gone.abort();
    if (this.session !== null) remove(this.session);
    this.pc.close();
  }
}

const sum = (all: Record<string, any>[], field: string): number => all.reduce((total, one) => total + (one[field] ?? 0), 0);

/** Not every browser knows the wish; without it, it decides by the track's content hint. */
async function tune(sender: RTCRtpSender, keepsSize: boolean): Promise<void> {
  const parameters = sender.getParameters() as RTCRtpSendParameters & { degradationPreference?: string };
  parameters.degradationPreference = keepsSize ? 'maintain-resolution' : 'balanced';
  await sender.setParameters(parameters).catch(() => {});
}
