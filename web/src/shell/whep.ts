// One WHEP session: a peer connection that only receives, its session at the server, and that session's events.
//
// It lives until `close`, never heals itself, and reports. What follows from a report is decided in core/session.ts.
import { type Layer, type Link, linkOf, parseLayers, parseReason, type Refusal } from '../core/answer';
import type { IceState } from '../core/session';
import { hasWebRtc, open, preferH264, restartIce, watchPath } from './peer';
import { Refused, remove, say, type SessionUrl } from './signal';

const EXTENSION = 'urn:ietf:params:whep:ext:core';

export interface Reports {
  refused(refusal: Refusal): void;
  unusable(why: string): void;
  ice(state: IceState): void;
  restartRefused(): void;
  /** There is something to put on the screen. */
  stream(stream: MediaStream): void;
  active(): void;
  inactive(): void;
  ended(reason: string): void;
  layers(layers: Layer[]): void;
}

/** Sampled by `read`; null where the browser does not say. */
export interface Figures {
  bytes: number;
  framesDecoded: number;
  audioBytes: number;
  audioLevel: number | null;
  freezes: number;
  framesDropped: number;
  packetsLost: number;
  /** How long frames wait here before they are shown, over the last interval. */
  jitterBufferMs: number | null;
  roundTripMs: number | null;
  codec: string;
}

export class WhepSession {
  private readonly pc = new RTCPeerConnection({ bundlePolicy: 'max-bundle' });
  private readonly gone = new AbortController();
  private readonly video: RTCRtpTransceiver;
  private session: SessionUrl | null = null;
  private links: Link[] = [];
  private events: EventSource | null = null;
  private listens = false;
  private waited = { seconds: 0, frames: 0 };
  private jitterBufferMs: number | null = null;

  constructor(endpoint: string, private readonly reports: Reports) {
    const { pc } = this;
    const stream = new MediaStream();
    this.video = pc.addTransceiver('video', { direction: 'recvonly', streams: [] });
    const audio = pc.addTransceiver('audio', { direction: 'recvonly', streams: [] });
    for (const { receiver } of [this.video, audio]) promptly(receiver);
    pc.addEventListener('track', ({ track }) => {
      stream.addTrack(track);
      if (track.kind === 'video' || stream.getTracks().length === 1) reports.stream(stream);
    });
    watchPath(pc, (state) => this.unlessGone(() => reports.ice(state)));
    void this.open(endpoint);
  }

  private unlessGone(what: () => void): void {
    if (!this.gone.signal.aborted) what();
  }

  private async open(endpoint: string): Promise<void> {
    const { pc, gone: { signal }, reports } = this;
    try {
      if (!preferH264(this.video, RTCRtpReceiver.getCapabilities?.('video')?.codecs)) {
        await Promise.resolve(); // not from within the constructor
        return this.unlessGone(() => reports.unusable('This browser cannot decode H.264 over WebRTC.'));
      }
      const { session, links } = await open(pc, endpoint, null, signal);
      if (signal.aborted) return remove(session);
      this.session = session;
      this.links = links;
      if (this.listens) this.listen();
    } catch (error) {
      this.unlessGone(() => {
        if (error instanceof Refused) reports.refused(error.refusal);
        else reports.unusable(`This browser could not use the server's answer (${error instanceof Error ? error.message : String(error)}).`);
      });
    }
  }

  /** Hears the session's events; each listener holds a connection, so the page decides who may. */
  listen(): void {
    this.listens = true;
    const url = linkOf(this.links, `${EXTENSION}:server-sent-events`);
    if (this.events !== null || url === null || this.gone.signal.aborted) return;
    const events = new EventSource(url), { reports } = this;
    const on = (name: string, what: (data: string) => void) => events.addEventListener(name, ({ data }) => this.unlessGone(() => what(String(data))));
    on('active', () => reports.active());
    on('inactive', () => reports.inactive());
    on('ended', (data) => reports.ended(parseReason(data)));
    on('layers', (data) => reports.layers(parseLayers(data)));
    this.events = events;
  }

  /** Null: the server chooses. */
  select(encodingId: string | null): void {
    const url = linkOf(this.links, `${EXTENSION}:layer`);
    if (url === null) return;
    // Refused: the picture stays as it is, and the menu still offers another choice.
    say(url, encodingId === null ? {} : { mediaId: this.video.mid, encodingId }).catch(() => {});
  }

  async restart(): Promise<void> {
    const done = this.session !== null && await restartIce(this.pc, this.session);
    if (!done) this.unlessGone(() => this.reports.restartRefused());
  }

  async read(): Promise<Figures> {
    const figures: Figures = {
      bytes: 0, framesDecoded: 0, audioBytes: 0, audioLevel: null, freezes: 0, framesDropped: 0, packetsLost: 0,
      jitterBufferMs: this.jitterBufferMs, roundTripMs: null, codec: '',
    };
    // The types of the DOM know an RTCStats only as its three common fields.
    const report = await this.pc.getStats() as unknown as ReadonlyMap<string, Record<string, any>>;
    for (const one of report.values()) {
      if (one.type === 'inbound-rtp') {
        figures.bytes += one.bytesReceived ?? 0;
        figures.packetsLost += Math.max(0, one.packetsLost ?? 0);
        if (one.kind === 'video') this.readVideo(one, figures, report);
        else Object.assign(figures, { audioBytes: one.bytesReceived ?? 0, audioLevel: one.audioLevel ?? null });
      } else if (one.type === 'candidate-pair' && one.nominated && one.currentRoundTripTime !== undefined) {
        figures.roundTripMs = one.currentRoundTripTime * 1000;
      }
    }
    return figures;
  }

  private readVideo(one: Record<string, any>, figures: Figures, report: ReadonlyMap<string, Record<string, any>>): void {
    const seconds: number = one.jitterBufferDelay ?? 0, frames: number = one.jitterBufferEmittedCount ?? 0;
    if (frames > this.waited.frames) {
      this.jitterBufferMs = (seconds - this.waited.seconds) / (frames - this.waited.frames) * 1000;
      this.waited = { seconds, frames };
    }
    const codec = String(report.get(one.codecId)?.mimeType ?? '').replace(/^video\//i, '');
    Object.assign(figures, {
      framesDecoded: one.framesDecoded ?? 0, freezes: one.freezeCount ?? 0, framesDropped: one.framesDropped ?? 0,
      jitterBufferMs: this.jitterBufferMs, codec,
    });
  }

  close(): void {
    if (this.gone.signal.aborted) return;
    this.gone.abort();
    this.events?.close();
    if (this.session !== null) remove(this.session);
    this.pc.close();
  }
}

/** As little buffering as the path allows: pictures on time before pictures without a flaw. */
function promptly(receiver: RTCRtpReceiver & { playoutDelayHint?: number; jitterBufferTarget?: number | null }): void {
  if ('jitterBufferTarget' in receiver) receiver.jitterBufferTarget = 0;
  if ('playoutDelayHint' in receiver) receiver.playoutDelayHint = 0;
}

/** Whether WHEP can be tried here. */
export const canWatch = (): boolean => hasWebRtc() && 'EventSource' in window;
