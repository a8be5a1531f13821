// One playback of one presentation: hls.js, or the browser's own HLS where there is no Media Source Extensions.
//
// A player lives until it is destroyed and never heals itself beyond one attempt at a media error: it reports, and the
// page's state machine builds another. Ten times a second the page calls `beat`, which steers the rate.
import Hls, { AudioStreamController, type ErrorData, type HlsConfig } from 'hls.js';
import type { Layer } from '../core/answer';
import type { HlsMode, PlayerEvent } from '../core/page';
import { plainPlaylist } from '../core/playlist';
import { RateController, rungExtra, type Sample, StallAllowance } from '../core/rate';
import type { State } from '../core/session';
import { nameOf, Warm } from './warm';
import type { Figures } from './whep';

/** What the details panel and the tests see. Seconds, or null while unknown. */
export interface Reading {
  /** Date of the picture on screen, milliseconds since 1970, by EXT-X-PROGRAM-DATE-TIME. */
  playingDateMs: number | null;
  edgeLatency: number | null;
  target: number | null;
  buffer: number;
  bitsPerSecond: number;
  /** Whether media arrives and is shown, where the player knows; else the page looks at the picture's clock. */
  flowing?: boolean;
  /** What can be chosen, and what was; null leaves it to the player. */
  layers: Layer[];
  layer: string | null;
  /** The one whose pictures are shown, where the player knows. */
  shown?: string | null;
  webRtc?: WebRtcReading;
}

/** What only playback by WebRTC knows. */
export interface WebRtcReading {
  state: State;
  /** What went wrong last, a plain sentence, or ''. */
  trouble: string;
  sessions: number;
  restarts: number;
  layers: Layer[];
  layer: string | null;
  figures: Figures | null;
}

export interface Player {
  /** Steers, and says what it sees. `live` is false while the publisher is away: standing still is then no stall. */
  beat(nowMs: number, live: boolean): Reading;
  /** One of the layers, or null for whatever fits. */
  choose(layer: string | null): void;
  /** Back to the live picture after a short pause. */
  toLive(): void;
  /** Stops loading during a long pause; another player is built afterwards. */
  rest(): void;
  destroy(): void;
}

export interface Reports {
  event(event: PlayerEvent): void;
  error(name: string): void;
  /** The picture stands. The page asks for the status now, so that a streamer who left is not taken for a slow network. */
  standing(): void;
  /** It moves again, and the streamer had not left: that was a stall. */
  stall(): void;
}

/** A second fatal media error within this time is not repaired again. */
const MEDIA_REPAIR_MS = 5000;
/** Falling this far behind the target is not caught up by speed but by a jump. */
const JUMP_BEHIND_S = 2;
/** Starting takes time, and the picture begins that much further behind. More than this is jumped over at once, */
const START_EXCESS_S = 0.35;
/** leaving this much buffered, */
const START_LEFT_S = 0.3;
/** and only so soon after the first picture: later it would be seen. */
const START_MS = 1500;
/** hls.js's own retries: soon and few, because the page builds a new player as soon as the server answers. */
const RETRY = { maxNumRetry: 3, retryDelayMs: 300, maxRetryDelayMs: 1000 };

const loadPolicy = (firstByteMs: number, loadMs: number) => ({
  default: { maxTimeToFirstByteMs: firstByteMs, maxLoadTimeMs: loadMs, timeoutRetry: RETRY, errorRetry: RETRY },
});

function settings(mode: HlsMode): Partial<HlsConfig> {
  const lowLatency = mode === 'low-latency';
  return {
    lowLatencyMode: lowLatency,
    backBufferLength: 10,
    // The rate and the stall increase are ours (core/rate.ts). liveSyncDuration stays unset: the target is PART-HOLD-BACK.
    maxLiveSyncPlaybackRate: 1,
    liveSyncOnStallIncrease: 0,
    // fMP4 passes through unchanged: starting a worker would only delay the first picture.
    enableWorker: false,
    audioStreamController: PromptAudio,
    abrController: Warm,
    startFragPrefetch: true,
    testBandwidth: false,
    abrEwmaDefaultEstimate: 12_000_000, // goes on with what it began with
    // Half-lives in seconds of what is measured (shell/warm.ts): what is in hand lasts 0.6 s.
    abrEwmaFastLive: 0.5,
    abrEwmaSlowLive: 2,
    manifestLoadPolicy: loadPolicy(10_000, 10_000),
    playlistLoadPolicy: loadPolicy(6000, 8000),
    fragLoadPolicy: loadPolicy(6000, 20_000),
    ...(lowLatency ? {} : { pLoader: plainLoader() }),
  };
}

/**
 * Begins to load sound as soon as the first video part has fixed the timeline. hls.js itself waits for the next of its
 * ticks, up to 100 ms, or for the next playlist (audio-stream-controller.ts, onInitPtsFound), and no picture is shown
 * before there is sound.
 *
 * And goes on to the next segment where it has all of one. hls.js places a rendition by its dates, a millisecond off at best, and
 * forgets which Parts it has loaded where times do not fit exactly. When the sound that it has ends a little before the segment does,
 * it takes that segment for the next to load, finds that it has it, and waits until Parts of it are listed no more: 2 s or longer.
 */
class PromptAudio extends AudioStreamController {
  override onInitPtsFound(...found: Parameters<AudioStreamController['onInitPtsFound']>): void {
    super.onInitPtsFound(...found);
    this.tick(); // leaves WAITING_INIT_PTS
    this.tickImmediate(); // loads
  }

  protected override getNextFragment(...[at, details]: Parameters<AudioStreamController['getNextFragment']>) {
    const next = super.getNextFragment(at, details);
    const had = next !== null && this.loadingParts && String(this.fragmentTracker.getState(next)) === 'OK';
    return had ? super.getNextFragment(Math.max(at, next.end), details) : next;
  }
}

/** What is buffered ahead of the picture, in sound and picture both. */
function ahead({ buffered, currentTime }: HTMLVideoElement): number {
  for (let i = 0; i < buffered.length; i++) {
    if (buffered.start(i) <= currentTime + 0.1 && currentTime < buffered.end(i)) return buffered.end(i) - currentTime;
  }
  return 0;
}

/** A playlist loader that hides the low-latency tags, so that nothing is held open (core/playlist.ts). */
function plainLoader(): NonNullable<HlsConfig['pLoader']> {
  const Loader = Hls.DefaultConfig.loader as unknown as NonNullable<HlsConfig['pLoader']>;
  return class extends Loader {
    override load(...[context, config, callbacks]: Parameters<InstanceType<typeof Loader>['load']>): void {
      super.load(context, config, {
        ...callbacks,
        onSuccess: (response, ...rest) => {
          const data = typeof response.data === 'string' ? plainPlaylist(response.data) : response.data;
          callbacks.onSuccess({ ...response, data } as typeof response, ...rest);
        },
      });
    }
  };
}

class HlsPlayer implements Player {
  private readonly hls: Hls;
  private readonly rate = new RateController();
  private readonly allowance = new StallAllowance();
  private stallsSeen = 0;
  private stallPending = false;
  private playingSinceMs: number | null = null;
  private repairedMs = -Infinity;
  private chosen: string | null = null;
  private settled = -1;

  constructor(private readonly video: HTMLVideoElement, url: string, mode: HlsMode, private readonly reports: Reports) {
    const hls = new Hls(settings(mode));
    this.hls = hls;
    hls.on(Hls.Events.ERROR, (_, data) => this.failed(data));
    // The source, whatever it costs: on a slower line its first Part tells. By itself hls.js begins with the lowest frame rate.
    hls.on(Hls.Events.MANIFEST_PARSED, () => { hls.startLevel = hls.levels.length - 1; });
    hls.on(Hls.Events.MEDIA_ENDED, () => reports.event('ended'));
    hls.attachMedia(video);
    hls.loadSource(url);
  }

  beat(nowMs: number, live: boolean): Reading {
    const { hls, video } = this;
    this.settle();
    if (!live) this.stallPending = false;
    else if (this.stallPending && !video.paused && video.readyState > HTMLMediaElement.HAVE_CURRENT_DATA) this.stalled(nowMs);
    const details = hls.latestLevelDetails;
    const level = hls.levels[hls.currentLevel];
    const bitsPerSecond = level?.bitrate ?? 0;
    const buffer = ahead(video);
    const reading = {
      playingDateMs: hls.playingDate?.getTime() ?? null, edgeLatency: null, target: null, buffer, bitsPerSecond,
      layers: this.layers(), layer: this.chosen, shown: level === undefined ? null : nameOf(level),
    };
    if (details === null || !details.live) return reading;
    const allowance = this.allowance.seconds(nowMs);
    // hls.js multiplies this by all the stalls it has seen; the product is our allowance.
    hls.config.liveSyncOnStallIncrease = this.stallsSeen === 0 ? 0 : allowance / this.stallsSeen;
    const target = (hls.targetLatency ?? 0) + rungExtra(bitsPerSecond, hls.levels.length);
    // Not possible when constructing: hls.js asks for liveSyncDuration beside it there (config.ts, mergeConfig).
    const jumpBehind = Math.max(JUMP_BEHIND_S, hls.config.lowLatencyMode ? 0 : details.targetduration);
    hls.config.liveMaxLatencyDuration = video.paused ? Infinity : target + jumpBehind; // a still picture stays still
    const latency = details.edge + details.age - video.currentTime;
    this.steer({ latency, target, buffer }, nowMs);
    return { ...reading, edgeLatency: latency, target };
  }

  private steer(sample: Sample, nowMs: number): void {
    const { video, rate } = this;
    if (video.paused || video.seeking || video.readyState < HTMLMediaElement.HAVE_FUTURE_DATA) return rate.reset();
    this.playingSinceMs ??= nowMs;
    const excess = sample.latency - sample.target;
    if (nowMs - this.playingSinceMs < START_MS && excess > START_EXCESS_S && sample.buffer > excess + START_LEFT_S) return this.toLive();
    const next = rate.next(sample);
    if (Math.abs(next - video.playbackRate) > 0.001) video.playbackRate = next;
  }

  /** The variants, best first, by the name of their playlist: it stays when others come and go. */
  private layers(): Layer[] {
    return this.hls.levels.map((level) => ({
      encodingId: nameOf(level), width: level.width, height: level.height, active: true, framesPerSecond: level.frameRate, bitsPerSecond: level.averageBitrate,
    })).reverse();
  }

  choose(layer: string | null): void {
    this.chosen = this.hls.levels.some((one) => nameOf(one) === layer) ? layer : null;
    this.settle();
  }

  /** Goes to what was chosen once it is there. */
  private settle(): void {
    const { hls } = this;
    const level = hls.levels.findIndex((one) => nameOf(one) === this.chosen);
    const wanted = level < 0 ? -1 : level;
    if (this.settled === wanted) return;
    const warm = Warm.of(hls);
    if (wanted >= 0 && warm?.isReady(wanted) === false) return warm.warm(wanted);
    this.settled = wanted;
    hls.nextLevel = wanted;
  }

  toLive(): void {
    this.rate.reset();
    const position = this.hls.liveSyncPosition;
    if (position !== null && position > this.video.currentTime) this.video.currentTime = position;
  }

  rest(): void {
    this.hls.stopLoad();
  }

  private failed(data: ErrorData): void {
    this.reports.error(`${data.details}${data.fatal ? ' (fatal)' : ''}`);
    if (data.details === Hls.ErrorDetails.BUFFER_STALLED_ERROR) this.stands();
    if (!data.fatal) return;
    const nowMs = performance.now();
    if (data.type === Hls.ErrorTypes.MEDIA_ERROR && nowMs - this.repairedMs > MEDIA_REPAIR_MS) {
      this.repairedMs = nowMs;
      this.hls.recoverMediaError();
      return;
    }
    this.hls.stopLoad();
    this.reports.event('failed');
  }

  private stands(): void {
    this.stallsSeen += 1;
    if (this.playingSinceMs === null) return; // not started yet
    this.stallPending = true;
    this.reports.standing();
  }

  private stalled(nowMs: number): void {
    this.stallPending = false;
    this.allowance.stalled(nowMs);
    this.reports.stall();
  }

  destroy(): void {
    this.hls.destroy();
  }
}

/** Safari on devices without Media Source Extensions. It holds its own delay; there is nothing to steer. */
class NativePlayer implements Player {
  private readonly onEnded = () => this.reports.event('ended');
  private readonly onError = () => this.reports.event('failed');

  constructor(private readonly video: HTMLVideoElement & { getStartDate?: () => Date }, url: string, private readonly reports: Reports) {
    video.addEventListener('ended', this.onEnded);
    video.addEventListener('error', this.onError);
    video.src = url;
  }

  beat(): Reading {
    const { video } = this;
    const startMs = video.getStartDate?.().getTime() ?? NaN;
    const last = video.buffered.length - 1;
    const buffer = last < 0 ? 0 : Math.max(0, video.buffered.end(last) - video.currentTime);
    const playingDateMs = Number.isFinite(startMs) ? startMs + video.currentTime * 1000 : null;
    return { playingDateMs, edgeLatency: null, target: null, buffer, bitsPerSecond: 0, layers: [], layer: null };
  }

  choose(): void {}

  toLive(): void {
    const { seekable } = this.video;
    if (seekable.length > 0) this.video.currentTime = seekable.end(seekable.length - 1);
  }

  rest(): void {}

  destroy(): void {
    this.video.removeEventListener('ended', this.onEnded);
    this.video.removeEventListener('error', this.onError);
    this.video.removeAttribute('src');
    this.video.load();
  }
}

export function createPlayer(video: HTMLVideoElement, url: string, mode: HlsMode, reports: Reports): Player {
  return mode === 'native' ? new NativePlayer(video, url, reports) : new HlsPlayer(video, url, mode, reports);
}

/** hls.js first: Chromium answers "maybe" for native HLS and then plays whole segments only. */
export function support(video: HTMLVideoElement): 'hls.js' | 'native' | null {
  if (Hls.isSupported()) return 'hls.js';
  return video.canPlayType('application/vnd.apple.mpegurl') === '' ? null : 'native';
}
