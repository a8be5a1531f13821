// Numbers as words a viewer understands.

/** "1.0 s behind the streamer"; tenths below ten seconds, whole seconds above. */
export function delayWords(ms: number): string {
  const seconds = Math.max(0, ms) / 1000;
  return `${seconds < 9.95 ? seconds.toFixed(1) : Math.round(seconds)} s behind the streamer`;
}

/** For WebRTC: what this browser can know of the delay, which is not all of it. */
export const pathWords = (ms: number): string => `about ${Math.max(10, Math.round(ms / 10) * 10)} ms from the server to you (estimated here)`;

/** "for 3 minutes": how long something has been so. */
export function sinceWords(sinceMs: number, nowMs: number): string {
  const minutes = Math.floor(Math.max(0, nowMs - sinceMs) / 60_000);
  if (minutes < 1) return 'just now';
  if (minutes < 60) return `for ${count(minutes, 'minute')}`;
  const hours = Math.floor(minutes / 60);
  return hours < 48 ? `for ${count(hours, 'hour')}` : `for ${Math.floor(hours / 24)} days`;
}

const count = (n: number, unit: string): string => `${n} ${unit}${n === 1 ? '' : 's'}`;

/** "2.4 Mbit/s", "310 kbit/s". */
export const bitrateWords = (bitsPerSecond: number): string =>
  bitsPerSecond >= 1e6 ? `${(bitsPerSecond / 1e6).toFixed(1)} Mbit/s` : `${Math.round(bitsPerSecond / 1000)} kbit/s`;
