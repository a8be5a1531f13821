import { describe, expect, test } from 'vitest';
import { iceServers, isFinal, linkOf, parseLayers, parseLinks, parseReason, parseRefusal } from './answer';
import { iceFragment, withIce, withStereo } from './sdp';

describe('Link headers', () => {
  const base = 'https://example.org/whep/demo';

  test('several, quoted and bare, relative and absolute', () => {
    const links = parseLinks(
      '<stun:stun.example.org>; rel="ice-server", <turn:turn.example.org?transport=udp>; rel="ice-server"; username="u,1"; credential="a;b"; credential-type=password, '
      + '</whep/demo/1/events>; rel="urn:ietf:params:whep:ext:core:server-sent-events"; events="active,inactive,layers,ended"', base);
    expect(iceServers(links)).toEqual([{ urls: 'stun:stun.example.org' }, { urls: 'turn:turn.example.org?transport=udp', username: 'u,1', credential: 'a;b' }]);
    expect(linkOf(links, 'urn:ietf:params:whep:ext:core:server-sent-events')).toBe('https://example.org/whep/demo/1/events');
    expect(linkOf(links, 'urn:ietf:params:whep:ext:core:layer')).toBeNull();
  });

  test('none and nonsense', () => {
    for (const header of [null, '', 'nonsense', '<', '<a', ';;;,,,', '<'.repeat(9000)]) expect(parseLinks(header, base)).toEqual([]);
  });
});

test('a refusal: the server\'s words and its wait', () => {
  expect(parseRefusal(404, '2', '{"type":"about:blank","title":"Not Found","status":404,"detail":"Not live."}')).toEqual({ status: 404, detail: 'Not live.', retryAfterMs: 2000 });
  expect(parseRefusal(503, null, '<html>')).toEqual({ status: 503, detail: '', retryAfterMs: null });
  expect(parseRefusal(503, '99999', '{"title":"Busy"}')).toEqual({ status: 503, detail: 'Busy', retryAfterMs: 60_000 });
  expect(parseRefusal(503, '-1', 'null')).toEqual({ status: 503, detail: '', retryAfterMs: null });
  const final = (status: number) => isFinal(parseRefusal(status, null, ''));
  expect([0, 404, 409, 429, 500, 503].some(final)).toBe(false);
  expect([400, 401, 403, 405, 406, 415, 501].every(final)).toBe(true);
});

test('events: layers and reasons, or nothing', () => {
  expect(parseLayers('{"layers":[{"encodingId":"h","width":1280,"height":720,"active":true},{"encodingId":"l","active":false},{"width":1},3]}')).toEqual([
    { encodingId: 'h', width: 1280, height: 720, active: true }, { encodingId: 'l', width: null, height: null, active: false },
  ]);
  expect(parseLayers('{"layers":[{"encodingId":"rung-3","width":640,"height":360,"active":true,"framesPerSecond":10,"bitsPerSecond":8e5},{"encodingId":"x","framesPerSecond":"9"}]}')).toEqual([
    { encodingId: 'rung-3', width: 640, height: 360, active: true, framesPerSecond: 10, bitsPerSecond: 800_000 },
    { encodingId: 'x', width: null, height: null, active: true },
  ]);
  for (const text of ['', '{}', 'null', '{"layers":4}']) expect(parseLayers(text)).toEqual([]);
  expect([parseReason('{"reason":"codec-changed"}'), parseReason('{}'), parseReason('x')]).toEqual(['codec-changed', '', '']);
});

const sdp = (...lines: string[]) => lines.map((line) => `${line}\r\n`).join('');

describe('session descriptions', () => {
  test('both channels of Opus, once, whatever was there', () => {
    const check = (before: string[], after: string[]) => expect(withStereo(sdp(...before))).toBe(sdp(...after));
    const map = 'a=rtpmap:111 opus/48000/2';
    check([map, 'a=fmtp:111 minptime=10;useinbandfec=1'], [map, 'a=fmtp:111 minptime=10;useinbandfec=1;stereo=1;sprop-stereo=1']);
    check([map, 'a=fmtp:111 stereo=0;useinbandfec=1'], [map, 'a=fmtp:111 useinbandfec=1;stereo=1;sprop-stereo=1']);
    check([map, 'a=rtpmap:9 G722/8000'], [map, 'a=fmtp:111 stereo=1;sprop-stereo=1', 'a=rtpmap:9 G722/8000']);
    check(['a=rtpmap:9 G722/8000'], ['a=rtpmap:9 G722/8000']);
  });

  const session = ['v=0', 'o=- 1 2 IN IP4 127.0.0.1', 's=-', 't=0 0', 'a=group:BUNDLE 0 1', 'a=ice-options:trickle'];
  const section = (mid: string, ufrag: string) => ['m=video 9 UDP/TLS/RTP/SAVPF 96', 'c=IN IP4 0.0.0.0', `a=ice-ufrag:${ufrag}`, 'a=ice-pwd:secret', `a=mid:${mid}`];

  test('the fragment of a restart names the group and one section', () => {
    expect(iceFragment(sdp(...session, ...section('0', 'new'), ...section('1', 'new')))).toBe(sdp(
      'a=group:BUNDLE 0 1', 'a=ice-options:trickle', 'm=video 9 UDP/TLS/RTP/SAVPF 96', 'a=ice-ufrag:new', 'a=ice-pwd:secret', 'a=mid:0'));
  });

  test('the server\'s fragment renews the answer', () => {
    const answer = sdp(...session, ...section('0', 'old'), 'a=candidate:1 1 udp 1 192.0.2.1 1 typ host', 'a=end-of-candidates', ...section('1', 'old'));
    const renewed = withIce(answer, sdp('a=ice-lite', 'm=video 9 X 0', 'a=mid:0', 'a=ice-ufrag:fresh', 'a=ice-pwd:word', 'a=candidate:2 1 udp 1 192.0.2.2 1 typ host'))!;
    expect(renewed.match(/a=ice-ufrag:fresh/g)?.length).toBe(2);
    expect(renewed.match(/a=ice-pwd:word/g)?.length).toBe(2);
    expect(renewed).not.toMatch(/192\.0\.2\.1 |end-of-candidates|old|secret/);
    expect(renewed.indexOf('192.0.2.2')).toBeLessThan(renewed.indexOf('a=mid:1'));
    expect(withIce(answer, sdp('a=ice-ufrag:fresh', 'a=ice-pwd:word'))).toMatch(/192\.0\.2\.1 /);
    expect(withIce(answer, 'a=mid:0')).toBeNull();
  });
});
