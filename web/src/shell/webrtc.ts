// Playback by WebRTC as the watch page sees it: a `Player` like the one for HLS, but one that heals itself.
//
//   reports of a WhepSession ─┐
//   status, time, statistics ─┼─> step(session, input) ── wanted ─> WhepSession (shell/whep.ts)
//   the viewer's layer ───────┘
import { type Input, initial, isFlowing, type Session, stateOf, step, wanted } from '../core/session';
import type { Status } from '../core/status';
import { TabLease } from './lease';
import type { Player, Reading } from './player';
import { type Figures, WhepSession } from './whep';

export interface Reports {
  /** Another stream is on the element: play it. */
  attached(): void;
  /** The first picture was shown, then. */
  begun(atMs: number): void;
  /** WebRTC does not work here; a plain sentence. */
  gaveUp(why: string): void;
  /** The session was ended: ask for the status now. */
  ended(): void;
}

/** Statistics cost a round through the browser's threads; before the first picture each moment counts. */
const SAMPLE_MS = 500;
const SAMPLE_FIRST_MS = 100;

export class WebRtcPlayer implements Player {
  private session: Session;
  private whep: WhepSession | null = null;
  private attempt = 0;
  private restarts = 0;
  private layer: string | null = null;
  private figures: Figures | null = null;
  private sampledMs = -Infinity;
  private sampling = false;
  private picture = true;
  private over = false;
  // Over HTTP/1.1 each listener to events keeps one of the browser's six connections to a server. One tab may; the
  // others see the same a little later, in the status and in what arrives.
  private readonly lease = new TabLease('codecast.events', (holds) => { if (holds) this.whep?.listen(); this.listens = holds; });
  private listens = false;
  /** When this session's first picture was on the screen. */
  private shownMs: number | null = null;
  private readonly leaving = () => this.destroy();

  constructor(private readonly video: HTMLVideoElement, private readonly endpoint: string, insists: boolean, private readonly reports: Reports) {
    this.session = initial(insists, performance.now());
    window.addEventListener('pagehide', this.leaving);
    this.lease.take();
  }

  private put(input: Input): void {
    if (this.over) return;
    const before = this.session.phase;
    this.session = step(this.session, input, performance.now());
    this.match();
    if (this.session.phase === before) return;
    if (this.session.phase === 'playing') this.reports.begun(this.shownMs ?? performance.now());
    if (this.session.phase === 'gave-up') this.reports.gaveUp(this.session.trouble);
    else if (this.session.phase === 'ended') this.reports.ended();
  }

  /** Makes the WHEP session the wanted one. */
  private match(): void {
    const want = wanted(this.session);
    if (want === null || want.attempt !== this.attempt) {
      this.whep?.close();
      this.whep = null;
    }
    if (want === null) return;
    if (want.attempt !== this.attempt) this.start(want.attempt);
    if (want.restarts !== this.restarts) void this.whep?.restart();
    if (want.layer !== this.layer) this.whep?.select(want.layer);
    this.restarts = want.restarts;
    this.layer = want.layer;
  }

  private start(attempt: number): void {
    Object.assign(this, { attempt, restarts: 0, layer: null, figures: null, shownMs: null });
    const whep = new WhepSession(this.endpoint, {
      refused: (refusal) => this.put({ kind: 'refused', attempt, refusal }),
      unusable: (why) => this.put({ kind: 'unusable', attempt, why }),
      ice: (state) => this.put({ kind: 'ice', attempt, state }),
      restartRefused: () => this.put({ kind: 'restart-refused', attempt }),
      stream: (stream) => {
        if (whep !== this.whep) return;
        this.video.srcObject = stream;
        // A closed session leaves a black picture behind, which is none.
        this.video.requestVideoFrameCallback?.((atMs) => { if (whep === this.whep) this.shownMs ??= atMs; });
        this.reports.attached();
      },
      active: () => this.put({ kind: 'active', attempt }),
      inactive: () => this.put({ kind: 'inactive', attempt }),
      ended: (reason) => this.put({ kind: 'ended', attempt, reason }),
      layers: (layers) => this.put({ kind: 'layers', attempt, layers }),
    });
    this.whep = whep;
    if (this.listens) whep.listen();
  }

  private async sample(nowMs: number): Promise<void> {
    const { whep, attempt } = this;
    const everyMs = this.session.phase === 'playing' ? SAMPLE_MS : SAMPLE_FIRST_MS;
    if (whep === null || this.sampling || nowMs - this.sampledMs < everyMs) return;
    this.sampling = true;
    this.sampledMs = nowMs;
    const figures = await whep.read().catch(() => null);
    this.sampling = false;
    if (figures === null || attempt !== this.attempt) return;
    this.figures = figures;
    const decoded = this.picture ? figures.framesDecoded > 0 : figures.audioBytes > 0;
    this.put({ kind: 'media', attempt, bytes: figures.bytes, decoded });
  }

  hear(status: Status | null, reachable: boolean): void {
    if (status !== null) this.picture = status.video;
    this.put({ kind: 'server', state: status?.state ?? this.session.server, reachable });
  }

  beat(nowMs: number): Reading {
    this.put({ kind: 'tick' });
    void this.sample(nowMs);
    const { session, figures } = this;
    const webRtc = {
      state: stateOf(session), trouble: session.trouble, sessions: session.attempt, restarts: session.restarts,
      layers: session.layers, layer: session.layer, figures,
    };
    return {
      playingDateMs: null, edgeLatency: null, target: null, buffer: 0, bitsPerSecond: 0, flowing: isFlowing(session, nowMs),
      layers: session.layers, layer: session.layer, webRtc,
    };
  }

  /** It always is. */
  toLive(): void {}

  choose(encodingId: string | null): void {
    this.put({ kind: 'layer', encodingId });
  }

  /** A long pause: the page builds another player when the viewer is back. */
  rest(): void {
    this.over = true;
    this.whep?.close();
    this.whep = null;
    this.lease.give();
  }

  destroy(): void {
    this.rest();
    window.removeEventListener('pagehide', this.leaving);
    this.video.srcObject = null;
  }
}
