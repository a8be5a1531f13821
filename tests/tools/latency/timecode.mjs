// A wall-clock time in milliseconds (low 32 bits) painted as black and white cells, readable after lossy
// coding and after downscaling. 40 cells: 32 bits of time and an 8-bit CRC, 10 columns by 4 rows, filling the
// left half and the top third of the picture whatever its size. Read by probe.js and read-ffmpeg.mjs;
// painted by the load generator's publisher.
export const COLS = 10, ROWS = 4, WIDTH_SHARE = 1 / 2, HEIGHT_SHARE = 1 / 3;

function crc8(v) {
  let c = 0xff;
  for (let shift = 24; shift >= 0; shift -= 8) {
    c ^= (v >>> shift) & 0xff;
    for (let i = 0; i < 8; i++) c = c & 0x80 ? ((c << 1) ^ 0x07) & 0xff : (c << 1) & 0xff;
  }
  return c;
}

export const low32 = (ms) => Math.floor(ms % 4294967296) >>> 0;

/** The cells for a time, row by row: true is white. */
export function cells(ms) {
  const v = low32(ms), crc = crc8(v), out = [];
  for (let i = 31; i >= 0; i--) out.push(((v >>> i) & 1) === 1);
  for (let i = 7; i >= 0; i--) out.push(((crc >>> i) & 1) === 1);
  return out;
}

/** The time read back, or null. luma(column, row) gives the brightness (0 to 255) at a cell's middle. */
export function read(luma) {
  let v = 0, crc = 0;
  for (let i = 0; i < 40; i++) {
    const bit = luma(i % COLS, Math.floor(i / COLS)) > 127 ? 1 : 0;
    if (i < 32) v = ((v << 1) | bit) >>> 0; else crc = (crc << 1) | bit;
  }
  return crc8(v) === crc ? v : null;
}

/** Milliseconds from a painted time to now, both modulo 2^32. */
export const age = (painted, nowMs) => (low32(nowMs) - painted) | 0;

export function summary(values) {
  const s = [...values].sort((a, b) => a - b), at = (q) => s[Math.min(s.length - 1, Math.floor(q * s.length))];
  return s.length ? { n: s.length, min: s[0], p50: at(0.5), p95: at(0.95), p99: at(0.99), max: s[s.length - 1] } : { n: 0 };
}
