// Plays live streams in Debian's Chromium and says what a viewer saw: one line of JSON for each player.
//
//   node tests/tools/play.mjs PLAYER URL SECONDS [PLAYER URL]...
//
// PLAYER: `hls.js`, `shaka`, `vhs` (video.js) or `native` (Chromium's own) with the address of a playlist, `whep` with a
// WHEP endpoint, or `page` with the address of a watch page. All play at the same time, each in a browser context of its own. latencyMs is glass to glass, read from the
// time code in the picture (latency/timecode.mjs); null when the picture carries none. Frames of the first WARMUP_S seconds
// after the first one (environment, 3 by default) do not count for it.
// Environment also: SHOT=picture.png (a screenshot of the first player at the end), SOUND=name (hls.js changes to the sound of
// this name half way; `sound` tells the one that plays), and that of latency/stage.mjs.
// Exit status: 0 when every player showed frames or, of sound alone, went on, 1 when one did not, 2 when it could not be tried.
import { parseArgs } from 'node:util';
import { PLAYERS, stage } from './latency/stage.mjs';

/** A page that stops answering is closed rather than waited for. */
const ANSWER_MS_MAX = 15_000;

const { positionals: [player, url, seconds, ...more] } = parseArgs({ allowPositionals: true });
const watched = [[player, url]];
for (let i = 0; i < more.length; i += 2) watched.push([more[i], more[i + 1]]);
if (!(Number(seconds) > 0) || watched.some(([p, u]) => !PLAYERS.includes(p) || !u)) {
  console.error(`usage: play.mjs PLAYER URL SECONDS [PLAYER URL]...   with PLAYER one of ${PLAYERS.join(', ')}`);
  process.exit(2);
}

const warmupS = Number(process.env.WARMUP_S ?? 3);

const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
const within = (ms, what, promise) => Promise.race([promise, pause(ms).then(() => { throw new Error(`${what}: no answer within ${ms} ms`); })]);

async function watch({ open }, [name, address]) {
  const page = await within(ANSWER_MS_MAX, address, open(name, address));
  const chosen = name === 'hls.js' && process.env.SOUND;
  await pause(seconds * (chosen ? 500 : 1000));
  if (chosen) {
    await within(ANSWER_MS_MAX, 'sound', page.evaluate((sound) => chooseSound(sound), chosen));
    await pause(seconds * 500);
  }
  const report = await within(ANSWER_MS_MAX, 'probe', page.evaluate((s) => probe.report(s), warmupS));
  if (name === 'page') report.text = (await within(ANSWER_MS_MAX, 'text', page.innerText('body'))).slice(0, 1000);
  return { page, result: { player: name, url: address, seconds: Number(seconds), warmupS, ...report, requests: page.requests } };
}

let status = 0;
const theatre = await stage().catch((error) => { console.error(error.message); process.exit(2); });
try {
  const outcomes = await Promise.allSettled(watched.map((one) => watch(theatre, one)));
  for (const [i, outcome] of outcomes.entries()) {
    const result = outcome.value?.result ?? { player: watched[i][0], url: watched[i][1], frames: 0, errors: { [outcome.reason.message.split('\n')[0]]: 1 } };
    if (!result.shownFrames && !(result.playedS > 0)) status = 1;
    console.log(JSON.stringify(result));
  }
  if (process.env.SHOT && outcomes[0].value) await outcomes[0].value.page.screenshot({ path: process.env.SHOT });
} finally {
  await theatre.close();
}
process.exit(status);
