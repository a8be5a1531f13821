// Rungs that nobody watches are not made: their playlists are gaps, and the first request is held until there is something. A
// player that switches to one waits for a second or two, longer than what it has in hand. So they are asked for beforehand:
// the choice of hls.js is taken only when the rung it means is there, and until then the best one that is.
import type Hls from 'hls.js';
import { AbrController, ErrorDetails, Events, type Level } from 'hls.js';
import { mediaSeconds } from '../core/playlist';
import { isWhole } from '../core/step';

/** A request keeps a rung being made for 8 s at least. */
const WARM_MS = 6000;
/** Between two requests for one that is not there yet. */
const AGAIN_MS = 500;
/**
 * After going down a player stays for a while: what it has in hand is used up, and the small Parts of a slow rung say little of the
 * line.
 */
const STAY_MS = 4000;
const ENOUGH = 2;
const COUNTED_MS = 200;
/** What a rung has to have more than the player is behind the live edge. */
const SPARE_S = 0.5;
/** Of segments that are not alike none shows its end beforehand: after so long a step up does not wait for one. */
const UNEVEN_MS = 12_000;

/** Of a variant: the last part of its playlist's address. It stays when others come and go. */
export const nameOf = ({ uri }: Level): string => uri.slice(uri.lastIndexOf('/') + 1);

interface Warmth { readyUntilMs: number; askedMs: number; asking: boolean }

export class Warm extends AbrController {
  private static readonly known = new WeakMap<Hls, Warm>();
  private readonly warmth = new Map<string, Warmth>();

  private level = -1;
  private wentDownMs = -Infinity;
  /** Nothing was loaded yet. */
  private starting = true;
  /** Where what was loaded last of the picture ends. Of a segment that came whole there is no Part. */
  private newest: { level: number; sn: number | 'initSegment'; end: number; whole: boolean } | null = null;
  /** Since when a better rung is meant. */
  private betterSinceMs: number | null = null;

  constructor(hls: Hls) {
    super(hls);
    Warm.known.set(hls, this);
    this.measureAsNeeded();
    hls.on(Events.FRAG_BUFFERED, (_, { frag, part }) => {
      this.starting = false;
      if (frag.type === 'main') this.newest = { level: frag.level, sn: frag.sn, end: (part ?? frag).end, whole: part === null };
    });
    hls.on(Events.LEVEL_SWITCHING, (_, { level }) => {
      if (level < this.level) this.wentDownMs = performance.now();
      // Its playlist from when it was played last, of which nothing is listed any more: hls.js takes every segment since to have lasted
      // TARGETDURATION (level-helper.ts, adjustSliding) and jumps by what some were shorter. Without it dates tell the place.
      if (level !== this.level) delete hls.levels[level]?.details;
      this.level = level;
    });
    // A stream that is seconds old has a gap before its first segment, and hls.js tries that. It is nobody's fault, and no reason to
    // shun the publisher's own picture for half a minute (error-controller.ts).
    hls.on(Events.ERROR, (_, { details }) => {
      if (details === ErrorDetails.FRAG_GAP) for (const level of hls.levels) level.loadError = 0;
    });
  }

  override resetEstimator(estimate?: number): void {
    super.resetEstimator(estimate);
    this.measureAsNeeded();
  }

  /**
   * hls.js weighs what it measures by the time that loading took: Parts come in a few milliseconds, and a line that is good again is
   * believed after a minute. Each counts for as long as a Part lasts. And more than twice the dearest rung is as good as twice: an
   * average of hundreds of Mbit/s takes seconds to notice that a line gave out.
   */
  private measureAsNeeded(): void {
    const estimator = this.bwEstimator;
    const sample = estimator.sample.bind(estimator);
    estimator.sample = (durationMs, bytes) => {
      const most = Math.max(...this.hls.levels.map(({ bitrate }) => bitrate), 0) * ENOUGH / 8000;
      const perMs = bytes / Math.max(durationMs, 1);
      const countedMs = Math.max(durationMs, COUNTED_MS);
      sample(countedMs, countedMs * (most > 0 ? Math.min(perMs, most) : perMs));
    };
  }

  /** Of a player: hls.js makes it and shows it to nobody. */
  static of(hls: Hls): Warm | undefined {
    return Warm.known.get(hls);
  }

  /** Whether a player may switch to it and go on without a break. The publisher's own picture is there, and so is the cheapest rung. */
  isReady(index: number): boolean {
    const level = this.hls.levels[index];
    if (level === undefined || !this.hls.config.lowLatencyMode) return true;
    const name = nameOf(level);
    if (index === 0 || index === this.hls.loadLevel || !name.startsWith('rung-')) return true;
    return (this.warmth.get(name)?.readyUntilMs ?? 0) > performance.now();
  }

  /** Has it made, where it is not. */
  warm(index: number): void {
    const level = this.hls.levels[index];
    const nowMs = performance.now();
    if (level === undefined) return;
    const known = this.warmth.get(nameOf(level)) ?? { readyUntilMs: 0, askedMs: -Infinity, asking: false };
    this.warmth.set(nameOf(level), known);
    if (known.asking || nowMs - known.askedMs < AGAIN_MS) return;
    known.asking = true;
    known.askedMs = nowMs;
    void fetch(level.uri).then((response) => (response.ok ? response.text() : '')).then((text) => {
      const behindS = Math.max(this.hls.latency, this.hls.targetLatency ?? 0);
      if (mediaSeconds(text) >= behindS + SPARE_S) known.readyUntilMs = performance.now() + WARM_MS;
    }).catch(() => {
      // It is tried again when it is meant again.
    }).finally(() => { known.asking = false; });
  }

  override get nextAutoLevel(): number {
    return this.there(super.nextAutoLevel);
  }

  override set nextAutoLevel(level: number) {
    super.nextAutoLevel = level;
  }

  /**
   * Whether what was loaded last ends with its segment. In the middle of one hls.js begins another rung at the keyframe before what it
   * has; where the browser has read past that already, the picture stands from where the old one ends to the new one's next keyframe.
   */
  private isBetweenSegments(): boolean {
    if (this.newest === null || this.newest.whole) return true;
    const { level, sn, end } = this.newest;
    const details = this.hls.levels[level]?.details;
    return !!details && isWhole(sn, end, { closed: details.fragments, open: details.fragmentHint, targetS: details.targetduration });
  }

  /** The one that is meant, or the best below it that is there; never another way than the one that is meant. */
  private there(meant: number): number {
    if (this.starting && this.hls.startLevel >= 0) return this.hls.startLevel;
    if (meant < 0) return meant;
    const now = this.hls.loadLevel;
    const nowMs = performance.now();
    this.betterSinceMs = meant > now ? this.betterSinceMs ?? nowMs : null;
    const waits = nowMs - (this.betterSinceMs ?? nowMs) < UNEVEN_MS && !this.isBetweenSegments();
    const soon = meant > now && (nowMs - this.wentDownMs < STAY_MS || waits);
    if (this.isReady(meant)) return soon ? now : meant;
    this.warm(meant);
    if (soon) return now;
    for (let index = meant - 1; index >= 0; index--) {
      if (this.isReady(index)) return meant > now ? Math.max(index, now) : index;
    }
    return Math.max(0, Math.min(meant, now));
  }
}

