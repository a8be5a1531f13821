// The playlist as a player of whole segments should see it.
//
// With `lowLatencyMode: false` hls.js still sends blocking reloads (base-playlist-controller.ts), two connections held
// for most of the time. A second tab over HTTP/1.1 must not hold any, so it is shown a playlist without the
// low-latency tags; the server's HOLD-BACK stays.

const LOW_LATENCY_TAGS = /^#EXT-X-(?:PART|PART-INF|PRELOAD-HINT|RENDITION-REPORT)[:\r]?/;

export function plainPlaylist(text: string): string {
  return text.split('\n').filter((line) => !LOW_LATENCY_TAGS.test(line)).map(plainControl).join('\n');
}

function plainControl(line: string): string {
  if (!line.startsWith('#EXT-X-SERVER-CONTROL:')) return line;
  const holdBack = /(?:^|[:,])(HOLD-BACK=[0-9.]+)/.exec(line)?.[1];
  return holdBack === undefined ? '#EXT-X-SERVER-CONTROL:CAN-BLOCK-RELOAD=NO' : `#EXT-X-SERVER-CONTROL:${holdBack}`;
}

/**
 * Seconds of media at the end of a media playlist, behind its last gap: whole segments, and the Parts of the one that is open. 0 where
 * no whole segment is there: hls.js then loads no Part, and takes the gap instead (base-stream-controller.ts, shouldLoadParts).
 */
export function mediaSeconds(text: string): number {
  let seconds = 0, parts = 0, gap = false;
  for (const line of text.split('\n')) {
    const part = /^#EXT-X-PART:.*?DURATION=([\d.]+)/.exec(line);
    const segment = /^#EXTINF:([\d.]+)/.exec(line);
    if (part !== null) parts += Number(part[1]);
    else if (line.startsWith('#EXT-X-GAP')) gap = true;
    else if (segment !== null) {
      seconds = gap ? 0 : seconds + Number(segment[1]);
      parts = 0;
      gap = false;
    }
  }
  return seconds === 0 ? 0 : seconds + parts;
}
