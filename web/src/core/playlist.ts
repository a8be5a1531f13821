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
