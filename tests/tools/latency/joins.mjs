// How long a viewer waits for the first picture: repeated joins, each in a fresh context of one warm browser.
//
//   node tests/tools/latency/joins.mjs PLAYER URL [COUNT=15]
//
// For `hls.js` and `shaka` counted from load() in a loaded page; for `whep` from its request; for `page` from the start of
// the navigation. Joins are spread at random over a Group of Pictures (environment GOP_MS=2000). Prints one line of JSON.
import { PLAYERS, stage } from './stage.mjs';
import { summary } from './timecode.mjs';

/** A join this late has failed: it would wait for more than two whole segments. */
const JOIN_MS_MAX = 15_000;

const [player, url, count = '15'] = process.argv.slice(2);
if (!PLAYERS.includes(player) || !url) {
  console.error(`usage: joins.mjs PLAYER URL [COUNT]   with PLAYER one of ${PLAYERS.join(', ')}`);
  process.exit(2);
}
const { open, close } = await stage();
const timesMs = [], failures = [];
try {
  for (let i = 0; i < Number(count); i++) {
    await new Promise((resolve) => setTimeout(resolve, Math.random() * Number(process.env.GOP_MS ?? 2000)));
    const page = await open(player, url);
    await page.waitForFunction(() => probe.firstFrameMs() !== null, null, { timeout: JOIN_MS_MAX })
      .then(async () => timesMs.push(await page.evaluate(() => probe.firstFrameMs())), (error) => failures.push(error.message.split('\n')[0]));
    await page.context().close();
  }
  console.log(JSON.stringify({ player, url, firstFrameMs: summary(timesMs), timesMs, failures }));
} finally {
  await close();
}
process.exit(failures.length ? 1 : 0);
