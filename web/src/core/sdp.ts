// The few lines of a session description that the pages touch themselves. Text in, text out.
//
// The browser writes offers and reads answers; here are only what it offers no call for: both channels of Opus, and the
// fragments that carry an ICE restart over WHIP and WHEP (RFC 9725 4.3.3, RFC 8840).

const linesOf = (sdp: string): string[] => sdp.split(/\r?\n/).filter((line) => line !== '');
const textOf = (lines: string[]): string => lines.map((line) => `${line}\r\n`).join('');

/** Says of every Opus payload that both channels are wanted and sent; without it browsers use one (RFC 7587 7.1). */
export function withStereo(sdp: string): string {
  const lines = linesOf(sdp);
  const opus = lines.flatMap((line) => /^a=rtpmap:(\d+) opus\/48000\/2$/i.exec(line)?.[1] ?? []);
  for (const payload of opus) {
    const at = lines.findIndex((line) => line.startsWith(`a=fmtp:${payload} `));
    const wanted = ['stereo=1', 'sprop-stereo=1'];
    if (at >= 0) {
      const named = lines[at]!.slice(`a=fmtp:${payload} `.length).split(';').filter((one) => !/^(sprop-)?stereo=/.test(one.trim()));
      lines[at] = `a=fmtp:${payload} ${[...named, ...wanted].join(';')}`;
    } else lines.splice(lines.findIndex((line) => line.startsWith(`a=rtpmap:${payload} `)) + 1, 0, `a=fmtp:${payload} ${wanted.join(';')}`);
  }
  return textOf(lines);
}

/** What a PATCH carries to restart ICE: the group, and of the first section the credentials and candidates. */
export function iceFragment(offer: string): string {
  const lines = linesOf(offer);
  const first = lines.findIndex((line) => line.startsWith('m='));
  const second = lines.findIndex((line, i) => i > first && line.startsWith('m='));
  const section = lines.slice(first, second < 0 ? undefined : second);
  const session = lines.slice(0, first).filter((line) => /^a=(group:BUNDLE|ice-options:)/.test(line));
  const wanted = section.filter((line) => /^(m=|a=(mid|ice-ufrag|ice-pwd|candidate|end-of-candidates))/.test(line));
  return textOf([...session, ...wanted]);
}

/** The answer in force, with the credentials and candidates of the server's fragment; null when it has none. */
export function withIce(answer: string, fragment: string): string | null {
  const told = linesOf(fragment);
  const ufrag = told.find((line) => line.startsWith('a=ice-ufrag:'));
  const password = told.find((line) => line.startsWith('a=ice-pwd:'));
  if (ufrag === undefined || password === undefined) return null;
  const isCandidate = (line: string) => /^a=(candidate:|end-of-candidates)/.test(line);
  const candidates = told.filter(isCandidate);
  const old = linesOf(answer);
  // A fragment without candidates leaves those we know: the server's address has not changed, only its credentials.
  const kept = candidates.length === 0 ? old : old.filter((line) => !isCandidate(line));
  const renewed = kept.map((line) => (line.startsWith('a=ice-ufrag:') ? ufrag : line.startsWith('a=ice-pwd:') ? password : line));
  const first = renewed.findIndex((line) => line.startsWith('m='));
  const second = renewed.findIndex((line, i) => i > first && line.startsWith('m='));
  renewed.splice(second < 0 ? renewed.length : second, 0, ...candidates);
  return textOf(renewed);
}
