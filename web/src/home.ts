// The first page: lists what is live, and says how to send when nothing is.
import { type Listed, parseListing } from './core/status';
import { sinceWords } from './core/words';
import { ask } from './shell/fetch';

const REFRESH_MS = 3000;
const REFRESH_HIDDEN_MS = 15_000;
/** As often as the server makes another, by default. */
const PICTURE_MS = 5000;
/** What is so far out of sight is asked for as well: who scrolls finds it there. */
const NEAR_PX = 300;
/** OBS's default, and the server's. */
const RTMP_PORT = 1935;

const find = (id: string) => document.getElementById(id)!;
let shown = '';

function about(entry: Listed, nowMs: number): string {
  const kind = !entry.video ? 'sound only' : entry.height !== null ? `${entry.height}p` : '';
  const since = entry.sinceMs === null ? '' : sinceWords(entry.sinceMs, nowMs);
  return [kind, entry.state === 'away' ? 'streamer away' : '', since].filter(Boolean).join(', ');
}

function item(entry: Listed, nowMs: number): HTMLLIElement {
  const li = document.createElement('li'), link = document.createElement('a');
  const part = (className: string, text: string) => {
    const span = document.createElement('span');
    span.className = className;
    span.textContent = text;
    link.append(span, ' ');
  };
  link.href = `/watch/${encodeURIComponent(entry.stream)}`;
  if (entry.thumbnail) {
    const picture = document.createElement('img');
    picture.alt = '';
    picture.dataset.of = entry.stream;
    link.append(picture);
  }
  part(`badge ${entry.state}`, entry.state === 'live' ? 'Live' : 'Away');
  part('name', entry.stream);
  part('about', about(entry, nowMs));
  li.append(link);
  return li;
}

/** Draws only what changed, so that a link with the keyboard's focus stays. */
function show(streams: Listed[]): void {
  const nowMs = Date.now();
  const listed = streams.filter((entry) => entry.state !== 'offline').sort((a, b) => a.stream.localeCompare(b.stream));
  const drawn = listed.map((entry) => item(entry, nowMs));
  const html = drawn.map((li) => li.outerHTML).join('');
  if (html !== shown) {
    const focused = document.activeElement?.getAttribute('href');
    find('streams').replaceChildren(...drawn);
    shown = html;
    if (focused != null) document.querySelector<HTMLElement>(`a[href="${CSS.escape(focused)}"]`)?.focus();
  }
  const n = listed.length;
  summary(n === 0 ? 'Nothing is live right now. This list refreshes by itself.' : n === 1 ? 'One stream.' : `${n} streams.`);
  find('howto').hidden = n > 0;
}

/**
 * The old picture stays until the new one is there. Each request keeps the server making them, so a hidden page asks for none, and
 * a long list for those that are in sight.
 */
function renewPictures(): void {
  if (document.hidden) return;
  const turn = Math.floor(Date.now() / PICTURE_MS);
  for (const picture of document.querySelectorAll<HTMLImageElement>('#streams img')) {
    const { top, bottom } = picture.getBoundingClientRect();
    if (bottom < -NEAR_PX || top > innerHeight + NEAR_PX) continue;
    const address = `/live/${encodeURIComponent(picture.dataset.of ?? '')}/thumbnail.jpg?${turn}`;
    if (picture.getAttribute('src') !== address) picture.src = address;
  }
}

function summary(text: string): void {
  if (find('summary').textContent !== text) find('summary').textContent = text;
}

async function refresh(): Promise<void> {
  const answer = await ask('/live.json');
  const streams = answer === null ? null : parseListing(answer.json);
  if (streams === null) summary('Connection lost. Trying again…');
  else show(streams);
  renewPictures();
  schedule(document.hidden ? REFRESH_HIDDEN_MS : REFRESH_MS);
}

let timer = 0;
function schedule(delayMs: number): void {
  clearTimeout(timer);
  timer = window.setTimeout(refresh, delayMs);
}

find('server').textContent = `rtmp://${location.hostname || 'HOST'}:${RTMP_PORT}/live`;
let drawing = 0;
document.addEventListener('scroll', () => {
  cancelAnimationFrame(drawing);
  drawing = requestAnimationFrame(renewPictures);
}, { passive: true });
document.addEventListener('visibilitychange', () => { if (!document.hidden) schedule(0); });
void refresh();
