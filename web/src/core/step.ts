// When a player may go up to another rung: between two segments.

/** Seconds. Two places that are no further apart are one. */
const SAME_S = 0.02;

/** A segment of a playlist, on the player's timeline, in seconds. */
export interface Segment { sn: number | 'initSegment'; start: number; end: number }

/** What a playlist says: `open` is the segment of which more Parts are to come, as far as is known. */
export interface Listed { closed: readonly Segment[]; open: Segment | null | undefined; targetS: number }

/**
 * Whether what was loaded to `end`, of segment `sn`, is all of it. Asked as soon as its last Part is there, before the playlist
 * tells that no more come: then it is taken to last as long as the one before it did.
 */
export function isWhole(sn: Segment['sn'], end: number, { closed, open, targetS }: Listed): boolean {
  // Between two segments the open one may stand among the closed, without anything in it.
  const whole = closed.filter((one) => one.end > one.start);
  if (open?.sn === sn) {
    const before = whole.at(-1);
    return end >= open.start + (before ? before.end - before.start : targetS) - SAME_S;
  }
  const known = whole.find((one) => one.sn === sn);
  return known !== undefined && end >= known.end - SAME_S;
}
