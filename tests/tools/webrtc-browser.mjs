// A browser for the WebRTC tools: Debian's Chromium with a made-up camera, microphone and screen, and no mDNS names in
// place of addresses. Environment: CHROMIUM=/usr/bin/chromium.
import { createRequire } from 'node:module';

const { chromium } = createRequire(import.meta.url)('playwright-core');

const FLAGS = ['--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking',
  '--disable-component-update', '--disable-sync', '--autoplay-policy=no-user-gesture-required',
  '--disable-features=WebRtcHideLocalIpsWithMdns', '--disable-background-timer-throttling', '--disable-renderer-backgrounding',
  '--disable-backgrounding-occluded-windows', '--use-fake-device-for-media-stream=fps=30', '--use-fake-ui-for-media-stream',
  '--auto-select-desktop-capture-source=Entire screen'];

/** A page that stops answering is given up rather than waited for. */
const ANSWER_MS_MAX = 15_000;

export const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
export const within = (what, promise) => Promise.race([promise,
  pause(ANSWER_MS_MAX).then(() => { throw new Error(`${what}: no answer within ${ANSWER_MS_MAX} ms`); })]);

/** Asks `look` every 50 ms until it answers something, or `ms` have passed: then null. */
export async function until(ms, look) {
  for (const end = Date.now() + ms; Date.now() < end; await pause(50)) {
    const seen = await look();
    if (seen) return seen;
  }
  return null;
}

/** Runs `work(page)` in a browser of its own, prints what it answers as JSON, and ends the process: 0 when the answer's
 *  `ok` is true, 1 when not, 2 when it could not be tried. */
export async function withPage(work) {
  const browser = await chromium.launch({ executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium', headless: true, args: FLAGS })
    .catch((error) => { console.error(error.message); process.exit(2); });
  let status = 2;
  try {
    const context = await browser.newContext({ ignoreHTTPSErrors: true, viewport: { width: 1280, height: 800 }, permissions: ['camera', 'microphone'] });
    const page = await context.newPage(), errors = [];
    page.on('pageerror', (error) => errors.push(error.message));
    const { ok, ...result } = await work(page);
    if (process.env.SHOT) await page.screenshot({ path: process.env.SHOT });
    console.log(JSON.stringify({ ...result, pageErrors: errors }));
    status = ok && errors.length === 0 ? 0 : 1;
  } catch (error) {
    console.log(JSON.stringify({ error: error.message.split('\n')[0] }));
    status = 1;
  } finally {
    await within('closing', browser.close()).catch(() => {});
  }
  process.exit(status);
}
