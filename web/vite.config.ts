// Three pages, built into dist/ with hashed names under assets/. The server embeds dist/ and serves it.
//
// hls.js is compiled from the sources in its package: of its two ready-made builds the light one cannot play audio from
// a rendition of its own, and the full one is half as large again (597 kB against 398 kB of script), for features this
// server never uses. The switches below are hls.js's own (src/define-plugin.d.ts); types still come from the package.
import hls from 'hls.js/package.json' with { type: 'json' };
import { defineConfig } from 'vitest/config';

const hlsSource = new URL('node_modules/hls.js/src/exports-named.ts', import.meta.url).pathname;

export default defineConfig({
  base: '/',
  resolve: { alias: [{ find: /^hls\.js$/, replacement: hlsSource }] },
  define: {
    __VERSION__: JSON.stringify(hls.version),
    __USE_ALT_AUDIO__: 'true',
    __USE_CMCD__: 'false',
    __USE_CONTENT_STEERING__: 'false',
    __USE_EME_DRM__: 'false',
    __USE_IFRAMES__: 'false',
    __USE_INTERSTITIALS__: 'false',
    __USE_M2TS_ADVANCED_CODECS__: 'false',
    __USE_MEDIA_CAPABILITIES__: 'false',
    __USE_SUBTITLES__: 'false',
    __USE_VARIABLE_SUBSTITUTION__: 'false',
    __HLS_WORKER_BUNDLE__: 'undefined',
    __IN_WORKER__: 'false',
  },
  build: {
    target: 'es2022',
    assetsDir: 'assets',
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    // Apache-2.0 (hls.js) and MIT ask that their notices travel with the script. A version in the name: it is kept for ever.
    license: { fileName: `assets/licences-${hls.version}.txt` },
    rolldownOptions: { input: ['index.html', 'watch.html', 'studio.html'] },
  },
  test: { include: ['src/**/*.test.ts'] },
});
