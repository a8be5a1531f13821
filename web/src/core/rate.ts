// Holding a live picture at its target delay by the playback rate alone, and widening that target after stalls.
//
// hls.js cannot do this below one second: its own catch-up asks for more than a second of buffer
// (latency-controller.ts), and its stall increase never goes away. Both are therefore switched off, and these two small
// controllers take their place. Pure: the shell samples ten times a second and sets what they answer.

/** One look at the player, in seconds. */
export interface Sample {
  /** From the live edge to the picture. */
  latency: number;
  target: number;
  /** What is buffered ahead of the picture. */
  buffer: number;
}

/** Speed change per second of distance. 0.5 closes a distance with a time constant of two seconds, without overshoot. */
const GAIN = 0.5;
const SLOWEST = 0.95;
/** More than a tenth is heard, even with the pitch kept. */
const FASTEST = 1.1;
/** Steering begins here: nearer than this, the distance is within the jitter of part arrivals. */
const ENGAGE_S = 0.06;
/** and ends here, so that the rate does not flap around one edge. */
const RELEASE_S = 0.015;
/** Rates move in hundredths: each change costs the browser's audio stretcher a restart. */
const STEPS = 100;
/** With less than this buffered, hurrying would turn a late part into a stall. */
const HURRY_BUFFER_S = 0.2;
/** Share of a new sample in the smoothed distance: at ten samples a second, a memory of about 0.3 s. */
const SMOOTHING = 0.3;
/** A jump in distance this large is a seek or a new live edge, not noise: forget what was smoothed. */
const JUMP_S = 0.75;

const clamp = (value: number, low: number, high: number) => Math.min(high, Math.max(low, value));

export class RateController {
  private distance: number | null = null;
  private engaged = false;

  /** The playback rate to use now. */
  next(sample: Sample): number {
    const distance = sample.latency - sample.target;
    const settled = this.distance !== null && Math.abs(distance - this.distance) < JUMP_S;
    this.distance = settled ? this.distance! + SMOOTHING * (distance - this.distance!) : distance;
    this.engaged = Math.abs(this.distance) > (this.engaged ? RELEASE_S : ENGAGE_S);
    if (!this.engaged) return 1;
    const wished = 1 + clamp(GAIN * this.distance, SLOWEST - 1, FASTEST - 1);
    const allowed = sample.buffer < HURRY_BUFFER_S ? Math.min(1, wished) : wished;
    return Math.round(allowed * STEPS) / STEPS;
  }

  /** After a seek, a pause or a new player. */
  reset(): void {
    this.distance = null;
    this.engaged = false;
  }
}

/** Each stall moves the target back by this much. */
const STALL_STEP_S = 0.1;
/** More would no longer be "live"; a connection that needs it is better served by whole segments. */
const ALLOWANCE_MAX_S = 1;
/** Time without a stall after which one step is taken back. */
const CALM_MS = 30_000;

/** Extra delay earned by stalls, and given back step by step after a calm while. */
export class StallAllowance {
  private steps = 0;
  private calmSinceMs = 0;

  stalled(nowMs: number): void {
    this.steps = Math.min(this.steps + 1, Math.round(ALLOWANCE_MAX_S / STALL_STEP_S));
    this.calmSinceMs = nowMs;
  }

  seconds(nowMs: number): number {
    while (this.steps > 0 && nowMs - this.calmSinceMs >= CALM_MS) {
      this.steps -= 1;
      this.calmSinceMs += CALM_MS;
    }
    return this.steps * STALL_STEP_S;
  }
}

/** A rung this thin belongs to a viewer whose connection is thin too: it needs more in hand. */
const THIN_RUNG_BPS = 500_000;
const THIN_RUNG_EXTRA_S = 1;

/** What a rung adds to the server's hold-back. The only rendition there is adds nothing, however thin. */
export const rungExtra = (bitsPerSecond: number, rungs: number): number =>
  rungs > 1 && bitsPerSecond > 0 && bitsPerSecond < THIN_RUNG_BPS ? THIN_RUNG_EXTRA_S : 0;
