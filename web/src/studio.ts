// The studio: captures, publishes by WHIP, and shows what goes out.
//
//   buttons ───────────┐                        ┌─ wanted ─> WhipSession (shell/whip.ts)
//   capture ───────────┼─> step(studio, input) ─┤
//   reports, time ─────┘                        └─ view ───> the page
import { browserWords } from './core/advice';
import { encodings, initial, type Input, isStreamName, type State, step, stateOf, view, wanted } from './core/studio';
import { bitrateWords } from './core/words';
import { AdviceList } from './shell/advice';
import { type Captured, capture, type Chosen, devices, NotCaptured } from './shell/capture';
import { hasWebRtc } from './shell/peer';
import { type Figures, WhipSession } from './shell/whip';

const BEAT_MS = 250;
const SAMPLE_MS = 1000;
/** In this tab only, until it is closed. */
const KEY = 'codecast.key';

function find<T extends HTMLElement>(id: string, type: new () => T): T {
  const found = document.getElementById(id);
  if (!(found instanceof type)) throw new Error(`studio.html has no ${id}`);
  return found;
}

const now = () => performance.now();
const form = find('form', HTMLFormElement), fields = find('fields', HTMLFieldSetElement);
const stream = find('stream', HTMLInputElement), key = find('key', HTMLInputElement), bitrate = find('bitrate', HTMLInputElement);
const camera = find('camera', HTMLSelectElement), microphone = find('microphone', HTMLSelectElement), layers = find('layers', HTMLSelectElement);
const go = find('go', HTMLButtonElement), show = find('show', HTMLButtonElement), stop = find('stop', HTMLButtonElement);
const preview = find('preview', HTMLVideoElement);

/** Last on the page: whatever it says moves nothing else. */
const advice = new AdviceList(find('advice', HTMLElement), browserWords, 'The server has nothing to advise.');

let studio = initial();
let captured: Captured | null = null;
/** What was captured, so that another choice is noticed. */
let capturedFor = '';
let capturing = false;
let session: WhipSession | null = null;
let attempt = 0;
let figures: Figures | null = null;
let sampledMs = -Infinity;

function put(input: Input): void {
  studio = step(studio, input, now());
  match();
  draw();
}

/** Makes the WHIP session the wanted one. */
function match(): void {
  const want = wanted(studio);
  if (want === attempt && session !== null) return;
  if (session !== null) session.close();
  session = null;
  figures = null;
  if (want !== null && captured !== null) begin(want, captured.stream);
}

function begin(number: number, outgoing: MediaStream): void {
  attempt = number;
  const settings = { stream: outgoing, encodings: encodings(Number(layers.value), bitrate.valueAsNumber * 1000), keepsSize: chosen().picture === 'screen' };
  session = new WhipSession(`/whip/${encodeURIComponent(stream.value)}`, key.value, settings, {
    refused: (refusal) => put({ kind: 'refused', attempt: number, refusal }),
    unusable: (why) => put({ kind: 'unusable', attempt: number, why }),
    ice: (state) => put({ kind: 'ice', attempt: number, state }),
  });
}

function chosen(): Chosen {
  const picture = form.querySelector<HTMLInputElement>('input[name=picture]:checked')?.value;
  return {
    picture: picture === 'camera' || picture === 'none' ? picture : 'screen',
    camera: camera.value, microphone: microphone.value === 'none' ? null : microphone.value,
  };
}

/** True when there is something to send. */
async function ensureCaptured(): Promise<boolean> {
  const wish = chosen(), name = JSON.stringify(wish);
  if (captured !== null && capturedFor === name) return true;
  if (capturing) return false;
  release();
  capturing = true;
  draw();
  try {
    captured = await capture(wish, (source) => { release(); put({ kind: 'source-ended', source }); });
    capturedFor = name;
    preview.srcObject = captured.stream;
    put({ kind: 'captured', sources: { picture: captured.stream.getVideoTracks().length > 0, sound: captured.stream.getAudioTracks().length > 0 } });
    void listDevices();
    return true;
  } catch (error) {
    const failed = error instanceof NotCaptured ? error : new NotCaptured('screen', String(error));
    put({ kind: 'not-captured', source: failed.source, name: failed.name });
    return false;
  } finally {
    capturing = false;
    draw();
  }
}

function release(): void {
  captured?.stop();
  captured = null;
  preview.srcObject = null;
  put({ kind: 'captured', sources: null });
}

async function start(): Promise<void> {
  try {
    sessionStorage.setItem(KEY, key.value);
  } catch {
    // Forbidden: the key stays in its field.
  }
  if (await ensureCaptured()) put({ kind: 'start' });
}

/** Another choice is shown at once, if a choice was being shown. */
function changed(): void {
  find('camera-row', HTMLElement).hidden = chosen().picture !== 'camera';
  if (captured !== null && wanted(studio) === null) void ensureCaptured();
  draw();
}

async function listDevices(): Promise<void> {
  fill(camera, [['', 'The browser’s choice'], ...(await devices('videoinput')).map(({ id, label }) => [id, label] as const)]);
  fill(microphone, [['', 'The browser’s choice'], ...(await devices('audioinput')).map(({ id, label }) => [id, label] as const), ['none', 'No microphone']]);
}

function fill(select: HTMLSelectElement, options: readonly (readonly [string, string])[]): void {
  const before = select.value;
  select.replaceChildren(...options.map(([value, text]) => new Option(text, value)));
  if (options.some(([value]) => value === before)) select.value = before;
}

async function beat(): Promise<void> {
  put({ kind: 'tick' });
  void advice.beat(stateOf(studio) === 'live' ? stream.value : null, now());
  const sampled = session, number = attempt;
  if (sampled === null || now() - sampledMs < SAMPLE_MS) return;
  sampledMs = now();
  const read = await sampled.read().catch(() => null);
  if (read === null || sampled !== session) return;
  figures = read;
  put({ kind: 'sent', attempt: number, frames: read.frames, packets: read.packets });
}

const BADGES: Record<State, string> = {
  idle: 'Off', ready: 'Preview', connecting: 'Connecting', live: 'Live', reconnecting: 'Connecting again', failed: 'Off',
};
const LIMITS: Record<Figures['limit'], string> = {
  none: '', other: '',
  cpu: 'This computer is too slow for the chosen size: the picture is sent smaller or less often. Share a smaller window, or use fewer layers.',
  bandwidth: 'The connection carries less than the chosen bitrate: the picture is sent coarser or less often.',
};

function setText(node: HTMLElement, text: string): void {
  if (node.textContent !== text) node.textContent = text; // an unchanged text is not announced again
}

function say(id: string, text: string): void {
  const node = find(id, HTMLElement);
  setText(node, text);
  node.hidden = text === '';
}

function draw(): void {
  const { state, message, error } = view(studio, now());
  const publishing = wanted(studio) !== null || state === 'reconnecting';
  fields.disabled = publishing || capturing;
  go.hidden = publishing;
  go.disabled = capturing || !hasWebRtc();
  show.hidden = publishing || captured !== null;
  show.disabled = capturing;
  stop.hidden = !publishing && captured === null;
  setText(stop, publishing ? 'Stop' : 'Close the preview');
  stop.classList.toggle('stop', publishing);
  const badge = find('badge', HTMLElement);
  setText(badge, BADGES[state]);
  badge.classList.toggle('live', state === 'live');
  setText(find('message', HTMLElement), capturing ? 'Waiting for your permission…' : message);
  say('error', error);
  say('limit', state === 'live' && figures !== null ? LIMITS[figures.limit] : '');
  const picture = captured !== null && captured.stream.getVideoTracks().length > 0;
  const empty = find('empty', HTMLElement);
  empty.hidden = picture;
  setText(empty, captured === null ? 'No picture yet. Preview shows it before anybody else sees it.' : 'Sound only.');
  drawLink(publishing);
  drawFacts(state);
  const title = state === 'live' ? `● ${stream.value} – CodeCast studio` : 'CodeCast: studio';
  if (document.title !== title) document.title = title;
}

function drawLink(publishing: boolean): void {
  const link = find('watch', HTMLAnchorElement), name = stream.value;
  find('watch-line', HTMLElement).hidden = !publishing || !isStreamName(name);
  const href = new URL(`/watch/${encodeURIComponent(name)}`, location.href).href;
  if (link.href !== href) {
    link.href = href;
    link.textContent = href;
  }
}

function drawFacts(state: State): void {
  const list = find('facts', HTMLElement);
  list.hidden = state !== 'live' || figures === null;
  if (figures === null) return;
  const { bitsPerSecond, width, height, framesPerSecond, lost, roundTripMs, codec } = figures;
  const shown: [string, string][] = [
    ['Outgoing', bitsPerSecond === null ? '–' : bitrateWords(bitsPerSecond)],
    ['Picture', width === null || height === null ? '–' : `${width} × ${height}, ${Math.round(framesPerSecond ?? 0)} pictures a second`],
    ['Sizes sent', String(figures.layers)],
    ['Lost packets', lost === null ? '–' : `${(lost * 100).toFixed(1)} %`],
    ['Round trip', roundTripMs === null ? '–' : `${Math.round(roundTripMs)} ms`],
    ['Codec', codec || '–'],
  ];
  list.replaceChildren(...shown.flatMap(([name, value]) => (['dt', 'dd'] as const).map((tag) => {
    const node = document.createElement(tag);
    node.textContent = tag === 'dt' ? name : value;
    return node;
  })));
}

/** A read-only look inside, for tests and bug reports. The key is not in it. */
Object.defineProperty(window, 'codecastStudio', {
  get: () => Object.freeze({
    state: stateOf(studio), error: view(studio, now()).error, sessions: studio.attempt,
    bitrate: figures?.bitsPerSecond == null ? null : Math.round(figures.bitsPerSecond),
    figures: figures === null ? null : Object.freeze({ ...figures }),
  }),
});

function restoreFields(): void {
  stream.value = new URLSearchParams(location.search).get('stream') ?? '';
  try {
    key.value = sessionStorage.getItem(KEY) ?? '';
  } catch {
    // Forbidden: the field stays empty.
  }
}

form.addEventListener('submit', (event) => { event.preventDefault(); void start(); });
show.addEventListener('click', () => void ensureCaptured());
stop.addEventListener('click', () => { if (wanted(studio) === null && studio.phase === 'stopped') release(); else put({ kind: 'stop' }); });
fields.addEventListener('change', changed);
navigator.mediaDevices?.addEventListener('devicechange', () => void listDevices());
window.addEventListener('pagehide', () => session?.close());
window.addEventListener('pageshow', (event) => { if (event.persisted) location.reload(); });
restoreFields();
void listDevices();
if (!hasWebRtc()) {
  say('limit', 'This browser has no WebRTC. A current Chrome, Edge, Firefox or Safari has.');
  go.disabled = true;
} else {
  changed();
  setInterval(() => void beat(), BEAT_MS);
}
